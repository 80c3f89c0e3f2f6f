"""Data sets of the Hugging Face library `datasets`: passed as objects, or saved by `save_to_disk`."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.extras import imported
from lotcal_tf.config.run_data import data_path
from lotcal_tf.data.arrays import from_arrays
from lotcal_tf.data.content import digest_of
from lotcal_tf.data.pipelines import INPUT_NAMES, LABEL_NAMES
from lotcal_tf.data.splits import SPLIT_NAMES, Dataset, check_unsized, test_members
from lotcal_tf.errors import FieldError, UsageError, first_line

# The modes of images whose arrays are their grey or colour values.
_MODES = ("L", "LA", "RGB", "RGBA", "I", "I;16", "F")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Two columns of a data set as arrays.

    Attributes:
      inputs: `(N, …)`; images are `(N, H, W, C)` uint8.
      labels: `(N,)`.
      class_names: the name of each class; empty if they are unknown.
    """

    inputs: NDArray
    labels: NDArray
    class_names: tuple[str, ...]


def from_hf(
    dataset: Any, inputs: str | None = None, labels: str | None = None
) -> tuple[NDArray, NDArray]:
    """The inputs and labels of a Hugging Face data set as arrays, for columns with other names than usual.

    Args:
      dataset: a `datasets.Dataset`, e.g. one split of what `load_dataset` returns.
      inputs: the column of the inputs: images of one size, or lists of numbers of one length; None:
        the only one of image, img, pixel_values, input_ids, features.
      labels: the column of the labels; None: the only one of label, labels.

    Returns:
      Inputs `(N, …)` and labels `(N,)`, as `find_tickets` takes them.

    Raises:
      UsageError: a column does not exist or cannot be recognised, or has values of different shapes.
    """
    found = read(dataset, "the Hugging Face data set", inputs, labels)
    return found.inputs, found.labels


def load(experiment: Experiment) -> Dataset:
    """Loads the data set that `save_to_disk` wrote to `data_dir`, with its splits if it has any.

    Without a test split, `test_size` fixed examples are the test split. The class names are those
    of the label column's ClassLabel.

    Raises:
      FieldError: `data_dir` holds no such data set, or one without a train split.
      UsageError: a column cannot be recognised or used.
    """
    found = _load_from_disk(experiment)
    splits = _splits(found, experiment) if isinstance(found, dict) else {"train": found}
    label = experiment.label_column if experiment.label_column != "label" else None
    read_splits = {name: read(part, name, labels=label) for name, part in splits.items()}
    train = read_splits["train"]
    pairs = {name: (part.inputs, part.labels) for name, part in read_splits.items()}
    names = train.class_names or _numbered(train.labels)
    if "test" in pairs:
        check_unsized("test_size", experiment.test_size)
    else:
        chosen = test_members(len(train.labels), experiment.test_size)
        pairs["test"] = train.inputs[chosen], train.labels[chosen]
        pairs["train"] = train.inputs[~chosen], train.labels[~chosen]
    dataset = from_arrays(
        pairs["train"],
        pairs["test"],
        pairs.get("validation"),
        classes=len(names),
        validation_size=experiment.validation_size,
        seed=experiment.seed,
        half=experiment.half,
        subset=experiment.classes,
        input_range=255.0,
    )
    images = train.inputs.dtype == np.uint8
    return dataclasses.replace(dataset, class_names=names, input_range=255.0 if images else None)


def _splits(found: Mapping[str, Any], experiment: Experiment) -> dict[str, Any]:
    """The splits under their usual names; others than those of `SPLIT_NAMES` are not used.

    Raises:
      FieldError: there is no train split, or two splits have the same use.
    """
    chosen = {}
    for split, names in SPLIT_NAMES.items():
        given = [name for name in names if name in found]
        if len(given) > 1:
            problem = f"has the splits {' and '.join(given)}: keep one of them"
            raise FieldError("data_dir", experiment.data_dir, problem)
        if given:
            chosen[split] = found[given[0]]
    if "train" not in chosen:
        problem = f"has the splits {', '.join(found)}: a split train is needed"
        raise FieldError("data_dir", experiment.data_dir, problem)
    return chosen


def digest(experiment: Experiment) -> str:
    """A digest of the files with the examples."""
    root = data_path(experiment)
    assert root is not None  # the source needs it
    return digest_of(
        (path.parent.name if path.parent != root else "", path) for path in _files(root)
    )


def _files(root: Path) -> list[Path]:
    # `map` and `filter` of a loaded data set write cache files beside the data.
    return sorted(path for path in root.rglob("*.arrow") if not path.name.startswith("cache-"))


