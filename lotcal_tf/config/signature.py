"""Recognises what this user exported on this machine, by a key that never leaves it.

A checksum in a directory shows that nothing is damaged, but not who wrote it: a stranger's directory has
matching checksums, too. No TensorFlow here.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lotcal_tf.files import write_atomically

_BYTES = 32


def signature(content: Mapping[str, Any]) -> str | None:
    """A signature of JSON content; None if no key can be stored for this user.

    The first call creates the key.
    """
    key = _key(create=True)
    return None if key is None else _signed(key, content)


def is_signed(content: Mapping[str, Any], found: Any) -> bool:
    """Whether a signature is that of this user for the content."""
    key = _key(create=False)
    if key is None or not isinstance(found, str):
        return False
    return hmac.compare_digest(_signed(key, content).encode(), found.encode())


def _signed(key: bytes, content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _key(create: bool) -> bytes | None:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state) / "lotcal_tf" / "key"
    try:
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # for this user only
            write_atomically(path, secrets.token_bytes(_BYTES))
        key = path.read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory.
        return None
    return key if len(key) == _BYTES else None
