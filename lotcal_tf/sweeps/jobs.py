"""The pruning runs of a sweep, each with its directory and its command. No TensorFlow here."""

import dataclasses
import functools
import hashlib
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lotcal_tf.config import registry
from lotcal_tf.config.custom import load_class
from lotcal_tf.config.experiment import FIELDS, Experiment, setting_fields
from lotcal_tf.config.fields import as_json, fields_of
from lotcal_tf.config.hyperparameters import NoHyperparameters
from lotcal_tf.config.optimizers import is_custom
from lotcal_tf.config.recipes import check_own_choice, resolve
from lotcal_tf.config.run_data import data_path
from lotcal_tf.config.run_directory import (
    check_ticket,
    finished_levels,
    is_run,
    is_ticket,
    read_experiment,
)
from lotcal_tf.errors import FieldError, UsageError, shown
from lotcal_tf.sweeps.grid import Grid, Point

# As the field `ticket`: one run from each run of another sweep. As another field: that of the source.
FROM_SWEEP, OF_SOURCE = "sweep:", "source"
_METHODS = ("calib", "criterion")
LOGS = "logs"  # the directory, inside that of a sweep, for what its runs print
_LONGEST = 120  # characters of a directory's name before its digest


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
      name: the name of its directory: what it differs in from other runs, and a digest.
      experiment: its experiment, with `out`.
      flags: the flags of the `train` command that runs it.
      can_change: whether its result depends on code or files of the user, which can change.
    """

    name: str
    experiment: Experiment
    flags: Sequence[str]
    can_change: bool = False

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path(str(self.experiment.out))

    @property
    def command(self) -> list[str]:
        """The command that runs it."""
        return ["python", "-m", "lotcal_tf.train", *self.flags]

    @property
    def is_finished(self) -> bool:
        """Whether its directory has all levels; they are not verified."""
        if not (self.directory / "experiment.json").is_file():
            return False
        return finished_levels(self.directory) > self.experiment.levels

    @property
    def can_be_skipped(self) -> bool:
        """Whether it is finished, and no code or file of the user can have changed since.

        Otherwise its worker compares these with those of the finished levels, as `train` does.
        """
        return self.is_finished and not self.can_change

    @property
    def kind(self) -> str:
        """What runs have in common that differ in their seed or ticket only: they take as long."""
        plain = dataclasses.replace(self.experiment, seed=0, ticket="", control="none")
        return json.dumps([plain.identity(), bool(self.experiment.ticket), plain.levels])


def named(given: Mapping[str, Any], config: str | None = None) -> Experiment:
    """The experiment of a run on named data, checked as the `train` command does before it starts.

    Raises:
      UsageError: it cannot run.
    """
    experiment = resolve(given, config)
    data_path(experiment)
    if experiment.ticket:
        check_ticket(experiment.ticket)
    return experiment


def jobs_of(
    grid: Grid,
    out: Path,
    config: str | None = None,
    *,
    experiment_of: Callable[[Mapping[str, Any]], Experiment] | None = None,
    content: Mapping[str, str] | None = None,
) -> list[Job]:
    """The runs of a sweep, without those that are the same experiment as one before.

    Each run has a directory in `out`, named after the values of the axes and a digest of all that
    its result depends on. A directory with the same digest is used again, whatever axes it was named
    after.

    Args:
      grid: the fields.
      out: the sweep's directory.
      config: a recipe file for all runs.
      experiment_of: makes a checked experiment from given fields; None: `named`.
      content: digests of model and data that are passed as objects.

    Raises:
      UsageError: a run cannot run, or `out` is the directory of a run.
    """
    experiment_of = experiment_of or functools.partial(named, config=config)
    if is_run(out):
        raise FieldError("out", out, "is the directory of a run: name another one for the sweep")
    known = _known_directories(out)
    _check_own_axes(grid)
    described = grid.points()
    points = [own for point in described for own in _with_sources(point)]
    by_source = any(str(p.get("ticket", "")).startswith(FROM_SWEEP) for p in described)
    axes = dict.fromkeys([*grid.axes, *(["ticket"] if by_source else [])])
    found: dict[str, Job] = {}
    used: set[str] = set()
    has_own = any(":" in str(point.get(name)) for point in points for name in _METHODS)
    for point in points:
        given = _applicable(point, grid.from_file, has_own)
        used |= given.keys()
        experiment = experiment_of(given)
        check_own_choice(experiment, given.keys() - grid.from_file)
        if has_own:
            kinds = (_hyperparameters(name, getattr(experiment, name)) for name in _METHODS)
            experiment = experiment.with_methods(*kinds)
        if experiment.distribute == "multi_worker":
            problem = "several processes cannot share a run of a sweep; choose none or mirrored"
            raise FieldError("distribute", experiment.distribute, problem)
        digest = _digest(experiment, content or {})
        name = known.get(digest) or f"{_title(experiment, given, list(axes))}-{digest}"
        placed = dataclasses.replace(experiment, out=str(out / name))
        can_change = bool(content) or _depends_on_files(experiment)
        found.setdefault(digest, Job(name, placed, _flags(given, config, out / name), can_change))
    for name in {name for point in points for name in point} - used:
        value = next(point[name] for point in points if name in point)
        raise FieldError(name, value, "no strategy or criterion of the sweep has it: leave it out")
    return list(found.values())


def _depends_on_files(experiment: Experiment) -> bool:
    """Whether classes, a model or data are those of the user, whose content the fields do not say."""
    return (
        registry.strategy(experiment.calib) is None
        or registry.criterion(experiment.criterion) is None
        or is_custom(experiment.optimizer)
        or registry.is_model_file(experiment.model)
        or registry.source(experiment.source).digest_path is not None
    )


def _hyperparameters(field: str, name: str) -> type:
    """The hyperparameters of a strategy or criterion; of the user's classes, which are imported, too.

    Args:
      field: `calib` or `criterion`.
      name: its value.

    Raises:
      FieldError: the class cannot be imported.
    """
    row = registry.strategy(name) if field == "calib" else registry.criterion(name)
    if row is not None:
        return row.hyperparameters
    kind: type = getattr(load_class(field, name), "Hyperparameters", NoHyperparameters)
    return kind


def _check_own_axes(grid: Grid) -> None:
    """Refuses an axis of a grid file that names code to import; its values as one flag are the user's own."""
    for name in (*_METHODS, "optimizer"):
        values = [str(value) for value in grid.axes.get(name, ())]
        own = next((value for value in values if ":" in value), None)
        if name in grid.from_file and own is not None:
            problem = (
                f"a grid file cannot import code; if you trust it, add --{name}={','.join(values)}"
            )
            raise FieldError(name, own, problem)


