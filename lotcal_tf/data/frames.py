"""Tables: pandas objects of the caller, and CSV or Parquet files with a label column."""

import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.extras import imported
from lotcal_tf.config.run_data import data_path
from lotcal_tf.data.arrays import from_arrays
from lotcal_tf.data.content import digest_of
from lotcal_tf.data.splits import Dataset, check_unsized, test_members
from lotcal_tf.errors import FieldError, UsageError, first_line

# pandas is an extra, so its types are named only.
DataFrame = Any
Series = Any
# A column with more values than the first, and fewer rows per value than the second, does not hold classes.
_FEW_CLASSES, _LEAST_ROWS = 20, 5
_READERS = {".csv": "read_csv", ".parquet": "read_parquet"}


def load(experiment: Experiment) -> Dataset:
    """Loads the table `data_dir`: numeric columns as inputs `(N, F)`, `label_column` as classes.

    The test split is the file `FILE_test` beside it, otherwise `test_size` fixed rows. The different
    labels of the training file, in sorted order, are the classes.

    Raises:
      FieldError: `data_dir` is not a readable table, or `label_column` is not a column of classes.
      UsageError: a feature column is not numeric, or a value is missing.
    """
    (path, frame), *tests = ((path, _read(path)) for path in _files(experiment))
    labels = _label_column(frame, path, experiment.label_column)
    values = _classes(labels, experiment.label_column)
    train = features(frame.drop(columns=labels.name), str(path)), _numbers(labels, values, path)
    if tests:
        check_unsized("test_size", experiment.test_size)
        ((path, other),) = tests
        labels = _label_column(other, path, experiment.label_column)
        given = features(_same_columns(other, frame, path).drop(columns=labels.name), str(path))
        test = given, _numbers(labels, values, path)
    else:
        chosen = test_members(len(labels), experiment.test_size)
        test = train[0][chosen], train[1][chosen]
        train = train[0][~chosen], train[1][~chosen]
    dataset = from_arrays(
        train,
        test,
        classes=len(values),
        validation_size=experiment.validation_size,
        seed=experiment.seed,
        half=experiment.half,
        subset=experiment.classes,
    )
    names = tuple(map(_name, values))
    # The features have no common largest value.
    return dataclasses.replace(dataset, input_range=None, class_names=names, standardised=True)


def digest(experiment: Experiment) -> str:
    """A digest of the files of the table."""
    return digest_of((path.suffix, path) for path in _files(experiment))


def features(frame: DataFrame, name: str) -> NDArray:
    """The values `(N, F)` of the columns of a data frame; uint8 if all columns are.

    Raises:
      UsageError: a column is not numeric, or a value is missing or infinite; the message begins with `name`.
    """
    pandas = imported("pandas", "tables")
    if not len(frame.columns):
        raise UsageError(f"{name}: there is no feature column")
    for column, values in frame.items():
        if not pandas.api.types.is_numeric_dtype(values.dtype):
            raise UsageError(
                f"{name}: the column {column!r} is of type {values.dtype}: numbers are needed; drop the column, or "
                "encode its values as numbers, for example by pandas.get_dummies"
            )
        if values.isna().any():
            row = int(np.argmax(values.isna()))
            raise UsageError(
                f"{name}: the column {column!r} has no value in row {row}, counted from 0: fill it by fillna, or "
                "drop the row by dropna"
            )
        large = ~(values.abs() <= np.finfo(np.float32).max).to_numpy(bool)
        if large.any():
            row = int(np.argmax(large))
            raise UsageError(
                f"{name}: the column {column!r} has the value {values.iloc[row]} in row {row}, counted from 0: "
                "finite float32 numbers are needed"
            )
    bytes_only = all(values.dtype == np.uint8 for _, values in frame.items())
    return frame.to_numpy(np.uint8 if bytes_only else np.float64)


def labels_of(column: Any, name: str) -> NDArray:
    """The labels of a column, or of the columns of one-hot labels, as an array.

    Raises:
      UsageError: a label is missing; the message begins with `name`.
    """
    missing = column.isna().to_numpy().reshape(len(column), -1).any(1)
    if missing.any():
        raise UsageError(
            f"{name}: there is no label in row {int(np.argmax(missing))}, counted from 0 (pandas takes an empty cell, "
            "NA, None, null and similar texts as missing)"
        )
    return np.asarray(column)


