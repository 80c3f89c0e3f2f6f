"""Recipes (`configs/*.toml`), and how one is joined with flags into an experiment.

An explicit flag comes before the recipe, the recipe before the default. No TensorFlow here.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lotcal_tf.config import registry
from lotcal_tf.config.experiment import FIELDS, Experiment, check_applies
from lotcal_tf.config.run_directory import finished_levels, is_run
from lotcal_tf.errors import FieldError, UsageError


def recipe_directory() -> Path:
    """Where recipes are read from: a checkout's `configs`, else the copy the wheel installed."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "configs"
    # A stranger's `configs` may lie beside an installed package; a checkout has setup.py too.
    if beside.is_dir() and (package.parent / "setup.py").is_file():
        return beside
    return package / "configs"


def recipe_names() -> tuple[str, ...]:
    """The datasets that have a recipe, in alphabetical order."""
    return tuple(sorted(path.stem for path in recipe_directory().glob("*.toml")))


def read_recipe(path: Path) -> dict[str, Any]:
    """The fields a recipe file sets.

    Raises:
      UsageError: there is no such file, it is not TOML, it names an unknown field, or a value is
        not what the field can have.
    """
    try:
        fields: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a recipe: {error}") from error
    for name in fields:
        if name not in FIELDS:
            close = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"fields are {', '.join(FIELDS)}"
            raise UsageError(f"{path}: unknown field {name!r}; {hint}")
    try:
        Experiment(**fields)
    except FieldError as error:
        raise UsageError(f"{path}: {error}") from error
    return fields


def _recipe_for(flags: Mapping[str, Any], config: str | None) -> dict[str, Any]:
    """The recipe that `--config`, else `--dataset`, asks for, with `dataset` filled in."""
    if config is not None:
        path = Path(config)
        fields = read_recipe(path)
        fields.setdefault("dataset", path.stem)
        asked = flags.get("dataset", fields["dataset"])
        if asked != fields["dataset"]:
            problem = f"contradicts --config={config}, a recipe for {fields['dataset']}; give one of the two"
            raise FieldError("dataset", asked, problem)
        return fields
    name = flags.get("dataset", FIELDS["dataset"].default)
    if name not in recipe_names():
        raise FieldError(
            "dataset",
            name,
            f"no recipe of that name; there is {', '.join(recipe_names())} (for another TFDS set write "
            'a recipe with source = "NAME" and give it as --config=FILE.toml)',
        )
    return {"dataset": name} | read_recipe(recipe_directory() / f"{name}.toml")


def resolve(flags: Mapping[str, Any], config: str | None = None) -> Experiment:
    """Joins explicit flags, the recipe and the defaults into a checked experiment.

    Args:
      flags: the fields given explicitly, by name; values may still be text.
      config: a recipe file of the user's own.

    Raises:
      UsageError: a field, a name or their combination is wrong; the message is one line.
    """
    recipe = _recipe_for(flags, config)
    experiment = Experiment(**(recipe | dict(flags)))
    experiment = dataclasses.replace(experiment, source=experiment.source or experiment.dataset)
    registry.strategy(experiment.calib)
    every_level = bool(experiment.ticket) and is_run(Path(experiment.ticket))
    for name in flags:
        if experiment.ticket and FIELDS[name].metadata["from_ticket"]:
            raise FieldError(
                name, flags[name], "a ticket brings its own; leave this flag out with --ticket"
            )
        if every_level and FIELDS[name].metadata["of_pruning"]:
            problem = f"every level starts from a ticket of {experiment.ticket}, nothing is pruned"
            raise FieldError(name, flags[name], f"{problem}; leave this flag out")
    check_applies(experiment, flags)
    if (
        experiment.label_noise
        and experiment.noise_kind == "asymmetric"
        and not experiment.noise_map
    ):
        problem = "noise_kind=asymmetric needs the image of each class, e.g. 1,2,0"
        raise FieldError("noise_map", experiment.noise_map, problem)
    if experiment.hyperparameters.get("dropout_rate") == 0:
        problem = f"calib={experiment.calib} needs dropout: its passes would all be the same"
        raise FieldError("dropout_rate", 0.0, problem)
    if experiment.mc_eval and not (
        experiment.ticket or experiment.hyperparameters.get("dropout_rate")
    ):
        users = [
            s for s, row in registry.STRATEGIES.items() if "dropout_rate" in row.hyperparameters
        ]
        problem = f"needs dropout, and calib={experiment.calib} has none; {', '.join(users)} have"
        raise FieldError("mc_eval", experiment.mc_eval, problem)
    if experiment.ticket:
        if "levels" not in flags:
            last = finished_levels(Path(experiment.ticket)) - 1 if every_level else 0
            experiment = dataclasses.replace(experiment, levels=max(0, last))
    else:
        registry.model(experiment.model)
    return experiment
