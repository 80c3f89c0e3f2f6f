"""The tables of what can be named on the command line: strategies, criteria, models, data, formats.

To add one, write its file and its row here; flags, checks and contract tests pick it up. Nothing
is imported until it is used, so the tables can be read without TensorFlow.
"""

import dataclasses
import fnmatch
import importlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from lotcal_tf.config import hyperparameters
from lotcal_tf.config.hyperparameters import NoHyperparameters
from lotcal_tf.config.optimizers import is_custom
from lotcal_tf.errors import FieldError


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing that has a name.

    Attributes:
      path: where it is defined, `module:attribute`.
      summary: one line for `--helpfull`.
    """

    path: str
    summary: str

    def load(self) -> Any:
        """Imports what the row stands for."""
        return _imported(self.path)


@dataclasses.dataclass(frozen=True)
class Method(Row):
    """A calibration strategy or a pruning criterion: a class with hyperparameters of its own."""

    hyperparameters: type = NoHyperparameters


@dataclasses.dataclass(frozen=True)
class Family(Row):
    """A family of networks.

    Attributes:
      pattern: a regular expression of full names; its named groups are integers, or integers
        joined by `_`, that the builder takes as arguments of those names.
      example: a full name.
      smallest: the least height and width of the images it takes; 0: inputs of any shape.
    """

    pattern: str
    example: str
    smallest: int = 0

    def arguments(self, name: str) -> dict[str, int | tuple[int, ...] | None] | None:
        """The builder's arguments from a full name; None if the name is of another family."""
        found = re.fullmatch(self.pattern, name, re.ASCII)
        return None if found is None else {k: _integers(v) for k, v in found.groupdict().items()}


def _integers(text: str | None) -> int | tuple[int, ...] | None:
    if text is None:
        return None
    numbers = tuple(int(number) for number in text.split("_") if number)
    return numbers if text.startswith("_") else numbers[0]


@dataclasses.dataclass(frozen=True)
class Source(Row):
    """A source of data.

    Attributes:
      test_path: what loads the test split alone, `module:function`; None: nothing does.
      from_files: whether it is read from `data_dir`.
      needs: what `data_dir` must be, where it cannot be left out.
      digest_path: what digests the files in `data_dir`, `module:function`; the run id then depends on
        their content. None: the name of the data says what they contain.
      fields: the fields of an experiment that apply to this source and others that list them, only.
    """

    test_path: str | None = None
    from_files: bool = False
    needs: str = ""
    digest_path: str | None = None
    fields: tuple[str, ...] = ()

    def load_test(self) -> Any:
        """Imports what loads the test split alone; None where nothing does."""
        return None if self.test_path is None else _imported(self.test_path)

    def load_digest(self) -> Any:
        """Imports what digests the files; None where nothing does."""
        return None if self.digest_path is None else _imported(self.digest_path)


@dataclasses.dataclass(frozen=True)
class FormatRow(Row):
    """One file format that a ticket can be exported to: a subclass of `formats.format.Format`.

    Attributes:
      file: the name of the file or directory that is written. A file is recognised by the suffix of
        this name; formats with the same suffix are run and read by the same code.
      marker: of a directory: the name of the file inside by which it is recognised.
      inside: of a directory: patterns of the names of all files inside, as of `fnmatch`.
      quantised: whether weights are rounded; else only the order of float32 sums may differ.
      sparse: whether the format has a sparse encoding, i.e. whether its class implements `encode`.
      blocks: whether its runtime runs some sparse kernels faster, i.e. whether its class implements
        `encode_blocks`, too.
      needs: the data needed for writing, of `validation` and `training`.
      runtime: the library that runs the file, e.g. `TensorFlow` or `LITERT`.
      library: the library that loads it, by its name on the Hugging Face Hub; empty: that has no name for it.
      read: other suffixes of files that are read by the same code.
    """

    file: str
    marker: str = ""
    inside: tuple[str, ...] = ()
    quantised: bool = False
    sparse: bool = False
    blocks: bool = False
    needs: tuple[str, ...] = ()
    runtime: str = "TensorFlow"
    library: str = ""
    read: tuple[str, ...] = ()

    @property
    def encodings(self) -> tuple[str, ...]:
        """The encodings of the format, of `ENCODINGS`."""
        return tuple(
            name
            for name, how in ENCODINGS.items()
            if (self.sparse or not how.sparse) and (self.blocks or not how.blocks)
        )

    @property
    def kind(self) -> str:
        """What formats with the same suffix have in common: `tflite`, `keras`, `saved_model`."""
        return PurePath(self.marker).stem or PurePath(self.file).suffix[1:]

    @property
    def recognised_by(self) -> str:
        """How a file of this format is recognised, in words."""
        return f"a directory with {self.marker}" if self.marker else f"a .{self.kind} file"

    def writes(self, name: str) -> bool:
        """Whether an export in this format can have a file of this name, relative to its directory."""
        if not self.inside:
            return name == self.file
        return any(fnmatch.fnmatchcase(name, f"{self.file}/{pattern}") for pattern in self.inside)

    def matches(self, path: Path) -> bool:
        """Whether a path is a file or directory of this format, by its name or marker file."""
        if self.marker:
            return (path / self.marker).is_file()
        return path.is_file() and path.suffix in (f".{self.kind}", *self.read)

    def load(self) -> Any:
        """Imports the class and makes its instance."""
        return super().load()()


