"""Files made to run code, write files or take memory: each is refused in one line, and nothing happens."""

import io
import json
import struct
import sys
import zipfile
from pathlib import Path

import h5py
import keras as keras3
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import lotcal_tf
from lotcal_tf import evaluate, export, report, train
from lotcal_tf.compat import keras
from lotcal_tf.config.export_record import PARITY
from lotcal_tf.config.run_directory import default_directory
from lotcal_tf.config.sealed import seal, unseal
from lotcal_tf.errors import LotcalError, UsageError
from lotcal_tf.files import sha256_of
from lotcal_tf.formats.tflite import TFLiteRunner
from lotcal_tf.formats.tflite_file import isolated
from lotcal_tf.formats.tflite_file.converter import convert
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.models.keras_file import read_model

CANARY = "executed"  # a file that every attack would write
ROWS = np.ones((3, 4), "float32")
DATA = ROWS, np.array([0, 1, 2])


@pytest.fixture(autouse=True)
def nothing_happens(tmp_path, monkeypatch, tree):
    """Runs each test in a directory of its own, in which nothing appears but what the test puts there."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    # A module that an attack may have imported; it writes the canary.
    (here / "evil.py").write_text(f"open({CANARY!r}, 'w').close()\nEvil = system = None\n")
    yield
    assert "evil" not in sys.modules
    assert set(tree(here)) <= {"evil.py", "__pycache__"}


def bytecode():
    """A Python function that writes the canary, as tf_keras stores it."""
    found = keras.saving.serialize_keras_object(lambda x: Path("executed").write_text("x") and x)
    return found["config"]["value"]


def obj(kind, config=None, module="keras.layers", **more):
    return {"class_name": kind, "config": {} if config is None else config, "module": module,
            "registered_name": None, **more}  # fmt: skip


def layer(kind, name="odd", module="keras.layers", **config):
    return obj(kind, {"name": name, "trainable": True, "dtype": "float32", **config}, module)


def function():
    return {"class_name": "__lambda__", "config": {"value": bytecode()}}


def lambda_layer():
    return layer("Lambda", function=function(), function_type="lambda", arguments={},
                 output_shape=None, output_shape_type="raw", module="keras.layers")  # fmt: skip


def dense(**config):
    return layer("Dense", **{"units": 3, "activation": "linear", **config})


def operation(name, **kwargs):
    return layer("TFOpLambda", function=name), kwargs


def rnn(cell):
    return layer("RNN", cell=cell)


def input_layer():
    return obj("InputLayer", {"name": "given", "batch_input_shape": [None, 4], "dtype": "float32"})


def sequential(*layers):
    return obj("Sequential", {"name": "net", "layers": [input_layer(), *layers]}, "keras")


def functional(odd, kwargs=None, node=None):
    """A model of tf_keras with one layer, which is called with arguments."""
    given = {**input_layer(), "name": "given"}
    nodes = [node] if node is not None else [[["given", 0, 0, kwargs or {}]]]
    layers = [{**given, "inbound_nodes": []}, {**odd, "name": "odd", "inbound_nodes": nodes}]
    parts = {"layers": layers, "input_layers": [["given", 0, 0]], "output_layers": [["odd", 0, 0]]}
    return obj("Functional", {"name": "net", **parts}, "keras.src.engine.functional")


def write_file():
    return functional(layer("TFOpLambda", function="io.write_file"),
                      node=["_CONSTANT_VALUE", -1, CANARY, {"contents": "x"}])  # fmt: skip


def nested(depth):
    part = dense()
    for _ in range(depth):
        part = {"a": [part]}
    return part


CONFIGS = {
    "a Lambda": lambda: sequential(lambda_layer()),
    "a Lambda without its module": lambda: sequential(
        {k: v for k, v in lambda_layer().items() if k in ("class_name", "config")}
    ),
    "a Lambda of another name": lambda: sequential(
        lambda_layer() | {"registered_name": "lotcal_tf>MaskedLayer"}
    ),
    "a Lambda in a nested model": lambda: sequential(sequential(lambda_layer())),
    "a Lambda in TimeDistributed": lambda: sequential(
        layer("TimeDistributed", layer=lambda_layer())
    ),
    "a Lambda in Bidirectional": lambda: sequential(
        layer("Bidirectional", layer=layer("LSTM", units=2), backward_layer=lambda_layer())
    ),
    "a Lambda as an RNN cell": lambda: sequential(rnn(lambda_layer())),
    "a Lambda among RNN cells": lambda: sequential(rnn(layer("StackedRNNCells", cells=[lambda_layer()]))),
    "a Lambda serialised passively": lambda: functional(
        dense(), {"training": lambda_layer() | {"__passive_serialization__": True}}
    ),
    "a Lambda in custom objects": lambda: sequential(dense(custom_objects={"Dense": lambda_layer()})),
    "a Lambda in the configuration for building": lambda: sequential(
        dense() | {"build_config": {"input_shape": [None, 4], "layer": lambda_layer()}}
    ),
    "a function as an activation": lambda: sequential(dense(activation=function())),
    "bytecode as an activation": lambda: sequential(
        dense(activation={"value": bytecode()})
    ),
    "a function as an initializer": lambda: sequential(dense(kernel_initializer=function())),
    "a function as a constraint": lambda: sequential(dense(kernel_constraint=function())),
    "a function as a regularizer": lambda: sequential(dense(kernel_regularizer=function())),
    "a function in arguments": lambda: functional(dense(), {"mask": function()}),
    "a function of a dropout wrapper": lambda: sequential(
        rnn(layer("DropoutWrapper", cell=layer("LSTMCell", units=2), function=bytecode(),
                  function_type="lambda"))
    ),
    "os.system as an activation": lambda: sequential(dense(bias_regularizer=obj("function", "system", "os"))),
    "a model of a module in the working directory": lambda: obj("Evil", {"name": "odd"}, "evil"),
    "a module in the working directory": lambda: sequential(layer("Evil", module="evil")),
    "a function of that module": lambda: sequential(dense(bias_constraint=obj("function", "system", "evil"))),
    "a class by another name": lambda: sequential(layer("Evil", module="evil") | {"registered_name": "Dense"}),
    "a download": lambda: sequential(layer("get_file", module="keras.utils")),
    "a write by an operation": write_file,
    "a deletion by an operation": lambda: functional(layer("TFOpLambda", function="io.gfile.rmtree")),
    "a Python function as an operation": lambda: functional(layer("TFOpLambda", function="py_function")),
    "a raw operation": lambda: functional(layer("TFOpLambda", function="raw_ops.WriteFile")),
    "a slice that is a write": lambda: functional(layer("SlicingOpLambda", function="io.write_file")),
    "a method of a class": lambda: functional(
        layer("ClassMethod", cls_symbol="io.gfile.GFile", method_name="write")
    ),
    "an attribute of a tensor": lambda: functional(layer("InstanceMethod", attr_name="__class__")),
    "a node of a graph": lambda: functional(layer("TensorFlowOpLayer", node_def="{}", constants={})),
    "a SavedModel as a layer": lambda: sequential(layer("TFSMLayer", filepath="evil")),
    "a type of another module": lambda: sequential(
        dense(spec={"class_name": "__typespec__", "spec_name": "Evil", "module": "evil",
                    "config": [], "registered_name": None})
    ),
    "a composite constant": lambda: functional(
        dense(), node=["_CONSTANT_VALUE", -1, ["COMPOSITE_TYPE", "{}"], {}]
    ),
    "a name of several lines": lambda: sequential(layer("A\nB\x1b[31m", "odd\n")),
    "a call without an input": lambda: functional(
        layer("TFOpLambda", function="zeros"), node=["_CONSTANT_VALUE", -1, [1 << 40], {}]
    ),
    "a vocabulary in a file": lambda: sequential(layer("StringLookup", vocabulary="/etc/passwd")),
    "layers that wait for each other": lambda: functional(dense(), node=["odd", 0, 0, {}]),
    "a layer of 4 TB": lambda: sequential(dense(units=1 << 38)),
    "deep nesting": lambda: sequential(dense(kernel_initializer=nested(300))),
}  # fmt: skip


def weights_file():
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_group("vars")
    return content.getvalue()


def archive(path, config, version="2.21.0", weights=None, more=()):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": version}))
        file.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        file.writestr("model.weights.h5", weights_file() if weights is None else weights)
        for name, content in more:
            file.writestr(name, content)
    return path


def hdf5(path, config, version="2.21.0"):
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = version
        file.create_group("model_weights")
    return path


def ticket(directory, config, tensors=None, **more):
    """The directory of a ticket whose checksums are right."""
    directory.mkdir(parents=True)
    sums = {}
    for name in ("masks", "rewind", "trained", "predictions"):
        path = directory / f"{name}.safetensors"
        path.write_bytes(safetensors.numpy.save({}) if tensors is None else tensors)
        sums[name] = sha256_of(path)
    header = {"level": 0, "sha256": sums, "record": {"level": 0}, "history": [],
              "architecture": config, "input_range": None}  # fmt: skip
    (directory / "ticket.json").write_bytes(seal(header | more))
    return directory


def refused(call, *words):
    """Asserts that a call ends in an error of one line; returns the line."""
    with pytest.raises(LotcalError) as caught:
        call()
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert all(word in line for word in words), line
    return line


def ends_in_one_line(command, capsys, *argv):
    """Asserts that a command ends with exit code 2 and one line; returns the line."""
    with pytest.raises(SystemExit) as ended:
        command.run(list(argv))
    lines = capsys.readouterr().err.splitlines()
    lines = [line for line in lines if not line.startswith(("WARNING", "reading "))]
    assert ended.value.code == 2, lines
    assert len(lines) == 1, lines
    return lines[0]


# The files have no weights, so a harmless configuration is refused, too, but for these reasons only.
WITHOUT_WEIGHTS = ("weights do not fit the model", "cannot be loaded as a Keras file")


def refusals(config, directory):
    """The line with which each kind of file with a configuration is refused."""
    place = ticket(directory / "level_00", config)
    yield refused(lambda: lotcal_tf.load_ticket(place).model())
    for version in ("2.21.0", "3.10.0"):
        path = archive(directory / "a.keras", config, version)
        yield refused(lambda path=path: read_model(path), str(path))
        path = hdf5(directory / "a.h5", config, version)
        yield refused(lambda path=path: read_model(path), str(path))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_hostile_configuration_is_refused_in_every_kind_of_file(name, tmp_path):
    for line in refusals(CONFIGS[name](), tmp_path):
        assert not any(reason in line for reason in WITHOUT_WEIGHTS), line


def test_a_harmless_configuration_is_refused_for_its_missing_weights_only(tmp_path):
    lines = list(refusals(sequential(dense()), tmp_path))
    assert len(lines) == 5
    assert all(any(reason in line for reason in WITHOUT_WEIGHTS) for line in lines), lines


def test_without_the_check_the_canary_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("lotcal_tf.lottery.ticket.check_config", lambda config: config)
    place = ticket(tmp_path / "level_00", CONFIGS["a write by an operation"]())
    refused(lambda: lotcal_tf.load_ticket(place).model())  # afterwards
    Path(CANARY).unlink()


READERS = {
    "measure_model of a ticket": lambda t, f: lotcal_tf.measure_model(t, test=DATA, progress=False),
    "export_ticket": lambda t, f: lotcal_tf.export_ticket(t, t.parent / "out", test=DATA),
    "measure_model of a file": lambda t, f: lotcal_tf.measure_model(f, test=DATA, progress=False),
    "find_tickets": lambda t, f: lotcal_tf.find_tickets(f, train=DATA, levels=1, progress=False),
    "find_tickets from a ticket": lambda t, f: lotcal_tf.find_tickets(ticket=t, dataset="digits"),
}


@pytest.mark.parametrize("name", ["a write by an operation", "a Lambda in a nested model"])
@pytest.mark.parametrize("reader", READERS)
def test_every_function_of_the_library_refuses_it(name, reader, tmp_path):
    config = CONFIGS[name]()
    place = ticket(tmp_path / "level_00", config)
    path = archive(tmp_path / "a.keras", config)
    refused(lambda: READERS[reader](place, path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a write by an operation", "a Lambda in a nested model"])
def test_every_command_refuses_it(name, tmp_path, capsys):
    config = CONFIGS[name]()
    place = ticket(tmp_path / "run" / "tickets" / "level_00", config)
    record = {"run_id": "x", "experiment": {"dataset": "digits", "source": "digits", "levels": 0}}
    (tmp_path / "run" / "experiment.json").write_bytes(seal(record))
    path = archive(tmp_path / "a.keras", config)
    h5 = hdf5(tmp_path / "a.h5", config)
    data = "--dataset=digits"
    ends_in_one_line(evaluate, capsys, f"--model={path}", data)
    ends_in_one_line(evaluate, capsys, f"--model={h5}", data)
    ends_in_one_line(evaluate, capsys, f"--model={place}", data)
    ends_in_one_line(export, capsys, f"--run={tmp_path / 'run'}")
    ends_in_one_line(train, capsys, f"--model={path}", data)
    ends_in_one_line(train, capsys, f"--ticket={place}", data)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("found", [keras, keras3])
def test_the_training_configuration_of_a_nested_model_is_not_loaded(found, tmp_path):
    inner = found.Sequential([found.Input((4,)), found.layers.Dense(3)], name="inner")
    inner.compile("adam", lambda y, z: Path("executed").write_text("x"))
    model = found.Sequential([found.Input((4,)), inner])
    model.compile("adam", lambda y, z: Path("executed").write_text("x"))
    model.save(tmp_path / "a.keras")
    back = read_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(np.asarray(back(ROWS)), np.asarray(model(ROWS)))


def patched(content, old, new):
    assert content.count(old) >= 1
    return content.replace(old, new)


def lying_archive(path):
    """The weights claim to be 2 GB."""
    archive(path, sequential(dense()))
    size = struct.pack("<I", len(weights_file()))
    path.write_bytes(patched(path.read_bytes(), size, struct.pack("<I", 2 << 30)))


def bomb(path, name):
    """An entry of 1 GB in a file of 1 MB."""
    entries = {"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": weights_file()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for entry, content in entries.items():
            with file.open(entry, "w") as part:
                for _ in range(70 if entry == name else 0):
                    part.write(bytes(1 << 20))
                part.write(content)


def archive_of(path, make):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        make(file)
    archive(path, sequential(dense()), weights=content.getvalue())


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("vars/0", layout)


def pickled():
    content = io.BytesIO()
    np.savez(content, a=np.array([object()], object))
    return content.getvalue()


FILES = {
    "HDF5 bytes": lambda path: hdf5(path, sequential(lambda_layer())),
    "not an archive": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
    "an empty file": lambda path: path.write_bytes(b""),
    "an entry outside": lambda path: archive(path, sequential(dense()), more=[("../../executed", "x")]),
    "an absolute entry": lambda path: archive(path, sequential(dense()), more=[("/tmp/executed", "x")]),
    "assets": lambda path: archive(path, sequential(dense()), more=[("assets/a", "x")]),
    "pickled weights": lambda path: archive(
        path, sequential(dense()), more=[("model.weights.npz", pickled())]
    ),
    "weights that are a pickle": lambda path: archive(path, sequential(dense()), weights=pickled()),
    "a lying size": lying_archive,
    "a bomb of weights": lambda path: bomb(path, "model.weights.h5"),
    "a bomb of configuration": lambda path: bomb(path, "config.json"),
    "deep JSON": lambda path: archive(path, "[" * 100_000 + "]" * 100_000),
    "a list": lambda path: archive(path, "[1]"),
    "no model": lambda path: archive(path, {"class_name": "Dense", "config": {"units": 1},
                                            "module": "keras.layers", "registered_name": None}),
    "a link to a file": lambda path: archive_of(
        path, lambda file: file.__setitem__("vars", h5py.ExternalLink("/etc/passwd", "/"))
    ),
    "a soft link": lambda path: archive_of(
        path, lambda file: file.__setitem__("vars", h5py.SoftLink("/elsewhere"))
    ),
    "data in another file": lambda path: archive_of(
        path, lambda file: file.create_dataset("vars/0", (4,), "f4", external=[("/etc/passwd", 0, 16)])
    ),
    "virtual data": lambda path: archive_of(path, virtual),
    "data of 4 TB": lambda path: archive_of(
        path, lambda file: file.create_dataset("vars/0", (1 << 40,), "f4", chunks=(1 << 10,))
    ),
    "cut weights": lambda path: archive(path, sequential(dense()), weights=weights_file()[:300]),
}  # fmt: skip


# What Keras or HDF5 cannot read; all others are refused by checks of our own, before they are read.
UNREADABLE = {
    "HDF5 bytes",
    "not an archive",
    "an empty file",
    "weights that are a pickle",
    "cut weights",
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_archive_is_refused(name, tmp_path):
    path = tmp_path / "a.keras"
    FILES[name](path)
    line = refused(lambda: read_model(path), str(path))
    assert (WITHOUT_WEIGHTS[1] in line) == (name in UNREADABLE), line
    assert {p.name for p in tmp_path.iterdir()} == {"a.keras", "here"}


def test_an_archive_named_h5_is_refused(tmp_path):
    path = archive(tmp_path / "a.h5", sequential(dense()))
    refused(lambda: read_model(path), "HDF5")


TENSORS = {
    "a header longer than the file": struct.pack("<Q", 1 << 40) + b"{}",
    "a header that is not JSON": struct.pack("<Q", 4) + b"{{{{",
    "values outside the file": struct.pack("<Q", 62)
    + b'{"a":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}'[:62],
    "an unknown type": struct.pack("<Q", 54)
    + b'{"a":{"dtype":"O","shape":[1],"data_offsets":[0,8]}}  '
    + bytes(8),
    "a pickle": pickled(),
}


@pytest.mark.parametrize("name", TENSORS)
def test_hostile_tensors_of_a_ticket_are_refused(name, tmp_path):
    place = ticket(tmp_path / "level_00", sequential(dense()), TENSORS[name])
    refused(lambda: lotcal_tf.load_ticket(place), "safetensors")


@pytest.mark.parametrize("mask", [np.ones((1, 1000), bool), np.ones((1000, 1), "float32")])
def test_a_mask_that_does_not_fit_its_weight_is_refused(mask, tmp_path):
    place = ticket(tmp_path / "level_00", sequential(dense()))
    for name, array in (("masks", mask), ("trained", np.ones((1000, 1), "float32"))):
        (place / f"{name}.safetensors").write_bytes(safetensors.numpy.save({"odd/kernel": array}))
    header = unseal(place / "ticket.json")
    header["sha256"] = {n: sha256_of(place / f"{n}.safetensors") for n in header["sha256"]}
    (place / "ticket.json").write_bytes(seal(header))
    refused(lambda: lotcal_tf.load_ticket(place), "odd/kernel")


@pytest.mark.parametrize(
    "wrong",
    [{"level": "0"}, {"record": []}, {"record": {"a": {}}}, {"history": 3}, {"sha256": []},
     {"architecture": None}, {"architecture": {"config": 1}}, {"class_names": [1]}],
)  # fmt: skip
def test_a_ticket_with_entries_of_wrong_kinds_is_refused(wrong, tmp_path):
    place = ticket(tmp_path / "level_00", sequential(dense()), **wrong)
    refused(lambda: lotcal_tf.load_ticket(place), "ticket.json", next(iter(wrong)))


RECIPES = {
    "a strategy": ('calib = "evil:Evil"', "calib"),
    "a criterion": ('criterion = "evil:Evil"', "criterion"),
    "an optimizer": ('optimizer = "evil:Evil"', "optimizer"),
    "a directory above": ('out = "../../executed"', "out"),
    "an absolute directory": ('out = "/tmp/executed/run"', "out"),
    "a data set of others": ('source = "huggingface:evil/data"', "source"),
    "a path as data": ('source = "../../etc"', "source"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_hostile_recipe_is_refused(name, tmp_path, capsys):
    line, field = RECIPES[name]
    path = tmp_path / "own.toml"
    path.write_text(("" if field == "source" else 'source = "digits"\n') + line)
    assert field in ends_in_one_line(train, capsys, f"--config={path}")
    refused(lambda: lotcal_tf.find_tickets(config=path, progress=False), field)


def hostile_run(directory, ticket_of, **fields):
    """A run of one level whose record names code in the working directory."""
    store = RunStore(directory)
    recorded = {
        "dataset": "digits", "source": "digits", "levels": 0, "calib": "evil:Evil",
        "criterion": "evil:Evil", "optimizer": "evil:Evil", "model": "../../executed", "seed": 0,
        **fields,
    }  # fmt: skip
    realised = {"examples": {"val": 10}, "class_names": ["<script>alert(1)</script>"] * 3}
    store.begin({"run_id": "../../executed", "experiment": recorded, "realised": realised})
    record = {"level": 0, "val_nll": 1.0, "val_nll_se": 0.1, "temperature": 1.0, "weights": 5,
              "density": 1.0, "remaining": 5, "prunable": 5,
              "train_accuracy": 0.5, "val_accuracy": 0.5, "test_accuracy": 0.5}  # fmt: skip
    store.save(type(ticket_of)(0, ticket_of.architecture, ticket_of.masks, ticket_of.rewind,
                               ticket_of.trained, record))  # fmt: skip
    return directory


@pytest.fixture
def drawn(make_ticket):
    return make_ticket()


def test_reading_a_run_imports_nothing_that_it_names(drawn, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    run = hostile_run(tmp_path / "run", drawn)
    inputs = np.ones((4, 4, 2), "float32")
    data = inputs, np.array([0, 1, 2, 0])
    lotcal_tf.measure_model(run, test=data, progress=False)
    lotcal_tf.export_ticket(run, tmp_path / "exported", data, formats=["keras"], seconds=0)
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "evil" not in sys.modules
    assert "<script>" not in card
    lotcal_tf.load_ticket(run / "tickets" / "level_00").model()
    # The digits do not fit this model: the data is read, nothing else.
    ends_in_one_line(evaluate, capsys, f"--model={run}", "--dataset=digits")
    ends_in_one_line(export, capsys, f"--run={run}")
    with pytest.raises(SystemExit) as ended:
        report.run([str(run), "--out", str(tmp_path / "report.html")])
    assert ended.value.code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"here", "run", "exported", "report.html"}
    assert "<script>" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("entry", "value"),
    [("run_id", []), ("experiment", 3), ("source", None), ("source", [1]), ("seed", "x"),
     ("levels", float("inf")), ("dataset", {}), ("class_names", 3)],
)  # fmt: skip
def test_a_record_with_entries_of_wrong_kinds_is_refused_or_passed_over(
    entry, value, drawn, tmp_path, capsys
):
    run = hostile_run(tmp_path / "run", drawn, calib="none", criterion="magnitude", model="x")
    record = unseal(run / "experiment.json")
    places = {"class_names": record["realised"], "run_id": record, "experiment": record}
    places.get(entry, record["experiment"])[entry] = value
    (run / "experiment.json").write_bytes(seal(record))
    for command, flags in (
        (evaluate, [f"--model={run}", "--shift=blur"]),
        (export, [f"--run={run}"]),
        (report, [str(run), f"--out={tmp_path / 'report.html'}"]),
    ):
        with pytest.raises(SystemExit) as ended:
            command.run(flags)
        notes = ("reading ", "report: predictions left out: ")
        lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith(notes)]
        assert (ended.value.code, len(lines)) in ((0, 0), (2, 1)), lines


@pytest.mark.parametrize("source", ["huggingface:evil/data", "../../etc", "kaggle:evil"])
def test_data_that_a_run_names_is_read_as_data_only(source, drawn, tmp_path, capsys):
    run = hostile_run(tmp_path / "run", drawn, source=source, dataset=source)
    assert "source" in ends_in_one_line(evaluate, capsys, f"--model={run}", "--shift=blur")


def test_the_features_of_a_data_set_import_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    place = tmp_path / "data" / "mine" / "1.0.0"
    place.mkdir(parents=True)
    (place / "dataset_info.json").write_text(
        json.dumps({"name": "mine", "version": "1.0.0", "fileFormat": "tfrecord"})
    )
    (place / "features.json").write_text(json.dumps({"pythonClassName": "evil.Evil"}))
    path = tmp_path / "own.toml"
    path.write_text('source = "mine"')
    line = ends_in_one_line(train, capsys, f"--config={path}", f"--data_dir={tmp_path / 'data'}")
    assert "evil.Evil" in line


def test_the_name_of_a_run_stays_below_the_directory_of_runs():
    for name in ("own-../../x-none-0123", "../../x", "/etc/x", "a//b", "..", "a/../../b"):
        path = default_directory(name)
        assert path.parent.name == "runs"
        assert ".." not in path.parts
        assert not path.is_absolute()
    assert (
        str(default_directory("cifar10_corrupted/blur_1-x-0"))
        == "runs/cifar10_corrupted/blur_1-x-0"
    )


def saved_model(directory):
    def write(inputs):
        with tf.control_dependencies([tf.io.write_file(CANARY, "x")]):
            return {"logits": tf.identity(inputs)}

    module = tf.Module()
    module.write = tf.function(write, input_signature=[tf.TensorSpec((None, 4), tf.float32)])
    tf.saved_model.save(module, str(directory), {"serving_default": module.write})
    return directory


def test_a_saved_model_is_loaded_only_with_permission(tmp_path, capsys):
    directory = saved_model(tmp_path / "export" / "saved_model")
    words = "--trust_saved_model"
    assert words in ends_in_one_line(evaluate, capsys, f"--model={directory}", "--dataset=digits")
    refused(lambda: lotcal_tf.measure_model(directory, test=DATA), words)
    # The checksums of a stranger's record show nothing about the stranger.
    sums = {p.relative_to(directory.parent).as_posix(): sha256_of(p)
            for p in directory.rglob("*") if p.is_file()}  # fmt: skip
    record = {"files": {}, "sha256": sums, "signature": "0" * 64}
    (directory.parent / PARITY).write_bytes(seal(record))
    refused(lambda: lotcal_tf.measure_model(directory, test=DATA), words)


def test_an_export_of_this_user_is_trusted_until_it_changes(drawn, tmp_path):
    data = np.ones((4, 4, 2), "float32"), np.array([0, 1, 2, 0])
    done = lotcal_tf.export_ticket(
        drawn, tmp_path / "out", data, formats=["saved_model"], seconds=0
    )
    path = done.files["saved_model"]
    assert lotcal_tf.measure_model(path, data, progress=False).as_dict()
    (path / "assets").mkdir(exist_ok=True)
    (path / "assets" / "added").write_text("x")
    refused(lambda: lotcal_tf.measure_model(path, data), "--trust_saved_model")
    trusted = lotcal_tf.measure_model(path, data, trust_saved_model=True, progress=False)
    assert trusted.as_dict()


@pytest.mark.parametrize("name", ["/dev/zero", "../../../dev/zero", "saved_model/../../x"])
def test_the_record_of_an_export_names_no_other_files(name, tmp_path):
    path = tmp_path / "ticket.keras"
    archive(path, sequential(dense()))
    for record in (
        {"files": {}, "sha256": {name: "0"}},
        {"files": {"a": {"file": name, "bytes": 1}}},
    ):
        (tmp_path / PARITY).write_bytes(seal(record))
        refused(lambda: lotcal_tf.measure_model(path, test=DATA), PARITY)


@pytest.fixture(scope="module")
def tflite():
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Reshape((2, 2, 1)),
                              layers.Conv2D(2, 2, activation="relu"), layers.Flatten(),
                              layers.Dense(3, name="logits")])  # fmt: skip
    return convert(model)


def fuzzed(content, seed):
    """A file with one changed bit, or with several changed bytes; every fifth one is cut."""
    draw = np.random.default_rng(seed)
    found = bytearray(content)
    if seed % 5 == 0:
        return bytes(found[: draw.integers(len(found))])
    if seed % 5 < 3:
        found[draw.integers(8, len(found))] ^= 1 << draw.integers(8)
    else:
        for place in draw.integers(8, len(found), draw.integers(2, 6)):
            found[place] = draw.integers(256)
    return bytes(found)


@pytest.mark.full
@pytest.mark.parametrize("seeds", [range(n, n + 40) for n in range(0, 200, 40)])
def test_a_fuzzed_tflite_file_runs_or_is_refused(seeds, tflite, tmp_path, monkeypatch):
    monkeypatch.setattr(isolated, "SECONDS", 10.0)
    refusals = 0
    for seed in seeds:
        path = tmp_path / f"{seed}.tflite"
        path.write_bytes(fuzzed(tflite, seed))
        try:
            outputs = TFLiteRunner(path, 1, trusted=False)(ROWS)
            assert outputs.shape[:1] == (3,)
        except UsageError as error:
            assert len(str(error).splitlines()) == 1
            refusals += 1
    assert refusals > len(seeds) / 4


def with_shape(content, shape):
    """The file with another shape of its input."""
    from lotcal_tf.formats.tflite_file import flatbuffer

    model = flatbuffer.unpack(content)
    graph = model.subgraphs[0]
    tensor = graph.tensors[int(graph.inputs[0])]
    tensor.shape, tensor.shapeSignature = shape, None
    return flatbuffer.pack(model)


@pytest.mark.parametrize("shape", [[1 << 30, 4], [1, 1 << 30], [1 << 30, 1 << 30], [-5, 4], []])
def test_a_tflite_file_with_a_lying_shape_is_refused(shape, tflite, tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(with_shape(tflite, shape))
    refused(lambda: TFLiteRunner(path, 1, trusted=False), str(path))


def test_a_tflite_file_that_runs_without_end_is_ended(tflite, tmp_path, monkeypatch):
    path = tmp_path / "a.tflite"
    path.write_bytes(tflite)
    script = tmp_path / "endless.py"
    script.write_text("while True: pass")
    monkeypatch.setattr(isolated.interpreter_process, "__file__", str(script))
    monkeypatch.setattr(isolated, "SECONDS", 0.5)
    refused(lambda: TFLiteRunner(path, 1, trusted=False), "too long")


def test_evaluate_ends_with_code_2_for_a_file_that_ends_litert(
    tflite, tmp_path, capsys, monkeypatch
):
    path = tmp_path / "a.tflite"
    path.write_bytes(tflite)
    script = tmp_path / "crash.py"
    script.write_text("import os\nos.abort()")
    monkeypatch.setattr(isolated.interpreter_process, "__file__", str(script))
    assert "damaged" in ends_in_one_line(evaluate, capsys, f"--model={path}", "--dataset=digits")


def test_the_child_process_imports_no_tensorflow_and_nothing_of_the_working_directory(
    tflite, tmp_path
):
    (tmp_path / "here" / "evil.py").rename(tmp_path / "here" / "numpy.py")
    path = tmp_path / "a.tflite"
    path.write_bytes(tflite)
    expected = TFLiteRunner(path, 1)(ROWS)
    np.testing.assert_array_equal(TFLiteRunner(path, 1, trusted=False)(ROWS), expected)
    text = Path(isolated.interpreter_process.__file__).read_text()
    assert "import tensorflow" not in text
    (tmp_path / "here" / "numpy.py").rename(tmp_path / "here" / "evil.py")
