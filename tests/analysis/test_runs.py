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


def test_a_run_is_read(run):
    chain = read_run(run("a", start=300_000, fields={"seed": 4}))
    assert (chain.model, chain.seed, chain.difficulty, chain.start) == (
        "lenet_300",
        4,
        None,
        300_000,
    )
    assert (chain.examples, chain.wrong_labels) == (6000, {"train": 0.18, "val": 0.18})
    assert chain.weights[1] == 240_000
    assert chain.error("train")[0] == pytest.approx(0)
    # An empty column holds no figure; a level that is not there has none.
    assert np.isnan(chain.columns["protected"]).all()
    assert chain.figure("protected", 0) is chain.figure("test_ece", None) is None
    assert chain.figure("density", 1) == 0.8
    assert chain.field("ece_bins") == 15, "a run older than a field has its default"
    # The curve: highest at 36 000, lowest at 6 000 weights; a level is a factor 0.8.
    found = chain.descent
    assert 36_000 * 0.8 < chain.weights[found.peak] < 36_000 / 0.8
    assert 6_000 * 0.8 < chain.weights[found.best] < 6_000 / 0.8


def test_a_text_column_is_left_out(run):
    directory = run("a", levels=3)
    path = directory / "metrics.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line + "dense/kernel" for line in lines[1:])]))
    assert "protected" not in read_run(directory).columns


def test_difficulty_counts_only_where_it_means_something(run):
    assert read_run(run("a", fields={"source": "mixture", DIFFICULTY: 3})).difficulty == 3.0
    if DIFFICULTY in runs.FIELDS:
        assert read_run(run("b", fields={"source": "mnist", DIFFICULTY: 2})).difficulty is None


def test_runs_are_ordered_and_may_differ_in_network_seed_difficulty_and_places(run):
    mixture = {"source": "mixture"}
    given = [
        run("a", start=300_000, fields={**mixture, DIFFICULTY: 2, "seed": 1}),
        run("b", start=300_000, fields={**mixture, DIFFICULTY: 2, "seed": 0, "data_dir": "/there"}),
        run("c", start=90_000, fields={**mixture, DIFFICULTY: 2, "seed": 1, "plan": "graph"}),
        run("d", start=300_000, fields={**mixture, DIFFICULTY: 1, "seed": 1}, levels=9),
    ]
    assert [chain.directory.name for chain in read_runs(given)] == ["d", "c", "b", "a"]


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
def test_runs_that_do_not_belong_together_are_refused(run, fields, words):
    given = [run("a"), run("b", fields={"seed": 1, **fields})]
    with pytest.raises(UsageError, match=r"b does not belong to .*a: ") as refused:
        read_runs(given)
    assert str(refused.value).endswith(words)


def test_runs_from_other_starts_are_refused(run):
    given = [run("a"), run("b", fields={"seed": 1})]
    path = given[1] / "experiment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"content": {"ticket": "ab12"}}))
    with pytest.raises(UsageError, match="ticket differs"):
        read_runs(given)


def test_an_experiment_counts_once(run):
    first = run("a")
    with pytest.raises(UsageError, match=r"a and .*a are the same experiment"):
        read_runs([first, first])
    with pytest.raises(UsageError, match=r"b and .*a are the same experiment"):
        read_runs([first, run("b", fields={"plan": "xla"})])
    with pytest.raises(UsageError, match="no run is given"):
        read_runs([])


def test_an_unfinished_run_says_which_level_is_missing(run):
    directory = run("a", levels=9)
    change(directory, levels=12)
    with pytest.raises(UsageError, match="a is not finished: level 10 of 12 is missing"):
        read_run(directory)
    (directory / "metrics.csv").write_text("")
    with pytest.raises(UsageError, match="level 0 of 12 is missing"):
        read_run(directory)


def test_an_extended_run_is_read_whole(run):
    directory = run("a", levels=9)
    change(directory, levels=5)  # asked again for fewer, which are there
    assert len(read_run(directory).weights) == 10


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("experiment.json", None, "is no run directory: it has no experiment.json"),
        ("experiment.json", "{", "cannot be read as a run's"),
        ("experiment.json", "[]", "cannot be read as a run's"),
        ("experiment.json", '{"experiment": {"levels": 1}}', "does not say realised.examples.val"),
        ("metrics.csv", None, "cannot be read"),
        ("metrics.csv", "level,weights\n0,5\n1,4\n", "has no column density of numbers"),
    ],
)
def test_what_is_no_run_is_refused(run, name, content, words):
    directory = run("a", levels=1)
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_text(content)
    with pytest.raises(UsageError, match=words):
        read_run(directory)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("val_accuracy", "1.5", "val_accuracy holds values outside"),
        ("weights", "0", "weights holds values that are not above 0"),
        ("test_accuracy", "nan", "has no column test_accuracy of numbers"),
        ("level", "0", "level 1 of 1 is missing"),
    ],
)
def test_impossible_figures_are_refused(run, column, value, words):
    directory = run("a", levels=1)
    path = directory / "metrics.csv"
    head, first, last = (line.split(",") for line in path.read_text().splitlines())
    last[head.index(column)] = value
    path.write_text("\n".join(",".join(line) for line in (head, first, last)))
    with pytest.raises(UsageError, match=words):
        read_run(directory)