def _files(experiment: Experiment) -> list[Path]:
    """The table, and that of the test split if there is one."""
    path = data_path(experiment)
    assert path is not None  # the source needs it
    if path.is_dir():
        tables = sorted(p for p in path.iterdir() if p.suffix.lower() in _READERS)
        tables = [p for p in tables if not p.stem.endswith("_test")]
        hint = f": --data_dir={tables[0]}" if len(tables) == 1 else ""
        problem = f"is a directory; give a {' or '.join(_READERS)} file{hint}"
        raise FieldError("data_dir", experiment.data_dir, problem)
    if path.suffix.lower() not in _READERS:
        problem = f"must be a {' or '.join(_READERS)} file"
        raise FieldError("data_dir", experiment.data_dir, problem)
    test = path.with_name(f"{path.stem}_test{path.suffix}")
    return [path, test] if test.is_file() else [path]


def _read(path: Path) -> DataFrame:
    pandas = imported("pandas", "tables")
    if path.suffix.lower() == ".csv":
        _check_header(path)
    try:
        frame = getattr(pandas, _READERS[path.suffix.lower()])(path)
    except ImportError as error:  # pyarrow reads Parquet.
        problem = f"cannot be read ({error}): pip install 'lotcal-tf[tables]'"
        raise UsageError(f"{path} {problem}") from error
    except Exception as error:
        # pandas passes on all errors of its parsers.
        line = first_line(error)
        raise FieldError("data_dir", path, f"cannot be read as a table: {line}") from error
    if not len(frame):
        raise FieldError("data_dir", path, "has no rows")
    unnamed = [
        c for c in frame.columns if re.fullmatch(r"Unnamed: \d+|__index_level_\d+__", str(c))
    ]
    if unnamed:
        problem = (
            f"the column {unnamed[0]!r} has no name in the file: it is usually the row number, not a feature; write "
            "the file with index=False, or name the column"
        )
        raise FieldError("data_dir", path, problem)
    return frame


def _check_header(path: Path) -> None:
    """Refuses a name that stands twice in the header, which pandas would change, e.g. to `label.1`.

    Raises:
      FieldError: there is such a name.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error):
        return  # pandas says what is wrong with the file.
    twice = [name for name in names if names.count(name) > 1 and name]
    if twice:
        raise FieldError(
            "data_dir", path, f"has several columns {twice[0]!r}: rename or delete them"
        )


def _label_column(frame: DataFrame, path: Path, name: str) -> Series:
    if name not in frame.columns:
        columns = ", ".join(map(str, frame.columns[:12])) + (
            ", …" if len(frame.columns) > 12 else ""
        )
        raise FieldError("label_column", name, f"{path} has the columns {columns}")
    labels_of(frame[name], f"{path}, column {name!r}")
    return frame[name]


def _classes(labels: Series, name: str) -> list[Any]:
    """The different labels in sorted order: strings, integers or booleans."""
    values = list(labels.unique())
    numbers = all(isinstance(v, int | float | np.number | np.bool_) for v in values)
    fractions = [value for value in values if numbers and not float(value).is_integer()]
    if fractions:
        problem = (
            f"has the value {fractions[0]:g}: each label must be a class, an integer or a string"
        )
        raise FieldError("label_column", name, problem)
    if len(values) < 2:
        problem = f"has only the class {values[0]}: at least 2 classes are needed"
        raise FieldError("label_column", name, problem)
    if len(values) > _FEW_CLASSES and len(labels) < _LEAST_ROWS * len(values):
        problem = (
            f"has {len(values)} different values in {len(labels)} rows: the classes of a classifier are needed, with "
            f"{_LEAST_ROWS} rows each or more on average; choose another column, or group its values"
        )
        raise FieldError("label_column", name, problem)
    return sorted(values) if numbers else sorted(values, key=str)


def _name(value: Any) -> str:
    """A class as text: 3 for 3.0."""
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value) if whole else value)


def _numbers(labels: Series, values: Sequence[Any], path: Path) -> NDArray[np.int32]:
    """The place of each label among the classes."""
    known = {value: number for number, value in enumerate(values)}
    for row, label in enumerate(labels):
        if label not in known:
            names = ", ".join(map(_name, values[:12]))
            raise UsageError(
                f"{path} has the label {label} in row {row}: the training classes are {names}"
            )
    return np.array([known[label] for label in labels], np.int32)


def _same_columns(frame: DataFrame, train: DataFrame, path: Path) -> DataFrame:
    """A test table with its columns in the order of the training table."""
    missing = [c for c in train.columns if c not in frame.columns]
    more = [c for c in frame.columns if c not in train.columns]
    if missing or more:
        problem = f"has no column {missing[0]!r}" if missing else f"has the column {more[0]!r} too"
        raise UsageError(f"{path} {problem}: it must have the columns of the training table")
    return frame[list(train.columns)]
