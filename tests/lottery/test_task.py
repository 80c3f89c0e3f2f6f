"""The identity of a model in a file, and of a Keras 3 model."""

import shutil

import keras as keras3
import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.config.recipes import resolve
from lotcal_tf.data.arrays import from_arrays
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.run import run_experiment
from lotcal_tf.lottery.task import FileTask, GivenTask

DRAW = np.random.default_rng(0)
DATA = DRAW.normal(size=(40, 4)).astype("float32"), DRAW.integers(0, 3, 40)


def network(found, units=10, **names):
    """For the digits; layers are named by Keras."""
    found.utils.set_random_seed(3)
    given = found.Input((8, 8, 1))
    x = found.layers.Flatten()(given) * 0.0625
    return found.Model(given, found.layers.Dense(units)(x), **names)


def task_of(path, **fields):
    return FileTask(resolve({"dataset": "digits", "model": str(path)} | fields))


@pytest.mark.parametrize("found", [keras, keras3])
def test_a_run_depends_on_the_content_of_a_file_and_not_on_its_place(found, tmp_path):
    model = network(found)
    model.save(tmp_path / "a.keras")
    first = task_of(tmp_path / "a.keras").experiment
    (tmp_path / "b").mkdir()
    shutil.move(tmp_path / "a.keras", tmp_path / "b" / "c.keras")
    assert task_of(tmp_path / "b" / "c.keras").experiment.run_id() == first.run_id()
    network(found).save(tmp_path / "again.keras")  # layers have other names
    assert task_of(tmp_path / "again.keras").experiment.run_id() == first.run_id()
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 1.5)
    model.save(tmp_path / "a.keras")
    assert task_of(tmp_path / "a.keras").experiment.run_id() != first.run_id()


def test_a_keras3_model_built_again_is_the_same(tmp_path):
    def experiment():
        keras3.utils.set_random_seed(3)
        given = keras3.Input((4,))
        trunk = keras3.Sequential([keras3.layers.Dense(5, activation="relu")])
        model = keras3.Model(given, keras3.layers.Dense(3)(trunk(given + 1.0)))
        dataset = from_arrays(DATA, DATA, classes=3, validation_size=None, seed=0)
        return GivenTask(resolve({}), model, dataset).experiment.model

    assert experiment() == experiment()


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


def test_fields_of_built_in_networks_are_refused_beside_a_file(tmp_path):
    network(keras3).save(tmp_path / "a.keras")
    with pytest.raises(FieldError, match="initializer=.*built-in"):
        task_of(tmp_path / "a.keras", initializer="kaiming_normal")
    with pytest.raises(FieldError, match="missing.keras: there is no such file"):
        task_of(tmp_path / "missing.keras")
