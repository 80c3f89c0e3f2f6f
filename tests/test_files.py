"""A file that is written is there whole, or as it was before."""

import os
from pathlib import Path

import pytest

from lotcal_tf.files import write_atomically


@pytest.mark.parametrize("owner, call", [(os, "fsync"), (Path, "replace"), (Path, "chmod")])
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path, monkeypatch, owner, call, tree
):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fails(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, fails)
        with pytest.raises(OSError, match="disk full"):
            write_atomically(path, b"new")
    assert tree(tmp_path) == {"file": b"old"}
    write_atomically(path, b"new")
    assert tree(tmp_path) == {"file": b"new"}


def test_content_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    events = []

    def noted(call, real):
        def wrapper(*arguments):
            events.append(call)
            return real(*arguments)

        return wrapper

    monkeypatch.setattr(os, "fsync", noted("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", noted("replace", Path.replace))
    write_atomically(tmp_path / "file", b"x")
    assert events == ["fsync", "replace", "fsync"]  # the content, the name, the directory
