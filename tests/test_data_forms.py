"""Data in the forms people have it, through the library and the commands, from training to export."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import lotcal_tf
from lotcal_tf import api, evaluate, export, train
from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.lottery.task import TicketTask

QUICK = {"epochs": 1, "levels": 1, "batch_size": 10, "progress": False, "plan": "graph"}
X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
Y = np.arange(60) % 3
FORMS = {
    "numbers": (X, Y),
    "a column": (X, Y[:, None]),
    "floats": (X, Y.astype(float)),
    "one-hot": (X, np.eye(3)[Y]),
    "pipeline": tf.data.Dataset.from_tensor_slices((X, Y)),
    "batches": tf.data.Dataset.from_tensor_slices((X, Y)).batch(7),
    "batches of one-hot labels": tf.data.Dataset.from_tensor_slices((X, np.eye(3)[Y])).batch(7),
}


def dense():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(3)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("forms") / "run"
    return api.find_tickets(dense(), (X, Y), (X, Y), out=out, **QUICK)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_continues_the_same_run(run, form):
    data = FORMS[form]
    again = api.find_tickets(dense(), data, data, out=run.directory, **QUICK)
    assert again.found == 2, "another form of the same data must be the same run"


EXPORT = {"formats": ["float32", "int8"], "seconds": 0}


@pytest.fixture(scope="module")
def plain(run, tmp_path_factory):
    """The metrics and the files of the last level on a pair of arrays."""
    out = tmp_path_factory.mktemp("plain") / "out"
    exported = api.export_ticket(run, out, (X, Y), (X, Y), **EXPORT)
    metrics = api.measure_model(run.directory / "tickets" / "level_01", (X, Y)).metrics
    return metrics, {name: path.read_bytes() for name, path in exported.files.items()}


@pytest.mark.full
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_measured_and_exported_alike(run, plain, form, tmp_path):
    data, (metrics, files) = FORMS[form], plain
    measured = api.measure_model(run.directory / "tickets" / "level_01", data)
    assert measured.metrics == metrics
    exported = api.export_ticket(run, tmp_path / "out", data, data, **EXPORT)
    assert exported.examples == 60
    assert {name: path.read_bytes() for name, path in exported.files.items()} == files


def test_what_training_refuses_is_refused_everywhere(run, tmp_path):
    level = run.directory / "tickets" / "level_01"
    for wrong, words in (
        ((X, Y + 1), "label 3: labels must be 0 … 2"),
        ({"x": X, "y": Y}, "dictionary with the keys 'x', 'y'"),
        (FORMS["pipeline"].shuffle(60), "another order"),
        (FORMS["batches"].batch(2), "single or in batches"),
    ):
        with pytest.raises(UsageError, match=f"train.*{words}"):
            api.find_tickets(dense(), wrong, out=tmp_path / "run", **QUICK)
        with pytest.raises(UsageError, match=f"test.*{words}"):
            api.measure_model(level, wrong)
        with pytest.raises(UsageError, match=f"test.*{words}"):
            api.export_ticket(run, tmp_path / "out", wrong, formats=["float32"], seconds=0)
        with pytest.raises(UsageError, match=f"validation.*{words}"):
            api.export_ticket(run, tmp_path / "out", (X, Y), wrong, seconds=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [0, 100])
def test_a_stream_in_a_new_order_at_each_reading_is_refused(tmp_path, limit):
    data = FORMS["pipeline"].shuffle(60)
    with pytest.raises(UsageError, match=r"another order.*reshuffle_each_iteration=False"):
        api.find_tickets(dense(), data, memory_limit_mb=limit, out=tmp_path / "run", **QUICK)
    assert not list(tmp_path.iterdir())
    data = FORMS["pipeline"].shuffle(60, seed=3, reshuffle_each_iteration=False)
    run = api.find_tickets(dense(), data, memory_limit_mb=limit, out=tmp_path / "run", **QUICK)
    splits = run.load().named_splits()
    rows = [
        x.numpy().tobytes() for split in splits.values() for b in split.in_order(9) for x in b[0]
    ]
    assert len(rows) == len(set(rows)) == 60, "a validation example is trained on"
    assert set(rows) == {x.tobytes() for x in X}


# Images in folders


def images(directory, **options):
    return keras.utils.image_dataset_from_directory(
        directory, image_size=(6, 5), batch_size=16, **options
    )


def convolutional():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
    return keras.Sequential([keras.Input((6, 5, 3)), *layers, keras.layers.Dense(3)])


def test_a_pipeline_of_keras_brings_its_class_names(make_source, tmp_path):
    directory = make_source("folder")
    with pytest.raises(UsageError, match="another order.*shuffle=False"):
        api.find_tickets(convolutional(), images(directory), out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()
    data = images(directory, shuffle=False)
    run = api.find_tickets(convolutional(), data, out=tmp_path / "run", **QUICK)
    record = RunStore(run.directory).experiment()["realised"]
    assert record["class_names"] == ["cat", "dog", "eel"]
    assert record["examples"] == {"train": 108, "val": 12}
    assert run.selected.class_names == ("cat", "dog", "eel")


FLAGS = {"model": "lenet_4", "epochs": 1, "levels": 1, "plan": "graph"}


@pytest.fixture(autouse=True)
def one_file(monkeypatch):
    """The train command exports one file only: `export` is called where files are the subject."""
    monkeypatch.setattr(train, "FORMATS", ("keras",))


def flags(source, directory, **more):
    given = FLAGS | {"dataset": source, "data_dir": directory} | more
    return [f"--{name}={value}" for name, value in given.items()]


@pytest.mark.full
@pytest.mark.parametrize("source", ["folder", "table", "hf"])
def test_files_are_trained_on_measured_and_exported_by_the_commands(
    source, make_source, tmp_path, call_command
):
    directory, run = make_source(source), tmp_path / "run"
    done = call_command(train, *flags(source, directory, out=run))
    assert done.code == 0, done.err
    record = RunStore(run).experiment()
    names = {"folder": ["cat", "dog", "eel"]}.get(source, ["0", "1", "2"])
    assert record["realised"]["class_names"] == names
    assert record["realised"]["examples"]["test"] == 24
    assert set(record["content"]) == {"data"}
    assert lotcal_tf.load_ticket(run / "tickets" / "level_01").class_names == tuple(names)
    # On the same files by another path, a ticket is measured as it was stored.
    copy = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}_copy"))
    moved = directory.replace(str(tmp_path), str(copy))
    kept = api.measure_model(run)
    again = api.measure_model(run, data_dir=moved)
    assert (kept.stored, again.stored, again.examples) == (True, False, 24)
    assert again.metrics["nll"] == pytest.approx(kept.metrics["nll"], rel=1e-5)
    assert call_command(evaluate, f"--model={run}", f"--data_dir={moved}").code == 0
    assert call_command(export, f"--run={run}", "--formats=int8").code == 0
    # The same command continues, from the other path as well.
    done = call_command(train, *flags(source, moved, out=run))
    assert done.code == 0 and "is finished: 2 levels" in done.out


def test_files_that_changed_are_another_run_and_are_not_exported_or_measured_on(
    make_source, tmp_path, call_command
):
    directory, run = make_source("folder"), tmp_path / "run"
    assert call_command(train, *flags("folder", directory, out=run)).code == 0
    first = next((tmp_path / "images" / "cat").iterdir())
    first.rename(tmp_path / "images" / "dog" / first.name)
    done = call_command(train, *flags("folder", directory, out=run))
    assert done.code == 2
    assert "holds another run" in done.err[-1] and "data" in done.err[-1]
    for command, *given in (
        (export, f"--run={run}", "--formats=int8"),
        (export, f"--run={run}", "--formats=int8", f"--data_dir={directory}"),
        (evaluate, f"--model={run}", "--shift=blur"),
        (evaluate, f"--model={run}", "--shift=blur", "--dataset=folder"),
        (evaluate, f"--model={run}", "--record", "--shift=blur"),
    ):
        done = call_command(command, *given)
        assert done.code == 2
        assert "has changed since the run" in done.err[-1]
    # The stored predictions are still those of the run.
    assert call_command(evaluate, f"--model={run}").code == 0


def test_wrong_files_end_the_command_with_nothing_written(make_source, tmp_path, call_command):
    directory, run = make_source("folder"), tmp_path / "run"
    (tmp_path / "images" / "cat" / "000.png").write_bytes(b"broken")
    for more, words in (
        ({}, "cat/000.png cannot be read"),
        ({"image_size": "1,2,3"}, "--image_size=1,2,3: must be a height and a width"),
        ({"test_size": 119}, "--test_size=119: there are 120 examples"),
        ({"label_column": "y"}, "--label_column=y: applies only with --dataset=table or hf"),
        ({"data_dir": f"{directory}/cat"}, f"--data_dir={directory}"),
    ):
        done = call_command(train, *flags("folder", directory, out=run, **more))
        assert (done.code, len(done.err)) == (2, 1), done.err
        assert words in done.err[0]
    assert not run.exists()


@pytest.mark.parametrize(
    ("source", "needs"), [("folder", "per class"), ("table", ".csv"), ("hf", "save_to_disk")]
)
def test_a_missing_directory_is_reported_at_once(source, needs, at_once):
    for more in ([], ["--data_dir=/absent"]):
        done = at_once("lotcal_tf.train", f"--dataset={source}", *more)
        assert done.code == 2
        assert len(done.err) == 1
        assert "--data_dir" in done.err[0] and needs in done.err[0]


def test_a_ticket_on_files_depends_on_both(make_source, tmp_path, call_command):
    directory, run = make_source("folder"), tmp_path / "run"
    assert call_command(train, *flags("folder", directory, out=run)).code == 0
    level = run / "tickets" / "level_01"
    given = {"dataset": "folder", "source": "folder", "data_dir": directory, "ticket": str(level)}
    task = TicketTask(api.Experiment(**given, levels=0))
    data = json.loads((run / "experiment.json").read_text())["content"]["data"]
    assert task.content == {"ticket": lotcal_tf.load_ticket(level).digest, "data": data}
