"""Random recipes: every one runs a short level, or is refused by a UsageError; never anything else.

The default profile takes seconds; `--full` tries far more.
"""

import functools
import json
import math
import types
import typing

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from lotcal_tf import find_tickets
from lotcal_tf.config import optimizers, registry
from lotcal_tf.config.experiment import FIELDS, Experiment, setting_fields
from lotcal_tf.config.recipes import read_recipe, resolve
from lotcal_tf.errors import UsageError

ALWAYS = {
    "derandomize": True,
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}
settings = functools.partial(hypothesis.settings, **ALWAYS)

# What keeps a level short. Any of these may also be drawn by `anything`.
TINY = {
    "dataset": "digits",
    "model": "lenet_3",
    "epochs": 1,
    "levels": 1,
    "batch_size": 400,
    "plan": "graph",
}
# Fields that another test covers: paths, processes, and the data's own size.
LEFT_OUT = {"out", "ticket", "control", "data_dir", "distribute", "config"}
LEFT_OUT |= {"dataset", "source", "model", "batch_size", "epochs", "plan", "memory_limit_mb"}

HINTS = typing.get_type_hints(Experiment)
for row in (*registry.STRATEGIES.values(), *registry.CRITERIA.values()):
    HINTS |= typing.get_type_hints(row.hyperparameters)
NAMES = [name for name in (*FIELDS, *setting_fields()) if name not in LEFT_OUT]

# Texts that a field without choices may hold.
WORDS = {
    "calib": [*registry.STRATEGIES],
    "criterion": [*registry.CRITERIA],
    "optimizer": [*optimizers.OPTIMIZERS],
    "rewind": ["init", "pretrained", "random", "none", "step:1", "step:2", "step:99", "epoch:1"],
    "exclude": ["*", "hidden*", "logits", "nothing"],
    "label_column": ["label"],
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


def likely(name):
    """Values that a field may well have."""
    field = FIELDS.get(name) or setting_fields()[name]
    hint = HINTS[name]
    options = (hint,) if typing.get_origin(hint) is tuple else typing.get_args(hint) or (hint,)
    (kind,) = (option for option in options if option is not types.NoneType)
    many = typing.get_origin(kind) is tuple
    kind = typing.get_args(kind)[0] if many else kind
    words = field.metadata["choices"] or WORDS.get(name) or ["x"]
    part = {
        bool: st.booleans(),
        int: st.integers(0, 6),
        float: st.sampled_from([0.0, 1e-6, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0, 2.0]),
        str: st.sampled_from(words),
    }[kind]
    return st.lists(part, max_size=3).map(tuple) if many else part


def recipe(values):
    """Up to four fields with values drawn by `values`."""
    chosen = st.lists(st.sampled_from(NAMES), max_size=4, unique=True)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({n: values(n) for n in names}))


def runs_or_is_refused(drawn, directory):
    """A run of one pruning, in a directory of its own."""
    try:
        run = find_tickets(**TINY | drawn, out=directory, progress=False)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
        assert not directory.exists()
        return "refused"
    assert all(math.isfinite(record["val_nll"]) for record in run.records)
    return "run"


@pytest.fixture
def numbered(tmp_path):
    """numbered() → another directory each time."""
    count = iter(range(10**6))
    return lambda: tmp_path / f"run{next(count)}"


def short(drawn):
    """Whether a level of the drawn recipe takes about a second."""
    return drawn.get("passes", 2) < 7 and drawn.get("mc_eval", 0) < 7 and drawn.get("levels", 1) < 3


def check_that_it_runs(drawn, directory):
    hypothesis.assume(short(drawn))
    hypothesis.event(runs_or_is_refused(drawn, directory))


@pytest.mark.full
@settings(max_examples=12)
@given(recipe(likely))
def test_a_likely_recipe_runs_or_is_refused(numbered, drawn):
    check_that_it_runs(drawn, numbered())


@pytest.mark.full
@settings(max_examples=60)
@given(recipe(likely))
def test_many_likely_recipes_run_or_are_refused(numbered, drawn):
    check_that_it_runs(drawn, numbered())


def resolves_or_is_refused(drawn):
    try:
        found = resolve(TINY | drawn)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
        return
    # What was accepted is recorded, and read back as it was.
    again = json.loads(json.dumps(found.as_dict()))
    assert Experiment(**again) == found
    assert Experiment(**again).run_id() == found.run_id()


@pytest.mark.full
@settings(max_examples=400)
@given(recipe(lambda name: st.one_of(likely(name), ODD)))
def test_any_value_is_accepted_and_recorded_or_refused(drawn):
    resolves_or_is_refused(drawn)


@pytest.mark.full
@settings(max_examples=3_000)
@given(recipe(lambda name: st.one_of(likely(name), ODD)))
def test_any_of_many_values_is_accepted_and_recorded_or_refused(drawn):
    resolves_or_is_refused(drawn)


KEYS = st.sampled_from([*FIELDS, *setting_fields(), "set", "nonsense", "", "a.b"])
SCALARS = st.one_of(
    st.booleans().map(lambda value: str(value).lower()),
    st.integers().map(str),
    st.floats().map(lambda value: repr(value) if math.isfinite(value) else str(value)),
    st.text(max_size=6).map(json.dumps),
    st.sampled_from(
        ["1979-05-27", "07:32:00", "1e5", "0x1F", "'''x'''", "[1, 'a']", "{a = 1}", "[[]]"]
    ),
)
LINES = st.one_of(
    st.tuples(KEYS, SCALARS).map(lambda pair: f"{json.dumps(pair[0])} = {pair[1]}"),
    st.text(max_size=12),
    KEYS.map(lambda name: f"[{json.dumps(name)}]"),
)


def is_read_or_refused(lines, path):
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        read_recipe(path)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
        assert path.name in str(error)


@settings(max_examples=400)
@given(st.lists(LINES, max_size=4))
def test_any_text_is_a_recipe_or_refused(tmp_path_factory, lines):
    is_read_or_refused(lines, tmp_path_factory.getbasetemp() / "own.toml")


@settings(max_examples=200)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_recipe_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.toml"
    path.write_bytes(content)
    try:
        read_recipe(path)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.full
@settings(max_examples=3_000)
@given(st.lists(LINES, max_size=6))
def test_any_of_many_texts_is_a_recipe_or_refused(tmp_path_factory, lines):
    is_read_or_refused(lines, tmp_path_factory.getbasetemp() / "own.toml")
