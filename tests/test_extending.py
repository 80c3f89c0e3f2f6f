"""The code of docs/extending.md does what the page says; every block of it is run."""

import csv
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import lotcal_tf
from lotcal_tf import export, metrics, train
from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.config.recipes import resolve
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.run import run_experiment
from lotcal_tf.pruning import masking

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|sh|toml)\n(.*?)```", PAGE, re.DOTALL)
# A first line `# PATH` names the file of a block, `# PATH: NAME` the table of a row.
FILES = {
    found[1]: text
    for kind, text in BLOCKS
    if kind != "sh" and (found := re.match(r"# ([\w/.]+(?:: \w+)?)\n", text))
}
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
(LIBRARY,) = (text for kind, text in BLOCKS if kind == "python" and "from focal" in text)
TINY = {"model": "lenet_10", "epochs": 1, "levels": 1, "lr": 0.02, "plan": "graph"}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write(name) → the path of a file of the page, in a directory from which it can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name):
        path = tmp_path / Path(name).name
        path.write_text(FILES[name])
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
        return path

    return write


@pytest.fixture
def add(write, monkeypatch):
    """add(name, table) adds a module of the package and its row in a table of the registry."""

    def add(name, table):
        module = name.removesuffix(".py").replace("/", ".")
        spec = importlib.util.spec_from_file_location(module, write(name))
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        monkeypatch.setitem(sys.modules, module, loaded)
        text = FILES[f"lotcal_tf/config/registry.py: {table}"]
        ((key, row),) = eval(f"{{{text}}}", vars(registry)).items()
        assert module in row.path
        monkeypatch.setitem(getattr(registry, table), key, row)

    return add


def request(flag, command=train):
    """What the command on the page with this flag asks for."""
    (line,) = (line for line in COMMANDS if flag in line)
    python, option, module, *argv = shlex.split(line)
    assert (python, option, module) == ("python", "-m", command.__name__)
    return command.COMMAND.read(argv)


def run(flag, out, **more):
    """Carries out the command on the page, with a tiny network or few epochs."""
    asked = request(flag)
    experiment = resolve({**TINY, **asked.given, **more, "out": str(out)}, asked.config)
    return run_experiment(experiment, progress=False)


def pruned_alike(one, other):
    masks = one.ticket(1).masks
    return all((masks[name] == mask).all() for name, mask in other.ticket(1).masks.items())


def test_every_block_of_the_page_is_known():
    assert len(FILES) + len(COMMANDS) + 1 == len(BLOCKS)
    assert len(FILES) == 9 and len(COMMANDS) == 5


# A strategy


def test_the_strategy_by_command(write, tmp_path):
    write("focal.py")
    done = run("focal:Focal", tmp_path / "run")
    assert done.ticket(0).record["test_accuracy"] > 0.5
    with (tmp_path / "run" / "history.csv").open() as file:
        first, _ = csv.DictReader(file)
    # The focal loss is the NLL times a factor below 1.
    assert 0 < float(first["train_loss"]) < float(first["train_nll"])
    with pytest.raises(FieldError, match="gamma is 3.0 here, 2.0 there"):
        run("focal:Focal", tmp_path / "run", gamma=3)
    with pytest.raises(FieldError, match="^gamma=0.5: must be at least 1"):
        run("focal:Focal", tmp_path / "other", gamma=0.5)
    edited = FILES["focal.py"].replace("tf.reduce_mean(focal)", "tf.reduce_sum(focal)")
    assert edited != FILES["focal.py"]
    (tmp_path / "focal.py").write_text(edited)
    del sys.modules["focal"]
    with pytest.raises(FieldError, match="calib_source differs"):
        run("focal:Focal", tmp_path / "run")


def test_the_strategy_by_the_library(write, tmp_path, monkeypatch):
    write("focal.py")
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, 300)
    x = draw.normal(size=(300, 4)).astype("float32") + 3 * y[:, None]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    names = {"lotcal_tf": lotcal_tf, "model": model, "x": x, "y": y}
    exec(compile(LIBRARY, "docs/extending.md", "exec"), names)
    found = names["run"]
    assert len(found.records) == 4
    record = json.loads((found.directory / "experiment.json").read_text())
    assert record["identity"]["gamma"] == 2.0
    assert "-Focal-" in found.directory.name


def test_the_strategys_loss_by_hand(write):
    write("focal.py")
    import focal

    inputs = keras.Input((2,))
    strategy = focal.Focal(keras.Model(inputs, inputs), gamma=3)
    strategy.compile(optimizer=keras.optimizers.SGD(0.0))
    logs = strategy.train_step((tf.constant([[np.log(3.0), 0.0]]), tf.constant([0])))
    assert logs.keys() == set(strategy.log_names)
    nll = -np.log(0.75)
    assert float(logs["nll"]) == pytest.approx(nll, rel=1e-5)
    assert float(logs["loss"]) == pytest.approx(0.25**3 * nll, rel=1e-5)


# A criterion


