"""Which runs are read, which belong together; hand-made directories, no training."""

import dataclasses
import json

import numpy as np
import pytest

from lotcal_tf.analysis import runs
from lotcal_tf.analysis.runs import DIFFICULTY, Source, read_run, read_runs
from lotcal_tf.config.run_directory import find_runs
from lotcal_tf.errors import UsageError
from lotcal_tf.lottery.conditions import Condition, condition_row
from lotcal_tf.lottery.run_tables import as_csv


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


def test_runs_are_ordered_by_difficulty_size_and_seed(written_run):
    mixture = {"source": "mixture_linear"}
    given = [
        written_run("a", start=300_000, fields={**mixture, DIFFICULTY: 2, "seed": 1}),
        written_run("b", start=300_000, fields={**mixture, DIFFICULTY: 2, "seed": 0}),
        written_run("c", start=90_000, fields={**mixture, DIFFICULTY: 2, "seed": 1}),
        written_run("d", start=300_000, fields={**mixture, DIFFICULTY: 1, "seed": 1}, levels=9),
    ]
    found, problems = read_runs(given)
    assert [run.directory.name for run in found] == ["d", "c", "b", "a"]
    assert problems == []


def test_an_experiment_counts_once(written_run):
    first = written_run("a")
    second = written_run("b", fields={"plan": "xla"})
    found, (problem,) = read_runs([first, second])
    assert [run.directory for run in found] == [first]
    assert f"{second} is the same experiment as {first}" in problem
    assert len(read_runs([first, written_run("c", fields={"later": 1})])[0]) == 2


def test_of_equal_experiments_the_one_with_more_levels_counts(written_run):
    begun, finished = written_run("a", levels=2), written_run("b", fields={"plan": "xla"})
    found, (problem,) = read_runs([begun, finished])
    assert [run.directory for run in found] == [finished]
    assert f"{begun} is the same experiment as {finished}" in problem


def test_damaged_runs_are_named_and_the_others_read(written_run):
    given = [written_run("a", levels=1), written_run("b", fields={"seed": 1})]
    (given[0] / "metrics.csv").write_text("level,weights\n0,5\n")
    found, (problem,) = read_runs(given)
    assert [run.seed for run in found] == [1]
    assert problem.startswith(f"left out: {given[0]}/metrics.csv: column density")
    with pytest.raises(UsageError, match="no run can be read; .*metrics.csv"):
        read_runs(given[:1])


