"""Measuring small models defined here: the data behind each metric, and what is refused."""

import functools
import io
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tqdm import tqdm

from lotcal_tf.data.corruptions import blur, contrast
from lotcal_tf.data.splits import Part, ResidentSplit, StreamedSplit
from lotcal_tf.errors import FieldError, LotcalError, UsageError
from lotcal_tf.evaluation import measure as module
from lotcal_tf.evaluation.measure import measure_opened
from lotcal_tf.evaluation.open_model import Opened
from lotcal_tf.metrics import measure
from lotcal_tf.metrics.unseen import measure_unseen

SHAPE, CLASSES, RANGE = (4, 4, 2), 3, 16.0
COUNT = 1203  # more than are run at once
DRAW = np.random.default_rng(0)
INPUTS = (RANGE * DRAW.random((COUNT, *SHAPE))).astype("float32")
LABELS = DRAW.integers(0, CLASSES, COUNT).astype("int32")
WEIGHTS = DRAW.normal(size=(32, CLASSES)).astype("float32") / RANGE


class Linear:
    """Logits are the inputs times WEIGHTS."""

    inputs = types.MappingProxyType({"inputs": tf.TensorSpec([None, *SHAPE])})
    ordered, classes, output, step = True, CLASSES, "", 0.0

    def __call__(self, inputs, batch_size=1000):
        return inputs.reshape(len(inputs), -1) @ WEIGHTS


class Softmax(Linear):
    def __call__(self, inputs, batch_size=1000):
        odds = np.exp(super().__call__(inputs).astype("float64"))
        return (odds / odds.sum(1, keepdims=True)).astype("float32")


class Spoiled(Linear):
    """Infinite for the example whose first value is 7.5 and for no other."""

    def __call__(self, inputs, batch_size=1000):
        return np.where(inputs[:, 0, 0, :1] == 7.5, np.inf, super().__call__(inputs))


def part(inputs=INPUTS, labels=LABELS, classes=CLASSES, input_range=RANGE, streamed=False):
    if streamed:
        pairs = tf.data.Dataset.from_tensor_slices((inputs, labels))
        return Part(classes, StreamedSplit(pairs, np.int32(labels), 10), input_range)
    return Part(classes, ResidentSplit.of(inputs, labels), input_range)


def run(runner=Linear, data=None, ticket=None, **asked):
    opened = Opened(Path("a.tflite"), "tflite", runner(), ticket)
    given = {"data": "blobs", "split": "test", "bins": 7} | asked
    return measure_opened(opened, data or part(), **given)


def logits(inputs):
    return Linear()(inputs)


def test_a_stream_is_read_once_whatever_is_done_to_it():
    read = []

    def pairs():
        read.append(1)
        yield from zip(INPUTS, LABELS, strict=True)

    signature = (tf.TensorSpec(SHAPE, tf.float32), tf.TensorSpec((), tf.int32))
    stream = tf.data.Dataset.from_generator(pairs, output_signature=signature)
    data = Part(CLASSES, StreamedSplit(stream, np.int32(LABELS), 10), RANGE)
    run(data=data, shifts=("contrast", "blur"), severities=(1, 2))
    assert len(read) == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_values_are_those_of_all_examples(streamed):
    found = run(data=part(streamed=streamed))
    # Products of other blocks are summed in another order.
    assert found.metrics == pytest.approx(measure(LABELS, logits(INPUTS), bins=7), abs=1e-6)
    assert (found.examples, found.ece_bins, found.output) == (COUNT, 7, "logits")
    assert (found.shifts, found.unseen) == ([], [])


def test_probabilities_are_recognised_and_measured_alike():
    truth, found = run(), run(Softmax)
    assert (truth.output, found.output) == ("logits", "probabilities")
    assert found.metrics == pytest.approx(truth.metrics, abs=1e-5)


