"""Opening a model of any kind for inference: a ticket, a run, or an exported file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lotcal_tf.config import registry
from lotcal_tf.config.export_record import check_exported
from lotcal_tf.config.run_data import check_model
from lotcal_tf.config.run_directory import level_path
from lotcal_tf.errors import UsageError
from lotcal_tf.formats.format import Runner
from lotcal_tf.formats.keras import KerasRunner
from lotcal_tf.inputs import misfit
from lotcal_tf.lottery.run_tables import selected_level
from lotcal_tf.lottery.store import RunStore, read_ticket
from lotcal_tf.lottery.ticket import Ticket
from lotcal_tf.lottery.ticket_files import refusing_damaged
from lotcal_tf.models.given import GivenModel


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model that is ready to run.

    Attributes:
      path: as given; for a run, the path of its selected ticket; of a model in memory, its name.
      kind: `ticket`, `model` for a model in memory, or the kind of file, e.g. `tflite`, see
        `registry.FormatRow.kind`.
      runner: runs it.
      ticket: the ticket; None for a file.
    """

    path: Path
    kind: str
    runner: Runner
    ticket: Ticket | None = None

    @property
    def notes(self) -> Sequence[str]:
        """Messages for the user: how a Keras model was changed to give logits."""
        return getattr(self.runner, "notes", ())

    def temperature(self) -> float:
        """The temperature of the ticket.

        Raises:
          UsageError: this is not a ticket, or a ticket without a temperature.
        """
        if self.ticket is None:
            raise UsageError(
                f"{self.path} has no temperature, only tickets have one: leave out scaled (a file's "
                "temperature, if any, is part of its weights)"
            )
        return temperature_of(self.ticket)

    def check_fits(self, shape: Any, classes: int | None, data: str) -> None:
        """Checks that the model can take data.

        Args:
          shape: of one example; of several inputs a dictionary of shapes.
          classes: the number of classes; None if the data has other classes than the model.
          data: the name of the data, for the message.

        Raises:
          UsageError: the shapes or the numbers of classes differ.
        """
        if misfit(self.runner.inputs, shape):
            expected = {name: tuple(s.shape[1:]) for name, s in self.runner.inputs.items()}
            taken = expected if len(expected) > 1 else next(iter(expected.values()))
            raise UsageError(
                f"{self.path} takes inputs of shape {_shape_text(taken)}, "
                f"{data} has {_shape_text(shape)}"
            )
        if None not in (classes, self.runner.classes) and classes != self.runner.classes:
            raise UsageError(
                f"{self.path} has {self.runner.classes} classes, {data} has {classes} classes"
            )


def _shape_text(shape: Any) -> str:
    if isinstance(shape, dict):
        return ", ".join(f"{_shape_text(one)} for {name}" for name, one in shape.items())
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def open_model(path: Path, trust_saved_model: bool = False) -> Opened:
    """Opens a ticket, a run (its selected ticket), or a file of a registered format.

    Args:
      path: the ticket, run or file.
      trust_saved_model: whether to load a SavedModel although this user did not export it on this
        machine.

    Raises:
      UsageError: it is none of these, or damaged.
    """
    check_model(path)
    row = registry.format_of(path)
    if row is not None:
        trusted = check_exported(path) or (trust_saved_model and row.kind == "saved_model")
        return Opened(path, row.kind, row.load().runner(path, trusted))
    path, ticket = ticket_at(path)
    return Opened(path, "ticket", KerasRunner(ticket.model()), ticket)


def ticket_at(path: Path) -> tuple[Path, Ticket]:
    """The path of a ticket, for a run that of its selected one, and the ticket; its network is not built.

    Args:
      path: the ticket or the run.

    Raises:
      UsageError: it is damaged, or a run without a finished level.
    """
    with refusing_damaged():
        if (path / "experiment.json").is_file():
            store = RunStore(path)
            if not store.finished():
                raise UsageError(f"{path} is a run without a finished level")
            path = level_path(path, selected_level(store.complete_records()))
        return path, read_ticket(path)


def open_given(given: GivenModel) -> Opened:
    """Opens a model in memory."""
    return Opened(Path(given.name), "model", KerasRunner(given.model, given))


def temperature_of(ticket: Ticket) -> float:
    """The temperature of a ticket, fitted on validation data after its level was trained, with dropout off.

    Raises:
      UsageError: the ticket has none.
    """
    if "temperature" not in ticket.record:
        raise UsageError(
            f"the ticket of level {ticket.level} has no temperature: use its raw logits, or train its "
            "level again"
        )
    return float(ticket.record["temperature"])
