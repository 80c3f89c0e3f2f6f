"""Finds the runs of a report and reads what they recorded."""

import contextlib
import csv
import dataclasses
import functools
import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf.analysis.descent import Descent, find_descent
from lotcal_tf.config.experiment import FIELDS, Experiment, by_section, recorded
from lotcal_tf.config.fields import as_json
from lotcal_tf.config.run_directory import checked_record, is_run, read_experiment, stored_levels
from lotcal_tf.config.sealed import unseal
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.conditions import OF_CORRUPTED, OF_UNSEEN, Row, read_conditions
from lotcal_tf.lottery.run_tables import read_metrics, selected_level

# The difficulty of a task with label noise.
DIFFICULTY = "nu"

_NEEDED = ("level", "density", "weights", "train_accuracy", "val_accuracy")
_TEST = "test_accuracy"  # of runs with test data
Columns = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
    """The run that found the tickets from which a run starts.

    Attributes:
      calib: its strategy; "" if it is not recorded.
      settings: its hyperparameters, and all other fields that apply to it and on which its results depend.
      replicate: its seed; of runs of older versions another value that distinguishes it.
    """

    calib: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    replicate: Any = None


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """A run as recorded in its directory.

    Attributes:
      directory: the run directory.
      fields: values of the experiment's fields, by name.
      content: digests of the data that fields refer to, such as a ticket or custom code.
      wrong_labels: share of wrong labels of each noisy split, by split; empty if not recorded.
      examples: number of validation examples.
      columns: the numeric columns of `metrics.csv` by name, each `(L,)` float64 with one value per
        level; NaN where a cell is empty. From `conditions.csv`: `test_shifted_METRIC`, the mean over
        `corruptions`, and `test_auroc_DATA` and `test_confidence_DATA` on unseen data.
      failed: why the run ended early; empty if it did not.
      source: the run that found its tickets; None if it starts from a network.
      classes: number of classes; None if it is not recorded.
      corruptions: name and severity of the corruptions that it was measured on.
      unseen: the names of the unseen data that it was measured on.
      test_examples: number of test examples; None if it is not recorded.
    """

    directory: Path
    fields: Mapping[str, Any]
    content: Mapping[str, str]
    wrong_labels: Mapping[str, float]
    examples: int
    columns: Columns
    failed: str = ""
    source: Source | None = None
    classes: int | None = None
    corruptions: frozenset[tuple[str, int]] = frozenset()
    unseen: frozenset[str] = frozenset()
    test_examples: int | None = None

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The fields as a record; those of later versions are left out."""
        return recorded(self.fields)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The hyperparameters of its strategy and criterion; the default of one that came after the run."""
        return dict(self.experiment.settings)

    @property
    def planned(self) -> int:
        """The number of levels that were asked for, level 0 included."""
        return int(self.field("levels")) + 1

    @property
    def is_finished(self) -> bool:
        """Whether all levels are there and it did not fail."""
        return not self.failed and len(self.weights) >= self.planned

    @functools.cached_property
    def selected(self) -> int | None:
        """The selected level, by validation data; None if the values for it are missing."""
        names = ("level", "val_nll", "val_nll_se")
        if not len(self.weights) or not all(
            name in self.columns and np.isfinite(self.columns[name]).all() for name in names
        ):
            return None
        rows = zip(*(self.columns[name] for name in names), strict=True)
        return int(selected_level([dict(zip(names, row, strict=True)) for row in rows]))

    @property
    def model(self) -> str:
        """The network's name; under label noise it identifies the starting size."""
        return str(self.field("model"))

    @property
    def architecture(self) -> str:
        """The network's name with W in place of its width, e.g. `lenet_W_100` or `resnet20_W`.

        A name without a width is that of the default width; own models are called without their digest.
        """
        own = re.sub(r"-[0-9a-f]{10}$", "", self.model)
        return own if own != self.model else _with_width(own)

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
        """Number of non-zero weights of each level, those of layers that are not pruned included, `(L,)`."""
        return self.columns["weights"]

    @property
    def has_test(self) -> bool:
        """Whether it was measured on test data."""
        return _TEST in self.columns

    @property
    def start(self) -> int:
        """Number of weights of the dense network, see `weights`; 0 before its level is finished."""
        return int(self.weights[0]) if len(self.weights) else 0

    @functools.cached_property
    def descent(self) -> Descent:
        """The levels at which the run's error changes direction."""
        wrong = self.wrong_labels.get("val", 0.0)
        errors = self.error("train"), self.error("val")
        return find_descent(*errors, self.examples, wrong, self.classes)

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
        if level is None or name not in self.columns or level >= len(self.weights):
            return None
        value = float(self.columns[name][level])
        return value if np.isfinite(value) else None


def _with_width(name: str) -> str:
    found, count = re.subn(r"_\d+", "_W", name, count=1)
    return found if count else f"{name}_W"


def read_runs(directories: Sequence[Path]) -> tuple[list[RecordedRun], list[str]]:
    """Reads runs; what cannot be read is named and left out.

    Returns:
      The runs, see `in_order`; and a line for each directory
      that is left out.

    Raises:
      UsageError: no run can be read.
    """
    problems: list[str] = []
    known: dict[str, RecordedRun] = {}
    for directory in directories:
        try:
            run = read_run(directory)
        except UsageError as error:
            problems.append(f"left out: {error}")
            continue
        identity = _identity(run)
        same = known.setdefault(identity, run)
        if same is not run:
            # The one that has more levels; of equal ones, the first.
            kept, left = sorted((same, run), key=_progress, reverse=True)
            known[identity] = kept
            problems.append(
                f"left out: {left.directory} is the same experiment as {kept.directory}"
            )
    if not known:
        raise UsageError(f"no run can be read; {problems[0].removeprefix('left out: ')}")
    return in_order(list(known.values())), problems