def test_shifted_values_are_those_of_corrupted_images():
    found = run(shifts=("contrast", "blur"), severities=(4, 2))
    corrupt = {"contrast": contrast, "blur": blur}
    assert [(row.shift, row.severity) for row in found.shifts] == [
        ("contrast", 4), ("contrast", 2), ("blur", 4), ("blur", 2)
    ]  # fmt: skip
    for row in found.shifts:
        images = RANGE * corrupt[row.shift](INPUTS / np.float32(RANGE), row.severity)
        wanted = measure(LABELS, logits(images), bins=7)
        assert row.metrics == pytest.approx(wanted, abs=1e-5)
    assert found.metrics == run().metrics
    assert all(row.metrics["nll"] != found.metrics["nll"] for row in found.shifts)


def test_noise_goes_on_from_block_to_block_and_is_the_same_every_time():
    first, again = (run(shifts=("gaussian_noise",), severities=(5,)) for _ in range(2))
    assert first == again
    grey = np.full((1100, *SHAPE), RANGE / 2, np.float32)
    seen = []

    class Seeing(Linear):
        def __call__(self, inputs, batch_size=1000):
            seen.append(inputs)
            return super().__call__(inputs)

    data = part(grey, LABELS[:1100])
    run(Seeing, data, shifts=("gaussian_noise",), severities=(5,))
    noisy = np.concatenate([block for block in seen if not (block == RANGE / 2).all()])
    assert len(np.unique(noisy.reshape(1100, -1), axis=0)) == 1100


def test_unseen_data_are_brought_to_the_range_of_the_known():
    pixels = DRAW.integers(0, 256, (60, *SHAPE)).astype("uint8")
    other = part(pixels, np.zeros(60, np.int32), classes=200, input_range=255.0)
    (row,) = run(unseen={"pixels": other}).unseen
    wanted = measure_unseen(logits(INPUTS), logits(pixels.astype("float32") * RANGE / 255))
    assert (row.data, row.examples) == ("pixels", 60)
    assert row.metrics == pytest.approx(wanted, abs=1e-6)


class Record:
    level, record = 2, {"temperature": 2.5}


def test_scaled_divides_all_logits_by_the_tickets_temperature():
    other = part(INPUTS[:50] / 2, LABELS[:50])
    asked = {"shifts": ("contrast",), "severities": (1,), "unseen": {"half": other}}
    found = run(ticket=Record(), scaled=True, **asked)
    assert found.temperature == 2.5
    assert found.metrics == pytest.approx(measure(LABELS, logits(INPUTS) / 2.5, bins=7), abs=1e-6)
    images = RANGE * contrast(INPUTS / np.float32(RANGE), 1)
    wanted = measure(LABELS, logits(images) / 2.5, bins=7)
    assert found.shifts[0].metrics == pytest.approx(wanted, abs=1e-5)
    wanted = measure_unseen(logits(INPUTS) / 2.5, logits(INPUTS[:50] / 2) / 2.5)
    assert found.unseen[0].metrics == pytest.approx(wanted, abs=1e-6)
    assert run(ticket=Record()).temperature == 1.0


def test_json_and_table_tell_the_same():
    asked = {
        "shifts": ("blur",),
        "severities": (1, 3),
        "unseen": {"half": part(INPUTS[:9], LABELS[:9])},
    }
    found = run(**asked)
    content = json.loads(json.dumps(found.as_dict()))
    assert content["metrics"] == found.metrics
    assert [(r["shift"], r["severity"], r["ece"]) for r in content["shifts"]] == [
        ("blur", severity, row.metrics["ece"])
        for severity, row in zip((1, 3), found.shifts, strict=True)
    ]
    assert content["unseen"] == [{"data": "half", "examples": 9, **found.unseen[0].metrics}]
    head, data, columns, clean, one, three, unseen = found.table().splitlines()
    assert head == "a.tflite (tflite); logits as they are"
    assert data == "1,203 examples of blobs, test split; ECE in 7 bins"
    for line, metrics in ((clean, found.metrics), (three, found.shifts[1].metrics)):
        values = dict(zip(columns.split(), line.replace(" %", "").split()[-10:], strict=True))
        assert values["accuracy"] == f"{100 * metrics['accuracy']:.2f}"
        assert (values["ECE"], values["AURC"]) == (
            f"{metrics['ece']:.4f}",
            f"{metrics['aurc']:.4f}",
        )
    assert clean.startswith("clean ") and one.startswith("blur 1 ") and three.startswith("blur 3 ")
    assert unseen.endswith(f"AUROC {found.unseen[0].metrics['auroc']:.4f}")


