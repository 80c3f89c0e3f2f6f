"""Reads finished runs and checks that they can be compared."""

import csv
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf.analysis.descent import Descent, find_descent
from lotcal_tf.config.experiment import FIELDS, recorded
from lotcal_tf.config.run_directory import checked_record
from lotcal_tf.config.sealed import unseal
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.run_tables import read_metrics

# The difficulty of a task: the only field of the data in which runs of one study may differ.
DIFFICULTY = "nu"
# The fields in which runs of one study may differ.
VARIED = ("model", "seed", DIFFICULTY)

_NEEDED = ("level", "density", "weights", "train_accuracy", "val_accuracy", "test_accuracy")
Columns = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """A finished run as recorded in its directory.

    Attributes:
      directory: the run directory.
      fields: values of the experiment's fields, by name.
      content: digests of the data that fields refer to, such as a ticket or custom code.
      wrong_labels: share of wrong labels of each noisy split, by split; empty if not recorded.
      examples: number of validation examples.
      columns: the numeric columns of `metrics.csv` by name, each `(L,)` float64 with one value per
        level; NaN where a cell is empty.
    """

    directory: Path
    fields: Mapping[str, Any]
    content: Mapping[str, str]
    wrong_labels: Mapping[str, float]
    examples: int
    columns: Columns

    @property
    def model(self) -> str:
        """The network's name; within a study it identifies the starting size."""
        return str(self.field("model"))

    @property
    def seed(self) -> int:
        """The experiment's seed."""
        return int(self.field("seed"))

    @property
    def difficulty(self) -> float | None:
        """The difficulty of the task; None if it does not apply to this data or is not recorded."""
        value = self.field(DIFFICULTY)
        only_with = FIELDS[DIFFICULTY].metadata["only_with"]
        applies = only_with.holds(self.field(only_with.field))
        return float(value) if applies and value is not None else None

    @property
    def weights(self) -> np.ndarray:
        """Number of unpruned prunable weights of each level, `(L,)`."""
        return self.columns["weights"]

    @property
    def start(self) -> int:
        """Number of prunable weights of the dense network."""
        return int(self.weights[0])

    @functools.cached_property
    def descent(self) -> Descent:
        """The levels at which the run's error changes direction."""
        wrong = self.wrong_labels.get("val", 0.0)
        return find_descent(self.error("train"), self.error("val"), self.examples, wrong)

    def error(self, split: str) -> np.ndarray:
        """Error of each level, 1 - accuracy, `(L,)`; `split` is `train`, `val` or `test`."""
        return 1 - self.columns[f"{split}_accuracy"]

    def field(self, name: str) -> Any:
        """The value of a field; its default if the run was made before the field existed."""
        default = FIELDS[name].default if name in FIELDS else None
        value = self.fields.get(name, default)
        return list(value) if isinstance(value, tuple) else value

    def metric(self, name: str, level: int | None) -> float | None:
        """The value of a column at a level; None if there is no such level, column or value."""
        if level is None or name not in self.columns:
            return None
        value = float(self.columns[name][level])
        return value if np.isfinite(value) else None


def read_run(directory: Path) -> RecordedRun:
    """Reads `experiment.json` and `metrics.csv` of a finished run.

    Raises:
      UsageError: the directory is not that of a finished run, or its files are damaged.
    """
    whole = _experiment(directory)
    columns = _columns(directory)
    fields, realised = whole["experiment"], whole.get("realised", {})
    found, wanted = columns["level"].tolist(), int(fields["levels"]) + 1
    missing = next((level for level in range(wanted) if level not in found), None)
    if missing is not None:
        raise UsageError(
            f"{directory} is not finished: level {missing} of {wanted - 1} is missing; continue it "
            "with the command that started it"
        )
    if found != list(range(len(found))):
        raise UsageError(f"{directory}/metrics.csv: column level must hold 0, 1, 2, … in order")
    for name in ("train_accuracy", "val_accuracy", "test_accuracy"):
        if not ((columns[name] >= 0) & (columns[name] <= 1)).all():
            raise UsageError(f"{directory}/metrics.csv: column {name} has values outside [0, 1]")
    if not (columns["weights"] > 0).all():
        raise UsageError(f"{directory}/metrics.csv: column weights has values that are not above 0")
    try:
        examples = int(realised["examples"]["val"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{directory}/experiment.json has no entry realised.examples.val"
        ) from error
    return RecordedRun(
        directory=directory,
        fields=fields,
        content=whole.get("content", {}),
        wrong_labels=realised.get("wrong_labels", {}),
        examples=examples,
        columns=columns,
    )


def read_runs(directories: Sequence[Path]) -> list[RecordedRun]:
    """Reads the runs of one study.

    Returns:
      The runs, ordered by difficulty, starting size and seed.

    Raises:
      UsageError: no run is given, a run cannot be read, two runs are the same experiment, or a run
        differs from the first one in a field other than network, seed and difficulty.
    """
    if not directories:
        raise UsageError("no run is given: name at least one run directory")
    runs = [read_run(directory) for directory in directories]
    first, *others = runs
    for other in others:
        differing = _differing(first, other)
        if differing:
            raise UsageError(
                f"{other.directory} cannot be compared with {first.directory}: {'; '.join(differing)}"
            )
    known: dict[Any, RecordedRun] = {}
    for run in runs:
        same = known.setdefault((run.model, run.seed, run.difficulty), run)
        if same is not run:
            raise UsageError(
                f"{run.directory} and {same.directory} are the same experiment; name only one of them"
            )
    return sorted(runs, key=lambda c: (c.difficulty or 0.0, c.start, c.model, c.seed))


def _differing(first: RecordedRun, other: RecordedRun) -> list[str]:
    """The fields and digests that differ between two runs although they must agree."""
    names = dict.fromkeys((*FIELDS, *first.fields, *other.fields))
    differing = [
        f"{name} is {other.field(name)}, not {first.field(name)}"
        for name in names
        if name not in VARIED
        and (name not in FIELDS or FIELDS[name].metadata["identity"])
        and other.field(name) != first.field(name)
    ]
    return differing + [
        f"{name} differs"
        for name in dict.fromkeys((*first.content, *other.content))
        if other.content.get(name) != first.content.get(name)
    ]


def _experiment(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such directory")
    path = directory / "experiment.json"
    try:
        whole = checked_record(unseal(path))
        recorded(whole["experiment"])
        int(whole["experiment"]["levels"])
    except FieldError as error:
        raise UsageError(f"{path} is not a run's experiment.json: {error}") from error
    except UsageError:
        raise
    except FileNotFoundError as error:
        raise UsageError(
            f"{directory} is not a run directory: it has no experiment.json"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UsageError(
            f"{path} is not a run's experiment.json: it is damaged ({error})"
        ) from error
    return dict(whole)


def _columns(directory: Path) -> dict[str, np.ndarray]:
    """The numeric columns of `metrics.csv`; columns with text are left out."""
    path = directory / "metrics.csv"
    try:
        rows = list(csv.DictReader(io.StringIO(read_metrics(directory).decode(), newline="")))
    except UsageError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    names = dict.fromkeys(name for row in rows for name in row if name is not None)
    columns = {}
    for name in names:
        try:
            columns[name] = np.array([float(row.get(name) or "nan") for row in rows])
        except ValueError:
            continue
    for name in _NEEDED:
        if rows and (name not in columns or not np.isfinite(columns[name]).all()):
            raise UsageError(f"{path}: column {name} is missing, or a value in it is not a number")
    return columns or {name: np.zeros(0) for name in _NEEDED}