@dataclasses.dataclass(frozen=True)
class Encoding:
    """One way to store the zeros of a network; if nothing is set, they are stored as values.

    Attributes:
      compact: dead units and channels are removed, see `pruning.compaction`.
      sparse: zeros are left out, by the sparse encoding of the format.
      blocks: only those zeros are left out that a sparse kernel of the runtime skips.
    """

    compact: bool = False
    sparse: bool = False
    blocks: bool = False


def _imported(path: str) -> Any:
    module, attribute = path.split(":")
    return getattr(importlib.import_module(module), attribute)


_STRATEGIES = "lotcal_tf.calibration.strategies"
STRATEGIES: Mapping[str, Method] = {
    "none": Method(f"{_STRATEGIES}:CrossEntropy", "plain cross-entropy"),
    "vwcc": Method(
        f"{_STRATEGIES}:VarianceWeighted",
        "predictions on which stochastic passes disagree are pulled towards uniform",
        hyperparameters.Vwcc,
    ),
    "mixup": Method(
        f"{_STRATEGIES}:Mixup", "mixtures of examples and of their labels", hyperparameters.Mixup
    ),
    "mda": Method(
        f"{_STRATEGIES}:MarginalDistributionAlignment",
        "a batch's mean prediction is pulled towards the class prior",
        hyperparameters.Mda,
    ),
    "lwcc": Method(
        f"{_STRATEGIES}:LikelihoodWeighted",
        "wrong or low-confidence predictions are pulled towards uniform",
        hyperparameters.Lwcc,
    ),
    "lwcc_si": Method(
        f"{_STRATEGIES}:LikelihoodWeightedStochastic",
        "lwcc on the mean of stochastic passes",
        hyperparameters.LwccSi,
    ),
    "nba": Method(
        f"{_STRATEGIES}:NormalisedBinAssignment",
        "confidences in the extreme bins are penalised",
        hyperparameters.Nba,
    ),
    "slimming": Method(
        "lotcal_tf.calibration.slimming:Slimming",
        "whole channels are driven to zero, for smaller and faster exported networks",
        hyperparameters.Slimming,
    ),
}

# Which weights survive a pruning.
_CRITERIA = "lotcal_tf.pruning.criteria"
CRITERIA: Mapping[str, Method] = {
    "magnitude": Method(f"{_CRITERIA}:Magnitude", "large weights survive"),
    "random": Method(f"{_CRITERIA}:Random", "weights drawn at random by seed survive, the control"),
    "magnitude_increase": Method(
        f"{_CRITERIA}:MagnitudeIncrease", "weights that grew most since the level's start survive"
    ),
    "gradient": Method(
        f"{_CRITERIA}:Gradient",
        "weights with a large |gradient × weight| survive",
        hyperparameters.Gradient,
    ),
}

# `resnet50` and `resnet152` of He et al. (2016) are other networks, so these names are refused.
_DEPTHS = "|".join(str(6 * n + 2) for n in range(1, 201) if 6 * n + 2 not in (50, 152))
_WIDTH = r"(_(?P<width>[1-9]\d{0,2}))?"  # up to 999 channels

