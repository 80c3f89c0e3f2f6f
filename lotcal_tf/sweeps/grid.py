"""The runs of a sweep: all combinations of the values of some fields. No TensorFlow here."""

import dataclasses
import itertools
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf.config.custom import name_of
from lotcal_tf.config.experiment import FIELDS, Experiment, setting_fields
from lotcal_tf.config.fields import typed
from lotcal_tf.config.recipes import read_toml
from lotcal_tf.errors import FieldError, UsageError, shown

MOST_RUNS = 100_000
_NO_AXIS = "does not change results, so it cannot be an axis: give one value"
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_TABLES = ("fields", "axes", "exclude", "set")
# Fields without an effect on results have one value in a sweep.
_AXES = {n for n, f in FIELDS.items() if f.metadata["identity"]} | {"ticket"}

Point = Mapping[str, Any]  # fields and hyperparameters of one run, by name


@dataclasses.dataclass(frozen=True)
class Grid:
    """A description of runs.

    Attributes:
      fields: values that all runs have, by the name of the field or hyperparameter.
      axes: values of the fields in which the runs differ. Runs are all combinations of them; those of
        the last axis change fastest.
      exclude: descriptions of combinations that are left out, see `matches`.
      dependent: pairs of a description and values: the runs that match it have these values.
      from_file: the names of fields whose values a file gave. They cannot name code to import.
    """

    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    axes: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    exclude: Sequence[Mapping[str, Any]] = ()
    dependent: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = ()
    from_file: frozenset[str] = frozenset()

    def points(self) -> list[Point]:
        """The fields of each run.

        Raises:
          UsageError: there is none, or there are more than `MOST_RUNS`.
        """
        count = 1
        for values in self.axes.values():
            count *= len(values)
        if count > MOST_RUNS:
            raise UsageError(
                f"the axes have {count:,} combinations, and a sweep has at most {MOST_RUNS:,}"
            )
        found = list(self._points())
        if not found:
            raise UsageError("exclude leaves no combination of the axes")
        return found

    def _points(self) -> Iterator[Point]:
        for values in itertools.product(*self.axes.values()):
            # An axis of the file that has one value now is a field.
            point = {**self.fields, **dict(zip(self.axes, values, strict=True))}
            if any(matches(point, description) for description in self.exclude):
                continue
            own: dict[str, Any] = {}
            for description, fields in self.dependent:
                own |= fields if matches(point, description) else {}
            yield {**point, **own}

    def with_values(self, fields: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> "Grid":
        """The grid with other values of some fields; those of an axis are several. They override `dependent`, too."""
        new = {**fields, **axes}
        kept_fields = {name: value for name, value in self.fields.items() if name not in new}
        kept_axes = {name: values for name, values in self.axes.items() if name not in new}
        single = {name: values[0] for name, values in axes.items() if len(values) == 1}
        several = {name: values for name, values in axes.items() if len(values) > 1}
        dependent = [
            (when, {name: value for name, value in own.items() if name not in new})
            for when, own in self.dependent
        ]
        return dataclasses.replace(
            self,
            fields={**kept_fields, **fields, **single},
            axes={**kept_axes, **several},
            dependent=dependent,
            from_file=self.from_file - new.keys(),
        )


def flag_values(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values that flags give to fields: several for `a,b`, or `0..4`, of a scalar field.

    Raises:
      FieldError: a range is empty or too long, an axis has a value twice, or the field cannot be an axis.
    """
    return {name: values_of(name, value) for name, value in given.items()}


def sweep_values(
    fields: Mapping[str, Any], axes: Any
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The fields and axes that a caller of the library gives, with classes by their names.

    Raises:
      FieldError: an axis is not a list of different values, or a value cannot be sent to a worker.
    """
    found: dict[str, list[Any]] = {}
    if not isinstance(axes, Mapping) or not all(isinstance(name, str) for name in axes):
        raise UsageError("axes must be a dictionary of names and lists of values")
    for name, values in axes.items():
        if name in fields:
            raise FieldError(name, fields[name], "is an axis, too: give one of them")
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise FieldError(name, values, "an axis must be a list of values")
        found[name] = [_plain(name, value) for value in itertools.islice(values, MOST_RUNS + 1)]
        _check_axis(name, values, found[name])
    return {name: _plain(name, value) for name, value in fields.items()}, found


def _check_axis(name: str, given: Any, values: Sequence[Any]) -> None:
    """Checks the values of an axis, which were given as `given`.

    Raises:
      FieldError: the field cannot be an axis; or the values are not different, or one of them is empty.
    """
    if name in FIELDS and name not in _AXES:
        raise FieldError(name, given, _NO_AXIS)
    try:
        different = len(set(values)) == len(values)
    except TypeError:  # lists
        different = not any(values.count(value) > 1 for value in values)
    if not values or "" in values or not different:
        problem = "an axis has different values, at least one, none of them empty"
        raise FieldError(name, given, problem)


def _plain(name: str, value: Any) -> Any:
    """A value as an experiment takes it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, type):
        if value.__module__ == "__main__":
            problem = "must be in a module of its own, which worker processes can import"
            raise FieldError(name, value.__qualname__, problem)
        return name_of(value)
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, str | int | float | bool | tuple | list | None):
        problem = "objects cannot be given to a sweep: give a name or a number"
        raise FieldError(name, type(value).__name__, problem)
    return value


def matches(point: Point, description: Mapping[str, Any]) -> bool:
    """Whether a combination has the value, or one of the values, that a description has for each field."""
    return all(
        name in point
        and _typed(name, point[name]) in (value if isinstance(value, list) else [value])
        for name, value in description.items()
    )


def _typed(name: str, value: Any) -> Any:
    """A value of a point with the type of its field; flags of one value are texts."""
    field = FIELDS.get(name) or setting_fields().get(name)
    if field is None or not isinstance(value, str):
        return value
    try:
        return typed(field, _hint(name), value)
    except FieldError:  # It is reported when the experiment is made.
        return value


def values_of(name: str, value: Any) -> list[Any]:
    """The values that a flag gives to a field: several for a comma list or a range of a scalar field.

    Raises:
      FieldError: see `flag_values`.
    """
    kind = _hint(name)
    if not isinstance(value, str) or tuple in (kind, typing.get_origin(kind)):
        return [value]
    found = _RANGE.fullmatch(value)
    if found and kind is not str:
        first, last = int(found[1]), int(found[2])
        if not 0 <= last - first < MOST_RUNS:
            problem = f"a range FIRST..LAST rises and has at most {MOST_RUNS:,} values"
            raise FieldError(name, value, problem)
        return list(range(first, last + 1))
    if "," not in value or name in ("out", "data_dir"):
        return [value]
    parts = [part.strip() for part in value.split(",")]
    _check_axis(name, value, parts)
    field = FIELDS.get(name) or setting_fields()[name]
    return [typed(field, kind, part) for part in parts]


def _hint(name: str) -> Any:
    """The type of a field or hyperparameter; tuple if it is not known, and may be a list."""
    hint = typing.get_type_hints(Experiment).get(name)
    if hint is None and name in setting_fields():
        hint = type(setting_fields()[name].default)
    return tuple if hint is None else hint


def read_grid(path: Path) -> Grid:
    """Reads a grid file.

    It is a TOML file with the tables `[fields]` (values of all runs), `[axes]` (a list of values for each
    field), `[[exclude]]` (combinations to leave out: a value or a list of values for some axes) and
    `[[set]]` (`when`, a description as in `[[exclude]]`, and fields that runs have that match it).

    Raises:
      UsageError: it cannot be read, or is not such a file.
    """
    content = read_toml(path, "grid", "grid file")
    for name in content:
        if name not in _TABLES:
            raise UsageError(f"{path}: unknown table {shown(name)!r}; tables are {_TABLES}")
    fields, axes = (_table(path, name, content.get(name, {})) for name in ("fields", "axes"))
    exclude, dependent = (_tables(path, name, content.get(name, [])) for name in ("exclude", "set"))
    for name, values in axes.items():
        if not isinstance(values, list):
            raise UsageError(f"{path}: axes.{name}={shown(values)}: must be a list of values")
        try:
            _check_axis(name, values, values)
        except FieldError as error:
            raise UsageError(f"{path}: axes.{error}") from error
        if name in fields:
            raise UsageError(f"{path}: {name} is in [fields] and in [axes]: give one of them")
    pairs = []
    for table in dependent:
        when = _table(path, "set.when", table.pop("when", None))
        pairs.append((when, table))
    for description in (*exclude, *(when for when, _ in pairs)):
        unknown = [name for name in description if name not in axes]
        if unknown or not description:
            named = unknown[0] if unknown else "nothing"
            raise UsageError(
                f"{path}: [[exclude]] and [[set]] choose by axes, and {shown(named)} is not in [axes]"
            )
        _check_values(path, description, axes)
    names = {*fields, *axes, *(name for _, own in pairs for name in own)}
    if "out" in names:
        raise UsageError(f"{path}: out cannot be in a grid file; give --out")
    return Grid(fields, axes, tuple(exclude), tuple(pairs), frozenset(names))


def _check_values(path: Path, description: Mapping[str, Any], axes: Mapping[str, Any]) -> None:
    """Raises UsageError if a description names a value that its axis does not have."""
    for name, value in description.items():
        for one in value if isinstance(value, list) else [value]:
            if one not in axes[name]:
                raise UsageError(f"{path}: {name}={shown(one)} is not in axes.{name}")


def _table(path: Path, name: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise UsageError(f"{path}: {name}={shown(found)}: must be a table")
    return dict(found)


def _tables(path: Path, name: str, found: Any) -> list[dict[str, Any]]:
    if not isinstance(found, list):
        raise UsageError(f"{path}: {name}={shown(found)}: must be a list of tables, [[{name}]]")
    return [_table(path, name, table) for table in found]
