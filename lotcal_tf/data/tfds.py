"""Image classification data sets of TensorFlow Datasets (TFDS), by name."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.arrays import UnreadableExample, from_pipelines, part_of_test
from lotcal_tf.data.splits import Dataset, Part
from lotcal_tf.errors import FieldError, UsageError, first_line

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_datasets as tfds

# Examples that are decoded in parallel: more than processors, so that none of them is idle.
_DECODED = 16
# Without a namespace, such as `huggingface:`, whose data sets may be programs.
_NAME = re.compile(r"[A-Za-z_]\w*(/[\w.+-]*\w)?(:(\d+|\*)(\.(\d+|\*)){0,2})?")
_FEATURE = re.compile(r"tensorflow_datasets\.core\.features\.[\w.]+")


def load(experiment: Experiment) -> Dataset:
    """Loads the data set `experiment.source` from `experiment.data_dir`.

    With a `data_dir`, nothing is downloaded. Without one, TFDS uses its default directory and
    downloads the data set if needed.

    Raises:
      FieldError: `data_dir` does not contain the data set.
      UsageError: TFDS cannot provide the data set, it is not a classification data set with splits
        train and test, or an example cannot be read.
    """
    with _pipelines(experiment, ("train", "test")) as ((train, test), names, directory):
        dataset = from_pipelines(
            train,
            test,
            classes=len(names),
            validation_size=experiment.validation_size,
            seed=experiment.seed,
            memory_limit_mb=experiment.memory_limit_mb,
            shuffle_buffer=experiment.shuffle_buffer,
            half=experiment.half,
            subset=experiment.classes,
            input_range=_input_range(train),
            key=directory,
        )
    return dataclasses.replace(dataset, class_names=names)


def load_test(experiment: Experiment) -> Part:
    """Loads the test split of a data set, which needs no other, e.g. `cifar10_corrupted`.

    Raises:
      FieldError, UsageError: see `load`; a train split is not required.
    """
    with _pipelines(experiment, ("test",)) as ((test,), names, _):
        part = part_of_test(
            test,
            classes=len(names),
            memory_limit_mb=experiment.memory_limit_mb,
            subset=experiment.classes,
            input_range=_input_range(test),
        )
    return dataclasses.replace(part, class_names=names)


@contextlib.contextmanager
def _pipelines(
    experiment: Experiment, splits: tuple[str, ...]
) -> Iterator[tuple[list["tf.data.Dataset"], tuple[str, ...], str]]:
    """Gives the pipelines of the splits, the class names and the directory of the files.

    If an example cannot be read inside the `with` block, the error names the file that holds it.
    """
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    builder = _builder(experiment)
    info = builder.info
    missing = [split for split in splits if split not in info.splits]
    if missing or not info.supervised_keys:
        raise UsageError(
            f"the TFDS data set {experiment.source} has splits {', '.join(info.splits) or 'none'} and supervised keys "
            f"{info.supervised_keys}: splits {', '.join(splits)} and keys (input, label) are needed"
        )
    label = info.features[info.supervised_keys[1]]
    if not getattr(label, "num_classes", None):
        raise UsageError(
            f"the TFDS data set {experiment.source} has labels {label}: a ClassLabel with a number of classes is needed"
        )
    # Files are read in order, since a stream must give the same examples every time. TFDS caches
    # nothing: data that fits in memory is kept there by the split, and other data must not be kept.
    read = tfds.ReadConfig(
        options=_without_autotune(),
        interleave_cycle_length=1,
        try_autocache=False,
        num_parallel_calls_for_decode=_DECODED,
    )
    pipelines = [
        builder.as_dataset(split=split, as_supervised=True, shuffle_files=False, read_config=read)
        for split in splits
    ]
    try:
        yield pipelines, tuple(label.names), str(builder.data_dir)
    except UnreadableExample as error:
        file = _file(info.splits[error.split], error.example)
        raise UsageError(
            f"the TFDS data set {experiment.source} is damaged: {error}; file: {file}; delete {file.parent} and let "
            "TFDS prepare it again"
        ) from error


def _without_autotune() -> "tf.data.Options":
    """Options without autotuning, which takes longer than the decoding of small images."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _file(split: "tfds.core.SplitInfo", example: int) -> Path:
    """The file that holds an example of a split, counted in the order of the files."""
    ends = np.cumsum(split.shard_lengths)
    return Path(split.filepaths[min(np.searchsorted(ends, example, "right"), len(ends) - 1)])