def _load_from_disk(experiment: Experiment) -> Any:
    datasets = imported("datasets", "hf")
    root = data_path(experiment)
    try:
        return datasets.load_from_disk(str(root))
    except Exception as error:
        # The library passes on all errors of its files.
        line = first_line(error)
        problem = f"is not a data set that save_to_disk of Hugging Face datasets wrote: {line}"
        raise FieldError("data_dir", root, problem) from error


def read(dataset: Any, name: str, inputs: str | None = None, labels: str | None = None) -> Columns:
    """Reads two columns of a data set.

    Args:
      dataset: a `datasets.Dataset`.
      name: of the data set, for messages.
      inputs, labels: see `from_hf`.

    Raises:
      UsageError: see `from_hf`.
    """
    datasets = imported("datasets", "hf")
    _check_kind(dataset, name, datasets)
    x = _column(dataset, name, "inputs", inputs, INPUT_NAMES)
    y = _column(dataset, name, "labels", labels, LABEL_NAMES)
    feature = dataset.features[y]
    if getattr(feature, "dtype", None) == "string":
        raise UsageError(
            f"{name} has strings in the column {y!r}: classes are numbers; convert them by "
            f"dataset.class_encode_column({y!r})"
        )
    image = isinstance(dataset.features[x], datasets.Image)
    if image and dataset.features[x].mode is None:
        _check_modes(dataset, name, x, datasets)
    values = dataset.select_columns([x, y]).with_format("numpy")[:]
    array = np.asarray(values[x])
    if array.dtype == object:
        remedy = (
            "resize or convert images in dataset.map, and save or pass its result"
            if image
            else 'pad lists to one length, with a tokenizer by padding="max_length"'
        )
        raise UsageError(f"{name} has values of different shapes in the column {x!r}: {remedy}")
    if image and array.ndim == 3:
        array = array[..., None]  # Grey images have one channel.
    return Columns(array, np.asarray(values[y]), tuple(getattr(feature, "names", None) or ()))


def _check_modes(dataset: Any, name: str, column: str, datasets: Any) -> None:
    """Refuses images whose arrays are not their colours, such as the indices of a palette.

    Raises:
      UsageError: there is such an image.
    """
    from PIL import Image

    files = dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    for number, one in enumerate(files.with_format(None)[:][column]):
        content = one["path"] if one["bytes"] is None else io.BytesIO(one["bytes"])
        with Image.open(content) as image:
            mode = image.mode
        if mode not in _MODES:
            raise UsageError(
                f"{name} has an image of mode {mode} in row {number} of the column {column!r}: convert all by "
                f'dataset.cast_column({column!r}, datasets.Image(mode="RGB"))'
            )


def class_names(dataset: Any) -> tuple[str, ...]:
    """The class names of the usual label column; empty if it has none."""
    feature = dataset.features[_column(dataset, "train", "labels", None, LABEL_NAMES)]
    return tuple(getattr(feature, "names", None) or ())


def _check_kind(dataset: Any, name: str, datasets: Any) -> None:
    if isinstance(dataset, dict):
        raise UsageError(
            f"{name} is a {type(dataset).__name__} with the splits {', '.join(dataset)}: pass one of these, for "
            f"example data[{next(iter(dataset), 'train')!r}]"
        )
    if not isinstance(dataset, datasets.Dataset):
        raise UsageError(
            f"{name} is of type {type(dataset).__name__}: a datasets.Dataset is needed; load it without "
            "streaming=True"
        )
    if not len(dataset):
        raise UsageError(f"{name} is empty: at least one example is needed")
    if dataset.format["type"] == "custom":
        raise UsageError(f"{name} has a transform (set_transform): apply it by dataset.map instead")


def _column(dataset: Any, name: str, use: str, given: str | None, usual: Sequence[str]) -> str:
    """The name of a column: given, or else the only usual one."""
    columns = list(dataset.column_names)
    found = [given] if given is not None else [column for column in usual if column in columns]
    if len(found) == 1 and found[0] in columns:
        return found[0]
    problem = (
        f"has no column {given!r}"
        if given is not None
        else f"has several columns for {use}, {' and '.join(found)}"
        if found
        else f"has no column for {use}, of {', '.join(usual)}"
    )
    raise UsageError(
        f"{name} {problem}; its columns are {', '.join(columns)}: name the columns by "
        "lotcal_tf.from_hf(data, inputs=…, labels=…), or rename them"
    )


def _numbered(labels: NDArray) -> tuple[str, ...]:
    """Class names of labels without names: their numbers."""
    values = np.unique(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "biu" or len(values) < 2 or values.min() < 0:
        raise UsageError(
            "train has labels that are not class numbers: convert them by dataset.class_encode_column"
        )
    if len(values) <= values.max():
        raise UsageError(
            f"train has {len(values)} classes, and the largest class number is {values.max()}: number them from 0 by "
            "dataset.class_encode_column"
        )
    return tuple(map(str, values.tolist()))
