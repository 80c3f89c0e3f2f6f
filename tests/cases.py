"""Which cases of a parametrised test run in each check."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick(values: Iterable[Any], *chosen: Any) -> list[Any]:
    """All values as parameters; those that are not chosen run with `tools/check --full`."""
    return [pytest.param(v, marks=[] if v in chosen else pytest.mark.full) for v in values]