def _input_range(pipeline: "tf.data.Dataset") -> float:
    """255 for integer inputs; other inputs are taken as scaled to [0, 1]."""
    return 255.0 if pipeline.element_spec[0].dtype.is_integer else 1.0


def _builder(experiment: Experiment) -> "tfds.core.DatasetBuilder":
    """The builder of a data set whose files are prepared."""
    import tensorflow_datasets as tfds

    name, given = experiment.source, experiment.data_dir
    if not _NAME.fullmatch(name):
        problem = "is not the name of a TFDS data set: write NAME, NAME/CONFIG or NAME/CONFIG:1.0.0"
        raise FieldError("source", name, problem)
    if given is None:
        try:
            builder = tfds.builder(name)
            builder.download_and_prepare()
        except Exception as error:
            # TFDS passes on all errors of its sources and of the network.
            raise UsageError(
                f"TFDS cannot provide {name}: {first_line(error)}; if the data is on disk, give --data_dir=DIR"
            ) from error
        return builder
    directory = Path(given).expanduser()
    download = (
        f"to download it: python -c \"import tensorflow_datasets as tfds; tfds.load('{name}', "
        f"data_dir='{given}')\""
    )
    if not directory.is_dir():
        raise FieldError("data_dir", given, f"no such directory; {download}")
    versions = _versions(directory, name)
    if not versions:
        root = _root(directory, name)
        if root:
            problem = f"is inside the TFDS data set {name}; give the directory that contains it"
            raise FieldError("data_dir", given, f"{problem}: --data_dir={root}")
        found = ", ".join(sorted(path.name for path in directory.iterdir())[:12]) or "nothing"
        raise FieldError(
            "data_dir", given, f"no TFDS set {name} in it, there is {found}; {download}"
        )
    configs = sorted({path.parent.name for path in versions})
    if len(configs) > 1:
        raise FieldError(
            "data_dir",
            given,
            f"{name} has the configurations {', '.join(configs)} in it; name one: --source={name}/{configs[0]}",
        )
    _check_features(versions[-1])
    try:
        # From its files: the code of a data set is slow to import and not needed for reading.
        return tfds.builder_from_directory(versions[-1])
    except Exception as error:
        raise UsageError(
            f"{versions[-1]} does not hold a readable TFDS data set: {first_line(error)}"
        ) from error


def _check_features(directory: Path) -> None:
    """Checks that a prepared data set has features of TFDS only: it imports what `features.json` names.

    Raises:
      UsageError: it names another class, or cannot be read.
    """
    path = directory / "features.json"
    try:
        waiting = [json.loads(path.read_bytes())] if path.is_file() else []
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {first_line(error)}") from error
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            for key in ("pythonClassName", "python_class_name", "type"):
                name = part.get(key)
                if isinstance(name, str) and "." in name and not _FEATURE.fullmatch(name):
                    raise UsageError(
                        f"{path} names the feature {name}, whose module is not imported: features of "
                        "tensorflow_datasets are needed"
                    )


def _versions(directory: Path, name: str) -> list[Path]:
    """The prepared versions of a data set in a TFDS directory, the latest one last."""
    prepared = (directory / name.replace(":", "/")).glob("**/dataset_info.json")
    return sorted((path.parent for path in prepared), key=lambda path: _numbers(path.name))


def _root(directory: Path, name: str) -> Path | None:
    """The TFDS directory of a data set that `directory` is inside of; None if it is not."""
    place = directory.absolute()
    # At most as deep as DIR/NAME/CONFIG/VERSION.
    return next(
        (
            path.parent
            for path in (place, *place.parents[:2])
            if path.name == re.split("[:/]", name)[0] and _versions(path.parent, name)
        ),
        None,
    )


def _numbers(version: str) -> list[int]:
    """The numbers of a version, by which `3.0.10` is later than `3.0.9`."""
    return [int(part) for part in re.findall(r"\d+", version)]
