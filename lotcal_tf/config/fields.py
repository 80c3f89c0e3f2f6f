"""How a field of an experiment is declared, and what values it can have.

A check gives None for a value that is possible, else what the value must be, in words that follow
`field=value: `.
"""

import dataclasses
import math
import re
import typing
from collections.abc import Callable
from typing import Any

from lotcal_tf.errors import FieldError

Check = Callable[[Any], str | None]

_WORDS = {int: "a whole number", float: "a number", str: "a text"}


def declared(
    default: Any,
    help: str,
    *,
    check: Check | None = None,
    choices: tuple[str, ...] = (),
    only_with: tuple[str, Callable[[Any], bool], str] | None = None,
    identity: bool = True,
    from_ticket: bool = False,
    of_strategy: bool = False,
    of_pruning: bool = False,
) -> Any:
    """A field: its default, its line of help, what values it can have, when it means anything.

    `only_with` names the field it depends on, the test of that field's value, and the words for
    it. `identity=False`: no result depends on it. `from_ticket`: a ticket brings it along.
    `of_strategy`: a hyperparameter of some strategies, whose rows in the catalog hold the defaults.
    `of_pruning`: says how a level follows from the one before, so it means nothing where each has a
    ticket to start from.
    """
    metadata = {
        "help": help,
        "check": check,
        "choices": choices,
        "only_with": only_with,
        "identity": identity,
        "from_ticket": from_ticket,
        "of_strategy": of_strategy,
        "of_pruning": of_pruning,
    }
    return dataclasses.field(default=default, metadata=metadata)


def at_least(minimum: float) -> Check:
    """A check: no smaller than that."""
    return lambda v: None if v >= minimum else f"must be at least {minimum:g}"


def rate(value: float) -> str | None:
    """In (0, 1)."""
    return None if 0 < value < 1 else "must lie strictly between 0 and 1"


def fraction(value: float) -> str | None:
    """In [0, 1)."""
    return None if 0 <= value < 1 else "must lie in [0, 1)"


def _is_positive(value: float) -> bool:
    return value > 0 and math.isfinite(value)


def positive(value: float) -> str | None:
    """Finite, above 0."""
    return None if _is_positive(value) else "must be a finite number above 0"


def not_negative(value: float) -> str | None:
    """Finite, 0 or more."""
    return None if value >= 0 and math.isfinite(value) else "must be a finite number, 0 or more"


def rewind(value: str) -> str | None:
    """One of the five forms."""
    if re.fullmatch(r"init|random|none|(step|epoch):[1-9]\d*", value):
        return None
    return "choose one of init, step:K, epoch:K, random, none (K counts from 1)"


def drops(value: tuple[int, ...]) -> str | None:
    """Epochs in rising order, from 1 on."""
    rising = all(a < b for a, b in zip((0, *value), value, strict=False))
    return None if rising else "must be rising epoch numbers, e.g. 80,120"


def all_positive(value: tuple[float, ...]) -> str | None:
    """Each of them finite, above 0."""
    return None if all(map(_is_positive, value)) else "must be finite numbers above 0"


def all_finite(value: tuple[float, ...]) -> str | None:
    """Each of them finite."""
    return None if all(map(math.isfinite, value)) else "must be finite numbers"


def classes(value: tuple[int, ...]) -> str | None:
    """Class numbers."""
    return None if all(v >= 0 for v in value) else "must be class numbers, 0 or more"


def dimensions(value: int) -> str | None:
    """What a mixture's places can be told apart in."""
    return None if 1 <= value <= 60 else "must be 1 to 60"


def mc_eval(value: int) -> str | None:
    """No stochastic passes, or several."""
    return None if value == 0 or value >= 2 else "must be 0, or at least 2"


def prior(value: tuple[float, ...]) -> str | None:
    """No shares, or such that add up to 1."""
    if not value or (all(v >= 0 for v in value) and abs(sum(value) - 1) < 1e-6):
        return None
    return "must be shares that are 0 or more and add up to 1"


def _scalar(field: str, kind: type, value: Any) -> Any:
    """`value` as `kind`."""
    wrong = isinstance(value, bool) or (kind is str and not isinstance(value, str))
    wrong = wrong or (kind is int and isinstance(value, float) and not value.is_integer())
    if not wrong:
        try:
            return kind(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise FieldError(field, value, f"must be {_WORDS[kind]}")


def typed(field: "dataclasses.Field[Any]", hint: Any, value: Any) -> Any:
    """A value from Python, TOML or the command line in its field's type.

    Args:
      field: made by `declared`.
      hint: its type; of a tuple, what each part is.
      value: a text with commas counts as a tuple.

    Raises:
      FieldError: it is of another kind, or none of the values that the field can have.
    """
    if value is None and type(None) in typing.get_args(hint):
        return None
    given = value
    kinds = [hint] if typing.get_origin(hint) is tuple else typing.get_args(hint) or (hint,)
    (kind,) = (kind for kind in kinds if kind is not type(None))
    if typing.get_origin(kind) is tuple:
        kind, _ = typing.get_args(kind)
        parts = [p.strip() for p in value.split(",")] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            parts = [parts]
        value = tuple(_scalar(field.name, kind, p) for p in parts if p != "")
    else:
        value = _scalar(field.name, kind, value)
    choices, check = field.metadata["choices"], field.metadata["check"]
    if choices and value not in choices:
        raise FieldError(field.name, given, f"choose one of {', '.join(choices)}")
    problem = check(value) if check else None
    if problem:
        raise FieldError(field.name, given, problem)
    return value