def _applicable(point: Point, from_file: frozenset[str], has_own: bool) -> dict[str, Any]:
    """The fields of a run without hyperparameters that other strategies and criteria have.

    Args:
      point: the fields.
      from_file: those that a grid file gave. A class that it names is not imported; the run is refused later.
      has_own: whether runs of the sweep have methods of the user, so that unknown names may be theirs.
    """
    chosen = {name: str(point.get(name, FIELDS[name].default)) for name in _METHODS}
    if any(name in from_file and ":" in value for name, value in chosen.items()):
        return dict(point)
    names = {name for method in chosen.items() for name in fields_of(_hyperparameters(*method))}
    known = {*setting_fields(), *(point.keys() - FIELDS.keys() if has_own else ())}
    return {name: value for name, value in point.items() if name not in known - names}


def _with_sources(point: Point) -> list[dict[str, Any]]:
    """A run for each source run, if the ticket is `sweep:DIR`; otherwise the run itself.

    Raises:
      FieldError: the directory has no run, or `source` is given without a source run.
    """
    ticket = point.get("ticket")
    if not (isinstance(ticket, str) and ticket.startswith(FROM_SWEEP)):
        return [_of_source(point, ticket)]
    place = Path(ticket.removeprefix(FROM_SWEEP))
    runs = sorted(path for path in place.glob("*") if is_run(path)) if place.is_dir() else []
    runs = [run for run in runs if finished_levels(run)]
    if not runs:
        problem = "has no run with a finished level: give the directory of a sweep, sweep:DIR"
        raise FieldError("ticket", ticket, problem)
    return [_of_source({**point, "ticket": str(run)}, str(run)) for run in runs]


