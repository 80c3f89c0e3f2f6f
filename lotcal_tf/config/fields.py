"""How a field of an experiment, or a hyperparameter, is declared and checked.

A check returns None for a valid value, and otherwise what the value must be, in words that follow
`field=value: `.
"""

import dataclasses
import numbers
import re
import typing
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from lotcal_tf.errors import FieldError, UsageError

Check = Callable[[Any], str | None]

# Topics of `--help` and sections of the model card, in their order.
SECTIONS = (
    *("Data", "Label noise", "Network", "Calibration", "Training"),
    *("Pruning", "Metrics", "Run"),
)

_WORDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
# Integers that TensorFlow and NumPy can hold, and floats that are neither 0 nor infinite in float32.
_MAX_INTEGER = 2**63 - 1
_MIN_FLOAT, _MAX_FLOAT = 1e-37, 3e38
# Of Linux: bytes of a path, and of each name in it.
_PATH_BYTES, _NAME_BYTES = 4095, 255
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclasses.dataclass(frozen=True)
class OnlyWith:
    """The condition under which a field has a meaning.

    Attributes:
      field: the other field that it depends on.
      holds: tests that field's value.
      words: the condition as a user reads it, e.g. `--optimizer=sgd`.
    """

    field: str
    holds: Callable[[Any], bool]
    words: str


def declared(
    default: Any,
    help: str,
    *,
    section: str = "Run",
    main: bool = False,
    check: Check | None = None,
    choices: tuple[str, ...] = (),
    names: Mapping[str, str] | None = None,
    only_with: OnlyWith | None = None,
    identity: bool = True,
    named_only: bool = False,
    from_ticket: bool = False,
    of_pruning: bool = False,
) -> Any:
    """A dataclass field with everything that flags, checks, records and the model card need.

    Args:
      default: the value where none is given.
      help: one line.
      section: one of `SECTIONS`.
      main: whether the short `--help` shows it.
      check: see the module.
      choices: the valid values; empty: any that `check` accepts.
      names: what built-in values mean, for `--helpfull`.
      only_with: the condition under which the field has a meaning; None: always.
      identity: whether a result depends on it.
      named_only: whether it describes named data or a named network, so that it has no meaning
        where the caller passes these as objects.
      from_ticket: whether a run that starts from a ticket takes the value from there.
      of_pruning: whether it says how one level follows from the level before, so that it has no
        meaning where every level starts from a ticket.
    """
    metadata = {
        "help": help,
        "section": section,
        "main": main,
        "check": check,
        "choices": choices,
        "names": names or {},
        "only_with": only_with,
        "identity": identity,
        "named_only": named_only,
        "from_ticket": from_ticket,
        "of_pruning": of_pruning,
    }
    return dataclasses.field(default=default, metadata=metadata)


def hyperparameter(default: Any, help: str = "", **options: Any) -> Any:
    """A dataclass field for a hyperparameter of a strategy or criterion.

    Args:
      default: the value where none is given.
      help: one line.
      **options: of `declared`: `check` (a function that returns None for a valid value, otherwise
        what the value must be), `choices`, …
    """
    try:
        found = declared(default, help, **{"section": "Calibration", **options})
    except TypeError as error:
        raise UsageError(f"hyperparameter: {error}; choose options of its docstring") from error
    metadata = found.metadata
    parts = default if isinstance(default, tuple) else (default,)
    if not all(isinstance(part, bool | int | float | str | None) for part in parts):
        raise FieldError(
            "default", default, "must be a number, a string, a bool or a tuple of these"
        )
    if not isinstance(help, str):
        raise FieldError("help", help, "must be a string")
    if not (metadata["check"] is None or callable(metadata["check"])):
        raise FieldError("check", metadata["check"], "must be a function of the value")
    choices = metadata["choices"]
    if not isinstance(choices, tuple) or not all(isinstance(name, str) for name in choices):
        raise FieldError("choices", choices, "must be a tuple of strings")
    return found


def at_least(minimum: float) -> Check:
    """A check: the minimum or more."""
    return lambda v: None if v >= minimum else f"must be at least {minimum:g}"


def between(minimum: int, maximum: int) -> Check:
    """A check: from the minimum to the maximum, both included."""
    least = at_least(minimum)
    return lambda v: least(v) or (None if v <= maximum else f"must be at most {maximum:,}")


