"""What tests of several commands share."""

import os
import resource
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What takes seconds to import; and what a command needs for its work, but not for its usage.
SLOW = {"tensorflow", "tf_keras", "tensorflow_model_optimization", "tensorflow_datasets"}
SLOW |= {"numpy", "scipy", "sklearn", "matplotlib"}


@pytest.fixture
def tree():
    """tree(directory) → the content of every file below it, by path; None for a directory."""

    def read(directory):
        return {
            str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
            for path in directory.rglob("*")
        }

    return read


@pytest.fixture
def at_once():
    """at_once(command, *argv) → exit code, `out` and lines `told` of a command that needs no TensorFlow.

    It must answer within a second, and import nothing slow.
    """

    def call(command, *argv):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", f"lotcal_tf.{command}", *argv],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = done.stderr.splitlines()
        loaded = {line.rpartition("|")[2].strip() for line in lines}
        assert "lotcal_tf.config.experiment" in loaded
        assert not {name.partition(".")[0] for name in loaded} & SLOW
        # The processor's time, which other work on the machine does not stretch.
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
        told = [line for line in lines if not line.startswith("import time:")]
        return types.SimpleNamespace(code=done.returncode, out=done.stdout, told=told)

    return call


@pytest.fixture(scope="module")
def determinism():
    """The command turns it on for its process, which here is that of all tests."""
    from tensorflow.python.framework import config

    before = config.is_op_determinism_enabled()
    yield
    if not before:
        config.disable_op_determinism()
