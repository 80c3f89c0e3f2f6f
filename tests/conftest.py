"""Fixtures that tests of several folders share."""

import os
import resource
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Processes of pytest-xdist share the processors: more threads in each would only wait.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
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


# A tiny ticket for exports


@pytest.fixture(scope="session")
def inputs():
    import numpy as np

    return np.random.default_rng(5).normal(size=(23, 4, 2)).astype("float32")


@pytest.fixture(scope="session")
def make_ticket():
    """make_ticket(seed) → a ticket of level 2 with about half its weights pruned.

    It was never trained: weights and masks are drawn, which is all that exporting needs.
    """
    import numpy as np

    from lotcal_tf.compat import keras
    from lotcal_tf.lottery.ticket import Ticket, architecture_of
    from lotcal_tf.pruning import masking
    from lotcal_tf.pruning.rewind import masked_start

    def make(seed=0):
        x = given = keras.Input((4, 2), name="inputs")
        x = keras.layers.Flatten(name="flatten")(keras.layers.Rescaling(0.5, name="scaling")(x))
        x = keras.layers.Dense(6, activation="relu", name="hidden")(x)
        x = keras.layers.Dropout(0.5, name="dropout")(x)
        x = keras.layers.BatchNormalization(name="norm")(x)
        model = keras.Model(given, keras.layers.Dense(3, name="logits")(x), name="tiny")
        draw = np.random.default_rng(seed)
        weights = {
            name: draw.normal(size=value.shape).astype("float32")
            for name, value in masking.values(model).items()
        }
        # A variance is above 0; so is the scale, whose sign a converter may fold into a zero.
        weights |= {n: abs(v) + 0.5 for n, v in weights.items() if n[-5:] in ("gamma", "iance")}
        masks = {
            name: draw.random(weights[name].shape) < 0.5
            for name in ("hidden/kernel", "logits/kernel")
        }
        trained = masked_start(weights, masks)
        return Ticket(
            2,
            architecture_of(model),
            masks,
            weights,
            trained,
            {"level": 2, "temperature": 2.5},
        )

    return make


@pytest.fixture(scope="session")
def ticket(make_ticket):
    return make_ticket()


@pytest.fixture(scope="session")
def logits(ticket, inputs):
    """What the ticket computes, by hand in float64."""
    import numpy as np

    t = {name: value.astype("float64") for name, value in ticket.trained.items()}
    flat = inputs.reshape(len(inputs), -1) * 0.5
    hidden = np.maximum(flat @ t["hidden/kernel"] + t["hidden/bias"], 0)
    scale = t["norm/gamma"] / np.sqrt(t["norm/moving_variance"] + 1e-3)
    normed = (hidden - t["norm/moving_mean"]) * scale + t["norm/beta"]
    return normed @ t["logits/kernel"] + t["logits/bias"]
