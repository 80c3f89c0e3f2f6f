"""Measuring an opened model: on test data, on corrupted test data, and on unseen data of other tasks."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tqdm import tqdm

from lotcal_tf import tables
from lotcal_tf.config import registry
from lotcal_tf.config.process import tolerant
from lotcal_tf.config.registry import SEVERITIES
from lotcal_tf.data.splits import Part
from lotcal_tf.errors import FieldError, LotcalError, UsageError
from lotcal_tf.evaluation.open_model import Opened, temperature_of
from lotcal_tf.formats.outputs import LOGITS, PROBABILITIES, gives_probabilities, logits_of
from lotcal_tf.inputs import image_shape
from lotcal_tf.lottery.conditions import Condition, Row, condition_row
from lotcal_tf.lottery.ticket import Ticket
from lotcal_tf.lottery.ticket_files import predictions_of
from lotcal_tf.metrics import measure
from lotcal_tf.metrics.unseen import measure_unseen

_BLOCK = 1000  # examples per block

# Changes inputs `(n, …)` before the model gets them; the second argument is the index of the first.
_Change = Callable[[Any, int], Any]

_COLUMNS = {
    "accuracy": "accuracy",
    "ece": "ECE",
    "adaptive_ece": "adaptive",
    "classwise_ece": "classwise",
    "mce": "MCE",
    "nll": "NLL",
    "brier": "Brier",
    "overconfidence": "over-conf",
    "aurc": "AURC",
    "wrong_confident": "wrong>.9",
}


@dataclasses.dataclass(frozen=True)
class Shifted:
    """The metrics on one corrupted test set."""

    shift: str
    severity: int
    metrics: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Unseen:
    """The metrics on unseen data of another task; see `metrics.unseen.measure_unseen`."""

    data: str
    examples: int
    metrics: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The metrics of a model.

    Attributes:
      model: its path.
      kind: `ticket`, or the kind of file, e.g. `tflite`.
      output: what the model gives: `logits` or `probabilities`.
      data, split, examples: the data it was measured on.
      ece_bins: the number of bins of the calibration errors.
      temperature: the divisor of the logits.
      metrics: on the unchanged data, see `metrics.measure`.
      shifts: on corrupted data.
      unseen: on data of other tasks.
      stored: whether the predictions were those stored with the ticket.
    """

    model: str
    kind: str
    output: str
    data: str
    split: str
    examples: int
    ece_bins: int
    temperature: float
    metrics: Mapping[str, float]
    shifts: Sequence[Shifted] = dataclasses.field(repr=False)
    unseen: Sequence[Unseen] = dataclasses.field(repr=False)
    stored: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The measurement as JSON."""
        content = dataclasses.asdict(self)
        for group in ("shifts", "unseen"):
            for row in content[group]:
                row |= row.pop("metrics")
        return content

    def rows(self, level: int, ticket: str) -> list[Row]:
        """Rows of `conditions.csv`; see `lottery.conditions.condition_row`."""
        found = [(Condition(one.shift, one.severity), one.metrics) for one in self.shifts]
        found += [(Condition(unseen=one.data), one.metrics) for one in self.unseen]
        return [condition_row(level, ticket, condition, metrics) for condition, metrics in found]

    def table(self) -> str:
        """The measurement as text for a terminal."""
        scaled = f"divided by the temperature {self.temperature:.4g}"
        if self.temperature == 1:
            scaled = "before temperature scaling" if self.kind == "ticket" else "as they are"
        source = ", stored predictions" if self.stored else ""
        lines = [
            f"{self.model} ({self.kind}{source}); {self.output} {scaled}",
            f"{self.examples:,} examples of {self.data}, {self.split} split; ECE in {self.ece_bins} bins",
        ]
        rows = [("clean", self.metrics)]
        rows += [(f"{row.shift} {row.severity}", row.metrics) for row in self.shifts]
        cells = [["", *_COLUMNS.values()]]
        for name, metrics in rows:
            values = (
                tables.percent(metrics[key], 2) if key == "accuracy" else f"{metrics[key]:.4f}"
                for key in _COLUMNS
            )
            cells.append([name, *values])
        lines.append(tables.plain(cells))
        for row in self.unseen:
            lines.append(
                f"unseen {row.data}, {row.examples:,} examples: mean confidence "
                f"{row.metrics['confidence']:.4f} (known {row.metrics['known_confidence']:.4f}), "
                f"AUROC {row.metrics['auroc']:.4f}"
            )
        return "\n".join(lines)


def measure_opened(
    opened: Opened,
    part: Part,
    *,
    data: str,
    split: str,
    bins: int,
    scaled: bool = False,
    shifts: Sequence[str] = (),
    severities: Sequence[int] = SEVERITIES,
    unseen: Mapping[str, Part] | None = None,
    progress: bool = False,
) -> Measurement:
    """Measures a model.

    Args:
      opened: the model.
      part: the examples; the model gets their inputs unchanged.
      data, split: the names of the data.
      bins: the number of bins of the calibration errors.
      scaled: whether to divide the logits by the ticket's temperature.
      shifts: names of corruptions, each measured at all `severities`.
      severities: of 1 … 5.
      unseen: test data of other tasks, by name; scaled to the input range of `part`.
      progress: whether to show a progress bar, if standard error is a terminal.

    Raises:
      UsageError: the data does not fit the model, or cannot be corrupted.
      LotcalError: the model gives NaN or infinity.
    """
    conditions = [(name, severity) for name in shifts for severity in severities]
    changes = [_corrupting(name, severity, part, data) for name, severity in conditions]
    temperature = opened.temperature() if scaled else 1.0
    logits = _all_logits(opened, part, data, changes, unseen or {}, temperature, progress)
    return _measurement(
        opened.path, opened.kind, logits, data, split, bins, temperature, conditions
    )


def measure_stored(
    path: Path, ticket: Ticket, *, data: str, split: str, bins: int, scaled: bool = False
) -> Measurement:
    """Measures a ticket by the predictions that are stored with it; no data is read, and no network built.

    Args:
      path, ticket: the ticket and where it lies.
      data: the name of the data that its run was trained on.
      split: `test` or `val`.
      bins, scaled: see `measure_opened`.

    Raises:
      UsageError: it holds no predictions of the split, or no temperature.
    """
    temperature = 1.0
    if scaled:
        # Stored predictions can be averages over passes, which have a temperature of their own.
        temperature = float(ticket.record.get("mc_temperature", temperature_of(ticket)))
    labels, raw = predictions_of(ticket.predictions, split, path)
    logits = _Logits(LOGITS, labels, raw / temperature, (), {})
    return _measurement(path, "ticket", logits, data, split, bins, temperature, stored=True)


@dataclasses.dataclass(frozen=True)
class _Logits:
    """The labels `(N,)`, and the logits `(N, K)` of all data that a model is measured on."""

    output: str
    labels: NDArray[np.int64]
    clean: NDArray
    shifted: Sequence[NDArray]
    unseen: Mapping[str, NDArray]


def _measurement(
    path: Path,
    kind: str,
    logits: _Logits,
    data: str,
    split: str,
    bins: int,
    temperature: float,
    conditions: Sequence[tuple[str, int]] = (),
    stored: bool = False,
) -> Measurement:
    """The metrics of all logits."""
    return Measurement(
        model=str(path),
        kind=kind,
        output=logits.output,
        data=data,
        split=split,
        examples=len(logits.labels),
        ece_bins=bins,
        temperature=temperature,
        metrics=measure(logits.labels, logits.clean, bins=bins),
        shifts=[
            Shifted(*condition, measure(logits.labels, shifted, bins=bins))
            for condition, shifted in zip(conditions, logits.shifted, strict=True)
        ],
        unseen=[
            Unseen(name, len(foreign), measure_unseen(logits.clean, foreign))
            for name, foreign in logits.unseen.items()
        ],
        stored=stored,
    )


def _all_logits(
    opened: Opened,
    part: Part,
    data: str,
    changes: Sequence[_Change],
    unseen: Mapping[str, Part],
    temperature: float,
    progress: bool,
) -> _Logits:
    """Runs the model on all data; see `measure_opened`."""
    opened.check_fits(part.split.shape, part.classes, data)
    for name, other in unseen.items():
        opened.check_fits(other.split.shape, None, name)
    total = part.split.count * (1 + len(changes))
    total += sum(other.split.count for other in unseen.values())
    hidden = None if progress else True  # None shows the bar on a terminal only
    stream = tolerant(sys.stderr)
    with tqdm(total=total, unit="example", file=stream, leave=False, disable=hidden) as bar:
        check = functools.partial(_check_range, part.input_range, data) if changes else None
        labels, outputs = _outputs(opened, part, [_unchanged, *changes], bar, check)
        foreign = {
            name: _outputs(opened, other, [_scaling(other, part)], bar)[1][0]
            for name, other in unseen.items()
        }
    # A model that does not state its classes shows them now.
    if labels.max() >= outputs[0].shape[1]:
        raise UsageError(
            f"{opened.path} has {outputs[0].shape[1]} classes, {data} has {part.classes} classes"
        )
    probable = gives_probabilities(opened.runner, outputs[0])
    clean, *shifted = [_logits(opened, found, probable) / temperature for found in outputs]
    return _Logits(
        output=PROBABILITIES if probable else LOGITS,
        labels=labels,
        clean=clean,
        shifted=shifted,
        unseen={
            name: _logits(opened, found, probable) / temperature for name, found in foreign.items()
        },
    )


def _logits(opened: Opened, outputs: NDArray[np.float32], probable: bool) -> NDArray:
    return logits_of(outputs, opened.runner.step) if probable else outputs


def _unchanged(inputs: Any, first: int) -> Any:
    return inputs


def _corrupting(name: str, severity: int, part: Part, data: str) -> _Change:
    """Corrupts images of `part`, whose values `_check_range` has checked.

    Raises:
      FieldError: the corruption or severity is unknown, or `part` has no images.
    """
    corrupt = registry.corruption(name).load()
    if severity not in SEVERITIES:
        raise FieldError("severity", severity, f"choose from {', '.join(map(str, SEVERITIES))}")
    if not image_shape(part.split.shape):
        problem = f"{data} has inputs of shape {part.split.shape}"
        raise FieldError("shift", name, f"needs images (height, width, channels); {problem}")

    def change(inputs: NDArray, first: int) -> NDArray[np.float32]:
        scale = np.float32(part.input_range)
        return corrupt(inputs.astype(np.float32) / scale, severity, first) * scale

    return change


def _scaling(other: Part, part: Part) -> _Change:
    """Scales inputs of `other` to the input range of `part`."""
    scale = np.float32(part.input_range / other.input_range)
    if scale == 1:
        return _unchanged
    return lambda inputs, first: tf.nest.map_structure(lambda x: x * scale, inputs)


def _outputs(
    opened: Opened,
    part: Part,
    changes: Sequence[_Change],
    bar: tqdm,
    check: Callable[[NDArray], None] | None = None,
) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
    """The labels `(N,)`, and the outputs `(N, K)` for each change of the inputs.

    The examples are read only once. `check` gets the inputs of a block before the model does.
    """
    labels: list[NDArray] = []
    outputs: list[list[NDArray[np.float32]]] = [[] for _ in changes]
    first = 0
    for inputs, classes in _blocks(part):
        labels.append(classes)
        if check is not None:
            check(inputs)
        for found, change in zip(outputs, changes, strict=True):
            found.append(_run(opened, change(inputs, first), first))
            bar.update(len(classes))
        first += len(classes)
    return np.concatenate(labels), [np.concatenate(found) for found in outputs]


def _blocks(part: Part) -> Iterator[tuple[Any, NDArray]]:
    """Inputs and labels as arrays, block by block."""
    for block in part.split.in_order(_BLOCK):
        yield tf.nest.map_structure(lambda x: x.numpy(), block)


def _check_range(input_range: float, data: str, inputs: NDArray) -> None:
    """Checks that inputs are images in [0, input_range].

    Raises:
      UsageError: a value is outside.
    """
    low, high = float(inputs.min()), float(inputs.max())
    if low < 0 or high > input_range:
        out = (
            "scale them" if low < 0 else "pass the images as arrays, and their range as input_range"
        )
        raise UsageError(
            f"shift: {data} has values from {low:g} to {high:g}; only images in [0, {input_range:g}] "
            f"can be corrupted: {out}"
        )


def _run(opened: Opened, inputs: Any, first: int) -> NDArray[np.float32]:
    """The outputs `(n, K)` of a block; `first` is the index of its first example, for the message."""
    outputs = opened.runner(inputs)
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise UsageError(
            f"{opened.path} gives outputs of shape {outputs.shape[1:]} per example: one value for "
            "each of 2 or more classes is needed"
        )
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.all():
        raise LotcalError(
            f"{opened.path} gives NaN or infinity, first for example {first + int(finite.argmin())}"
        )
    return outputs