# --- what is refused -----------------------------------------------------------------------------


def vectors(count=5):
    return part(np.ones((count, 32), np.float32), LABELS[:count], input_range=1.0)


class Flat(Linear):
    inputs = types.MappingProxyType({"inputs": tf.TensorSpec([None, 32])})


BLUR = {"shifts": ("blur",)}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"examples": vectors()}, r"takes inputs of shape \(4, 4, 2\), blobs has \(32\)"),
        ({"asked": {"unseen": {"flat": vectors()}}}, r"shape \(4, 4, 2\), flat has \(32\)"),
        ({"examples": part(classes=4)}, "3 classes, blobs has 4 classes"),
        ({"asked": {"scaled": True}}, "only tickets have one"),
        ({"asked": {"shifts": ("fog",)}}, "shift=fog: .*gaussian_noise, blur, contrast"),
        ({"asked": {"shifts": ("blur",), "severities": (0,)}}, "severity=0: .*1, 2, 3, 4, 5"),
        ({"asked": BLUR | {"severities": (6,)}}, "severity=6: .*1, 2, 3, 4, 5"),
        ({"asked": BLUR, "examples": part(INPUTS - 1)}, r"values from -.* images in \[0, 16\]"),
        ({"asked": BLUR, "examples": part(input_range=15.0)}, r"images in \[0, 15\]"),
        (
            {"asked": BLUR, "examples": vectors(), "runner": Flat},
            r"shift=blur: needs images .*; blobs has inputs of shape \(32,\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(asked, message):
    with pytest.raises(UsageError, match=message) as caught:
        run(asked.get("runner", Linear), asked.get("examples"), **asked.get("asked", {}))
    assert "\n" not in str(caught.value)


def test_wrong_shift_is_a_field_that_is_named():
    with pytest.raises(FieldError) as caught:
        run(shifts=("fog",))
    assert (caught.value.field, caught.value.value) == ("shift", "fog")


def test_a_value_that_is_not_finite_is_a_failure_and_the_example_is_named():
    inputs = INPUTS.copy()
    inputs[1101, 0, 0, 0] = 7.5
    with pytest.raises(
        LotcalError, match="gives NaN or infinity, first for example 1101"
    ) as caught:
        run(Spoiled, part(inputs))
    assert not isinstance(caught.value, UsageError)


def test_outputs_that_are_no_classes_are_refused():
    class One(Linear):
        classes = None

        def __call__(self, inputs, batch_size=1000):
            return super().__call__(inputs)[:, :1]

    class Few(Linear):
        classes = None

        def __call__(self, inputs, batch_size=1000):
            return super().__call__(inputs)[:, :2]

    with pytest.raises(UsageError, match=r"outputs of shape \(1,\) per example"):
        run(One)
    with pytest.raises(UsageError, match="2 classes, blobs has 3 classes"):
        run(Few)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "progress", "shown"),
    [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)],
)
def test_a_bar_counts_every_example_under_every_condition(monkeypatch, stream, progress, shown):
    """Clean, two severities, and another task's; on a terminal, where it is asked for."""
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr(module, "tqdm", functools.partial(tqdm, mininterval=0, miniters=1))
    other = part(INPUTS[:40], LABELS[:40])
    asked = {"shifts": ["contrast"], "severities": [1, 5], "unseen": {"other": other}}
    run(progress=progress, **asked)
    counts = re.findall(r"(\d+)/(\d+) \[", sys.stderr.getvalue())
    total = 3 * COUNT + 40
    assert bool(counts) == shown
    if shown:
        assert {int(of) for _, of in counts} == {total}
        assert [int(done) for done, _ in counts][-2:] == [3 * COUNT, total]
    else:
        assert sys.stderr.getvalue() == ""
