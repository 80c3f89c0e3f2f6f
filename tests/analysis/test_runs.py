"""Which runs are read, which belong together; hand-made directories, no training."""

import json

import numpy as np
import pytest

from lotcal_tf.analysis import runs
from lotcal_tf.analysis.runs import DIFFICULTY, read_run, read_runs
from lotcal_tf.errors import UsageError


def change(directory, **fields):
    path = directory / "experiment.json"
    whole = json.loads(path.read_text())
    whole["experiment"] |= fields
    path.write_text(json.dumps(whole))


def test_a_run_is_read(written_run):
    run = read_run(written_run("a", start=300_000, fields={"seed": 4}))
    assert (run.model, run.seed, run.difficulty, run.start) == (
        "lenet_300",
        4,
        None,
        300_000,
    )
    assert (run.examples, run.wrong_labels) == (6000, {"train": 0.18, "val": 0.18})
    assert run.weights[1] == 240_000
    assert run.error("train")[0] == pytest.approx(0)
    # An empty column has no value; a level that does not exist has none.
    assert np.isnan(run.columns["protected"]).all()
    assert run.metric("protected", 0) is run.metric("test_ece", None) is None
    assert run.metric("density", 1) == 0.8
    assert run.field("ece_bins") == 15, "a run older than a field has its default"
    # The curve: highest at 36 000, lowest at 6 000 weights; a level is a factor 0.8.
    found = run.descent
    assert 36_000 * 0.8 < run.weights[found.peak] < 36_000 / 0.8
    assert 6_000 * 0.8 < run.weights[found.best] < 6_000 / 0.8


def test_a_text_column_is_left_out(written_run):
    directory = written_run("a", levels=3)
    path = directory / "metrics.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line + "dense/kernel" for line in lines[1:])]))
    assert "protected" not in read_run(directory).columns


def test_difficulty_counts_only_where_it_applies(written_run):
    assert (
        read_run(written_run("a", fields={"source": "mixture_linear", DIFFICULTY: 3})).difficulty
        == 3.0
    )
    if DIFFICULTY in runs.FIELDS:
        assert (
            read_run(written_run("b", fields={"source": "mnist", DIFFICULTY: 2})).difficulty is None
        )


def test_runs_are_ordered_and_may_differ_in_network_seed_difficulty_and_places(written_run):
    mixture = {"source": "mixture_linear"}
    given = [
        written_run("a", start=300_000, fields={**mixture, DIFFICULTY: 2, "seed": 1}),
        written_run(
            "b", start=300_000, fields={**mixture, DIFFICULTY: 2, "seed": 0, "data_dir": "/there"}
        ),
        written_run(
            "c", start=90_000, fields={**mixture, DIFFICULTY: 2, "seed": 1, "plan": "graph"}
        ),
        written_run("d", start=300_000, fields={**mixture, DIFFICULTY: 1, "seed": 1}, levels=9),
    ]
    assert [run.directory.name for run in read_runs(given)] == ["d", "c", "b", "a"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"label_noise": 0.4}, "label_noise is 0.4, not 0.2"),
        ({"noise_kind": "symmetric"}, "noise_kind is symmetric, not uniform"),
        ({"source": "other"}, "source is other, not tiny"),
        ({"half": "a"}, "half is a, not whole"),
        ({"epochs": 3, "lr": 0.5}, "lr is 0.5, not 0.0012; epochs is 3, not 10"),
        ({"of_a_later_version": 1}, "of_a_later_version is 1, not None"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(written_run, fields, words):
    given = [written_run("a"), written_run("b", fields={"seed": 1, **fields})]
    with pytest.raises(UsageError, match=r"b cannot be compared with .*a: ") as refused:
        read_runs(given)
    assert str(refused.value).endswith(words)


def test_runs_from_other_starts_are_refused(written_run):
    given = [written_run("a"), written_run("b", fields={"seed": 1})]
    path = given[1] / "experiment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"content": {"ticket": "ab12"}}))
    with pytest.raises(UsageError, match="ticket differs"):
        read_runs(given)


def test_an_experiment_counts_once(written_run):
    first = written_run("a")
    with pytest.raises(UsageError, match=r"a and .*a are the same experiment"):
        read_runs([first, first])
    with pytest.raises(UsageError, match=r"b and .*a are the same experiment"):
        read_runs([first, written_run("b", fields={"plan": "xla"})])
    with pytest.raises(UsageError, match="no run is given"):
        read_runs([])


def test_an_unfinished_run_says_which_level_is_missing(written_run):
    directory = written_run("a", levels=9)
    change(directory, levels=12)
    with pytest.raises(UsageError, match="a is not finished: level 10 of 12 is missing"):
        read_run(directory)
    (directory / "metrics.csv").write_text("")
    with pytest.raises(UsageError, match="level 0 of 12 is missing"):
        read_run(directory)


def test_an_extended_run_is_read_whole(written_run):
    directory = written_run("a", levels=9)
    change(directory, levels=5)  # asked again for fewer, which are there
    assert len(read_run(directory).weights) == 10


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("experiment.json", None, "is not a run directory: it has no experiment.json"),
        ("experiment.json", "{", "is not a run's experiment.json"),
        ("experiment.json", "[]", "is not a run's experiment.json"),
        ("experiment.json", '{"experiment": {"levels": 1}}', "has no entry realised.examples.val"),
        ("metrics.csv", None, "cannot be read"),
        ("metrics.csv", "level,weights\n0,5\n1,4\n", "column density is missing, or"),
    ],
)
def test_invalid_runs_are_refused(written_run, name, content, words):
    directory = written_run("a", levels=1)
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_text(content)
    with pytest.raises(UsageError, match=words):
        read_run(directory)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("val_accuracy", "1.5", "val_accuracy has values outside"),
        ("weights", "0", "weights has values that are not above 0"),
        ("test_accuracy", "nan", "column test_accuracy is missing, or"),
        ("level", "0", "level 1 of 1 is missing"),
    ],
)
def test_impossible_metrics_are_refused(written_run, column, value, words):
    directory = written_run("a", levels=1)
    path = directory / "metrics.csv"
    head, first, last = (line.split(",") for line in path.read_text().splitlines())
    last[head.index(column)] = value
    path.write_text("\n".join(",".join(line) for line in (head, first, last)))
    with pytest.raises(UsageError, match=words):
        read_run(directory)
