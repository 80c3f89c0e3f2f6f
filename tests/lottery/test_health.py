"""Each problem of a level, made by hand; and what a run does at one."""

import io
import math

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf import find_tickets, train
from lotcal_tf.analysis.runs import read_run
from lotcal_tf.calibration.strategies import CrossEntropy
from lotcal_tf.config.sealed import seal, unseal
from lotcal_tf.errors import TrainingDiverged, Unhealthy
from lotcal_tf.lottery import health
from lotcal_tf.lottery.progress import ProgressBar

KERNELS = {"a/kernel": np.eye(2), "b/kernel": np.eye(2)}


def logits_of(predicted, classes=2):
    return np.eye(classes, dtype=np.float32)[predicted]


def test_a_healthy_level_has_no_problem():
    labels = np.repeat([0, 1], 20)
    assert health.problems(KERNELS, KERNELS, labels, logits_of(labels)) == {}


def test_a_layer_without_a_weight_is_named():
    labels = np.repeat([0, 1], 20)
    weights = KERNELS | {"b/kernel": np.zeros((2, 2)), "b/bias": np.zeros(2)}
    found = health.problems(KERNELS, weights, labels, logits_of(labels))
    assert found.keys() == {"empty_layer"}
    assert "b/kernel" in found["empty_layer"] and "a/kernel" not in found["empty_layer"]


def test_one_predicted_class_is_named():
    labels = np.repeat([0, 1, 2], [10, 20, 10])
    found = health.problems(KERNELS, KERNELS, labels, logits_of(np.full(40, 1), 3))
    assert list(found) == ["one_class", "chance"]
    assert "class 1" in found["one_class"]
    # Data of one class says nothing about it.
    found = health.problems(KERNELS, KERNELS, np.ones(9, int), logits_of(np.ones(9, int)))
    assert "one_class" not in found


@pytest.mark.parametrize(("correct", "problem"), [(68, True), (69, False)])
def test_accuracy_at_chance_level_is_named(correct, problem):
    # 60 of 100 examples are of class 0: 0.6 + 1.645 * sqrt(0.6 * 0.4 / 100) = 0.6806.
    labels = np.repeat([0, 1], [60, 40])
    predicted = np.where(np.arange(100) < correct, labels, 1 - labels)
    found = health.problems(KERNELS, KERNELS, labels, logits_of(predicted))
    assert ("chance" in found) == problem
    assert ("60.0 %" in found.get("chance", "")) == problem


@pytest.mark.parametrize(
    ("policy", "records", "stops"),
    [
        ("stop", [{"level": 0, "health": "chance"}], True),
        ("stop", [{"level": 0, "health": "chance"}, {"level": 1, "health": ""}], False),
        ("stop", [{"level": 0}], False),  # of an older version
        ("stop", [], False),
        ("warn", [{"level": 0, "health": "chance"}], False),
    ],
)
def test_only_the_policy_stops_after_an_unhealthy_level(policy, records, stops):
    if not stops:
        return health.check(policy, records)
    with pytest.raises(Unhealthy, match="level 0 .*chance") as error:
        health.check(policy, records)
    assert (error.value.level, error.value.names) == (0, "chance")


class NoGradient(CrossEntropy):
    """Its loss is finite, and its gradient is not."""

    def penalty(self):
        @tf.custom_gradient
        def zero(kernel):
            return tf.constant(0.0), lambda _: tf.fill(tf.shape(kernel), math.nan)

        return zero(self.network.trainable_weights[0])


def test_a_gradient_that_is_not_finite_is_named_at_the_end_of_its_epoch(begin, tmp_path):
    # One step: a second one would have a loss that is not finite.
    fields = {"strategy": NoGradient, "plan": "graph", "levels": 0, "batch_size": 80, "epochs": 1}
    with pytest.raises(TrainingDiverged, match="level 0, epoch 0, step 1") as error:
        begin(tmp_path, **fields).run()
    assert "kernel" in error.value.what


def test_a_gradient_that_float16_skips_in_every_step_is_named(tmp_path):
    # The scale of the loss starts at 2^15 and halves at each of 2 * 9 skipped steps; at least 1.
    fields = LEARNS_NOTHING | {"precision": "mixed_float16", "batch_size": 150, "epochs": 2}
    with pytest.raises(TrainingDiverged, match="gradient .* level 0, epoch 1") as error:
        find_tickets(**fields, calib=NoGradient, levels=0, out=tmp_path / "run")
    assert error.value.what == "the gradient"


LEARNS_NOTHING = {
    "model": "lenet_4",
    "epochs": 1,
    "batch_size": 600,
    "lr": 1e-9,
    "plan": "graph",
    "progress": False,
}


def test_a_run_names_problems_in_log_and_record(begin, tmp_path):
    stream = io.StringIO()
    fields = {"plan": "graph", "lr": 1e-9, "levels": 0}
    search = begin(tmp_path, observers=[ProgressBar(stream)], **fields).run()
    (record,) = search.store.records()
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("level 0: ")]
    assert "chance" in record["health"].split()
    assert len(lines) == len(record["health"].split())


def test_a_run_stops_at_an_unhealthy_level_and_goes_on_with_warn(tmp_path):
    run = tmp_path / "run"
    fields = LEARNS_NOTHING | {"levels": 1, "out": run}
    for _ in range(2):  # the same call stops again
        with pytest.raises(Unhealthy, match="level 0 .*on_unhealthy"):
            find_tickets(**fields, on_unhealthy="stop")
        assert [path.name for path in (run / "tickets").iterdir()] == ["level_00"]
    done = find_tickets(**fields)
    assert [("chance" in record["health"].split()) for record in done.records] == [True, True]
    # Not part of the identity: the same results, in the directory of a run that never stopped.
    other = find_tickets(**fields | {"out": tmp_path / "other"})
    names = ("level", "health", "val_nll", "test_nll", "remaining")
    mine, theirs = ([[r[n] for n in names] for r in run.records] for run in (done, other))
    assert mine == theirs


def test_the_command_ends_with_code_1_and_one_line(call_command, tmp_path):
    run = tmp_path / "run"
    fields = LEARNS_NOTHING | {"levels": 1, "out": run, "on_unhealthy": "stop"}
    flags = [f"--{name}={value}" for name, value in fields.items() if name != "progress"]
    done = call_command(train, *flags)
    assert (done.code, done.out) == (1, "")
    assert done.err[-1].startswith("train: level 0 is unhealthy (")
    assert "on_unhealthy=warn" in done.err[-1]
    assert (run / "tickets" / "level_00" / "ticket.json").is_file()


def test_runs_of_older_versions_without_the_column_are_read_and_continued(tmp_path):
    run = tmp_path / "run"
    fields = LEARNS_NOTHING | {"out": run}
    find_tickets(**fields, levels=0)
    header = run / "tickets" / "level_00" / "ticket.json"
    content = unseal(header)
    del content["record"]["health"]
    header.write_bytes(seal(content, indent=1))
    done = find_tickets(**fields, levels=1)
    assert "health" not in done.records[0] and "health" in done.records[1]
    rows = (run / "metrics.csv").read_text().splitlines()
    assert rows[0].split(",").count("health") == 1
    assert list(read_run(run).columns["level"]) == [0, 1]
