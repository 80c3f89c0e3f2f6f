"""Measuring an opened model: on a test set, on corrupted ones, and on what it has never seen."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lotcal_tf import tables
from lotcal_tf.config import registry
from lotcal_tf.config.registry import SEVERITIES
from lotcal_tf.data.splits import Part
from lotcal_tf.errors import FieldError, LotcalError, UsageError
from lotcal_tf.evaluation.open_model import Opened, gives_probabilities, logits_of
from lotcal_tf.formats.format import LOGITS, PROBABILITIES
from lotcal_tf.lottery.progress import percent
from lotcal_tf.metrics import measure
from lotcal_tf.metrics.unseen import measure_unseen

_BLOCK = 1000  # examples at once

# What is done to inputs `(n, …)` before a model gets them; also given the first one's number.
_Change = Callable[[NDArray[np.float32], int], NDArray[np.float32]]

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
    """Figures of one corrupted test set."""

    shift: str
    severity: int
    metrics: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Unseen:
    """Figures of one set of another task; `metrics` as `evaluation.unseen.measure_unseen` gives."""

    data: str
    examples: int
    metrics: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured of a model.

    Attributes:
      model: its path.
      kind: `ticket`, `saved_model` or `tflite`.
      output: `logits` or `probabilities`, what it gives.
      data, split, examples: what it was measured on.
      ece_bins: of the calibration errors.
      temperature: what its logits were divided by.
      metrics: `evaluation.metrics.measure` on the data as they are.
      shifts: the same on corrupted data.
      unseen: sets of other tasks.
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
    shifts: Sequence[Shifted]
    unseen: Sequence[Unseen]

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        whole = dataclasses.asdict(self)
        for group in ("shifts", "unseen"):
            for row in whole[group]:
                row |= row.pop("metrics")
        return whole

    def table(self) -> str:
        """As text to read."""
        scaled = "" if self.temperature == 1 else f" divided by {self.temperature:.4g}"
        lines = [
            f"{self.model} ({self.kind}); output: {self.output}{scaled}",
            f"{self.examples:,} examples of {self.data}, {self.split} split; ECE in {self.ece_bins} bins",
        ]
        rows = [("clean", self.metrics)]
        rows += [(f"{row.shift} {row.severity}", row.metrics) for row in self.shifts]
        cells = [["", *_COLUMNS.values()]]
        for name, metrics in rows:
            figures = (
                percent(metrics[key], 2) if key == "accuracy" else f"{metrics[key]:.4f}"
                for key in _COLUMNS
            )
            cells.append([name, *figures])
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
      part: the examples; the model takes their inputs as they are.
      data, split: what they are called.
      bins: of the calibration errors.
      scaled: whether to divide the logits by the ticket's temperature.
      shifts: corruptions of the catalog, each at every one of the `severities`.
      unseen: test sets of other tasks, by name, brought to the range of `part`'s inputs.
      progress: whether to show a bar on standard error, where that is a terminal.

    Raises:
      UsageError: the data do not fit the model, or are no images that can be corrupted.
      LotcalError: the model gives a value that is not finite.
    """
    conditions = [(name, severity) for name in shifts for severity in severities]
    changes = [_corrupting(name, severity, part, data) for name, severity in conditions]
    temperature = opened.temperature() if scaled else 1.0
    opened.check_fits(part.split.shape, part.classes, data)
    others = unseen or {}
    for name, other in others.items():
        opened.check_fits(other.split.shape, None, name)
    total = part.split.count * (1 + len(conditions))
    total += sum(other.split.count for other in others.values())
    # None: shown on a terminal only.
    hidden = None if progress else True
    with tqdm(total=total, unit="example", file=sys.stderr, leave=False, disable=hidden) as bar:
        truth, (outputs, *shifted) = _outputs(opened, part, [_as_they_are, *changes], bar)
        foreign = {
            name: _outputs(opened, other, [_scaling(other, part)], bar)[1][0]
            for name, other in others.items()
        }
    if truth.max() >= outputs.shape[1]:
        raise UsageError(
            f"{opened.path} tells {outputs.shape[1]} classes apart, {data} has {part.classes}"
        )
    probable = gives_probabilities(opened.runner, outputs)

    def logits(outputs: NDArray[np.float32]) -> NDArray:
        given = logits_of(outputs, opened.runner.step) if probable else outputs
        return given / temperature

    return Measurement(
        model=str(opened.path),
        kind=opened.kind,
        output=PROBABILITIES if probable else LOGITS,
        data=data,
        split=split,
        examples=len(truth),
        ece_bins=bins,
        temperature=temperature,
        metrics=measure(truth, logits(outputs), bins=bins),
        shifts=[
            Shifted(name, severity, measure(truth, logits(found), bins=bins))
            for found, (name, severity) in zip(shifted, conditions, strict=True)
        ],
        unseen=[
            Unseen(name, len(found), measure_unseen(logits(outputs), logits(found)))
            for name, found in foreign.items()
        ],
    )


