"""Finished runs as chains that belong together: read, checked, ordered."""

import csv
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf.analysis.descent import Descent, read_chain
from lotcal_tf.config.experiment import FIELDS
from lotcal_tf.errors import UsageError

# The field that says how hard a task is: the one field of the data that may differ.
DIFFICULTY = "mixture_clusters"
# Where chains start, and by which draw.
VARIED = ("model", "seed", DIFFICULTY)

_NEEDED = ("level", "density", "weights", "train_accuracy", "val_accuracy", "test_accuracy")
Columns = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Chain:
    """A finished run.

    Attributes:
      directory: where it lies.
      fields: of its experiment, by name.
      content: digests of what its fields only point to.
      wrong_labels: realised share of wrong labels of each noisy split; empty: not recorded.
      examples: of its validation split.
      columns: of `metrics.csv`, each `(levels,)` and float64; NaN where a level has no such figure.
    """

    directory: Path
    fields: Mapping[str, Any]
    content: Mapping[str, str]
    wrong_labels: Mapping[str, float]
    examples: int
    columns: Columns

    @property
    def model(self) -> str:
        """The network's name; of one study, what tells starting sizes apart."""
        return str(self.field("model"))

    @property
    def seed(self) -> int:
        """The seed of every draw."""
        return int(self.field("seed"))

    @property
    def difficulty(self) -> float | None:
        """How hard the task is; None: the field means nothing for this data, or is not recorded."""
        value = self.field(DIFFICULTY)
        only_with = FIELDS[DIFFICULTY].metadata["only_with"]
        applies = only_with.holds(self.field(only_with.field))
        return float(value) if applies and value is not None else None

    @property
    def weights(self) -> np.ndarray:
        """Non-zero kernel entries of each level."""
        return self.columns["weights"]

    @property
    def start(self) -> int:
        """The dense network's weights."""
        return int(self.weights[0])

    @functools.cached_property
    def descent(self) -> Descent:
        """What the chain shows by training and validation error."""
        wrong = self.wrong_labels.get("val", 0.0)
        return read_chain(self.error("train"), self.error("val"), self.examples, wrong)

    def error(self, split: str) -> np.ndarray:
        """1 - accuracy of each level on `train`, `val` or `test`."""
        return 1 - self.columns[f"{split}_accuracy"]

    def field(self, name: str) -> Any:
        """A field's value; its default where the run is older than the field."""
        default = FIELDS[name].default if name in FIELDS else None
        value = self.fields.get(name, default)
        return list(value) if isinstance(value, tuple) else value

    def figure(self, name: str, level: int | None) -> float | None:
        """A column's value of a level; None where there is none."""
        if level is None or name not in self.columns:
            return None
        value = float(self.columns[name][level])
        return value if np.isfinite(value) else None


def read_run(directory: Path) -> Chain:
    """Reads a finished run's `experiment.json` and `metrics.csv`.

    Raises:
      UsageError: it is no run, is not finished, or its files are not what a run writes.
    """
    whole = _experiment(directory)
    columns = _columns(directory)
    fields, realised = whole["experiment"], whole.get("realised", {})
    found, wanted = columns["level"].tolist(), int(fields["levels"]) + 1
    missing = next((level for level in range(wanted) if level not in found), None)
    if missing is not None:
        raise UsageError(
            f"{directory} is not finished: level {missing} of {wanted - 1} is missing; its own "
            "command, given again, goes on there"
        )
    if found != list(range(len(found))):
        raise UsageError(f"{directory}/metrics.csv: its levels are not 0, 1, 2, …")
    for name in ("train_accuracy", "val_accuracy", "test_accuracy"):
        if not ((columns[name] >= 0) & (columns[name] <= 1)).all():
            raise UsageError(f"{directory}/metrics.csv: {name} holds values outside [0, 1]")
    if not (columns["weights"] > 0).all():
        raise UsageError(f"{directory}/metrics.csv: weights holds values that are not above 0")
    try:
        examples = int(realised["examples"]["val"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{directory}/experiment.json does not say realised.examples.val"
        ) from error
    return Chain(
        directory=directory,
        fields=fields,
        content=whole.get("content", {}),
        wrong_labels=realised.get("wrong_labels", {}),
        examples=examples,
        columns=columns,
    )


def read_runs(directories: Sequence[Path]) -> list[Chain]:
    """Reads runs that belong together, ordered by difficulty, starting size and seed.

    Raises:
      UsageError: there is none, one cannot be read, two are of one experiment, or one differs from
        the first in more than network, seed and difficulty.
    """
    if not directories:
        raise UsageError("no run is given: name run directories")
    chains = [read_run(directory) for directory in directories]
    first, *others = chains
    for other in others:
        differing = _differing(first, other)
        if differing:
            raise UsageError(
                f"{other.directory} does not belong to {first.directory}: {'; '.join(differing)}"
            )
    known: dict[Any, Chain] = {}
    for chain in chains:
        same = known.setdefault((chain.model, chain.seed, chain.difficulty), chain)
        if same is not chain:
            raise UsageError(
                f"{chain.directory} and {same.directory} are the same experiment; name it once"
            )
    return sorted(chains, key=lambda c: (c.difficulty or 0.0, c.start, c.model, c.seed))


def _differing(first: Chain, other: Chain) -> list[str]:
    """The fields, and digests, in which two runs differ and may not."""
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
        whole = json.loads(path.read_text(encoding="utf-8"))
        int(whole["experiment"]["levels"])
    except FileNotFoundError as error:
        raise UsageError(f"{directory} is no run directory: it has no experiment.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as a run's: {error!r}") from error
    return dict(whole)


def _columns(directory: Path) -> dict[str, np.ndarray]:
    """The columns that hold numbers; a text among them is no figure and is left out."""
    path = directory / "metrics.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
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
            raise UsageError(f"{path} has no column {name} of numbers")
    return columns or {name: np.zeros(0) for name in _NEEDED}
