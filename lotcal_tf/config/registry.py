"""The tables of what can be named on the command line: strategies, models, datasets, file formats.

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
class Format:
    """One kind of file that a ticket is exported to.

    Attributes:
      path: what writes it, `module:function`, called as `write(model, path, material=…)`; see
        `deploy.formats`.
      help: one line for `--help`.
      file: what the file, or the directory, is called.
      tolerance: `float`, where only the order of sums differs from the ticket's; else `quantised`.
      encoder: what leaves zeros out of such a file (TFLite's sparse encoding), `module:function`,
        called as `encode(model, content)`; empty where that cannot be.
      needs: which data it takes to write it, of `validation` and `training`.
    """

    path: str
    help: str
    file: str
    tolerance: str = "quantised"
    encoder: str = ""
    needs: tuple[str, ...] = ()

    def load(self) -> Any:
        """Imports what writes it."""
        return _imported(self.path)

    def load_encoder(self) -> Any:
        """Imports what leaves its zeros out."""
        return _imported(self.encoder)


@dataclasses.dataclass(frozen=True)
class Encoding:
    """One way to store a network's zeros; with neither they are numbers like others.

    Attributes:
      sparse: by TFLite's sparse encoding, which leaves them out.
      compact: without the units and channels that are dead, see `pruning.compaction`.
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

# What a ticket can be exported to.
FORMATS: Mapping[str, Format] = {
    "keras": Format(
        "lotcal_tf.formats.keras:write",
        "a Keras file, to go on with in tf_keras",
        "ticket.keras",
        tolerance="float",
    ),
    "saved_model": Format(
        "lotcal_tf.formats.saved_model:write",
        "a SavedModel with the signature serving_default",
        "saved_model",
        tolerance="float",
    ),
    "float32": Format(
        "lotcal_tf.formats.tflite:write_float32",
        "TFLite as the network is",
        "ticket_float32.tflite",
        tolerance="float",
        encoder="lotcal_tf.formats.tflite:in_blocks",
    ),
    "float16": Format(
        "lotcal_tf.formats.tflite:write_float16",
        "TFLite, weights in 16 bits, computed in 32",
        "ticket_float16.tflite",
        encoder="lotcal_tf.formats.tflite:in_rows",
    ),
    "dynamic": Format(
        "lotcal_tf.formats.tflite:write_dynamic",
        "TFLite, weights in 8 bits, activations quantised as they come",
        "ticket_dynamic.tflite",
    ),
    "int8": Format(
        "lotcal_tf.formats.tflite:write_int8",
        "TFLite in whole numbers of 8 bits, their ranges from validation data",
        "ticket_int8.tflite",
        encoder="lotcal_tf.formats.tflite:in_rows",
        needs=("validation",),
    ),
    "int8_qat": Format(
        "lotcal_tf.formats.qat:write",
        "the same after fine-tuning that knows of the rounding (TFMOT); zeros stay",
        "ticket_int8_qat.tflite",
        encoder="lotcal_tf.formats.tflite:in_rows",
        needs=("validation", "training"),
    ),
}
# What is written where nobody says what: one file that keeps every digit, and the small one.
DEFAULT_FORMATS = ("float32", "int8")

# How a file holds a network's zeros.
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


def file_format(name: str) -> Format:
    """The row of a format.

    Raises:
      FieldError: there is none of that name.
    """
    if name not in FORMATS:
        raise FieldError("formats", name, f"choose of {', '.join(FORMATS)}")
    return FORMATS[name]
