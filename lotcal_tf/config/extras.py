"""Packages that only some data needs: they are imported when they are used, and are extras of the package."""

import importlib
from typing import Any

from lotcal_tf.errors import UsageError


def imported(module: str, extra: str) -> Any:
    """Imports a module of an extra.

    Raises:
      UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{module} cannot be imported ({error}): pip install 'lotcal-tf[{extra}]'"
        ) from error
