"""The identity of a model in a file, and of a Keras 3 model."""

import shutil

import keras as keras3
import numpy as np
import pytest

from lotcal_tf import api
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.recipes import recipe_directory, resolve
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.run import run_experiment
from lotcal_tf.lottery.task import GivenModelTask, GivenTask
from lotcal_tf.models.given import GivenModel

DRAW = np.random.default_rng(0)
DATA = DRAW.normal(size=(40, 4)).astype("float32"), DRAW.integers(0, 3, 40)


def network(found, units=10, **names):
    """For the digits; layers are named by Keras."""
    found.utils.set_random_seed(3)
    given = found.Input((8, 8, 1))
    x = found.layers.Flatten()(given) * 0.0625
    return found.Model(given, found.layers.Dense(units)(x), **names)


def task_of(path, **fields):
    return GivenModelTask(resolve({"dataset": "digits", "model": str(path)} | fields))


@pytest.mark.parametrize("found", [keras, keras3])
def test_a_run_depends_on_the_content_of_a_file_and_not_on_its_place(found, tmp_path):
    model = network(found)
    model.save(tmp_path / "a.keras")

    def run_id(path):
        task = task_of(path)
        return task.experiment.run_id(**task.content)

    first = run_id(tmp_path / "a.keras")
    (tmp_path / "b").mkdir()
    shutil.move(tmp_path / "a.keras", tmp_path / "b" / "c.keras")
    assert run_id(tmp_path / "b" / "c.keras") == first
    network(found).save(tmp_path / "again.keras")  # layers have other names
    assert run_id(tmp_path / "again.keras") == first
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 1.5)
    model.save(tmp_path / "a.keras")
    assert run_id(tmp_path / "a.keras") != first


def test_a_keras3_model_built_again_is_the_same(tmp_path):
    def experiment():
        keras3.utils.set_random_seed(3)
        given = keras3.Input((4,))
        trunk = keras3.Sequential([keras3.layers.Dense(5, activation="relu")])
        model = keras3.Model(given, keras3.layers.Dense(3)(trunk(given + 1.0)))
        task = GivenTask(Experiment(), GivenModel.of(model), DATA, DATA)
        return task.experiment.model, task.content

    assert experiment() == experiment()


def test_seeds_of_initialisers_do_not_change_the_architecture(tmp_path):
    def task(seed, units=10):
        init = keras.initializers.GlorotUniform(seed=seed)
        layers = [keras.layers.Flatten(), keras.layers.Dense(units, kernel_initializer=init)]
        keras.Sequential([keras.Input((8, 8, 1)), *layers], name="own").save(tmp_path / "a.keras")
        return task_of(tmp_path / "a.keras")

    first, second, other = task(1), task(2), task(1, units=11)
    assert first.experiment.model == second.experiment.model != other.experiment.model
    assert first.content != second.content


@pytest.mark.parametrize(("units", "words"), [(9, "9 outputs.*10 classes"), (10, None)])
def test_the_outputs_of_a_file_are_the_classes_of_the_data(units, words, tmp_path):
    network(keras3, units).save(tmp_path / "a.keras")
    fields = {"model": str(tmp_path / "a.keras"), "epochs": 1, "levels": 1, "plan": "graph"}
    experiment = resolve(fields | {"out": str(tmp_path / "run")})
    if words is None:
        assert run_experiment(experiment, progress=False).found == 0
        return
    with pytest.raises(UsageError, match=words):
        run_experiment(experiment, progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"initializer": "kaiming_normal"},
        {"input_mean": (0.5,), "input_std": (1.0,)},
        {"precision": "mixed_bfloat16"},
        {"calib": "vwcc", "dropout_rate": 0.2},
        {"calib": "vwcc", "dropout_at": "head"},
    ],
    ids=lambda fields: list(fields)[-1],
)
def test_fields_of_built_in_networks_are_refused_beside_a_model(fields, tmp_path):
    network(keras3).save(tmp_path / "a.keras")
    with pytest.raises(FieldError, match="built-in") as refused:
        task_of(tmp_path / "a.keras", **fields)
    assert refused.value.field in fields
    with pytest.raises(FieldError, match="built-in"):
        api.find_tickets(network(keras), dataset="digits", out=tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()


def test_recipes_may_set_fields_of_built_in_networks():
    fields = resolve({"dataset": "folder"}), resolve({"dataset": "folder"}, own_model=True)
    assert [f.initializer for f in fields] == ["kaiming_normal", "glorot_normal"]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FieldError, match="missing.keras: there is no such file"):
        task_of(tmp_path / "missing.keras")


@pytest.mark.parametrize("found", [keras, keras3])
def test_a_model_on_named_data_is_the_experiment_of_its_file(found, tmp_path):
    model = network(found, name="mine")
    model.save(tmp_path / "a.keras")
    fields = {"dataset": "digits", "epochs": 1, "levels": 1, "plan": "graph", "progress": False}
    run = api.find_tickets(model, out=tmp_path / "run", **fields)
    assert run.ticket(1).density < 1
    again = api.find_tickets(tmp_path / "a.keras", out=tmp_path / "run", **fields)
    assert again.found == 2
    recipe = api.find_tickets(
        model, out=tmp_path / "run", config=recipe_directory() / "digits.toml",
        **{name: value for name, value in fields.items() if name != "dataset"},
    )  # fmt: skip
    assert recipe.found == 2
    # What is measured is the test split of the named data.
    assert api.measure_model(run).metrics["accuracy"] == pytest.approx(
        run.selected.record["test_accuracy"]
    )


def test_a_model_on_images_in_folders(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for place in range(10):
            image = np.full((8, 8, 1), 100 * number + place, "uint8")
            keras.utils.save_img(tmp_path / "photos" / name / f"{place}.png", image, scale=False)
    fields = {"epochs": 1, "levels": 1, "plan": "graph", "progress": False, "batch_size": 4}
    fields["exclude_output"] = False  # the recipe's True would leave nothing to prune
    run = api.find_tickets(
        network(keras, 2),
        dataset="folder",
        data_dir=tmp_path / "photos",
        out=tmp_path / "run",
        **fields,
    )
    done = api.export_ticket(run, formats=["float32"], seconds=0)
    assert (done.directory / "labels.txt").read_text().split() == ["cat", "dog"]
    with pytest.raises(UsageError, match="10 outputs.*2 classes"):
        api.find_tickets(
            network(keras, 10), dataset="folder", data_dir=tmp_path / "photos", out=tmp_path / "b"
        )
    assert not (tmp_path / "b").exists()


def test_a_ticket_brings_its_model(tmp_path):
    with pytest.raises(FieldError, match="determined by the ticket") as refused:
        api.find_tickets(network(keras), dataset="digits", ticket=tmp_path)
    assert refused.value.field == "model"
