"""The tables of what can be named on the command line: strategies, models, datasets, file formats.

To add one, write its file and its row here; flags, checks and contract tests pick it up. Nothing
is imported until it is used, so the tables can be read without TensorFlow.
"""

import dataclasses
import importlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from lotcal_tf.errors import FieldError


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing that has a name.

    Attributes:
      path: where it is defined, `module:attribute`.
      summary: one line for `--help`.
      hyperparameters: of a strategy: the fields of an experiment that it takes, and their defaults.
      pattern: what full names of it look like; None where the name is the key itself.
      example: a full name.
      test_path: of a source: what loads its test split alone, where it can be had alone.
    """

    path: str
    summary: str
    hyperparameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pattern: str | None = None
    example: str = ""
    test_path: str | None = None

    def load(self) -> Any:
        """Imports what the row stands for."""
        return _imported(self.path)

    def load_test(self) -> Any:
        """Imports what loads the test split alone; None where nothing does."""
        return None if self.test_path is None else _imported(self.test_path)


@dataclasses.dataclass(frozen=True)
class FormatRow:
    """One file format that a ticket can be exported to.

    Attributes:
      path: its class, `module:Class`, a subclass of `formats.format.Format`.
      help: one line for `--help`.
      file: the name of the file or directory that is written. A file is recognised by the suffix of
        this name; formats with the same suffix are run and read by the same code.
      marker: of a directory: the name of the file inside by which it is recognised.
      quantised: whether weights are rounded; else only the order of float32 sums may differ.
      sparse: whether the format has a sparse encoding, i.e. whether its class implements `encode`.
      needs: the data needed for writing, of `validation` and `training`.
      runtime: the library that runs the file, e.g. `TensorFlow` or `LITERT`.
    """

    path: str
    help: str
    file: str
    marker: str = ""
    quantised: bool = False
    sparse: bool = False
    needs: tuple[str, ...] = ()
    runtime: str = "TensorFlow"

    @property
    def kind(self) -> str:
        """What formats with the same suffix have in common: `tflite`, `keras`, `saved_model`."""
        return PurePath(self.marker).stem or PurePath(self.file).suffix[1:]

    @property
    def recognised_by(self) -> str:
        """How a file of this format is recognised, in words."""
        return f"a directory with {self.marker}" if self.marker else f"a .{self.kind} file"

    def matches(self, path: Path) -> bool:
        """Whether a path is a file or directory of this format, by its name or marker file."""
        if self.marker:
            return (path / self.marker).is_file()
        return path.is_file() and path.suffix == f".{self.kind}"

    def load(self) -> Any:
        """Imports the class and makes its instance, a `formats.format.Format`."""
        return _imported(self.path)()


@dataclasses.dataclass(frozen=True)
class Encoding:
    """One way to store the zeros of a network; if neither is set, they are stored as values.

    Attributes:
      sparse: zeros are left out, by the sparse encoding of the format.
      compact: dead units and channels are removed, see `pruning.compaction`.
    """

    sparse: bool
    compact: bool


def _imported(path: str) -> Any:
    module, attribute = path.split(":")
    return getattr(importlib.import_module(module), attribute)


STRATEGIES: Mapping[str, Row] = {
    "none": Row("lotcal_tf.calibration.strategies:CrossEntropy", "plain cross-entropy"),
    "vwcc": Row(
        "lotcal_tf.calibration.strategies:VarianceWeighted",
        "what stochastic passes disagree about is drawn to uniform",
        {"passes": 5, "dropout_rate": 0.1, "dropout_at": "blocks"},
    ),
    "mixup": Row(
        "lotcal_tf.calibration.strategies:Mixup",
        "mixtures of examples and of their labels",
        {"mixup_a": 0.02},
    ),
    "mda": Row(
        "lotcal_tf.calibration.strategies:MarginalDistributionAlignment",
        "a batch's mean prediction is held to the class prior",
        {"calib_weight": 0.1, "prior": ()},
    ),
    "lwcc": Row(
        "lotcal_tf.calibration.strategies:LikelihoodWeighted",
        "what is wrong or unsure is drawn to uniform",
        {"calib_weight": 0.3},
    ),
    "lwcc_si": Row(
        "lotcal_tf.calibration.strategies:LikelihoodWeightedStochastic",
        "lwcc on the mean of stochastic passes",
        {"calib_weight": 0.3, "passes": 5, "dropout_rate": 0.2, "dropout_at": "blocks"},
    ),
    "nba": Row(
        "lotcal_tf.calibration.strategies:NormalisedBinAssignment",
        "confidences in the extreme bins cost",
        {"calib_weight": 0.3, "nba_bins": 10, "nba_width": 0.02},
    ),
}

# He et al. (2016) have networks of 50 and 152 layers that are of another kind than these: whoever
# names one means that.
_DEPTHS = "|".join(str(6 * n + 2) for n in range(1, 201) if 6 * n + 2 not in (50, 152))
_WIDTH = r"(_[1-9]\d*)?"

MODELS: Mapping[str, Row] = {
    "lenet": Row(
        "lotcal_tf.models.lenet:build",
        "fully connected, hidden layers of the widths given",
        pattern=r"lenet((_[1-9]\d*)+)",
        example="lenet_300_100",
    ),
    "resnet18": Row(
        "lotcal_tf.models.resnet:build",
        "18 layers, 64 to 512 channels, for small images: resnet18, or resnet18_W with W at first",
        pattern=rf"resnet18{_WIDTH}",
        example="resnet18_4",
    ),
    "resnet": Row(
        "lotcal_tf.models.resnet:build",
        "6n + 2 layers, 16 to 64 channels: resnet20, resnet56, …, or resnet20_W with W at first",
        pattern=rf"resnet({_DEPTHS}){_WIDTH}",
        example="resnet8_4",
    ),
    "vgg19": Row(
        "lotcal_tf.models.vgg:build",
        "16 convolutions of 64 to 512 channels and a linear layer: vgg19, or vgg19_W with W at first",
        pattern=rf"vgg19{_WIDTH}",
        example="vgg19_4",
    ),
}

# Every other source is the name of a TFDS dataset.
SOURCES: Mapping[str, Row] = {
    "digits": Row(
        "lotcal_tf.data.digits:load", "1 797 handwritten digits of 8x8, ship with scikit-learn"
    ),
    "mixture": Row(
        "lotcal_tf.data.mixtures:load", "Gaussians on a cube's corners, with true conditionals"
    ),
}
TFDS = Row(
    "lotcal_tf.data.tfds:load",
    "any set of TensorFlow Datasets",
    test_path="lotcal_tf.data.tfds:load_test",
)

# What `evaluate` does to test images, each at five severities.
CORRUPTIONS: Mapping[str, Row] = {
    "gaussian_noise": Row(
        "lotcal_tf.data.corruptions:gaussian_noise", "normal noise on every value"
    ),
    "blur": Row("lotcal_tf.data.corruptions:blur", "a Gaussian filter over each channel"),
    "contrast": Row("lotcal_tf.data.corruptions:contrast", "values drawn to the channel's mean"),
}
SEVERITIES = (1, 2, 3, 4, 5)

# The runtime of `.tflite` files; others need TensorFlow.
LITERT = "LiteRT"

# Files that a ticket can be exported to.
FORMATS: Mapping[str, FormatRow] = {
    "keras": FormatRow(
        "lotcal_tf.formats.keras:KerasFile",
        "a Keras file, for further work in tf_keras",
        "ticket.keras",
    ),
    "saved_model": FormatRow(
        "lotcal_tf.formats.saved_model:SavedModel",
        "a SavedModel with the signature serving_default",
        "saved_model",
        marker="saved_model.pb",
    ),
    "float32": FormatRow(
        "lotcal_tf.formats.tflite:Float32",
        "TFLite, the network unchanged",
        "ticket_float32.tflite",
        sparse=True,
        runtime=LITERT,
    ),
    "float16": FormatRow(
        "lotcal_tf.formats.tflite:Float16",
        "TFLite, 16-bit weights, computed in 32 bits",
        "ticket_float16.tflite",
        quantised=True,
        sparse=True,
        runtime=LITERT,
    ),
    "dynamic": FormatRow(
        "lotcal_tf.formats.tflite:Dynamic",
        "TFLite, 8-bit weights, activations quantised at run time",
        "ticket_dynamic.tflite",
        quantised=True,
        runtime=LITERT,
    ),
    "int8": FormatRow(
        "lotcal_tf.formats.tflite:Int8",
        "TFLite, 8-bit integers with ranges from validation data",
        "ticket_int8.tflite",
        quantised=True,
        sparse=True,
        needs=("validation",),
        runtime=LITERT,
    ),
    "int8_qat": FormatRow(
        "lotcal_tf.formats.qat:Int8Qat",
        "int8 after quantisation-aware fine-tuning that keeps zeros (TFMOT)",
        "ticket_int8_qat.tflite",
        quantised=True,
        sparse=True,
        needs=("validation", "training"),
        runtime=LITERT,
    ),
}
# The default: one file in full precision and one small file.
DEFAULT_FORMATS = ("float32", "int8")

# How a file stores the zeros of a network.
ENCODINGS: Mapping[str, Encoding] = {
    "dense": Encoding(sparse=False, compact=False),
    "sparse": Encoding(sparse=True, compact=False),
    "compact": Encoding(sparse=False, compact=True),
    "compact_sparse": Encoding(sparse=True, compact=True),
}


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


def corruption(name: str) -> Row:
    """The row of a corruption.

    Raises:
      FieldError: there is none of that name.
    """
    if name not in CORRUPTIONS:
        raise FieldError("shift", name, f"choose of {', '.join(CORRUPTIONS)}, or all")
    return CORRUPTIONS[name]


def file_format(name: str) -> FormatRow:
    """The row of a file format.

    Raises:
      FieldError: there is no format of that name.
    """
    if name not in FORMATS:
        raise FieldError("formats", name, f"choose from {', '.join(FORMATS)}")
    return FORMATS[name]


def format_of(path: Path) -> FormatRow | None:
    """The first row that a file or directory matches; None if it is of no known format."""
    return next((row for row in FORMATS.values() if row.matches(path)), None)


def accepted_files() -> str:
    """How files of known formats are recognised, in words, for messages."""
    return ", ".join(dict.fromkeys(row.recognised_by for row in FORMATS.values()))
