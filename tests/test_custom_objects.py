"""Custom layers and functions that are not registered: refused before training, or passed everywhere."""

import numpy as np
import pytest

from lotcal_tf import api, evaluate, export, train
from lotcal_tf.compat import keras
from lotcal_tf.config import custom
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.metrics import measure

L = keras.layers
MODULE = """
import tensorflow as tf
from lotcal_tf.compat import keras

class Twice(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs

def soft(x):
    return tf.nn.softplus(x)
"""
FLAG = "--custom_objects=twice_layers:Twice,twice_layers:soft"
QUICK = {"epochs": 1, "levels": 1, "batch_size": 100, "plan": "graph", "progress": False}


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """A module with a layer and a function on the path; its objects by name."""
    place = tmp_path_factory.mktemp("module")
    (place / "twice_layers.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        yield custom.load_custom_objects(FLAG.partition("=")[2])


def model_of(objects):
    inner = keras.Sequential([keras.Input((8, 4)), L.TimeDistributed(objects["Twice"]())])
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Reshape((8, 8)),
            L.Dense(4, objects["soft"]),
            inner,
            objects["Twice"](),
            L.Flatten(),
            L.Dense(10),
        ]
    )


DRAW = np.random.default_rng(0)
DATA = (DRAW.uniform(0, 16, (300, 8, 8, 1)).astype("float32"), DRAW.integers(0, 10, 300))


@pytest.fixture(scope="module")
def run(objects, tmp_path_factory):
    out = tmp_path_factory.mktemp("custom") / "run"
    return api.find_tickets(model_of(objects), DATA, DATA, out=out, custom_objects=objects, **QUICK)


def test_what_is_not_registered_is_refused_before_training(objects, tmp_path):
    with pytest.raises(UsageError, match=r"function 'soft' is not registered.*custom_objects"):
        api.find_tickets(model_of(objects), DATA, out=tmp_path / "run", **QUICK)
    half = {"soft": objects["soft"]}
    with pytest.raises(UsageError, match=r"\(Twice\).*class 'Twice' is not registered"):
        api.find_tickets(
            model_of(objects), DATA, out=tmp_path / "run", custom_objects=half, **QUICK
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [["Twice"], {1: 2}, "Twice"])
def test_custom_objects_are_a_dictionary_by_name(given, tmp_path):
    with pytest.raises(UsageError, match="custom_objects must be a dictionary"):
        api.measure_model(tmp_path, custom_objects=given)


@pytest.mark.full
def test_tickets_of_a_run_have_its_custom_objects(run, objects):
    inputs = DATA[0][:5].astype("float32")
    logits = run.selected.model()(inputs).numpy()
    loaded = api.load_ticket(run.directory / "tickets/level_01", objects)
    np.testing.assert_array_equal(loaded.model()(inputs), logits)
    assert loaded.network().count_params() == run.selected.network().count_params()
    with pytest.raises(UsageError, match="is not registered"):
        api.load_ticket(run.directory / "tickets/level_01").model()
    # Nothing stays registered.
    assert keras.saving.get_registered_object("Twice") is None


@pytest.mark.full
@pytest.mark.parametrize("kind", ["run", "ticket", "path"])
def test_exports_and_measurements_of_the_library(run, objects, tmp_path, kind):
    given = {"run": run, "ticket": run.selected, "path": run.directory}[kind]
    extra = {"custom_objects": objects} if kind == "path" else {}
    formats = ["keras", "saved_model", "float32"]
    done = api.export_ticket(given, tmp_path / "e", DATA, formats=formats, seconds=0, **extra)
    inputs, labels = DATA
    logits = run.selected.model()(inputs).numpy()
    scaled = logits / run.selected.record["temperature"]  # in files, part of the weights
    for file in done.files.values():
        found = api.measure_model(file, DATA, custom_objects=objects)
        assert found.metrics["nll"] == pytest.approx(measure(labels, scaled)["nll"], rel=1e-4)
    if kind != "ticket":
        found = api.measure_model(given, DATA, **extra)
        assert found.metrics["nll"] == pytest.approx(measure(labels, logits)["nll"], rel=1e-4)
    with pytest.raises(UsageError, match="is not registered"):
        api.measure_model(done.files["keras"], DATA)


@pytest.mark.full
def test_the_commands(run, objects, call_command, tmp_path):
    ticket = run.directory / "tickets" / "level_01"
    data = "--dataset=digits"
    stored = call_command(evaluate, f"--model={ticket}")
    assert stored.code == 0, stored.err
    measured = call_command(evaluate, f"--model={ticket}", data, FLAG)
    assert measured.code == 0, measured.err
    refused = call_command(evaluate, f"--model={ticket}", data)
    assert refused.code == 2 and "is not registered" in refused.err[-1]
    done = call_command(
        export, f"--run={run.directory}", data, FLAG, "--formats=keras", "--seconds=0",
        f"--out={tmp_path / 'e'}",
    )  # fmt: skip
    assert done.code == 0, done.err
    flags = [f"--ticket={ticket}", data, "--levels=1", "--epochs=1", f"--out={tmp_path / 'run'}"]
    refused = call_command(train, *flags)
    assert refused.code == 2 and "is not registered" in refused.err[-1]
    assert not (tmp_path / "run").exists()
    trained = call_command(train, *flags, FLAG)
    assert trained.code == 0, trained.err


@pytest.mark.parametrize("value", ["Twice", "a:", ":b", "a:B,", "", "a b:C", "a:B;c:D"])
def test_the_flag_names_modules_and_classes(value):
    with pytest.raises(FieldError, match="^custom_objects(=|:).*module:Class"):
        custom.check_custom_objects(value)


@pytest.mark.parametrize("value", [None, "a:B", "a.b:C.D, e:f"])
def test_valid_flags(value):
    custom.check_custom_objects(value)


def test_what_cannot_be_imported_is_refused():
    with pytest.raises(FieldError, match="^custom_objects=no_such_module:A: cannot be imported"):
        custom.load_custom_objects("no_such_module:A")


@pytest.mark.parametrize("module", ["train", "evaluate", "export"])
def test_a_wrong_flag_is_reported_without_tensorflow(at_once, module, digits_run):
    needed = {
        "evaluate": [f"--model={digits_run.directory}"],
        "export": [f"--run={digits_run.directory}"],
    }
    done = at_once(f"lotcal_tf.{module}", *needed.get(module, []), "--custom_objects=Twice")
    assert done.code == 2
    assert len(done.err) == 1 and "--custom_objects=Twice" in done.err[0]


def test_files_of_others_run_no_code(tmp_path):
    path = tmp_path / "old.keras"
    keras.Sequential([keras.Input((3,)), L.Lambda(lambda x: x)]).save(path, save_format="h5")
    with pytest.raises(UsageError, match="cannot be loaded as a Keras file"):
        api.measure_model(path, (np.zeros((4, 3), "float32"), np.arange(4) % 3))
    keras.Sequential([keras.Input((3,)), L.Lambda(lambda x: x, name="mine")]).save(path)
    with pytest.raises(UsageError, match=r"'mine' \(Lambda\)"):
        api.measure_model(path, (np.zeros((4, 3), "float32"), np.arange(4) % 3))