def _progress(run: RecordedRun) -> tuple[bool, int]:
    return run.is_finished, len(run.weights)


def in_order(runs: Sequence[RecordedRun]) -> list[RecordedRun]:
    """Runs by difficulty, starting size, network and seed."""
    return sorted(runs, key=lambda c: (c.difficulty or 0.0, c.start, c.model, c.seed))


def grouped(
    runs: Sequence[RecordedRun], key: Callable[[RecordedRun], Any]
) -> list[list[RecordedRun]]:
    """Runs grouped by a key, in the order in which the keys first occur."""
    groups: dict[Any, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _identity(run: RecordedRun) -> str:
    """A text that two runs share if they are the same experiment."""
    later = {name: value for name, value in run.fields.items() if name not in FIELDS}
    return json.dumps([run.experiment.identity(**run.content), later], sort_keys=True, default=str)


def read_run(directory: Path) -> RecordedRun:
    """Reads `experiment.json` and `metrics.csv` of a run, which need not be finished.

    Raises:
      UsageError: the directory is not that of a run, or its files are damaged.
    """
    whole = _experiment(directory)
    columns = _columns(directory)
    fields, realised = whole["experiment"], whole.get("realised", {})
    found = columns["level"].tolist()
    if found != list(range(len(found))):
        raise UsageError(f"{directory}/metrics.csv: column level must hold 0, 1, 2, … in order")
    for name in ("train_accuracy", "val_accuracy", *([_TEST] if _TEST in columns else [])):
        if not ((columns[name] >= 0) & (columns[name] <= 1)).all():
            raise UsageError(f"{directory}/metrics.csv: column {name} has values outside [0, 1]")
    for name in ("weights", "density"):
        if not (columns[name] > 0).all():
            raise UsageError(
                f"{directory}/metrics.csv: column {name} has values that are not above 0"
            )
    try:
        examples = int(realised["examples"]["val"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{directory}/experiment.json has no entry realised.examples.val"
        ) from error
    wrong, failed = realised.get("wrong_labels", {}), whole.get("failed", "")
    classes = realised.get("classes")
    conditions = read_conditions(directory)
    return RecordedRun(
        directory=directory,
        fields=fields,
        content=whole.get("content", {}),
        wrong_labels=wrong if isinstance(wrong, dict) else {},
        examples=examples,
        columns={**columns, **_condition_columns(conditions, len(found))},
        failed=failed if isinstance(failed, str) else str(failed),
        source=_source(whole),
        classes=classes if isinstance(classes, int) else None,
        corruptions=frozenset((r["shift"], r["severity"]) for r in conditions if r["shift"]),
        unseen=frozenset(r["unseen"] for r in conditions if r["unseen"]),
        test_examples=tested
        if isinstance(tested := realised["examples"].get("test"), int)
        else None,
    )


def _source(whole: Mapping[str, Any]) -> Source | None:
    """The run that found the tickets of a run, from its record."""
    if not whole["experiment"].get("ticket"):
        return None
    transfer = whole.get("transfer")
    found = transfer.get("found_by") if isinstance(transfer, dict) else None
    # Runs of older versions recorded no more than strategy and seed, or nothing; their source may still be there.
    if not isinstance(found, dict) or "dataset" not in found:
        run = Path(str(whole["experiment"]["ticket"]))
        run = run if is_run(run) else run.parent.parent
        with contextlib.suppress(UsageError):
            found = read_experiment(run).get("experiment", {})
    if not isinstance(found, dict):
        # `run_id/digest`, where the id is `dataset-network-strategy-hash`.
        name = str(whole.get("content", {}).get("run", "")).rpartition("/")[0]
        parts = name.rsplit("-", 2)
        return Source(parts[1] if len(parts) == 3 else "", {}, name)
    settings = {
        name: as_json(value)
        for section in by_section(found).values()
        for name, value in section.items()
        if name not in ("calib", "seed") and (name in found or name not in FIELDS)
    }
    return Source(str(found.get("calib", "")), settings, found.get("seed", 0))


def _experiment(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such directory")
    path = directory / "experiment.json"
    try:
        whole = checked_record(unseal(path))
        recorded(whole["experiment"])
        int(whole["experiment"].get("levels", 0))
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
    if not os.path.lexists(path) and not stored_levels(directory):
        return {name: np.zeros(0) for name in _NEEDED}  # no level is finished yet
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
    for name in (*_NEEDED, *([_TEST] if _TEST in names else [])):
        if rows and (name not in columns or not np.isfinite(columns[name]).all()):
            raise UsageError(f"{path}: column {name} is missing, or a value in it is not a number")
    return columns or {name: np.zeros(0) for name in _NEEDED}


def _condition_columns(rows: Sequence[Row], levels: int) -> Columns:
    """Columns of the metrics under corruption, each the mean over all corruptions, and on unseen data.

    A level that was not measured under all corruptions of the run has no mean.
    """
    columns: dict[str, np.ndarray] = {}

    def add(name: str, level: int, value: float) -> None:
        if level < levels:
            columns.setdefault(name, np.full(levels, np.nan))[level] = value

    shifted: dict[int, list[Row]] = {}
    for row in rows:
        if row["shift"]:
            shifted.setdefault(row["level"], []).append(row)
        else:
            for metric in OF_UNSEEN:
                add(f"test_{metric}_{row['unseen']}", row["level"], row[metric])
    whole = max(map(len, shifted.values()), default=0)
    for level, own in shifted.items():
        if len(own) == whole:
            for metric in OF_CORRUPTED:
                add(f"test_shifted_{metric}", level, float(np.mean([row[metric] for row in own])))
    return columns
