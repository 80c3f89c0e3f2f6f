"""Image classification sets of TensorFlow Datasets, by name."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.arrays import UnreadableExample, from_pipelines, part_of_test
from lotcal_tf.data.splits import Dataset, Part
from lotcal_tf.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_datasets as tfds

# Examples that are decoded at once: more than processors, so that none of them waits for work.
_DECODED = 16


def load(experiment: Experiment) -> Dataset:
    """The set `experiment.source`, from `experiment.data_dir` or TFDS's own place.

    With a `data_dir` nothing is downloaded; without, TFDS downloads what it lacks.

    Raises:
      UsageError: the directory does not hold the set, TFDS does not know it or cannot download it,
        it is no classification set with train and test splits, or an example cannot be read.
    """
    with _pipelines(experiment, ("train", "test")) as ((train, test), classes):
        return from_pipelines(
            train,
            test,
            classes=classes,
            validation_size=experiment.validation_size,
            seed=experiment.seed,
            memory_limit_mb=experiment.memory_limit_mb,
            shuffle_buffer=experiment.shuffle_buffer,
            half=experiment.half,
            input_range=_input_range(train),
        )


def load_test(experiment: Experiment) -> Part:
    """The test split of a set; it needs no other, as `cifar10_corrupted` has none.

    Raises:
      UsageError: see `load`; a train split is not asked for.
    """
    with _pipelines(experiment, ("test",)) as ((test,), classes):
        return part_of_test(
            test,
            classes=classes,
            memory_limit_mb=experiment.memory_limit_mb,
            input_range=_input_range(test),
        )


@contextlib.contextmanager
def _pipelines(
    experiment: Experiment, splits: tuple[str, ...]
) -> Iterator[tuple[list["tf.data.Dataset"], int]]:
    """Pipelines of the splits, and the number of classes; damage found in them is told by its file."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    builder = _builder(experiment)
    info = builder.info
    missing = [split for split in splits if split not in info.splits]
    if missing or not info.supervised_keys:
        raise UsageError(
            f"the TFDS set {experiment.source} has splits {', '.join(info.splits) or 'none'} and supervised keys "
            f"{info.supervised_keys}: it must have {', '.join(splits)} and (input, label)"
        )
    label = info.features[info.supervised_keys[1]]
    if not getattr(label, "num_classes", None):
        raise UsageError(f"the TFDS set {experiment.source} has no class labels: {label}")
    # Files in their own order: a stream must give the same examples at every reading. No cache of
    # TFDS's: what fits into memory is kept there once, and what streams should not be.
    read = tfds.ReadConfig(
        options=_untuned(),
        interleave_cycle_length=1,
        try_autocache=False,
        num_parallel_calls_for_decode=_DECODED,
    )
    pipelines = [
        builder.as_dataset(split=split, as_supervised=True, shuffle_files=False, read_config=read)
        for split in splits
    ]
    try:
        yield pipelines, label.num_classes
    except UnreadableExample as error:
        raise UsageError(
            f"the TFDS set {experiment.source} is damaged: {error}; it lies in "
            f"{_file(info.splits[error.split], error.example)}; have TFDS prepare it anew"
        ) from error


def _untuned() -> "tf.data.Options":
    """Small images are decoded sooner than tf.data finds out how many to decode at once."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _file(split: "tfds.core.SplitInfo", example: int) -> Path:
    """The file that holds an example of a split, read in the files' order."""
    ends = np.cumsum(split.shard_lengths)
    return Path(split.filepaths[min(np.searchsorted(ends, example, "right"), len(ends) - 1)])


def _input_range(pipeline: "tf.data.Dataset") -> float:
    """The largest value of bytes; what is no integer counts as scaled."""
    return 255.0 if pipeline.element_spec[0].dtype.is_integer else 1.0


def _builder(experiment: Experiment) -> "tfds.core.DatasetBuilder":
    """A builder whose data is prepared."""
    import tensorflow_datasets as tfds

    name, given = experiment.source, experiment.data_dir
    if given is None:
        try:
            builder = tfds.builder(name)
            builder.download_and_prepare()
        except Exception as error:
            # TFDS raises whatever its sources and the network raise.
            raise UsageError(
                f"TFDS cannot provide {name}: {_first_line(error)} (data you have already: --data_dir=DIR)"
            ) from error
        return builder
    directory = Path(given).expanduser()
    download = (
        f"to download it: python -c \"import tensorflow_datasets as tfds; tfds.load('{name}', "
        f"data_dir='{given}')\""
    )
    if not directory.is_dir():
        raise UsageError(f"--data_dir={given}: no such directory; {download}")
    # From files: the set's own code, slow to import, is not needed to read it.
    prepared = (directory / name.replace(":", "/")).glob("**/dataset_info.json")
    versions = sorted((path.parent for path in prepared), key=lambda path: _numbers(path.name))
    if not versions:
        found = ", ".join(sorted(path.name for path in directory.iterdir())[:12]) or "nothing"
        raise UsageError(
            f"--data_dir={given}: no TFDS set {name} in it, there is {found}; {download}"
        )
    configs = sorted({path.parent.name for path in versions})
    if len(configs) > 1:
        raise UsageError(
            f"--data_dir={given}: {name} has the configurations {', '.join(configs)} in it; name one: "
            f"--source={name}/{configs[0]}"
        )
    try:
        return tfds.builder_from_directory(versions[-1])
    except Exception as error:
        raise UsageError(
            f"{versions[-1]} does not hold a readable TFDS set: {_first_line(error)}"
        ) from error


def _numbers(version: str) -> list[int]:
    """`3.0.10` as numbers, so that it comes after `3.0.9`."""
    return [int(part) for part in re.findall(r"\d+", version)]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
