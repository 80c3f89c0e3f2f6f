"""A file or directory that is written is there whole, or as it was before."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lotcal_tf import files
from lotcal_tf.files import parts, remove_leftovers, replacing, temporary, write_atomically

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def dead():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_by(path, pid, host=files.HOST):
    return path.parent / f".{path.name}.{host}.{pid}.0123abcd"


@pytest.mark.parametrize("owner, call", [(os, "fsync"), (Path, "replace"), (os, "fdopen")])
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


def test_a_file_is_flushed_then_renamed_then_its_directory_is_flushed(tmp_path, disk):
    write_atomically(tmp_path / "file", b"x")
    first, (kind, source, target, _), last = disk
    assert (kind, target) == ("rename", tmp_path / "file")
    assert (first, last) == (("fsync", source), ("fsync", tmp_path))


def test_everything_in_a_directory_is_flushed_before_it_is_renamed(tmp_path, disk):
    with replacing(tmp_path / "export") as (content, _):
        (content / "model" / "variables").mkdir(parents=True)
        (content / "model" / "variables" / "data").write_bytes(b"x")
        (content / "card.md").write_bytes(b"x")
    ((_, _, target, below),) = [event for event in disk if event[0] == "rename"]
    assert target == tmp_path / "export"  # The fixture checks what was flushed.
    assert {p.name for p in below} == {"model", "variables", "data", "card.md"}


def test_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_file_system_that_cannot_flush_directories_is_fine(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuses(handle):
        if Path(f"/proc/self/fd/{handle}").readlink().is_dir():
            raise OSError(22, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refuses)
    write_atomically(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"


# --- what killed processes leave behind ------------------------------------------------------------


def test_only_temporary_files_of_dead_processes_are_removed(tmp_path, dead, tree):
    path = tmp_path / "metrics.csv"
    old = left_by(path, 1, "another-host")
    gone = [left_by(path, dead), left_by(path, os.getpid()), old]
    kept = [
        left_by(path, os.getppid()),  # alive
        left_by(path, 2, "another-host"),  # perhaps alive
        left_by(tmp_path / "metrics", dead),  # of another file
        tmp_path / ".metrics.csv.backup",
        tmp_path / ".metrics.csv.original",
    ]
    for one in (*gone, *kept):
        one.write_text("x")
    long_ago = old.stat().st_mtime - 2 * 24 * 3600
    for one in (old, *kept[3:]):
        os.utime(one, (long_ago, long_ago))
    with temporary(path) as used:
        used.write_text("x")
        remove_leftovers(path)
        assert used.exists()
    assert set(tree(tmp_path)) == {one.name for one in kept}


def test_a_directory_of_version_0_2_is_removed_after_a_day(tmp_path):
    left, other = tmp_path / ".export.k3j_x8a2", tmp_path / ".export.holidays"
    (left / "content").mkdir(parents=True)
    (left / "scratch").mkdir()
    (other / "pictures").mkdir(parents=True)
    remove_leftovers(tmp_path / "export")
    assert left.exists()
    for one in (left, other):
        os.utime(one, (0, 0))
    remove_leftovers(tmp_path / "export")
    assert not left.exists() and other.exists()


# A process that is killed (without any clean-up) at the call of the given number.
KILLED = """
import os, sys
from pathlib import Path
from lotcal_tf.files import replacing, write_atomically
left = int(sys.argv[1])
def counted(call):
    def wrapper(*given, **named):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return call(*given, **named)
    return wrapper
os.fsync, Path.rename = counted(os.fsync), counted(Path.rename)
Path.replace, Path.mkdir = counted(Path.replace), counted(Path.mkdir)
os.unlink = counted(os.unlink)
if sys.argv[2] == "file":
    write_atomically(Path("file"), b"new")
else:
    with replacing(Path("export")) as (content, scratch):
        for name in "ab":
            (content / name).write_text("new")
        (scratch / "c").write_text("new")
"""


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_process_killed_anywhere_leaves_old_or_new_and_nothing_after_the_next_call(
    tmp_path, tree, kind
):
    contents = {"file": [{"file": b"old"}, {"file": b"new"}]}
    contents["directory"] = [
        {"export": None, "export/a": text, "export/b": text} for text in (b"old", b"new")
    ]
    old, new = contents[kind]
    seen, code = set(), 9
    for calls in range(30):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        if kind == "file":
            (tmp_path / "file").write_text("old")
        else:
            (tmp_path / "export").mkdir()
            for name in "ab":
                (tmp_path / "export" / name).write_text("old")
        code = subprocess.run(
            [sys.executable, "-c", KILLED, str(calls), kind],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ).returncode
        if code == 0:
            break
        assert code == 9
        remove_leftovers(tmp_path / ("file" if kind == "file" else "export"))
        found = tree(tmp_path)
        assert found in (old, new), calls
        seen.add(found == new)
    assert code == 0
    assert seen == {False, True}
    assert tree(tmp_path) == new


def test_two_exports_at_once_leave_one_of_them_whole(tmp_path):
    with replacing(tmp_path / "export") as (first, _), replacing(tmp_path / "export") as (other, _):
        for name, content in (("first", first), ("other", other)):
            (content / "name").write_text(name)
    assert (tmp_path / "export" / "name").read_text() == "first"
    assert [path.name for path in parts(tmp_path)] == ["name"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_the_file_and_the_space_it_needs(tmp_path, monkeypatch, code):
    def full(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as alone:
        write_atomically(tmp_path / "metrics.csv", bytes(1234))
    with pytest.raises(OSError) as inside, temporary(tmp_path / "level_01") as directory:
        directory.mkdir()
        files.write_new(directory / "masks.safetensors", bytes(5))
    for caught, name, size in (
        (alone, "metrics.csv", "1,234 bytes"),
        (inside, "level_01/masks.safetensors", "5 bytes"),
    ):
        assert caught.value.errno == code
        assert caught.value.filename == str(tmp_path / name)
        assert size in caught.value.strerror
    assert list(tmp_path.iterdir()) == []


class FromC(Exception):
    """An error of a library in C."""


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (FromC("{{node}} /tmp/x/part-0.tempstate1; No space left on device [Op:SaveV2]"), "/tmp/x/part-0.tempstate1"),
        (OSError("file write failed: errno = 28, error message = 'No space left on device'"), None),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), None),
    ],
)  # fmt: skip
def test_a_full_disk_is_recognised_in_the_errors_of_libraries(tmp_path, error, where):
    with pytest.raises(files.DiskFull) as caught, files.naming_size(tmp_path / "export"):
        raise error
    assert caught.value.filename == (where or str(tmp_path / "export"))


@pytest.mark.parametrize(
    "error", [FromC("other"), FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x")]
)
def test_other_errors_stay_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, files.naming_size(tmp_path):
        raise error
    assert caught.value is error
