"""The tables of what can be named on the command line: strategies, models, datasets.

To add one, write its file and its row here; flags, checks and contract tests pick it up. Nothing
is imported until it is used, so the tables can be read without TensorFlow.
"""

import dataclasses
import importlib
import re
from collections.abc import Mapping
from typing import Any

from lotcal_tf.errors import FieldError


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing that has a name.

    Attributes:
      path: where it is defined, `module:attribute`.
      summary: one line for `--help`.
      pattern: what full names of it look like; None where the name is the key itself.
      example: a full name.
    """

    path: str
    summary: str
    pattern: str | None = None
    example: str = ""

    def load(self) -> Any:
        """Imports what the row stands for."""
        module, attribute = self.path.split(":")
        return getattr(importlib.import_module(module), attribute)


STRATEGIES: Mapping[str, Row] = {
    "none": Row("lotcal_tf.calibration.cross_entropy:CrossEntropy", "plain cross-entropy"),
}

MODELS: Mapping[str, Row] = {
    "lenet": Row(
        "lotcal_tf.models.lenet:build",
        "fully connected, hidden layers of the widths given",
        r"lenet((_[1-9]\d*)+)",
        "lenet_300_100",
    ),
}

# Every other source is the name of a TFDS dataset.
SOURCES: Mapping[str, Row] = {
    "digits": Row(
        "lotcal_tf.data.digits:load", "1 797 handwritten digits of 8x8, ship with scikit-learn"
    ),
}
TFDS = Row("lotcal_tf.data.tfds_source:load", "any set of TensorFlow Datasets")


def strategy(name: str) -> Row:
    """The row of a strategy: of the table, or a user's own, `module:Class`.

    Raises:
      FieldError: the name is neither.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    if re.fullmatch(r"[\w.]+:\w+", name):
        return Row(name, "the user's own")
    raise FieldError("calib", name, f"choose one of {', '.join(STRATEGIES)}, or module:Class")


def model(name: str) -> Row:
    """The row of a model.

    Raises:
      FieldError: no model of the table has such a name.
    """
    for family, row in MODELS.items():
        if re.fullmatch(row.pattern or re.escape(family), name):
            return row
    known = ", ".join(f"{row.example} ({row.summary})" for row in MODELS.values())
    raise FieldError("model", name, f"no such model; there is {known}")


def source(name: str) -> Row:
    """The row that loads a source: of the table, else TFDS by the set's name."""
    return SOURCES.get(name, TFDS)