MODELS: Mapping[str, Family] = {
    "lenet": Family(
        "lotcal_tf.models.lenet:build",
        "fully connected, with up to 20 hidden layers of the given widths, up to 10000 each",
        r"lenet(?P<widths>(_([1-9]\d{0,3}|10000)){1,20})",
        "lenet_300_100",
    ),
    "resnet18": Family(
        "lotcal_tf.models.resnet:build",
        "18 layers, 64 to 512 channels, for small images; resnet18_W has W channels at first, up to 999",
        rf"resnet(?P<depth>18){_WIDTH}",
        "resnet18_4",
        smallest=1,
    ),
    "resnet": Family(
        "lotcal_tf.models.resnet:build",
        "6n + 2 layers, 16 to 64 channels: resnet20, resnet56, …; resnet20_W has W channels at first",
        rf"resnet(?P<depth>{_DEPTHS}){_WIDTH}",
        "resnet8_4",
        smallest=1,
    ),
    "vgg": Family(
        "lotcal_tf.models.vgg:build",
        "vgg16 and vgg19: 13 or 16 convolutions of 64 to 512 channels and a linear layer; vgg19_W has W channels at "
        "first",
        rf"vgg(?P<depth>16|19){_WIDTH}",
        "vgg19_4",
        smallest=16,  # four max-pools halve them
    ),
}

# The field `model` may also be the path of a Keras file.
MODEL_FILE = ".keras"
_MODEL_FILES = (MODEL_FILE, ".h5")

# Every other source is the name of a TFDS data set.
SOURCES: Mapping[str, Source] = {
    "digits": Source(
        "lotcal_tf.data.digits:load", "1,797 handwritten digits of 8x8, part of scikit-learn"
    ),
    "mixture_linear": Source(
        "lotcal_tf.data.mixtures:load",
        "two Gaussians, with true conditionals",
        fields=("nu", "dimensions"),
    ),
    "mixture_xor": Source(
        "lotcal_tf.data.mixtures:load",
        "four Gaussians in two classes, with true conditionals",
        fields=("nu", "dimensions"),
    ),
    "folder": Source(
        "lotcal_tf.data.folders:load",
        "images in one folder per class",
        test_path="lotcal_tf.data.folders:load_test",
        from_files=True,
        needs="a directory with one folder of images per class, or with train, val and test folders of these",
        digest_path="lotcal_tf.data.folders:digest",
        fields=("test_size", "image_size", "color_mode"),
    ),
    "table": Source(
        "lotcal_tf.data.frames:load",
        "a CSV or Parquet file with numeric columns and a label column",
        from_files=True,
        needs="a .csv or .parquet file",
        digest_path="lotcal_tf.data.frames:digest",
        fields=("test_size", "label_column"),
    ),
    "hf": Source(
        "lotcal_tf.data.hugging_face:load",
        "a Hugging Face data set, as save_to_disk wrote it",
        from_files=True,
        needs="a directory that save_to_disk of Hugging Face datasets wrote",
        digest_path="lotcal_tf.data.hugging_face:digest",
        fields=("test_size", "label_column"),
    ),
}
TFDS = Source(
    "lotcal_tf.data.tfds:load",
    "any data set of TensorFlow Datasets",
    test_path="lotcal_tf.data.tfds:load_test",
    from_files=True,
)

# What `evaluate` does to test images, each at five severities.
CORRUPTIONS: Mapping[str, Row] = {
    "gaussian_noise": Row(
        "lotcal_tf.data.corruptions:gaussian_noise", "normal noise on every value"
    ),
    "blur": Row("lotcal_tf.data.corruptions:blur", "a Gaussian filter over each channel"),
    "contrast": Row(
        "lotcal_tf.data.corruptions:contrast", "values moved towards the channel's mean"
    ),
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
        library="tf-keras",
        read=(".h5",),
    ),
    "keras3": FormatRow(
        "lotcal_tf.formats.keras3:Keras3File",
        "a Keras file, for further work in Keras 3",
        "ticket_keras3.keras",
        runtime="Keras 3",
        library="keras",
    ),
    "saved_model": FormatRow(
        "lotcal_tf.formats.saved_model:SavedModel",
        "a SavedModel with the signature serving_default",
        "saved_model",
        marker="saved_model.pb",
        inside=("saved_model.pb", "fingerprint.pb", "variables/variables.*", "assets/*"),
    ),
    "float32": FormatRow(
        "lotcal_tf.formats.tflite:Float32",
        "TFLite, the network unchanged",
        "ticket_float32.tflite",
        sparse=True,
        blocks=True,
        runtime=LITERT,
        library="tflite",
    ),
    "float16": FormatRow(
        "lotcal_tf.formats.tflite:Float16",
        "TFLite, 16-bit weights, computed in 32 bits",
        "ticket_float16.tflite",
        quantised=True,
        sparse=True,
        runtime=LITERT,
        library="tflite",
    ),
    "dynamic": FormatRow(
        "lotcal_tf.formats.tflite:Dynamic",
        "TFLite, 8-bit weights, activations quantised at run time",
        "ticket_dynamic.tflite",
        quantised=True,
        runtime=LITERT,
        library="tflite",
    ),
    "int8": FormatRow(
        "lotcal_tf.formats.tflite:Int8",
        "TFLite, 8-bit integers with ranges from validation data",
        "ticket_int8.tflite",
        quantised=True,
        sparse=True,
        needs=("validation",),
        runtime=LITERT,
        library="tflite",
    ),
    "int8_qat": FormatRow(
        "lotcal_tf.formats.qat:Int8Qat",
        "int8 after quantisation-aware fine-tuning that keeps zeros (TFMOT)",
        "ticket_int8_qat.tflite",
        quantised=True,
        sparse=True,
        needs=("validation", "training"),
        runtime=LITERT,
        library="tflite",
    ),
}
# The default: one file in full precision and one small file.
DEFAULT_FORMATS = ("float32", "int8")

