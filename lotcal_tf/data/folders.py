"""Images in one folder per class: `DIR/CLASS/*`, or `DIR/train/CLASS/*` with test and validation folders.

Keras's `image_dataset_from_directory` skips files of other types without a message, and splits them by
their position. So the files are listed here, in sorted order, and read by TensorFlow.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.run_data import data_path
from lotcal_tf.data.arrays import UnreadableExample, from_pipelines, part_of_test
from lotcal_tf.data.content import digest_of
from lotcal_tf.data.splits import SPLIT_NAMES, Dataset, Decode, Part, check_unsized, test_members
from lotcal_tf.errors import FieldError, UsageError

# What TensorFlow decodes.
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
# What file managers leave behind.
_IGNORED = ("thumbs.db", "desktop.ini")
_CHANNELS = {"grayscale": 1, "rgb": 3}
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")


@dataclasses.dataclass(frozen=True)
class Files:
    """The images of one split.

    Attributes:
      paths: the files, ordered by class and name.
      labels: the class number of each.
    """

    paths: Sequence[Path]
    labels: Sequence[int]

    def chosen(self, members: NDArray[np.bool_]) -> "Files":
        """The files of which `members` is true."""
        kept = [pair for pair, m in zip(self._pairs(), members, strict=True) if m]
        return Files([path for path, _ in kept], [label for _, label in kept])

    def _pairs(self) -> Iterator[tuple[Path, int]]:
        return zip(self.paths, self.labels, strict=True)


def load(experiment: Experiment) -> Dataset:
    """Loads the images of the folder `data_dir`; class names are the folders' names, sorted.

    Without a `test` folder, `test_size` fixed images are the test split.

    Raises:
      FieldError: `data_dir` has no folders of images, or the images have different sizes and
        `image_size` is not set.
      UsageError: a file is not a readable image, or a class is empty.
    """
    names, splits = _splits(experiment)
    with _pipelines(experiment, splits) as (pipelines, decode):
        dataset = from_pipelines(
            pipelines["train"],
            pipelines["test"],
            pipelines.get("validation"),
            classes=len(names),
            validation_size=experiment.validation_size,
            seed=experiment.seed,
            memory_limit_mb=experiment.memory_limit_mb,
            shuffle_buffer=experiment.shuffle_buffer,
            half=experiment.half,
            subset=experiment.classes,
            input_range=255.0,
            decode=decode,
        )
    return dataclasses.replace(dataset, class_names=names)


def load_test(experiment: Experiment) -> Part:
    """Loads the images of the test split without the others.

    Raises:
      FieldError, UsageError: see `load`.
    """
    names, splits = _splits(experiment, only_test=True)
    with _pipelines(experiment, splits) as (pipelines, decode):
        part = part_of_test(
            decode(pipelines["test"]),
            classes=len(names),
            memory_limit_mb=experiment.memory_limit_mb,
            subset=experiment.classes,
            input_range=255.0,
        )
    return dataclasses.replace(part, class_names=names)


def digest(experiment: Experiment) -> str:
    """A digest of the images, their classes and their order."""
    names, splits = _splits(experiment)
    return digest_of(
        (f"{split}/{names[label]}", path)
        for split, files in splits.items()
        for path, label in zip(files.paths, files.labels, strict=True)
    )


# Finding the files


def _splits(
    experiment: Experiment, only_test: bool = False
) -> tuple[tuple[str, ...], dict[str, Files]]:
    """The class names, and the files of each split: of its folder, or `test` as a part of all."""
    root = data_path(experiment)
    assert root is not None  # the source needs it
    if not root.is_dir():
        raise FieldError("data_dir", root, "is a file; give the directory of the class folders")
    _check_level(root)
    found = {
        split: [root / name for name in names if (root / name).is_dir()]
        for split, names in SPLIT_NAMES.items()
    }
    if not any(found.values()):
        names = tuple(path.name for path in _class_folders(root, root))
        return names, _with_test({"train": _files(root, names)}, experiment)
    _check_split_folders(root, found, only_test)
    first = next(folders[0] for folders in found.values() if folders)
    names = tuple(path.name for path in _class_folders(first, root))
    splits = {split: _files(f[0], names, first) for split, f in found.items() if f}
    if "test" not in splits:
        return names, _with_test(splits, experiment)
    check_unsized("test_size", experiment.test_size)
    return names, splits


def _with_test(splits: Mapping[str, Files], experiment: Experiment) -> dict[str, Files]:
    """The splits with a test split, whose files are taken from `train`."""
    train = splits["train"]
    members = test_members(len(train.paths), experiment.test_size)
    return {**splits, "train": train.chosen(~members), "test": train.chosen(members)}


def _check_split_folders(root: Path, found: Mapping[str, Sequence[Path]], only_test: bool) -> None:
    known = [name for names in SPLIT_NAMES.values() for name in names]
    if not found["train"] and not (only_test and found["test"]):
        here = ", ".join(path.name for folders in found.values() for path in folders)
        raise FieldError("data_dir", root, f"has the folder {here}, but no folder train beside it")
    for folders in found.values():
        if len(folders) > 1:
            both = " and ".join(path.name for path in folders)
            raise FieldError("data_dir", root, f"has {both}: keep one of these folders")
    others = [path for path in _folders(root) if path.name not in known]
    if others:
        problem = f"has the folder {others[0].name} beside train: only {', '.join(known)} are read"
        raise FieldError("data_dir", root, f"{problem}; move it elsewhere")


def _check_level(root: Path) -> None:
    """Raises FieldError where `data_dir` is inside the folder of the images, or above it."""
    place = root.absolute()
    above = place.parent
    known = [name for names in SPLIT_NAMES.values() for name in names]
    if place.name in known and sum((above / name).is_dir() for name in known) > 1:
        problem = f"is the {place.name} folder of {above}; give the directory that contains it"
        raise FieldError("data_dir", root, f"{problem}: --data_dir={above}")
    folders, images = _folders(root), [path for path in _visible(root) if _is_image(path)]
    if images and not folders:
        beside = [path for path in _folders(above) if path != place and _holds_images(path)]
        problem = f"holds images, such as {images[0].name}, but no class folders"
        if beside:
            problem = f"is one class folder beside {beside[0].name}; give the directory that contains them"
            raise FieldError("data_dir", root, f"{problem}: --data_dir={above}")
        raise FieldError(
            "data_dir", root, f"{problem}; move the images of each class to {root}/CLASS"
        )
    if images:
        problem = (
            f"the image {images[0].name} is outside the class folders; move it into one of them"
        )
        raise FieldError("data_dir", root, problem)
    below = [path for path in folders if _is_data(path)]
    if len(below) == 1 and not any(map(_holds_images, folders)):
        problem = (
            f"is above the images; give the directory of the class folders: --data_dir={below[0]}"
        )
        raise FieldError("data_dir", root, problem)


def _is_data(root: Path) -> bool:
    """Whether a directory, other than a split's, holds class folders with images or a train folder."""
    if root.name in [name for names in SPLIT_NAMES.values() for name in names]:
        return False
    return (root / "train").is_dir() or sum(map(_holds_images, root.iterdir())) > 1