def test_runs_lie_in_the_directories_or_directly_below(written_run, tmp_path):
    one, two = written_run("sweep/one"), written_run("sweep/two")
    for name in ("logs", ".hidden", "deep/er"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
    (tmp_path / "sweep" / "notes.txt").write_text("not a run")
    (tmp_path / "sweep" / "begun" / "tickets").mkdir(parents=True)
    written_run("sweep/deep/er/run")
    written_run("sweep/.trash")
    alone = written_run("alone")
    assert find_runs([tmp_path / "sweep", alone, two]) == [one, two, alone]
    for given in (tmp_path / "sweep" / "logs", tmp_path / "nowhere", alone / "metrics.csv"):
        with pytest.raises(UsageError, match=given.name):
            find_runs([alone, given])


def test_unfinished_and_failed_runs_say_how_far_they_are(written_run):
    begun = written_run("a", levels=9)
    change(begun, levels=12)
    run = read_run(begun)
    assert (run.is_finished, len(run.weights), run.planned) == (False, 10, 13)
    (begun / "metrics.csv").unlink()
    assert len(read_run(begun).weights) == 0
    failed = written_run("b")
    path = failed / "experiment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"failed": "out of memory"}))
    run = read_run(failed)
    assert (run.is_finished, run.failed) == (False, "out of memory")


def test_the_selected_level_is_that_of_the_search(written_run):
    """The sparsest pruned level within one standard error of the lowest NLL: 0.32 <= 0.3 + 0.03."""
    nll, error = [0.1, 0.4, 0.3, 0.32, 0.34], [0.5, 0.01, 0.03, 0.5, 0.5]
    columns = {"level": range(5), "weights": [9, 8, 7, 6, 5], "val_nll": nll, "val_nll_se": error}
    arrays = {name: np.array(values, float) for name, values in columns.items()}
    run = dataclasses.replace(read_run(written_run("a")), columns=arrays)
    assert run.selected == 3
    assert read_run(written_run("b")).selected is None


def test_a_value_that_is_not_a_number_selects_nothing(written_run):
    columns = {name: np.ones(2) for name in ("weights", "val_nll", "val_nll_se")}
    columns |= {"level": np.arange(2.0), "val_nll_se": np.array([np.nan, 1])}
    run = dataclasses.replace(read_run(written_run("a")), columns=columns)
    assert run.selected is None


def test_the_source_of_tickets_is_recorded_or_read_or_in_the_run_id(written_run):
    def source(name, ticket, **entries):
        directory = written_run(name, fields={"ticket": str(ticket)})
        path = directory / "experiment.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))
        return read_run(directory).source

    found_by = {"calib": "vwcc", "settings": {"dropout_rate": 0.2}, "seed": 3}
    recorded = source("a", "gone", transfer={"found_by": found_by})
    # The defaults of the other hyperparameters.
    assert recorded == Source("vwcc", {"dropout_rate": 0.2, "passes": 5, "dropout_at": "blocks"}, 3)
    whole = found_by | {"dataset": "mnist", "criterion": "random", "label_noise": 0.2}
    recorded = source("a2", "gone", transfer={"found_by": whole})
    fields = {"dataset": "mnist", "criterion": "random", "label_noise": 0.2}
    assert fields.items() <= recorded.settings.items() and recorded.replicate == 3
    origin = written_run("origin", fields={"calib": "mixup", "seed": 7})
    (origin / "tickets" / "level_01").mkdir(parents=True)
    for name, ticket in {"b": origin, "c": origin / "tickets" / "level_01"}.items():
        read = source(name, ticket)
        assert (read.calib, read.replicate) == ("mixup", 7)
        assert read.settings["dataset"] == "tiny_noise" and "seed" not in read.settings
    named = source("d", "gone", content={"run": "my-data-lenet_20-lwcc_si-0123456789/abcdef"})
    assert (named.calib, named.replicate) == ("lwcc_si", "my-data-lenet_20-lwcc_si-0123456789")
    assert source("e", "gone").calib == ""
    assert read_run(written_run("f")).source is None


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
        ("level", "0", "column level must hold"),
        ("density", "0", "not above 0"),
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


def test_metrics_under_conditions_are_columns(written_run):
    directory = written_run("a", levels=3)
    shifted = {"accuracy": 0.5, "ece": 0.1, "nll": 1.0, "brier": 0.4}
    rows = [
        condition_row(1, "", Condition("blur", 1), shifted),
        condition_row(1, "", Condition("blur", 2), {**shifted, "ece": 0.4, "accuracy": 0.25}),
        # Level 2 lacks one corruption, so that its mean would be another quantity.
        condition_row(2, "", Condition("blur", 1), shifted),
        condition_row(3, "", Condition(unseen="cars"), {"auroc": 0.9, "confidence": 0.6}),
        # A level that the run does not have any more.
        condition_row(9, "", Condition(unseen="cars"), {"auroc": 0.1, "confidence": 0.6}),
    ]
    (directory / "conditions.csv").write_bytes(as_csv(rows))
    run = read_run(directory)
    assert run.corruptions == {("blur", 1), ("blur", 2)}
    assert run.unseen == {"cars"}
    nan = float("nan")
    for name, values in {
        "test_shifted_ece": [nan, 0.25, nan, nan],
        "test_shifted_accuracy": [nan, 0.375, nan, nan],
        "test_auroc_cars": [nan, nan, nan, 0.9],
        "test_confidence_cars": [nan, nan, nan, 0.6],
    }.items():
        np.testing.assert_allclose(run.columns[name], values, rtol=1e-12)
    plain = read_run(written_run("b", levels=3))
    assert plain.corruptions == plain.unseen == frozenset()
    assert not [name for name in plain.columns if "shifted" in name or "auroc" in name]


def test_a_damaged_table_of_conditions_leaves_the_run_out(written_run):
    good, bad = written_run("a", levels=3), written_run("b", levels=3, fields={"seed": 1})
    (bad / "conditions.csv").write_text("level\nx\n")
    found, (problem,) = read_runs([good, bad])
    assert [run.directory for run in found] == [good]
    assert "conditions.csv cannot be read" in problem


@pytest.mark.parametrize(
    ("model", "architecture"),
    [
        ("lenet_300_100", "lenet_W_100"),
        ("lenet_50", "lenet_W"),
        ("resnet20_8", "resnet20_W"),
        ("resnet20", "resnet20_W"),
        ("my_net-0123456789", "my_net"),
    ],
)
def test_networks_of_other_widths_have_one_architecture(recorded_run, model, architecture):
    assert recorded_run([400, 300], model=model).architecture == architecture


def test_a_run_without_test_data_is_read(written_run):
    columns = ("test_accuracy", "test_ece", "test_overconfidence", "test_wrong_confident")
    assert not read_run(written_run("a", columns=(*columns, "test_kl_true"))).has_test
    assert read_run(written_run("b")).has_test
