"""Packages of extras: imported, or named with the command that installs them."""

import json

import pytest

from lotcal_tf.config.extras import imported
from lotcal_tf.errors import UsageError


def test_a_module_is_imported():
    assert imported("json", "tables") is json


def test_a_missing_module_is_named_with_its_extra():
    with pytest.raises(UsageError, match=r"^no_such_module .*pip install 'lotcal-tf\[tables\]'$"):
        imported("no_such_module", "tables")