# How a file stores the zeros of a network.
ENCODINGS: Mapping[str, Encoding] = {
    "dense": Encoding(),
    "sparse": Encoding(sparse=True),
    "blocks": Encoding(sparse=True, blocks=True),
    "compact": Encoding(compact=True),
    "compact_sparse": Encoding(compact=True, sparse=True),
    "compact_blocks": Encoding(compact=True, sparse=True, blocks=True),
}
# What decides between the encodings of a file, if none is chosen; the first is the default.
SPEED, SIZE = "speed", "size"


def summaries(rows: Mapping[str, Row]) -> dict[str, str]:
    """What each name of a table means."""
    return {name: row.summary for name, row in rows.items()}


def strategy(name: str) -> Method | None:
    """The row of a strategy; None for a custom one, `module:Class`.

    Raises:
      FieldError: the name is neither.
    """
    return _method("calib", STRATEGIES, name)


def criterion(name: str) -> Method | None:
    """The row of a pruning criterion; None for a custom one, `module:Class`.

    Raises:
      FieldError: the name is neither.
    """
    return _method("criterion", CRITERIA, name)


def _method(field: str, rows: Mapping[str, Method], name: str) -> Method | None:
    if name in rows:
        return rows[name]
    if is_custom(name):
        return None
    raise FieldError(field, name, f"choose one of {', '.join(rows)}, or module:Class")


def model(name: str) -> tuple[Family, dict[str, Any]]:
    """The family of a network's full name, and what the name says to its builder.

    Raises:
      FieldError: no family has such a name.
    """
    for row in MODELS.values():
        arguments = row.arguments(name)
        if arguments is not None:
            return row, arguments
    known = ", ".join(f"{row.example} ({row.summary})" for row in MODELS.values())
    raise FieldError("model", name, f"choose one of {known}, or give a {MODEL_FILE} file")


def is_dense(name: str) -> bool:
    """Whether a name is that of a network without convolutions, which takes inputs of any shape."""
    rows = (row for row in MODELS.values() if row.arguments(name) is not None)
    return any(row.smallest == 0 for row in rows)


def is_model_file(name: str) -> bool:
    """Whether a network is named by the path of a Keras file.

    Raises:
      FieldError: there is no such file.
    """
    if not name.endswith(_MODEL_FILES):
        return False
    if not Path(name).is_file():
        raise FieldError("model", name, "there is no such file")
    return True


def source(name: str) -> Source:
    """The row of a source: that of the table, else TFDS by the data set's name."""
    return SOURCES.get(name, TFDS)


def corruption(name: str) -> Row:
    """The row of a corruption.

    Raises:
      FieldError: there is none of that name.
    """
    if name not in CORRUPTIONS:
        raise FieldError("shift", name, f"choose one of {', '.join(CORRUPTIONS)}, or all")
    return CORRUPTIONS[name]


def format_of(path: Path) -> FormatRow | None:
    """The first row that a file or directory matches; None if it is of no known format."""
    return next((row for row in FORMATS.values() if row.matches(path)), None)


def accepted_files() -> str:
    """How files of known formats are recognised, in words, for messages."""
    return ", ".join(dict.fromkeys(row.recognised_by for row in FORMATS.values()))
