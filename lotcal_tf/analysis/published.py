"""What arXiv 2306.12190 (UAI 2023) and its supplement published on sizes and errors, for comparison.

`published.csv` has the values of the tables: means of three replicates (mixtures: five), errors on clean
test labels. The size of 19 467 weights is printed as 19 647, which no level has.
"""

import csv
import dataclasses
import functools
from pathlib import Path

from lotcal_tf.analysis.runs import RecordedRun

LABEL = "published"
# The share of labels that were redrawn from all classes, by data.
_NOISE = {"mnist": 0.2, "cifar10": 0.2, "mixture_linear": 0.05, "mixture_xor": 0.25}


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of a published table; None: not published.

    Attributes:
      source: name of the data.
      classes: number of classes.
      nu: of a mixture.
      network: the architecture, see `RecordedRun.architecture`.
      full_weights, full_error: of the dense network.
      best_weights, best_error: of its best pruned network.
    """

    source: str
    classes: int
    nu: float | None
    network: str
    full_weights: int | None
    full_error: float | None
    best_weights: int | None
    best_error: float | None


@functools.cache
def published_rows() -> tuple[Published, ...]:
    """All rows of `published.csv`."""
    path = Path(__file__).with_name("published.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))

    def integer(text: str) -> int | None:
        return int(text) if text else None

    def number(text: str) -> float | None:
        return float(text) if text else None

    return tuple(
        Published(
            row["source"],
            int(row["classes"]),
            number(row["nu"]),
            row["network"],
            integer(row["full_weights"]),
            number(row["full_error"]),
            integer(row["best_weights"]),
            number(row["best_error"]),
        )
        for row in rows
    )


def published_with(run: RecordedRun) -> list[Published]:
    """The published rows on the data, noise, difficulty and architecture of a run, of all widths.

    None for runs on a part of the training examples.
    """
    source = run.field("source")
    noise = run.field("noise_kind"), run.field("label_noise")
    if source not in _NOISE or noise != ("uniform", _NOISE[source]) or run.field("train_size"):
        return []
    own = source, run.classes, run.difficulty, run.architecture
    return [
        row for row in published_rows() if (row.source, row.classes, row.nu, row.network) == own
    ]


def published_beside(run: RecordedRun) -> Published | None:
    """The published row of a run's own width; of a mixture that of its difficulty."""
    for row in published_with(run):
        if row.full_weights == run.start or row.nu is not None:
            return row
    return None
