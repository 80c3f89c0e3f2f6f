"""Tools are scripts beside each other: loaded by path, with their own directory to import from."""

import importlib
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="package")
def load():
    """load(name) → the module tools/name.py."""
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module
    sys.path.remove(str(TOOLS))
