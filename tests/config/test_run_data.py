"""Which data a model is measured or exported on, by the names of fields alone."""

import json

import pytest

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.run_data import (
    DATA_FIELDS,
    check_model,
    data_experiment,
    recorded_fields,
    unseen_dir,
    unseen_experiment,
)
from lotcal_tf.errors import FieldError, UsageError


def write_run(directory, **fields):
    """A directory with the record of a run, and the places of its models."""
    for place in ("tickets/level_01", "export/saved_model"):
        (directory / place).mkdir(parents=True)
    (directory / "tickets" / "level_01" / "ticket.json").touch()
    (directory / "export" / "saved_model" / "saved_model.pb").touch()
    (directory / "export" / "ticket.tflite").touch()
    record = Experiment(**{"source": "digits", "seed": 3, "ece_bins": 7} | fields).as_dict()
    (directory / "experiment.json").write_text(json.dumps({"experiment": record}))
    return directory


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", validation_size=50)


PLACES = [".", "tickets/level_01", "export/ticket.tflite", "export/saved_model"]


@pytest.mark.parametrize("place", PLACES)
def test_what_lies_in_a_run_finds_its_fields(run, place, monkeypatch):
    check_model(run / place)
    assert recorded_fields(run / place)["validation_size"] == 50
    monkeypatch.chdir(run / "tickets")
    assert recorded_fields(run.relative_to(run.parent).parent / "level_01")["seed"] == 3


def test_what_lies_elsewhere_finds_none(run, tmp_path):
    lone = tmp_path / "lone.tflite"
    lone.touch()
    assert recorded_fields(lone) == {}
    with pytest.raises(UsageError, match="^dataset is missing: .*is not in a run directory"):
        data_experiment(lone, {"ece_bins": 3})
    named = data_experiment(lone, {"dataset": "digits", "ece_bins": "3"})
    assert (named.source, named.ece_bins, named.seed) == ("digits", 3, 0)


def test_a_record_that_cannot_be_read_is_named(run):
    for text, fails in [("{", True), ("[1]", True), ('{"run_id": "old"}', False)]:
        (run / "experiment.json").write_text(text)
        if fails:
            with pytest.raises(UsageError, match=r"experiment\.json cannot be read"):
                recorded_fields(run)
        else:
            assert recorded_fields(run) == {}


def test_the_runs_own_data_keeps_all_that_is_not_given(run):
    own = data_experiment(run, {})
    assert (own.dataset, own.validation_size, own.seed, own.ece_bins) == ("digits", 50, 3, 7)
    given = data_experiment(run, {"dataset": "digits", "seed": "3", "ece_bins": "9"})
    assert (given.validation_size, given.seed, given.ece_bins) == (50, 3, 9)


@pytest.mark.parametrize("field", ["seed", "validation_size"])
def test_the_runs_own_data_is_not_divided_otherwise(run, field):
    with pytest.raises(FieldError, match=f"^{field}=4: is (3|50) in the run"):
        data_experiment(run, {field: "4"})
    assert data_experiment(run, {"dataset": "mnist", "seed": "4"}).seed == 4


def test_the_source_of_the_run_is_its_data_whatever_names_it(run, tmp_path):
    """A flag or a recipe can repeat the run's fields, and not change what it measures."""
    own = data_experiment(run, {})
    recipe = tmp_path / "mine.toml"
    for text in ("", "validation_size = 50\nepochs = 3\naugment = 'crop_flip'\n"):
        recipe.write_text(f"source = 'digits'\n{text}")
        for given, config in [({"source": "digits"}, None), ({}, str(recipe))]:
            found = data_experiment(run, given, config)
            assert found == own
    for line in ("validation_size = 200", "half = 'a'", "classes = [0, 1]", "label_noise = 0.5"):
        recipe.write_text(f"source = 'digits'\n{line}\n")
        with pytest.raises(FieldError, match=f"^{line.partition(' ')[0]}=.* in the run"):
            data_experiment(run, {}, str(recipe))
    with pytest.raises(FieldError, match="^seed=4: is 3 in the run"):
        data_experiment(run, {"source": "digits", "seed": "4"})