@pytest.mark.full
def test_the_criterion_prunes_in_rounds_and_resumes_to_the_bit(write, tmp_path, monkeypatch):
    write("snip.py")
    more = {"prune_rate": 0.6}
    whole = run("snip:IterativeSnip", tmp_path / "whole", **more)
    # Of 64 x 10 and 10 x 10 weights 0.6 and 0.3 are pruned.
    assert [r["remaining"] for r in whole.records] == [640 + 100, 256 + 70]
    run("snip:IterativeSnip", tmp_path / "parts", levels=0, **more)
    parts = run("snip:IterativeSnip", tmp_path / "parts", **more)
    assert parts.found == 1
    assert parts.ticket(1).digest == whole.ticket(1).digest
    # In one round it is the built-in criterion.
    out = str(tmp_path / "known")
    known = resolve({**TINY, **more, "criterion": "gradient", "out": out})
    known = run_experiment(known, progress=False)
    assert not pruned_alike(whole, known)
    monkeypatch.setattr(sys.modules["snip"].IterativeSnip, "rounds", 1)
    assert pruned_alike(run("snip:IterativeSnip", tmp_path / "one", **more), known)


# A model family


def test_the_model_family(add, tmp_path):
    add("lotcal_tf/models/conv.py", "MODELS")
    done = run("--model=conv2", tmp_path / "run", batch_size=300)
    shapes = {name: mask.shape for name, mask in done.ticket(0).masks.items()}
    assert shapes == {
        "conv_0a/kernel": (3, 3, 1, 64),
        "conv_0b/kernel": (3, 3, 64, 64),
        "hidden_1/kernel": (4 * 4 * 64, 256),
        "hidden_2/kernel": (256, 256),
        "logits/kernel": (256, 10),
    }
    from lotcal_tf.models.build import build_model

    images = (32, 32, 3)
    for depth, dropouts in ((4, 2), (6, 3)):
        model = build_model(f"conv{depth}", images, 5, seed=0, dropout_rate=0.5)
        assert model.output_shape == (None, 5)
        names = [layer.name for layer in model.layers]
        assert sum(name.startswith("conv_") for name in names) == depth
        assert sum(name.startswith("dropout_") for name in names) == dropouts
    with pytest.raises(FieldError, match="^model=conv3: choose one of .*conv2"):
        resolve({"model": "conv3"})
    with pytest.raises(FieldError, match="needs images of 8x8"):
        build_model("conv2", (4, 4, 1), 5, seed=0)


# A data source


def test_the_data_source(add, write, tmp_path, monkeypatch):
    add("lotcal_tf/data/mnist_npz.py", "SOURCES")
    write("mnist_npz.toml")
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (50, 8, 8)).astype("uint8")
    labels = (np.arange(50) % 10).astype("uint8")
    directory = tmp_path / "data"
    directory.mkdir()
    more = TINY | {"data_dir": str(directory), "batch_size": 10}
    with pytest.raises(FieldError, match="^data_dir=.*mnist.npz: No such file"):
        run("mnist_npz.toml", tmp_path / "run", **more)
    arrays = {"x_train": images[:40], "y_train": labels[:40]}
    arrays |= {"x_test": images[40:], "y_test": labels[40:]}
    np.savez(directory / "mnist.npz", **arrays)
    done = run("mnist_npz.toml", tmp_path / "run", **more)
    dataset = done.load()
    assert (dataset.train.count, dataset.validation.count, dataset.input_range) == (36, 4, 255.0)
    inputs, found = dataset.test.data()
    np.testing.assert_array_equal(inputs, images[40:, ..., None])
    np.testing.assert_array_equal(found, labels[40:])
    measured = lotcal_tf.measure_model(done.directory, split="test", data_dir=str(directory))
    assert measured.examples == 10
    assert measured.metrics["nll"] == pytest.approx(done.selected.record["test_nll"], rel=1e-4)


# A file format


def test_the_file_format(add, tmp_path):
    add("lotcal_tf/formats/hdf5.py", "FORMATS")
    done = run_experiment(resolve({**TINY, "out": str(tmp_path / "run")}), progress=False)
    asked = request("--formats=hdf5", export).own
    exported = lotcal_tf.export_ticket(
        done, tmp_path / "export", formats=asked["formats"].split(","), seconds=0
    )
    path = exported.files["hdf5"]
    assert path.name == "ticket.hdf5" and path.read_bytes().startswith(b"\x89HDF")
    ticket = done.selected
    inputs, labels = done.load().test.data()
    logits = ticket.model()(inputs).numpy() / ticket.record["temperature"]
    opened = lotcal_tf.measure_model(path, (inputs, labels))
    assert (opened.kind, opened.output) == ("hdf5", "logits")
    assert opened.metrics["nll"] == pytest.approx(metrics.nll(labels, logits), rel=1e-5)
    tensors = registry.FORMATS["hdf5"].load().stored_tensors(path)
    values = masking.values(ticket.model())
    assert {t.name: t.zeros for t in tensors} == {
        name: int((values[name] == 0).sum()) for name in ticket.masks
    }
    lone = tmp_path / "lone.hdf5"
    lone.write_bytes(b"not HDF5")
    with pytest.raises(UsageError, match="lone.hdf5 cannot be loaded"):
        lotcal_tf.measure_model(lone, (inputs, labels))
    probabilities = lotcal_tf.export_ticket(
        done, tmp_path / "softmax", formats=["hdf5"], output="probabilities", seconds=0
    )
    assert probabilities.parity["output"] == "probabilities"
