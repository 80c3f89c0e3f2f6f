"""Recipes (`configs/*.toml`), and how a recipe and explicit fields give an experiment."""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lotcal_tf.config import registry
from lotcal_tf.config.experiment import (
    CUSTOM_SCHEDULE,
    FIELDS,
    Experiment,
    check_together,
    setting_fields,
    setting_owners,
)
from lotcal_tf.config.fields import checked, fields_of
from lotcal_tf.config.fields import path as path_problem
from lotcal_tf.config.run_directory import finished_levels, is_run
from lotcal_tf.errors import FieldError, UsageError, shown

_LARGEST = 1 << 20  # Bytes of a recipe or grid file.

# Fields and settings that describe how a built-in network is made.
_OF_BUILT_IN = (
    *("initializer", "use_bias", "bias_initializer", "norm_initializer"),
    *("input_mean", "input_std", "precision"),
)
_SETTINGS_OF_BUILT_IN = ("dropout_rate", "dropout_at")


def recipe_directory() -> Path:
    """The directory of the recipes: `configs` of a checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "configs"
    # An unrelated `configs` may be beside an installed package; a checkout also has setup.py.
    if beside.is_dir() and (package.parent / "setup.py").is_file():
        return beside
    return package / "configs"


def recipe_names() -> tuple[str, ...]:
    """The names of all recipes, in alphabetical order."""
    return tuple(sorted(path.stem for path in recipe_directory().glob("*.toml")))


def read_recipe(path: Path) -> dict[str, Any]:
    """The fields and hyperparameters that a recipe file sets.

    The table `[set]` holds hyperparameters of a custom strategy or criterion, and `[strategy.NAME]` those
    that only one built-in strategy has in this recipe; the other strategies keep their defaults.

    Raises:
      UsageError: there is no such file, it is not TOML, it names an unknown field, or a value is
        not valid.
    """
    found = read_toml(path)
    by_strategy = found.pop("strategy", {})
    custom = found.pop("set", {})
    if not isinstance(custom, dict):
        raise UsageError(f"{path}: set={shown(custom)}: must be a table of hyperparameters, [set]")
    for name, value in custom.items():
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, str | int | float) for part in parts):
            problem = "must be a number, a string, true or false, or a list of these"
            raise UsageError(f"{path}: set.{shown(name)}={shown(value)}: {problem}")
    known = [*FIELDS, *setting_fields()]
    for name in found:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(known)}"
            raise UsageError(f"{path}: unknown field {shown(name)!r}; {hint}")
    try:
        Experiment(**{name: value for name, value in found.items() if name in FIELDS})
        for row in (*registry.STRATEGIES.values(), *registry.CRITERIA.values()):
            names = found.keys() & fields_of(row.hyperparameters).keys()
            checked(row.hyperparameters, {name: found[name] for name in names})
    except FieldError as error:
        raise UsageError(f"{path}: {error}") from error
    _check_by_strategy(path, by_strategy)
    tables = {"set": custom, "strategy": by_strategy}
    return found | {name: table for name, table in tables.items() if table}


def _check_by_strategy(path: Path, tables: Any) -> None:
    """Checks the tables `[strategy.NAME]` of a recipe.

    Raises:
      UsageError: a strategy is unknown, or a value is none of its hyperparameters or not valid.
    """
    if not isinstance(tables, dict):
        tables = {"": tables}
    for name, values in tables.items():
        if name not in registry.STRATEGIES or not isinstance(values, dict):
            choices = ", ".join(registry.STRATEGIES)
            raise UsageError(
                f"{path}: strategy.{shown(name)}: must be a table [strategy.NAME], NAME one of {choices}"
            )
        try:
            checked(registry.STRATEGIES[name].hyperparameters, values)
        except FieldError as error:
            raise UsageError(f"{path}: strategy.{name}.{error}") from error


def read_toml(path: Path, flag: str = "config", kind: str = "recipe") -> dict[str, Any]:
    """The content of a TOML file.

    Args:
      path: the file.
      flag, kind: the flag that names it and what it is, for messages.

    Raises:
      FieldError: it cannot be read, or is not TOML.
    """
    if problem := path_problem(str(path)):
        raise FieldError(flag, path, problem)
    try:
        if path.is_char_device():
            raise FieldError(flag, path, f"is a device, not a {kind}: give a file")
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise FieldError(flag, path, f"is larger than {_LARGEST:,} bytes: give a {kind}")
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise FieldError(flag, path, f"cannot be read: {error.strerror}") from error
    except UsageError:
        raise
    except (ValueError, RecursionError) as error:  # Integers of more than 4,300 digits, too.
        raise FieldError(flag, path, f"is not a {kind}: {error}") from error


def _recipe_for(given: Mapping[str, Any], config: str | None) -> dict[str, Any]:
    """The recipe named by `--config`, or else by `--dataset`, with `dataset` filled in.

    `--source` without either has the recipe of its name, or an empty one.
    """
    if config is not None:
        path = Path(config)
        found = read_recipe(path)
        found.setdefault("dataset", path.stem)
        asked = given.get("dataset", found["dataset"])
        if asked != found["dataset"]:
            problem = (
                f"contradicts --config={config}, a recipe for {found['dataset']}: give one of them"
            )
            raise FieldError("dataset", asked, problem)
        return found
    source = _string("source", given.get("source", ""))
    if source and "dataset" not in given and source not in recipe_names():
        return {"dataset": re.sub(r"[^\w.-]+", "-", source)[:100]}
    name = _string("dataset", given.get("dataset", source or FIELDS["dataset"].default))
    if name not in recipe_names():
        problem = (
            f"choose one of {', '.join(recipe_names())}; another TFDS data set is named by "
            "--source=NAME, or in a recipe, which --config=FILE.toml names"
        )
        raise FieldError("dataset", name, problem)
    return {"dataset": name} | read_recipe(recipe_directory() / f"{name}.toml")


def _string(field: str, value: Any) -> str:
    """Raises FieldError if a value is not a string."""
    if not isinstance(value, str):
        raise FieldError(field, value, "must be a string")
    return value


def resolve(
    given: Mapping[str, Any], config: str | None = None, *, own_model: bool = False
) -> Experiment:
    """The experiment on named data that results from explicit fields, a recipe and the defaults.

    An explicit field overrides the recipe, and the recipe overrides the default.

    Args:
      given: fields and hyperparameters given explicitly, by name; values may still be strings.
      config: a recipe file.
      own_model: whether the field `model` is only the name of a model that the caller passes as an
        object. A `.keras` file is recognised.

    Raises:
      UsageError: a field, a name or their combination is not valid; the message is one line.
    """
    recipe = _recipe_for(given, config)
    calib, criterion = (
        _string(n, given.get(n, recipe.get(n, FIELDS[n].default))) for n in ("calib", "criterion")
    )
    recipe |= recipe.pop("strategy", {}).get(calib, {})
    merged = recipe | dict(given)
    # A recipe may hold hyperparameters of several strategies; only explicit ones must apply.
    rows = registry.strategy(calib), registry.criterion(criterion)
    own = {name for row in rows if row is not None for name in fields_of(row.hyperparameters)}
    for name in setting_fields().keys() & recipe.keys() - own - set(given):
        del merged[name]
    custom = merged.pop("set", {})  # does not apply if flags choose built-in methods
    experiment = Experiment.of(**({**custom, **merged} if None in rows else merged))
    experiment = dataclasses.replace(experiment, source=experiment.source or experiment.dataset)
    _check_ticket_fields(experiment, given)
    own_model = own_model or registry.is_model_file(experiment.model)
    if own_model:
        experiment = _for_own_model(experiment, given)
    check_together(experiment, given)
    if experiment.schedule == "custom":
        raise FieldError("schedule", "custom", CUSTOM_SCHEDULE)
    _check_stochastic_passes(experiment, given_model=own_model)
    if experiment.rewind == "pretrained" and not own_model:
        problem = "is for a model that comes with weights, a file or an object; choose init"
        raise FieldError("rewind", experiment.rewind, problem)
    if not experiment.ticket:
        if not own_model:
            registry.model(experiment.model)
    elif "levels" not in given:
        last = finished_levels(Path(experiment.ticket)) - 1 if _is_run(experiment) else 0
        experiment = dataclasses.replace(experiment, levels=max(0, last))
    return experiment


def check_own_choice(experiment: Experiment, given: Collection[str]) -> None:
    """Checks, before a training, that no recipe alone names code to import or a place to write to.

    Args:
      experiment: see `resolve`.
      given: the names of the fields that the user gave beside the recipe.

    Raises:
      FieldError: a recipe names a class as `module:Class`, or a directory outside the working one.
    """
    for name in ("calib", "criterion", "optimizer"):
        value = getattr(experiment, name)
        if ":" in value and name not in given:
            problem = f"a recipe cannot import code; if you trust it, add --{name}={value}"
            raise FieldError(name, value, problem)
    out = experiment.out
    if out is not None and "out" not in given:
        place = Path(out)
        if place.is_absolute() or ".." in place.parts or out.startswith("~"):
            problem = f"a recipe cannot write outside the working directory; add --out={out}"
            raise FieldError("out", out, problem)


def _for_own_model(experiment: Experiment, given: Mapping[str, Any]) -> Experiment:
    """The experiment without the fields of built-in networks, which a recipe may set.

    Raises:
      FieldError: such a field is given explicitly.
    """
    for name in (*_OF_BUILT_IN, *_SETTINGS_OF_BUILT_IN):
        if name in given:
            problem = "is for built-in networks, and this model has its own layers: leave this out"
            raise FieldError(name, given[name], problem)
    defaults: dict[str, Any] = {name: FIELDS[name].default for name in _OF_BUILT_IN}
    return dataclasses.replace(experiment, **defaults)


def _is_run(experiment: Experiment) -> bool:
    return bool(experiment.ticket) and is_run(Path(experiment.ticket))


def _check_ticket_fields(experiment: Experiment, given: Mapping[str, Any]) -> None:
    """Raises FieldError if a given field is determined by the ticket, or has no meaning for the tickets of a run."""
    if not experiment.ticket:
        return
    known = {**setting_fields(), **FIELDS}
    for name in given:
        metadata = known[name].metadata if name in known else {}
        if metadata.get("from_ticket"):
            raise FieldError(
                name, given[name], "is determined by the ticket; leave it out with --ticket"
            )
        if metadata.get("of_pruning") and _is_run(experiment):
            problem = f"every level starts from a ticket of {experiment.ticket} and none is pruned"
            raise FieldError(name, given[name], f"{problem}; leave this out")


def _check_stochastic_passes(experiment: Experiment, *, given_model: bool) -> None:
    """Raises FieldError if stochastic predictions are requested from a built-in network without dropout."""
    known = registry.strategy(experiment.calib) is not None
    dropout = experiment.settings.get("dropout_rate") or experiment.ticket or not known
    if experiment.mc_eval and not (dropout or given_model):
        problem = f"needs dropout, which calib={experiment.calib} does not add"
        users = ", ".join(setting_owners()["dropout_rate"])
        raise FieldError("mc_eval", experiment.mc_eval, f"{problem}; choose one of {users}")
