"""Fields: how one is declared, which values its check lets pass, and what a text on a command line means."""

import dataclasses
import math
import typing

import pytest

from lotcal_tf.config import fields
from lotcal_tf.config.fields import declared, typed
from lotcal_tf.errors import FieldError


@dataclasses.dataclass
class Settings:
    rate: float = declared(0.5, "a rate", check=fields.rate)
    count: int | None = declared(None, "a count", check=fields.at_least(1), identity=False)
    kind: str = declared("a", "a kind", choices=("a", "b"))
    drops: tuple[int, ...] = declared((), "epochs", check=fields.drops)
    plain: float = 1.0
    on: bool = False


DECLARED = {field.name: field for field in dataclasses.fields(Settings)}
HINTS = typing.get_type_hints(Settings)


def test_a_declaration_is_a_default_and_what_is_said_of_it():
    assert Settings() == Settings(0.5, None, "a", (), 1.0, False)
    said = DECLARED["count"].metadata
    assert (said["help"], said["identity"], said["choices"]) == ("a count", False, ())
    assert DECLARED["rate"].metadata["identity"] and not DECLARED["rate"].metadata["of_pruning"]


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("rate", "0.25", 0.25),
        ("count", None, None),
        ("count", "7", 7),
        ("count", 7.0, 7),
        ("kind", "b", "b"),
        ("drops", "3, 5", (3, 5)),
        ("drops", [3, 5], (3, 5)),
        ("drops", 3, (3,)),
        ("drops", "", ()),
        ("plain", "2", 2.0),
        ("on", "true", True),
        ("on", "False", False),
        ("on", True, True),
    ],
)
def test_a_value_takes_the_fields_type(name, given, value):
    found = typed(DECLARED[name], HINTS[name], given)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "line"),
    [
        ("rate", True, "rate=True: must be a number"),
        ("rate", None, "rate=None: must be a number"),
        ("rate", "1.0", "rate=1.0: must lie strictly between 0 and 1"),
        ("count", 2.5, "count=2.5: must be an integer"),
        ("count", "0", "count=0: must be at least 1"),
        ("kind", 3, "kind=3: must be a string"),
        ("kind", "c", "kind=c: choose one of a, b"),
        ("plain", "x", "plain=x: must be a number"),
        ("on", "perhaps", "on=perhaps: must be true or false"),
        ("on", 1, "on=1: must be true or false"),
        ("drops", "1,x", "drops=x: must be an integer"),
        ("drops", "5,3", "drops=5,3: must be rising epoch numbers, e.g. 80,120"),
    ],
)
def test_what_cannot_be_is_told_as_it_was_given(name, given, line):
    with pytest.raises(FieldError) as caught:
        typed(DECLARED[name], HINTS[name], given)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("check", "possible", "impossible"),
    [
        (fields.at_least(2), [2, 3], [1, -2]),
        (fields.rate, [0.01, 0.99], [0, 1, -0.5, math.nan]),
        (fields.fraction, [0, 0.99], [1, -0.01, math.nan]),
        (fields.positive, [1e-9, 5], [0, -1, math.inf, math.nan]),
        (fields.not_negative, [0, 5], [-1e-9, math.inf, math.nan]),
        (
            fields.rewind,
            ["init", "random", "none", "step:1", "step:20000", "epoch:3"],
            ["", "Init", "step", "step:", "step:0", "step:1.5", "epoch:-1"],
        ),
        (fields.drops, [(), (1,), (80, 120)], [(0,), (80, 80), (5, 3)]),
        (fields.all_positive, [(), (1, 2)], [(1, 0), (math.inf,)]),
        (fields.all_finite, [(), (-1, 0)], [(1, math.nan)]),
        (fields.classes, [(), (0, 3)], [(1, -1)]),
        (fields.subset, [(), (0, 1), (3, 0, 9)], [(0,), (1, 1), (-1, 2)]),
        (fields.mc_eval, [0, 2], [1, -3]),
        (fields.prior, [(), (0.25, 0.75)], [(0.5, 0.6), (1.5, -0.5)]),
    ],
)
def test_a_check_has_words_for_what_cannot_be_and_none_for_the_rest(check, possible, impossible):
    assert [check(value) for value in possible] == [None] * len(possible)
    assert all(check(value) for value in impossible)