def _holds_images(path: Path) -> bool:
    """Whether a path is a readable directory with an image in it."""
    return (
        path.is_dir() and os.access(path, os.R_OK | os.X_OK) and any(map(_is_image, _visible(path)))
    )


def _class_folders(directory: Path, root: Path) -> list[Path]:
    """The class folders in sorted order."""
    folders = _folders(directory)
    if not folders:
        raise FieldError("data_dir", root, f"{directory} has no class folders with images in it")
    if len(folders) == 1:
        problem = f"{directory} has only the class {folders[0].name}: at least 2 classes are needed"
        raise FieldError("data_dir", root, problem)
    return folders


def _files(directory: Path, names: Sequence[str], first: Path | None = None) -> Files:
    """The images of a split, ordered by class and name.

    Args:
      directory: the folder with the class folders.
      names: the class names.
      first: the folder from which the class names were taken, for messages.

    Raises:
      UsageError: a class folder is unknown or empty, or holds something else than images.
    """
    found: list[tuple[Path, int]] = []
    for folder in _folders(directory):
        if folder.name not in names:
            known = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
            raise UsageError(f"{folder}: no such class in {first}, which has {known}")
        images = _visible(folder)
        for path in images:
            if path.is_dir():
                raise UsageError(
                    f"{path} is a folder in a class folder, which may hold images only"
                )
            if not _is_image(path):
                raise UsageError(
                    f"{path} is not an image that can be read: files must end in {', '.join(_SUFFIXES)}"
                )
        if not images:
            raise UsageError(f"{folder}: this class has no images; add some, or delete the folder")
        found += [(path, names.index(folder.name)) for path in images]
    loose = next((path for path in _visible(directory) if _is_image(path)), None)
    if loose is not None:
        raise UsageError(f"{loose} is outside the class folders; move it into one of them")
    return Files([path for path, _ in found], [label for _, label in found])