def predictions(opened: Opened, part: Part, data: str) -> tuple[NDArray[np.int64], NDArray]:
    """Labels `(N,)` and a model's logits `(N, K)` of all examples; see `measure_opened`."""
    opened.check_fits(part.split.shape, part.classes, data)
    labels, (outputs,) = _outputs(opened, part, [_as_they_are])
    if gives_probabilities(opened.runner, outputs):
        return labels, logits_of(outputs, opened.runner.step)
    return labels, outputs


def _as_they_are(inputs: NDArray[np.float32], first: int) -> NDArray[np.float32]:
    """No change of the inputs."""
    return inputs


def _corrupting(name: str, severity: int, part: Part, data: str) -> _Change:
    """Corrupts images of `part`; raises FieldError where it has none, or for the severity."""
    corrupt = registry.corruption(name).load()
    if severity not in SEVERITIES:
        raise FieldError("severity", severity, "choose of 1, 2, 3, 4, 5")
    if len(part.split.shape) != 3:
        problem = f"{data} has inputs of shape {part.split.shape}"
        raise FieldError("shift", name, f"needs images (height, width, channels); {problem}")

    def change(inputs: NDArray[np.float32], first: int) -> NDArray[np.float32]:
        images = _images(inputs, part.input_range, data)
        return corrupt(images, severity, first) * np.float32(part.input_range)

    return change


def _scaling(other: Part, part: Part) -> _Change:
    """Brings inputs of `other` to the range of `part`'s."""
    scale = np.float32(part.input_range / other.input_range)
    return lambda inputs, first: inputs * scale


def _outputs(
    opened: Opened, part: Part, changes: Sequence[_Change], bar: tqdm | None = None
) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
    """Labels `(N,)` of all examples, and what the model gives `(N, K)` for each change of inputs.

    The examples are read once, whatever is done to them.
    """
    labels: list[NDArray] = []
    outputs: list[list[NDArray[np.float32]]] = [[] for _ in changes]
    first = 0
    for inputs, classes in _blocks(part):
        labels.append(classes)
        for found, change in zip(outputs, changes, strict=True):
            found.append(_run(opened, change(inputs, first), first))
            if bar is not None:
                bar.update(len(inputs))
        first += len(inputs)
    return np.concatenate(labels), [np.concatenate(found) for found in outputs]


def _blocks(part: Part) -> Iterator[tuple[NDArray[np.float32], NDArray]]:
    """The inputs as float32, as a model is given them, and the labels; block by block."""
    for inputs, labels in part.split.in_order(_BLOCK):
        yield inputs.numpy().astype(np.float32), labels.numpy()


def _images(inputs: NDArray[np.float32], input_range: float, data: str) -> NDArray[np.float32]:
    """Inputs as images in [0, 1]."""
    low, high = float(inputs.min()), float(inputs.max())
    if low < 0 or high > input_range:
        raise UsageError(
            f"shift: {data} has values from {low:g} to {high:g}; only images in [0, {input_range:g}] "
            "can be corrupted"
        )
    return inputs / np.float32(input_range)


def _run(opened: Opened, inputs: NDArray[np.float32], first: int) -> NDArray[np.float32]:
    """What the model gives; `first` is the number of the first example, for the message."""
    outputs = opened.runner(inputs)
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise UsageError(
            f"{opened.path} gives outputs of shape {outputs.shape[1:]} an example: one value for "
            "each of 2 or more classes is needed"
        )
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.all():
        raise LotcalError(
            f"{opened.path} gives NaN or infinity, first for example {first + int(finite.argmin())}"
        )
    return outputs
