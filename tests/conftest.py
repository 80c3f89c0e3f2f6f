"""What tests of several commands share."""

import pytest


@pytest.fixture(scope="module")
def determinism():
    """The command turns it on for its process, which here is that of all tests."""
    from tensorflow.python.framework import config

    before = config.is_op_determinism_enabled()
    yield
    if not before:
        config.disable_op_determinism()