def rate(value: float) -> str | None:
    """In (0, 1)."""
    return None if 0 < value < 1 else "must lie strictly between 0 and 1"


def fraction(value: float) -> str | None:
    """In [0, 1)."""
    return None if 0 <= value < 1 else "must lie in [0, 1)"


def _is_positive(value: float) -> bool:
    return _MIN_FLOAT <= value <= _MAX_FLOAT


def positive(value: float) -> str | None:
    """Finite, above 0, in float32."""
    return None if _is_positive(value) else "must be a finite number above 0"


def not_negative(value: float) -> str | None:
    """Finite in float32, 0 or more."""
    return None if 0 <= value <= _MAX_FLOAT else "must be a finite number, 0 or more"


def seconds(value: float) -> str | None:
    """At most an hour."""
    return not_negative(value) or (None if value <= 3600 else "must be at most 3,600")


def rewind(value: str) -> str | None:
    """One of the six forms."""
    if re.fullmatch(r"init|pretrained|random|none|(step|epoch):[1-9][0-9]{0,11}", value):
        return None
    return "choose one of init, pretrained, step:K, epoch:K, random, none (K counts from 1)"


def drops(value: tuple[int, ...]) -> str | None:
    """Epochs in rising order, from 1 on."""
    rising = all(a < b for a, b in zip((0, *value), value, strict=False))
    return None if rising else "must be rising epoch numbers, e.g. 80,120"


def all_positive(value: tuple[float, ...]) -> str | None:
    """Each of them finite, above 0."""
    return None if all(map(_is_positive, value)) else "must be finite numbers above 0"


def all_finite(value: tuple[float, ...]) -> str | None:
    """Each of them finite."""
    return None if all(abs(v) <= _MAX_FLOAT for v in value) else "must be finite numbers"


def weights(value: tuple[float, ...]) -> str | None:
    """Finite, 0 or more, not all 0."""
    valid = all(0 <= v <= _MAX_FLOAT for v in value) and (any(value) or not value)
    return None if valid else "must be finite numbers, 0 or more, at least one of them above 0"


def classes(value: tuple[int, ...]) -> str | None:
    """Class numbers."""
    return None if all(v >= 0 for v in value) else "must be class numbers, 0 or more"


def subset(value: tuple[int, ...]) -> str | None:
    """No class numbers, or several different ones."""
    if classes(value):
        return classes(value)
    if len(value) == 1:
        return "must be at least two classes, e.g. 0,1"
    return None if len(set(value)) == len(value) else "must be different class numbers"


def image_size(value: tuple[int, ...]) -> str | None:
    """No size, or one or two of at least 1 pixel."""
    if len(value) <= 2 and all(1 <= v <= 10_000 for v in value):
        return None
    return (
        "must be a height and a width in pixels, e.g. 48,64, or one number for both; at most 10,000"
    )


def threads(value: int) -> str | None:
    """Threads of an operation."""
    return None if 1 <= value <= 1024 else "must be 1 to 1024"


def mc_eval(value: int) -> str | None:
    """No stochastic passes, or several."""
    if value > 10_000:
        return "must be at most 10,000"
    return None if value == 0 or value >= 2 else "must be 0, or at least 2"


def text(value: str) -> str | None:
    """Without control characters, line breaks and halves of UTF-16 pairs."""
    unusable = {"Cc", "Cs", "Zl", "Zp"}
    if value.isprintable() or not unusable & set(map(unicodedata.category, value)):
        return None
    return "has a character that cannot be used: NUL, a line break, or one that is not Unicode"


def title(value: str) -> str | None:
    """A text that can be a part of a file's name."""
    return text(value) or (None if len(value) <= 100 else "must have at most 100 characters")


def path(value: str) -> str | None:
    """A text that can be a path; it need not exist."""
    if problem := text(value):
        return problem
    whole = value.encode()
    if len(whole) > _PATH_BYTES or any(len(name) > _NAME_BYTES for name in whole.split(b"/")):
        return f"is too long: a path has at most {_PATH_BYTES:,} bytes, and each name in it {_NAME_BYTES}"
    return None