def _folders(directory: Path) -> list[Path]:
    return [path for path in _visible(directory) if path.is_dir()]


def _visible(directory: Path) -> list[Path]:
    """What is in a directory, sorted by name, without hidden files."""
    try:
        found = sorted(directory.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise UsageError(f"{directory}: {error.strerror}") from error
    return [p for p in found if not p.name.startswith(".") and p.name.lower() not in _IGNORED]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


# Reading the files


@contextlib.contextmanager
def _pipelines(
    experiment: Experiment, splits: Mapping[str, Files]
) -> Iterator[tuple[dict[str, "tf.data.Dataset"], Decode]]:
    """Gives a pipeline of files and labels for each split, and what makes uint8 images of them.

    If an image cannot be read inside the `with` block, the error names its file.
    """
    # Of all splits: what is read must not depend on whether the test split is read alone.
    size, channels = _format(experiment, [p for files in splits.values() for p in files.paths])
    read = functools.partial(
        _read, size=size, channels=channels, resize=bool(experiment.image_size)
    )
    pipelines = {
        split: tf.data.Dataset.from_tensor_slices(
            ([str(path) for path in files.paths], np.array(files.labels, np.int32))
        )
        for split, files in splits.items()
    }
    try:
        yield pipelines, lambda data: data.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    except UnreadableExample as error:
        raise _unreadable(splits[error.split].paths[error.example], error.reason) from error


def _read(
    path: "tf.Tensor", label: "tf.Tensor", *, size: tuple[int, int], channels: int, resize: bool
) -> tuple["tf.Tensor", "tf.Tensor"]:
    image = tf.io.decode_image(tf.io.read_file(path), channels, expand_animations=False)
    if resize:
        image = tf.image.resize(image, size, antialias=True)
        image = tf.cast(tf.round(image), tf.uint8)
    return tf.ensure_shape(image, (*size, channels)), label


def _format(experiment: Experiment, paths: Sequence[Path]) -> tuple[tuple[int, int], int]:
    """Height and width, and the number of channels: from the fields, otherwise from the files.

    Raises:
      FieldError: the images have different sizes, and `image_size` is not set.
      UsageError: a file is not an image.
    """
    size, mode = experiment.image_size, experiment.color_mode
    for path in paths:
        if path.suffix.lower() == ".bmp":
            _check_bmp(path, mode)
    if size and mode != "auto":
        return (size[0], size[-1]), _CHANNELS[mode]
    first: tuple[int, int] | None = None
    grey = True
    for path in paths:
        found, grey_file = _header(path)
        grey = grey and grey_file
        first = first or found
        if not size and found != first:
            problem = (
                f"is needed, since the images have different sizes: {paths[0]} has {_size(first)} and {path} has "
                f"{_size(found)} (height x width); give a height and a width, or one number for both"
            )
            raise FieldError("image_size", "", problem)
    assert first is not None  # no class is empty
    channels = (1 if grey else 3) if mode == "auto" else _CHANNELS[mode]
    return (size[0], size[-1]) if size else first, channels


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _header(path: Path) -> tuple[tuple[int, int], bool]:
    """Height and width of an image, and whether it is grey, from the header of its file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            # TensorFlow decodes a grey BMP file to three channels only.
            grey = image.mode in _GREY_MODES and image.format != "BMP"
            return (image.height, image.width), grey
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, str(error)) from error


def _check_bmp(path: Path, mode: str) -> None:
    """Refuses a BMP file that TensorFlow decodes to something else than its colours.

    Raises:
      FieldError: one channel is wanted.
      UsageError: the file has a palette, of which TensorFlow gives the indices.
    """
    from PIL import Image

    if mode == "grayscale":
        problem = f"{path} is a BMP file, which has three channels: choose rgb, or save it as PNG"
        raise FieldError("color_mode", mode, problem)
    try:
        with Image.open(path) as image:
            palette = image.mode == "P"
    except (OSError, ValueError, SyntaxError):
        return  # An error that names the file follows when it is read.
    if palette:
        raise UsageError(f"{path} is a BMP file with a palette: save it as PNG")


def _unreadable(path: Path, reason: Any) -> UsageError:
    return UsageError(f"the image {path} cannot be read: {reason}; repair or delete the file")
