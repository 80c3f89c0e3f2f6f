"""Fixtures that tests of several folders share."""

import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Processes of pytest-xdist share the processors: more threads in each would only wait.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# A shell's background job ignores Ctrl-C, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# What takes seconds to import; and what a command needs for its work, but not for its usage.
SLOW = {"tensorflow", "tf_keras", "tensorflow_model_optimization", "tensorflow_datasets"}
SLOW |= {"numpy", "scipy", "sklearn", "matplotlib"}


def pytest_collection_finish():
    """Keeps what imports and collection made out of garbage collection, which would take a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def pytest_sessionfinish(session):
    """Drops TensorFlow's notices, which pytest-xdist would print after pytest's closing line."""
    manager = session.config.pluginmanager.getplugin("capturemanager")
    if manager._global_capturing is not None:  # None with -s, and after an error of collection
        manager.read_global_capture()


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory):
    """The directory for the user's key; tests leave the home directory alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def empty_diagrams():
    """Reliability diagrams stay empty: drawing one for each level takes a third of a short run's time."""
    from lotcal_tf.metrics import reliability

    draw = reliability.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reliability, "draw", lambda *_: None)
        yield draw


@pytest.fixture(scope="module")
def diagrams(empty_diagrams):
    """Reliability diagrams are drawn in the module that uses this."""
    from lotcal_tf.metrics import reliability

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reliability, "draw", empty_diagrams)
        yield


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
def disk(monkeypatch):
    """A list of the events ("fsync", path) and ("rename", source, target, paths below the source).

    At the end of the test, everything that was renamed must have been flushed before, and its directory
    after.
    """
    events, inodes = [], {}
    fsync = os.fsync

    def inode(path):
        return inodes.setdefault(path, path.stat().st_ino)  # hard links are one file

    def flushed(handle):
        events.append(("fsync", Path(f"/proc/self/fd/{handle}").readlink()))
        inode(events[-1][1])
        fsync(handle)

    def noted(call):
        def wrapper(source, target):
            below = list(source.rglob("*"))
            events.append(("rename", source, Path(target), below))
            for path in (source, *below):
                inode(path)
            return call(source, target)

        return wrapper

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "rename", noted(Path.rename))
    monkeypatch.setattr(Path, "replace", noted(Path.replace))
    yield events
    for place, (kind, source, *rest) in enumerate(events):
        if kind == "rename":
            target, below = rest
            before = {inodes[event[1]] for event in events[:place] if event[0] == "fsync"}
            after = {event[1] for event in events[place:] if event[0] == "fsync"}
            assert {inodes[path] for path in (source, *below)} <= before, source
            assert target.parent in after, target


@pytest.fixture
def at_once():
    """at_once(module, *argv) → exit code, `out` and the lines of `err` of a command that needs no TensorFlow.

    `python -m module` must answer within a second, and import nothing slow.
    """

    def call(module, *argv):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", module, *argv],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = done.stderr.splitlines()
        loaded = {line.rpartition("|")[2].strip() for line in lines}
        assert "lotcal_tf" in loaded
        assert not {name.partition(".")[0] for name in loaded} & SLOW
        # The processor's time, which other work on the machine does not stretch.
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
        err = [line for line in lines if not line.startswith("import time:")]
        return types.SimpleNamespace(code=done.returncode, out=done.stdout, err=err)

    return call


@pytest.fixture
def call_command(capfd):
    """call_command(module, *flags) → code, out and the lines of err; in this process, which has TensorFlow."""

    def call(module, *flags):
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            module.run([str(flag) for flag in flags])
        out, err = capfd.readouterr()
        return types.SimpleNamespace(code=left.value.code, out=out, err=err.splitlines())

    return call


# Data in files


@pytest.fixture
def make_source(tmp_path):
    """make_source(name) → the `data_dir` of a registered source that reads files: 120 examples, 3 classes."""

    def make(name):
        import numpy as np

        draw = np.random.default_rng(0)
        labels = np.arange(120) % 3
        if name == "folder":
            from PIL import Image

            for number, label in enumerate(labels):
                folder = tmp_path / "images" / ["cat", "dog", "eel"][label]
                folder.mkdir(parents=True, exist_ok=True)
                pixels = draw.integers(0, 256, (6, 5, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:03d}.png")
            return str(tmp_path / "images")
        if name == "table":
            pandas = pytest.importorskip("pandas", reason="needs lotcal-tf[tables]")
            columns = {f"x{n}": draw.normal(size=120) for n in range(4)}
            path = tmp_path / "table.csv"
            pandas.DataFrame(columns | {"label": labels}).to_csv(path, index=False)
            return str(path)
        datasets = pytest.importorskip("datasets", reason="needs lotcal-tf[hf]")
        columns = {"features": draw.normal(size=(120, 4)).tolist(), "label": labels.tolist()}
        datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "hf")
        return str(tmp_path / "hf")

    return make


# Finished runs for tests of exporting and measuring; a test that changes one copies it first.

# Not the defaults: what is exported and measured must be split and binned as in the run.
DIGITS = {
    "model": "lenet_10",
    "epochs": 2,
    "levels": 2,
    "prune_rate": 0.6,
    "seed": 5,
    "validation_size": 123,
    "ece_bins": 12,
    "plan": "graph",
}


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run on the digits by name, three levels, without an export."""
    from lotcal_tf import api

    out = tmp_path_factory.mktemp("digits") / "run"
    return api.find_tickets(**DIGITS, out=out, progress=False)


@pytest.fixture(scope="session")
def exported_run(digits_run, tmp_path_factory):
    """The directory of a copy of `digits_run` with its export: unscaled, float32 and SavedModel."""
    from lotcal_tf import api

    run = shutil.copytree(digits_run.directory, tmp_path_factory.mktemp("exported") / "run")
    api.export_ticket(run, formats=["saved_model", "float32"], scaled=False, seconds=0)
    return run


@pytest.fixture(scope="session")
def arrays_run(tmp_path_factory):
    """A run of the library on the digits as arrays, one level."""
    from lotcal_tf import api
    from lotcal_tf.compat import keras
    from lotcal_tf.config.experiment import Experiment
    from lotcal_tf.data import digits

    keras.utils.set_random_seed(0)
    flat = [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 16), keras.layers.Flatten()]
    model = keras.Sequential([*flat, keras.layers.Dense(10)])
    data = digits.load(Experiment())
    return api.find_tickets(
        model,
        data.train.data(),
        data.test.data(),
        out=tmp_path_factory.mktemp("arrays") / "run",
        **{"epochs": 2, "levels": 1, "seed": 4, "ece_bins": 9, "plan": "graph", "progress": False},
    )


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