def data_name(value: str) -> str | None:
    """The name of a TFDS data set, with an optional configuration and version; or no name."""
    if re.fullmatch(r"([A-Za-z0-9][\w.:/+-]{0,199})?", value, re.ASCII):
        return None
    return "must be the name of a data set: letters, digits and _ . : / + -"


def prior(value: tuple[float, ...]) -> str | None:
    """No shares, or shares that add up to 1."""
    if not value or (all(v >= 0 for v in value) and abs(sum(value) - 1) < 1e-6):
        return None
    return "must be shares that are 0 or more and add up to 1"


def _scalar(field: str, kind: type, value: Any) -> Any:
    """`value` as `kind`."""
    if kind is bool:
        known = _BOOLEANS.get(value.lower()) if isinstance(value, str) else value
        if isinstance(known, bool):
            return known
        raise FieldError(field, value, f"must be {_WORDS[bool]}")
    problem = f"must be {_WORDS[kind]}"
    if kind is str and isinstance(value, str):
        unusable = text(value)
        if unusable is None:
            return value
        problem = unusable
    elif kind is not str and not isinstance(value, bool):
        number = _number(kind, value)
        if number is not None and (kind is float or abs(number) <= _MAX_INTEGER):
            return number
        problem += "" if number is None else ", at most 2**63 - 1"
    raise FieldError(field, value, problem)


def _number(kind: type, value: Any) -> Any:
    """A number, or the text of one, as an int or float; None: it is not one."""
    given = isinstance(value, str)
    if not (given and value.isascii()) and not isinstance(value, numbers.Real):
        return None
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if kind is float or given or number == value else None


def typed(field: "dataclasses.Field[Any]", hint: Any, value: Any) -> Any:
    """A value from Python, TOML or the command line in its field's type.

    Args:
      field: of a dataclass; made by `declared`, or a plain one without checks.
      hint: its type: bool, int, float, str, a tuple of one of these, or one of them or None.
      value: a string with commas counts as a tuple.

    Raises:
      FieldError: the value is of another kind, or the field cannot have it.
    """
    if value is None and type(None) in typing.get_args(hint):
        return None
    given, choices = value, field.metadata.get("choices")
    if choices and isinstance(value, str) and value not in choices:
        raise FieldError(field.name, given, f"choose one of {', '.join(choices)}")
    kinds = [hint] if typing.get_origin(hint) is tuple else typing.get_args(hint) or (hint,)
    (kind,) = (kind for kind in kinds if kind is not type(None))
    if typing.get_origin(kind) is tuple:
        kind, _ = typing.get_args(kind)
        parts = _parts(value) if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            parts = [parts]
        if any(isinstance(part, str) and not part for part in parts):
            raise FieldError(
                field.name, given, "has an empty part: write commas between values only"
            )
        value = tuple(_scalar(field.name, kind, p) for p in parts)
    else:
        value = _scalar(field.name, kind, value)
    check = field.metadata.get("check")
    problem = check(value) if check else None
    if problem:
        raise FieldError(field.name, given, problem)
    return value


def _parts(text: str) -> list[str]:
    """The parts of a list; one comma at its end is allowed, and an empty text has none."""
    parts = [part.strip() for part in text.split(",")]
    return parts if parts[-1] else parts[:-1]


def fields_of(kind: type) -> dict[str, "dataclasses.Field[Any]"]:
    """A dataclass's fields by name."""
    return {field.name: field for field in dataclasses.fields(kind)}


def checked(kind: type, given: Mapping[str, Any]) -> Any:
    """A record of the dataclass `kind` with the values given, each of them checked.

    Args:
      kind: a dataclass whose fields all have defaults.
      given: values by name; those of its fields.

    Raises:
      FieldError: a value is not valid; see `typed`.
    """
    hints = typing.get_type_hints(kind)
    known = fields_of(kind)
    for name in given:
        if name not in known:
            choices = ", ".join(known) or "none: it has no hyperparameters"
            raise FieldError(name, given[name], f"no such hyperparameter; choose from {choices}")
    return kind(**{name: typed(known[name], hints[name], value) for name, value in given.items()})


def as_json(value: Any) -> Any:
    """A field's value as JSON can hold it: tuples as lists."""
    return list(value) if isinstance(value, tuple) else value
