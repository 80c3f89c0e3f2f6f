"""What can go wrong for a user, as exceptions whose text is the one line they read.

The commands turn each into an exit code: `UsageError` 2, any other `LotcalError` 1.
"""


class LotcalError(Exception):
    """Base of every error this package raises on purpose; the message says what to do."""


class UsageError(LotcalError, ValueError):
    """The request cannot be carried out as asked: a flag, a recipe, data or a model is wrong."""


class FieldError(UsageError):
    """A field of an `Experiment` holds a value it cannot have.

    Attributes:
      field: the field's name, which is also its flag's.
      value: what was asked for.
    """

    def __init__(self, field: str, value: object, problem: str) -> None:
        """Builds the line `field=value: problem`."""
        super().__init__(f"{field}={value}: {problem}")
        self.field = field
        self.value = value


class TrainingDiverged(LotcalError, ArithmeticError):
    """The loss of a training step was not finite.

    Attributes:
      level, epoch, step: where; each counts from 0, the step from the start of the level's schedule.
    """

    def __init__(self, level: int, epoch: int, step: int) -> None:
        """Builds the line that names level, epoch and step."""
        super().__init__(
            f"the loss is not finite at level {level}, epoch {epoch}, step {step}: lower the "
            "learning rate (lr) or look for broken inputs; finished levels are kept"
        )
        self.level, self.epoch, self.step = level, epoch, step


class WorkerLost(LotcalError):
    """A process of a distributed run did not come, or went away before the end."""


class DamagedTicket(LotcalError):
    """A stored ticket's files do not match their checksums, or are missing."""


class ExportMismatch(LotcalError):
    """An exported file does not compute what the ticket computes; nothing was left behind."""
