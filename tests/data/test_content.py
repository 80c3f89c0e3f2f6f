"""The digest of files: of their content, texts and order."""

import pytest

from lotcal_tf.data.content import digest_of
from lotcal_tf.errors import UsageError


def test_the_digest_sees_content_texts_and_order_only(tmp_path):
    a, b, copy = (tmp_path / name for name in "abc")
    a.write_bytes(b"1")
    copy.write_bytes(b"1")
    b.write_bytes(b"2")
    first = digest_of([("x", a), ("y", b)])
    assert first == digest_of([("x", copy), ("y", b)])
    others = [[("x", b), ("y", a)], [("y", a), ("y", b)], [("x", a)], [("x", a), ("y", copy)]]
    assert len({first, *map(digest_of, others)}) == 5
    with pytest.raises(UsageError, match="absent: No such file"):
        digest_of([("x", tmp_path / "absent")])