def _of_source(point: Point, ticket: Any) -> dict[str, Any]:
    """The fields of a run, with the value of the source run in place of `source`."""
    names = [name for name, value in point.items() if value == OF_SOURCE and name != "source"]
    if not names:
        return dict(point)
    if not ticket or not is_run(Path(ticket)):
        problem = (
            "takes the value of the source run, and ticket names no run; give --ticket=sweep:DIR"
        )
        raise FieldError(names[0], OF_SOURCE, problem)
    recorded = read_experiment(Path(ticket)).get("experiment", {})
    settings = recorded.get("settings", {}) if "calib" in names else {}
    missing = [name for name in names if name not in recorded and name not in settings]
    if missing:
        raise FieldError(missing[0], OF_SOURCE, f"{ticket} has no such field")
    own = setting_fields()
    taken = {
        n: v
        for n, v in settings.items()
        if n in own and n not in point and not own[n].metadata["from_ticket"]
    }
    return {**point, **taken, **{name: recorded.get(name, settings.get(name)) for name in names}}


def _digest(experiment: Experiment, content: Mapping[str, str]) -> str:
    """Ten digits of a hash of everything that a run's result depends on, as far as it is known now."""
    ticket = {"ticket": _source_of(experiment.ticket)} if experiment.ticket else {}
    text = json.dumps(experiment.identity(**ticket, **content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _source_of(ticket: str) -> str:
    """What identifies a ticket or a run: the id of its run and, of a ticket, its level."""
    path = Path(ticket).resolve()
    run = path.parents[1] if is_ticket(path) else path
    level = f"/{path.name}" if is_ticket(path) else ""
    try:
        return f"{read_experiment(run)['run_id']}{level}"
    except (UsageError, KeyError):
        return str(path)


def _title(experiment: Experiment, given: Point, axes: Sequence[str]) -> str:
    """The values of the axes as a part of a file name."""
    parts = []
    for name in axes:
        value = given.get(name)
        if value is None:  # A hyperparameter that this run does not have.
            continue
        if name == "ticket":  # The source's own name without its digest.
            run = Path(str(value))
            run = run.parents[1] if is_ticket(run) else run
            parts.append(f"from_{re.sub(r'-[0-9a-f]{10}$', '', run.name)}")
        else:
            parts.append(f"{name}_{value}")
    text = "-".join(parts) or f"{experiment.dataset}-{experiment.calib.rpartition(':')[2]}"
    return re.sub(r"[^\w.+-]", "_", text, flags=re.ASCII).lstrip(".")[:_LONGEST]


def _known_directories(out: Path) -> dict[str, str]:
    """The names of the directories in a sweep's directory, by digest."""
    try:
        names = sorted(path.name for path in out.iterdir() if path.is_dir())
    except OSError:
        return {}
    matches = (re.fullmatch(r"[^.].*-([0-9a-f]{10})", name) for name in names)
    return {match[1]: match[0] for match in matches if match}


def _flags(given: Mapping[str, Any], config: str | None, directory: Path) -> list[str]:
    """The flags of the `train` command with these fields."""
    flags = [] if config is None else [f"--config={config}"]
    known = {**FIELDS, **setting_fields()}
    hints = typing.get_type_hints(Experiment)
    for name, value in given.items():
        if name == "out":
            continue
        if name not in known:
            flags.append(f"--set={name}={_text(value)}")
        elif hints.get(name) is bool and _text(value) in ("false", "0"):
            flags.append(f"--no{name}")
        else:
            flags.append(f"--{name}={_text(value)}")
    return [*flags, f"--out={directory}"]


def _text(value: Any) -> str:
    """A value as a flag takes it."""
    value = as_json(value)
    if isinstance(value, list):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else shown(value)
