"""The exceptions of this package; their message is one line for the user.

Commands print it and exit with code 2 for `UsageError` and code 1 for any other `LotcalError`.
"""

_SHOWN = 400  # Characters of an invalid value that a message shows.


def shown(value: object) -> str:
    """A value for a message: on one line, without control characters, and not long."""
    try:
        text = str(value)
    except Exception:  # Integers of more than 4,300 digits; classes of users.
        text = f"<{type(value).__name__}>"
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class LotcalError(Exception):
    """Base class of all errors for users; the message says what to do, in one line."""

    def __init__(self, message: str = "") -> None:
        # It may quote several lines of another library.
        super().__init__(" ".join(message.splitlines()))


class UsageError(LotcalError, ValueError):
    """A request is invalid: a flag, a recipe, data or a model."""


class FieldError(UsageError):
    """A field of an experiment, or another flag, has an invalid value.

    The message is `field=value: problem`; without a value `field: problem`.

    Attributes:
      field: name of the field and of its flag.
      value: the invalid value.
    """

    def __init__(self, field: str, value: object, problem: str) -> None:
        given = field if isinstance(value, str) and not value else f"{field}={shown(value)}"
        super().__init__(f"{given}: {problem}")
        self.field = field
        self.value = value


class RunInUse(FieldError):
    """Another process, or another call in this one, writes the run directory."""


class NewerFormat(UsageError):
    """A file was written by a newer version of the package."""


class TrainingDiverged(LotcalError, ArithmeticError):
    """The loss of a training step was not finite, or a weight at the end of an epoch.

    Attributes:
      level, epoch, step: position in the run, counted from 0; steps count from the start of the level.
      what: what was not finite.
    """

    def __init__(self, level: int, epoch: int, step: int, what: str = "the loss") -> None:
        super().__init__(
            f"{what} is not finite at level {level}, epoch {epoch}, step {step}: lower the "
            "learning rate (lr) or check the inputs; finished levels are kept"
        )
        self.level, self.epoch, self.step, self.what = level, epoch, step, what


class Unhealthy(LotcalError):
    """A level has a problem, and the run must stop at one (`on_unhealthy=stop`).

    Attributes:
      level: number of the level, which is stored.
      names: the names of its problems, separated by spaces; see `lottery.health.problems`.
    """

    def __init__(self, level: int, names: str) -> None:
        super().__init__(
            f"level {level} is unhealthy ({names}), and on_unhealthy=stop; the level is stored; "
            "on_unhealthy=warn continues the run"
        )
        self.level, self.names = level, names


def first_line(error: BaseException) -> str:
    """The first line of an error's message; of an error without one, the name of its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class RunsFailed(LotcalError):
    """Runs of a sweep failed; the others are finished."""


class WorkerLost(LotcalError):
    """A process of a distributed run did not start, or ended too early."""


class TakenOver(LotcalError):
    """Another process writes the run directory now."""


class DamagedTicket(LotcalError):
    """Files of a stored ticket are missing or do not match their checksums."""


class ExportMismatch(LotcalError):
    """An exported file is not within tolerance of its ticket; no file was kept."""
