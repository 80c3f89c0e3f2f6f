"""Data that the caller passes as objects: arrays, pandas objects, Hugging Face data sets, pipelines."""

import dataclasses
import os
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data import arrays, frames, hugging_face
from lotcal_tf.data.splits import Dataset, Part
from lotcal_tf.data.subsets import class_names as subset_names
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.inputs import Specs, flat

# Labels are int32.
_ANY_NUMBER = 2**31 - 1
_NEEDED = "a pair (inputs, labels) of arrays, or a tf.data pipeline of such pairs, is needed"


def dataset(
    train: Any,
    test: Any,
    validation: Any,
    experiment: Experiment,
    *,
    classes: int,
    takes: Specs | None = None,
) -> Dataset:
    """Builds a dataset from objects, with its digest.

    Args:
      train, test, validation: pairs `(inputs, labels)` of arrays or pandas objects, `datasets.Dataset`
        objects of Hugging Face, or `tf.data` pipelines of pairs, single or in batches; test and
        validation may be None. Several inputs are a dictionary or tuple, see `inputs.arranged`.
        train may be a triple, or give triples, `(inputs, labels, weights)`.
      experiment: says how validation examples are drawn, and what stays in memory.
      classes: number of classes of the model.
      takes: what the model takes; None: one input of unknown shape.

    Raises:
      UsageError: the data is invalid.
    """
    given = {"train": train, "validation": validation, "test": test}
    found = {name: recognised(data, name) for name, data in given.items() if data is not None}
    chosen = experiment.classes
    if chosen and len(chosen) != classes:
        problem = f"{len(chosen)} classes, and the model has {classes} outputs: as many are needed"
        raise FieldError("classes", chosen, problem)
    names = class_names(train, None if chosen else classes)
    common: dict[str, Any] = {
        "classes": _class_count(found["train"], names) if chosen else classes,
        "subset": chosen,
        "validation_size": experiment.validation_size,
        "seed": experiment.seed,
        "half": experiment.half,
        "takes": takes,
        "identified": True,
    }
    splits: list[Any] = [found.get(name) for name in ("train", "test", "validation")]
    pipelines = [isinstance(data, tf.data.Dataset) for data in found.values()]
    if any(pipelines) and not all(pipelines):
        raise UsageError(
            "train, test and validation must all be (inputs, labels) pairs, or all tf.data pipelines; train may be "
            "(inputs, labels, weights)"
        )
    if all(pipelines):
        built = arrays.from_pipelines(
            *splits,
            memory_limit_mb=experiment.memory_limit_mb,
            shuffle_buffer=experiment.shuffle_buffer,
            repeats=False,
            **common,
        )
    else:
        built = arrays.from_arrays(*splits, **common)
    return dataclasses.replace(built, class_names=subset_names(chosen, names) if chosen else names)


def part(data: Any, *, split: str, classes: int, **options: Any) -> Part:
    """Builds one split from an object.

    Args:
      data: see `dataset`.
      split: its name, for messages.
      classes: see `dataset`.
      **options: see `arrays.part_of_test`.

    Raises:
      UsageError: the data is invalid.
    """
    found = recognised(data, split)
    return arrays.part_of_test(found, split=split, classes=classes, repeats=False, **options)


def recognised(data: Any, split: str) -> Any:
    """The data as a pair or triple of arrays, or the pipeline that it is.

    Raises:
      UsageError: it is neither; the message says how to convert it.
    """
    if isinstance(data, tf.data.Dataset):
        return data
    if "datasets" in _packages(data):
        columns = hugging_face.read(data, split)
        return columns.inputs, columns.labels
    if isinstance(data, tuple | list) and len(data) in (2, 3) and not _is_pairs(data):
        return _inputs(data[0], split), _labels(data[1], split), *data[2:]
    raise UsageError(f"{split} {_problem(data)}")


def _class_count(train: Any, names: Sequence[str]) -> int:
    """The number of classes of data of which some are chosen: by names, or one-hot labels; else any number."""
    if names:
        return len(names)
    inputs, labels, *_ = train.element_spec if isinstance(train, tf.data.Dataset) else train
    shape, first = (_shape(x) for x in (labels, flat(inputs)[0][1]))
    # Single examples of a pipeline have no axis of examples.
    *_, width = (1, *(shape[1:] if shape[:1] == first[:1] else shape))
    return width if width is not None and width > 1 else _ANY_NUMBER


