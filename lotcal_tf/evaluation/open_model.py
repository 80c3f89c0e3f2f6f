"""Opening a model of whatever kind, so that measuring it needs not know which kind it is."""

import dataclasses
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.config.run_directory import is_ticket, level_path
from lotcal_tf.deploy.scaling import temperature_of
from lotcal_tf.errors import DamagedTicket, UsageError
from lotcal_tf.formats import keras as keras_file
from lotcal_tf.formats import saved_model, tflite
from lotcal_tf.formats.batches import in_batches
from lotcal_tf.formats.format import LOGITS, PROBABILITIES, output_name
from lotcal_tf.lottery.store import RunStore, read_ticket
from lotcal_tf.lottery.ticket import Ticket, selected_level

# A float32 softmax adds up to 1 within this; whole numbers add half a step for each class.
SUM_TOLERANCE = 1e-3


class Runner(Protocol):
    """Runs a model; `tflite.Runner`, `saved_model.Runner` and `KerasRunner` are ones."""

    shape: tuple[int | None, ...]
    classes: int | None
    output: str
    step: float

    def __call__(self, inputs: NDArray[np.float32], batch_size: int = 1000) -> NDArray[np.float32]:
        """What the model gives, `(N, K)`, for inputs `(N, …)`."""


class KerasRunner:
    """A plain Keras model, with dropout off."""

    step = 0.0

    def __init__(self, model: "keras.Model") -> None:
        """See the class."""
        spec = tf.TensorSpec(model.input_shape, tf.float32)
        self._run = tf.function(lambda batch: model(batch, training=False), input_signature=[spec])
        self.output = output_name(model)
        self.shape = tuple(model.input_shape[1:])
        self.classes = model.output_shape[-1]

    def __call__(self, inputs: NDArray[np.float32], batch_size: int = 1000) -> NDArray[np.float32]:
        """What the model gives, `(N, K)`, for inputs `(N, …)`."""
        # Not `predict`: it makes TensorFlow write an error line of its own to standard error.
        return in_batches(lambda batch: self._run(batch).numpy(), inputs, batch_size)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model that can be run.

    Attributes:
      path: of the ticket, where a run was named; else as given.
      kind: `ticket`, `saved_model`, `keras` or `tflite`.
      runner: runs it.
      ticket: the ticket itself; None for a file.
    """

    path: Path
    kind: str
    runner: Runner
    ticket: Ticket | None = None

    def temperature(self) -> float:
        """What a ticket's logits are to be divided by.

        Raises:
          UsageError: it is no ticket, or one without a temperature.
        """
        if self.ticket is None:
            raise UsageError(
                f"{self.path}: only a ticket records a temperature; a file has it in its weights or "
                "was exported without"
            )
        return temperature_of(self.ticket)

    def check_fits(self, shape: tuple[int, ...], classes: int | None, data: str) -> None:
        """Refuses data that the model does not take.

        Args:
          shape: of one example.
          classes: how many; None where the data's classes are not the model's.
          data: what it is called.

        Raises:
          UsageError: the shapes or the numbers of classes differ; both are named.
        """
        mine = self.runner.shape
        if len(mine) != len(shape) or any(
            m not in (None, n) for m, n in zip(mine, shape, strict=True)
        ):
            raise UsageError(
                f"{self.path} takes inputs of shape {_shown(mine)}, {data} has {_shown(shape)}"
            )
        if None not in (classes, self.runner.classes) and classes != self.runner.classes:
            raise UsageError(
                f"{self.path} tells {self.runner.classes} classes apart, {data} has {classes}"
            )


def _shown(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def open_model(path: Path) -> Opened:
    """Opens a ticket, a run (its best ticket), a SavedModel, a Keras file or a TFLite file.

    Raises:
      UsageError: it is none of them, or damaged.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory")
    if path.is_file() and path.suffix == ".keras":
        return Opened(path, "keras", KerasRunner(keras_file.read(path)))
    if path.is_file():
        return Opened(path, "tflite", tflite.Runner(path))
    if (path / "saved_model.pb").is_file():
        return Opened(path, "saved_model", saved_model.Runner(path))
    try:
        if (path / "experiment.json").is_file():
            store = RunStore(path)
            if not store.finished():
                raise UsageError(f"{path} is a run without a finished level")
            best = selected_level(store.records())
            path = level_path(path, best)
        if is_ticket(path):
            ticket = read_ticket(path)
            return Opened(path, "ticket", KerasRunner(ticket.model()), ticket)
    except DamagedTicket as error:
        # What was asked for cannot be measured; nothing that ran has failed.
        raise UsageError(str(error)) from error
    raise UsageError(
        f"{path} is no model: give a .tflite or .keras file, a SavedModel's directory, "
        "RUN/tickets/level_NN, or RUN for its best level"
    )


def recorded_experiment(path: Path) -> dict[str, Any]:
    """The fields of the run that a model lies in (`RUN`, `RUN/tickets/…`, `RUN/export/…`); {} in none.

    Raises:
      UsageError: its `experiment.json` cannot be read.
    """
    whole = path.resolve()
    for directory in (whole, *whole.parents[1:2]):
        if (directory / "experiment.json").is_file():
            fields = RunStore(directory).experiment().get("experiment", {})
            return dict(fields) if isinstance(fields, dict) else {}
    return {}


def gives_probabilities(runner: Runner, outputs: NDArray[np.float32]) -> bool:
    """Whether a model's outputs `(N, K)` are probabilities: by the output's name, else by its values.

    Values are probabilities where none is below 0 and every row adds up to 1.
    """
    if runner.output in (LOGITS, PROBABILITIES):
        return runner.output == PROBABILITIES
    tolerance = SUM_TOLERANCE + outputs.shape[1] * runner.step / 2
    sums = outputs.sum(axis=1, dtype=np.float64)
    return bool((outputs >= 0).all() and (np.abs(sums - 1) <= tolerance).all())


def logits_of(probabilities: NDArray[np.float32], step: float) -> NDArray[np.float64]:
    """The logarithm of probabilities, which stands for logits.

    A probability of exactly 0 counts as the least that its type resolves: half a step, or the least
    float32.
    """
    least = step / 2 if step else float(np.finfo(np.float32).tiny)
    return np.log(np.maximum(np.asarray(probabilities, np.float64), least))