def test_a_recipe_of_the_source_of_a_run_with_another_name_is_compared(tmp_path):
    run = write_run(tmp_path / "run", dataset="mine", source="mnist:3.0.1", validation_size=50)
    assert data_experiment(run, {"source": "mnist"}).validation_size == 50
    with pytest.raises(FieldError, match="^validation_size=5000: is 50 in the run"):
        data_experiment(run, {"dataset": "mnist"})
    assert data_experiment(run, {"dataset": "fashion_mnist"}).validation_size == 5000


@pytest.mark.parametrize(("source", "place"), [("folder", "images"), ("table", "t.csv")])
def test_files_of_the_run_are_its_data_where_they_lie(tmp_path, monkeypatch, source, place):
    given = {"dataset": "mine", "source": source, "data_dir": str(tmp_path / place)}
    run = write_run(tmp_path / "run", **given, test_size=7)
    recipe = tmp_path / "mine.toml"
    monkeypatch.chdir(tmp_path)
    for data_dir in (None, place, f"./{place}", str(tmp_path / place)):
        named = {} if data_dir is None else {"data_dir": data_dir}
        assert data_experiment(run, {"source": source} | named).test_size == 7
        recipe.write_text(f"source = '{source}'\ntest_size = 9\n")
        with pytest.raises(FieldError, match="^test_size=9: is 7 in the run"):
            data_experiment(run, named, str(recipe))
    other = data_experiment(run, {"data_dir": "elsewhere"}, str(recipe))
    assert (other.data_dir, other.test_size) == ("elsewhere", 9)


def test_unseen_data_is_not_looked_for_in_the_own_files_of_a_run(tmp_path):
    run = write_run(tmp_path / "run", dataset="mine", source="folder", data_dir="/mine")
    own = data_experiment(run, {}, unseen=True)
    assert (own.data_dir, unseen_dir(own, {})) == ("/mine", None)
    given = {"data_dir": "/tfds"}
    own = data_experiment(run, given, unseen=True)
    assert (own.data_dir, unseen_dir(own, given)) == ("/mine", "/tfds")
    # Other own files take the directory for themselves.
    own = data_experiment(run, {"source": "table", "data_dir": "/t.csv"}, unseen=True)
    assert (own.data_dir, unseen_dir(own, {"data_dir": "/t.csv"})) == ("/t.csv", None)


@pytest.mark.parametrize("kind", ["recipe", "source", "config"])
def test_other_data_keeps_the_draw_and_the_bins(run, tmp_path, kind):
    (tmp_path / "mine.toml").write_text("source = 'fog'\n")
    given, config, dataset = {
        "recipe": ({"dataset": "mnist"}, None, "mnist"),
        "source": ({"source": "fog"}, None, "fog"),
        "config": ({}, str(tmp_path / "mine.toml"), "mine"),
    }[kind]
    found = data_experiment(run, given, config)
    assert (found.dataset, found.seed, found.ece_bins) == (dataset, 3, 7)
    assert found.validation_size != 50


def test_data_that_was_passed_as_objects_must_be_named(tmp_path):
    run = write_run(tmp_path / "run", dataset="own", source="0123456789")
    with pytest.raises(UsageError, match="^dataset is missing: .*passed as objects.*--dataset"):
        data_experiment(run, {})
    assert data_experiment(run, {"dataset": "digits"}).seed == 3


@pytest.mark.parametrize(
    "given", [{}, {"dataset": "digits"}, {"source": "digits"}, {"dataset": "mixture_xor"}]
)
def test_a_data_dir_without_a_meaning_is_refused_unless_unseen_data_is_read(run, given):
    given = given | {"data_dir": "x"}
    with pytest.raises(FieldError, match="^data_dir=x: applies only with"):
        data_experiment(run, given)
    found = data_experiment(run, given, unseen=True)
    assert found.data_dir == "x"
    assert unseen_dir(found, given) == "x"
    assert unseen_experiment("fog", found, given).data_dir == "x"
    assert unseen_experiment("mnist", found, given).dataset == "mnist"


def test_fields_of_data_are_known_by_their_section():
    assert {"dataset", "source", "data_dir", "half", "label_noise", "seed"} <= {*DATA_FIELDS}
    assert not {"model", "epochs", "levels", "out", "calib"} & {*DATA_FIELDS}


def test_what_is_not_a_model_is_refused_by_its_name(tmp_path):
    with pytest.raises(UsageError, match="no such file or directory"):
        check_model(tmp_path / "absent")
    with pytest.raises(UsageError, match="is not a model: give a .keras file, .*level_NN, or RUN"):
        check_model(tmp_path)