def _shape(x: Any) -> tuple[int | None, ...]:
    return tuple(x.shape if isinstance(x, tf.TensorSpec) else np.shape(x))


def class_names(data: Any, classes: int | None) -> tuple[str, ...]:
    """The class names that an object brings; empty if it has none, or not one per class.

    Hugging Face data sets bring those of their label column, and the pipelines of Keras's
    `image_dataset_from_directory` those of the folders.

    Args:
      data: see `dataset`.
      classes: number of classes; None: it is not known.
    """
    if "datasets" in _packages(data):
        names: Sequence[str] = hugging_face.class_names(data)
    else:
        names = getattr(data, "class_names", None) or ()
    return tuple(map(str, names)) if classes in (None, len(names)) else ()


def _packages(data: Any) -> set[str]:
    """The packages that the class of an object and its base classes come from."""
    return {kind.__module__.partition(".")[0] for kind in type(data).__mro__}


def _inputs(data: Any, split: str) -> Any:
    if isinstance(data, dict):
        return {name: _inputs(part, split) for name, part in data.items()}
    if isinstance(data, tuple):
        return tuple(_inputs(part, split) for part in data)
    if "pandas" in _packages(data):
        frame = data if hasattr(data, "columns") else data.to_frame()
        return frames.features(frame, f"{split} inputs")
    if hasattr(data, "toarray"):
        raise UsageError(
            f"{split} inputs are a sparse matrix, {type(data).__name__}: dense arrays are needed; call toarray()"
        )
    if isinstance(data, tf.RaggedTensor):
        raise UsageError(f"{split} inputs are a RaggedTensor: pad them to one shape by to_tensor()")
    if isinstance(data, tf.SparseTensor):
        raise UsageError(f"{split} inputs are a SparseTensor: convert them by tf.sparse.to_dense")
    return data


def _labels(data: Any, split: str) -> Any:
    return frames.labels_of(data, f"{split} labels") if "pandas" in _packages(data) else data


def _is_pairs(data: Sequence[Any]) -> bool:
    """Whether data is `(x_train, y_train), (x_test, y_test)`, as Keras's `load_data` returns it."""
    return all(isinstance(part, tuple) and len(part) == 2 for part in data) and all(
        hasattr(array, "shape") for part in data for array in part
    )


def _problem(data: Any) -> str:
    """What an object is that cannot be used, and how to convert it; follows the name of the split."""
    kind, packages = type(data).__name__, _packages(data)
    if isinstance(data, tuple | list):
        return _sequence_problem(data)
    if isinstance(data, dict):
        keys = ", ".join(map(repr, data))
        return f"is a dictionary with the keys {keys}: {_NEEDED}; pass (data[INPUTS], data[LABELS])"
    if "pandas" in packages:
        return (
            f"is a {kind} alone: {_NEEDED}; pass (frame.drop(columns=LABEL), frame[LABEL]) with the name of the label "
            "column"
        )
    if isinstance(data, str | os.PathLike):
        return (
            f"is a path or name: {_NEEDED}; images in folders and tables are read by "
            "find_tickets(dataset='folder' or 'table', data_dir=…)"
        )
    if packages & {"keras", "tf_keras"}:
        return (
            f"is a {kind} of Keras: {_NEEDED}; convert it by tf.data.Dataset.from_generator, or read its files by a "
            "Keras function that returns a tf.data pipeline, such as image_dataset_from_directory"
        )
    if "torch" in packages:
        return f"is a {kind} of PyTorch: {_NEEDED}; collect its examples in NumPy arrays"
    if isinstance(data, types.GeneratorType) or hasattr(data, "__next__"):
        return (
            f"is a {kind}, which can be read once only: {_NEEDED}; pass the function that makes it to "
            "tf.data.Dataset.from_generator"
        )
    if isinstance(data, np.ndarray | tf.Tensor):
        return f"has inputs of shape {tuple(data.shape)} without labels: {_NEEDED}"
    return f"is of type {kind}: {_NEEDED} (of a generator: tf.data.Dataset.from_generator)"


def _sequence_problem(data: Sequence[Any]) -> str:
    if len(data) == 2:
        return (
            "is two pairs, as load_data() of Keras returns them: pass train=(x_train, y_train) and "
            "test=(x_test, y_test)"
        )
    return f"is a {type(data).__name__} of {len(data)}: {_NEEDED}"
