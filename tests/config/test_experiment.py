"""Most tests here go over FIELDS, so that a field is covered by being there."""

import dataclasses
import json
import math
import types
import typing

import pytest

from lotcal_tf.config import experiment as module
from lotcal_tf.config import fields as field_module
from lotcal_tf.config.experiment import (
    FIELDS,
    Experiment,
    check_together,
    recorded,
    setting_fields,
    setting_owners,
)
from lotcal_tf.config.fields import hyperparameter
from lotcal_tf.config.hyperparameters import NoHyperparameters
from lotcal_tf.config.recipes import read_recipe, recipe_directory, recipe_names, resolve
from lotcal_tf.config.registry import CRITERIA, STRATEGIES
from lotcal_tf.errors import FieldError, UsageError

# Every field that depends on another means something here.
GIVEN = {
    "calib": "mine:Own",
    "optimizer": "sgd",
    "momentum": 0.9,
    "lr_drops": (3,),
    "input_mean": (0.5,),
    "input_std": (0.5,),
    "label_noise": 0.5,
    "noise_kind": "asymmetric",
    "noise_map": (1, 0),
}
BASE = Experiment(**GIVEN)
# What means something beside a ticket only, which brings some of the above itself, or beside a source.
ALSO = {
    "control": {"ticket": "run/tickets/level_08"},
    "count": {"scope": "global"},
    "data_dir": {"source": "svhn"},
    "test_size": {"source": "folder"},
    "image_size": {"source": "folder"},
    "color_mode": {"source": "folder"},
    "label_column": {"source": "table"},
    "nu": {"source": "mixture_linear"},
    "dimensions": {"source": "mixture_xor"},
}
CANDIDATES = {
    bool: (True, False),
    int: (7, 3),
    float: (0.25, 0.125, 1.0),
    str: ("step:3", "lenet_10", "own_module:Class", "digits"),
}
# No result depends on them; of a ticket, it depends on what is in it, not on where it lies.
NO_RESULT = {
    "checkpoint_minutes",
    "data_dir",
    "distribute",
    "levels",
    "on_unhealthy",
    "ticket",
    "export_logits",
    "plan",
    "out",
    "threads",
}
METHODS = [("calib", name) for name in STRATEGIES] + [("criterion", name) for name in CRITERIA]
DEPENDENT = [name for name, field in FIELDS.items() if field.metadata["only_with"]]


def base_of(name):
    """BASE, where the field means something."""
    return dataclasses.replace(BASE, **ALSO.get(name, {}))


def kinds(name):
    """The type of a field's values, or of a tuple's items."""
    hint = typing.get_type_hints(Experiment)[name]
    if typing.get_origin(hint) is types.UnionType:
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    found = typing.get_args(hint) or (hint,)
    return found[0], typing.get_origin(hint) is tuple


def others(name, base=BASE):
    """Values that a field can have beside `base`'s own."""
    kind, many = kinds(name)
    found = []
    values = FIELDS[name].metadata["choices"] or CANDIDATES[kind]
    if many:
        # Shares add up to 1.
        pairs = [(value, 1 - value) for value in values[:2]] if kind is float else []
        # Classes are at least two.
        pairs += [values[:2], values[1::-1]] if kind is int else []
        values = [*((value,) for value in values), *pairs]
    for value in values:
        try:
            # With its id: that of a strategy which is none cannot be made.
            dataclasses.replace(base, **{name: value}).run_id()
        except FieldError:
            continue
        if value != getattr(base, name):
            found.append(value)
    return found


def row_of(field, name):
    return {"calib": STRATEGIES, "criterion": CRITERIA}[field][name]


def defaults_of(field, name):
    return {
        n: f.default for n, f in field_module.fields_of(row_of(field, name).hyperparameters).items()
    }


def another(row, name):
    """A value of a hyperparameter beside a row's default."""
    field = field_module.fields_of(row.hyperparameters)[name]
    hint = typing.get_type_hints(row.hyperparameters)[name]
    kind = (typing.get_args(hint) or (hint,))[0]
    values = field.metadata["choices"] or CANDIDATES[kind]
    values = [(v, 1 - v) for v in values[:2]] if typing.get_origin(hint) is tuple else values
    return next(value for value in values if value != field.default)


def as_flag(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe `own.toml`; JSON's numbers, texts and lists are TOML's too."""

    def write(**fields):
        path = tmp_path / "own.toml"
        path.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in fields.items()))
        return str(path)

    return write


# --- every field ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIELDS)
def test_field_explains_itself(name):
    text = FIELDS[name].metadata["help"]
    assert text
    assert "\n" not in text
    assert others(name), "no candidate of these tests fits: add one to CANDIDATES"


@pytest.mark.parametrize("name", FIELDS)
def test_text_of_a_flag_means_the_value(name):
    for value in others(name):
        assert getattr(dataclasses.replace(BASE, **{name: as_flag(value)}), name) == value


@pytest.mark.parametrize("name", FIELDS)
def test_field_refuses_what_is_of_another_kind(name):
    for value in (None if kinds(name)[0] is bool else True, {}, [[1]], object()):
        with pytest.raises(FieldError) as caught:
            dataclasses.replace(BASE, **{name: value})
        assert caught.value.field == name
    if FIELDS[name].default is not None:
        with pytest.raises(FieldError, match=f"^{name}=None: must be "):
            dataclasses.replace(BASE, **{name: None})
    if kinds(name)[0] is not str:
        # TOML can write inf and nan.
        for value in ("seven", math.nan, math.inf):
            with pytest.raises(FieldError, match=rf"^{name}={value}: must "):
                dataclasses.replace(BASE, **{name: value})


@pytest.mark.parametrize("name", FIELDS)
def test_a_result_depends_on_the_field_or_it_is_named_here(name):
    base = base_of(name)
    for value in others(name):
        changed = dataclasses.replace(base, **{name: value})
        assert (changed.run_id() == base.run_id()) == (name in NO_RESULT)


@pytest.mark.parametrize("name", DEPENDENT)
def test_field_that_does_not_apply_changes_no_id_and_is_refused_as_a_flag(name, recipe):
    condition = FIELDS[name].metadata["only_with"]
    other, applies = condition.field, condition.holds
    base = base_of(name)
    assert applies(getattr(base, other)), f"{name} must apply in its base"
    values = [*others(other), FIELDS[other].default]
    without = next(value for value in values if not applies(value))
    beside = dataclasses.replace(base, **{other: without})
    value = others(name)[0]
    assert dataclasses.replace(beside, **{name: value}).run_id() == beside.run_id()
    assert name not in beside.identity()

    with pytest.raises(FieldError) as caught:
        resolve({name: value}, recipe(**{"source": "digits", other: without}))
    assert caught.value.field == name
    assert condition.words in str(caught.value)
    assert without == "" or f"{other}={without}" in str(caught.value)
    # Flags that make it apply make it right: that of the field it depends on, and what that needs.
    flags, needed = {name: value}, condition
    while needed:
        flags[needed.field] = getattr(base, needed.field)
        needed = FIELDS[needed.field].metadata["only_with"]
    found = resolve(flags, recipe(**{"source": "digits", other: without}))
    assert getattr(found, name) == value


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - {"dataset", "ticket"}))
def test_flag_comes_before_recipe_before_default(name, recipe, monkeypatch):
    # Whether a name is in its table is a question of other tests.
    monkeypatch.setattr(module.registry, "model", lambda _: None)
    in_recipe, *rest = others(name)
    explicit = rest[0] if rest else getattr(BASE, name)
    if name not in GIVEN and name != "source":
        # Nothing of a strategy's is filled in here: its row is asked when it is used.
        assert getattr(resolve({}, recipe(**GIVEN)), name) == FIELDS[name].default
    config = recipe(**GIVEN | ALSO.get(name, {}) | {name: in_recipe})
    assert getattr(resolve({}, config), name) == in_recipe
    assert getattr(resolve({name: as_flag(explicit)}, config), name) == explicit


# --- identity ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "identity", "run_id"),
    # The last ten digits are of `printf '…the identity…' | sha256sum`.
    [
        ({}, "{}", "digits-lenet_300_100-none-44136fa355"),
        (
            {"dataset": "mnist", "lr": 1e-4, "validation_size": 5000, "epochs": 60},
            '{"dataset": "mnist", "epochs": 60, "lr": 0.0001, "validation_size": 5000}',
            "mnist-lenet_300_100-none-83e6c684bc",
        ),
        (
            {"calib": "my.losses:Mine", "model": "lenet_10", "lr_drops": "80,120", "seed": 3},
            '{"calib": "my.losses:Mine", "lr_drops": [80, 120], "model": "lenet_10", "seed": 3}',
            "digits-lenet_10-Mine-31733a2f20",
        ),
        (
            {"optimizer": "sgd", "momentum": 0.9, "scope": "global", "exclude": "a,b*"},
            '{"exclude": ["a", "b*"], "momentum": 0.9, "optimizer": "sgd", "scope": "global"}',
            "digits-lenet_300_100-none-b24c378a39",
        ),
    ],
)
def test_golden_run_ids(fields, identity, run_id):
    experiment = Experiment(**fields)
    assert experiment.identity() == json.loads(identity)
    assert experiment.run_id() == run_id


def test_identity_holds_digests_of_what_fields_point_to():
    plain, one, other = (Experiment().run_id(ticket=digest) for digest in ("", "a1", "b2"))
    assert plain == Experiment().run_id()
    assert len({plain, one, other}) == 3


# --- an experiment -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"prune_rate": 0}, "prune_rate=0: must lie strictly between 0 and 1"),
        ({"prune_rate": "1.0"}, "prune_rate=1.0: must lie strictly between 0 and 1"),
        ({"output_prune_rate": -0.1}, "output_prune_rate=-0.1: must lie in [0, 1)"),
        ({"output_prune_rate": 1}, "output_prune_rate=1: must lie in [0, 1)"),
        ({"lr_drop_factor": 1}, "lr_drop_factor=1: must lie strictly between 0 and 1"),
        ({"momentum": 1}, "momentum=1: must lie in [0, 1)"),
        ({"lr": 0}, "lr=0: must be a finite number above 0"),
        ({"weight_decay": -1}, "weight_decay=-1: must be a finite number, 0 or more"),
        ({"epochs": 0}, "epochs=0: must be at least 1"),
        ({"epochs": 2.5}, "epochs=2.5: must be an integer"),
        ({"batch_size": -60}, "batch_size=-60: must be at least 1"),
        ({"levels": -1}, "levels=-1: must be at least 0"),
        ({"seed": -1}, "seed=-1: must be at least 0"),
        ({"ece_bins": 0}, "ece_bins=0: must be at least 1"),
        ({"validation_size": 0}, "validation_size=0: must be at least 1"),
        (
            {"optimizer": "Adam"},
            "optimizer=Adam: choose one of adadelta, adafactor, adagrad, adam, adamax, adamw, ftrl, "
            "lion, nadam, rmsprop, sgd, or module:Class",
        ),
        ({"schedule": "linear"}, "schedule=linear: choose one of step, constant, cosine, custom"),
        ({"warmup_epochs": -1}, "warmup_epochs=-1: must be a finite number, 0 or more"),
        ({"clip_norm": 0}, "clip_norm=0: must be a finite number above 0"),
        ({"clip_value": "inf"}, "clip_value=inf: must be a finite number above 0"),
        ({"ema": 1}, "ema=1: must lie in [0, 1)"),
        ({"early_stopping": -1}, "early_stopping=-1: must be at least 0"),
        (
            {"precision": "float16"},
            "precision=float16: choose one of float32, mixed_float16, mixed_bfloat16",
        ),
        ({"lr_drops": "80,80"}, "lr_drops=80,80: must be rising epoch numbers, e.g. 80,120"),
        ({"lr_drops": "0,3"}, "lr_drops=0,3: must be rising epoch numbers, e.g. 80,120"),
        ({"passes": 1}, "passes=1: must be at least 2"),
        ({"passes": 0}, "passes=0: must be at least 2"),
        ({"passes": 2.5}, "passes=2.5: must be an integer"),
        ({"dropout_rate": 1}, "dropout_rate=1: must lie strictly between 0 and 1"),
        ({"dropout_rate": -0.1}, "dropout_rate=-0.1: must lie strictly between 0 and 1"),
        ({"dropout_at": "all"}, "dropout_at=all: choose one of blocks, head"),
        ({"mixup_a": 0}, "mixup_a=0: must be a finite number above 0"),
        ({"mixup_a": "-1"}, "mixup_a=-1: must be a finite number above 0"),
        ({"calib_weight": -0.1}, "calib_weight=-0.1: must be a finite number, 0 or more"),
        ({"prior": "0.5,0.6"}, "prior=0.5,0.6: must be shares that are 0 or more and add up to 1"),
        (
            {"prior": (1.5, -0.5)},
            "prior=(1.5, -0.5): must be shares that are 0 or more and add up to 1",
        ),
        ({"nba_bins": 1}, "nba_bins=1: must be at least 2"),
        ({"nba_width": 0}, "nba_width=0: must be a finite number above 0"),
        ({"mc_eval": 1}, "mc_eval=1: must be 0, or at least 2"),
        ({"mc_eval": -3}, "mc_eval=-3: must be 0, or at least 2"),
        ({"nu": 0}, "nu=0: must be a finite number above 0"),
        ({"nu": -0.2}, "nu=-0.2: must be a finite number above 0"),
        ({"dimensions": 0}, "dimensions=0: must be at least 1"),
        ({"label_noise": 1}, "label_noise=1: must lie in [0, 1)"),
        ({"label_noise": "-0.2"}, "label_noise=-0.2: must lie in [0, 1)"),
        ({"noise_kind": "all"}, "noise_kind=all: choose one of symmetric, uniform, asymmetric"),
        ({"noise_map": "1,-1"}, "noise_map=1,-1: must be class numbers, 0 or more"),
        ({"export_logits": "no"}, "export_logits=no: choose one of raw, scaled"),
        (
            {"input_mean": (0.1,)},
            "input_mean=(0.1,): has 1 values, and input_std 0: give as many of both",
        ),
        (
            {"input_mean": "0", "input_std": "0"},
            "input_std=0: must be finite numbers above 0",
        ),
    ],
)
def test_wrong_value_is_reported_as_it_was_given(wrong, line):
    (name,) = wrong.keys() - {"input_std"} or wrong
    method = setting_owners().get(name, ["seed=0"])[0].split("=")
    with pytest.raises(FieldError) as caught:
        Experiment.of(**{method[0]: method[1], **wrong})
    assert str(caught.value) == line


def test_a_field_needs_what_the_field_it_depends_on_needs(recipe):
    # A map means nothing beside a kind that means nothing itself, and changes no id there.
    quiet = {"noise_kind": "asymmetric", "noise_map": (1, 0)}
    assert Experiment(**quiet).run_id() == Experiment().run_id()
    with pytest.raises(FieldError) as caught:
        resolve({"noise_map": "1,0"}, recipe(source="digits", noise_kind="asymmetric"))
    assert caught.value.field == "noise_map"
    assert "--label_noise; here label_noise=0.0" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"lr_drops": 3, "schedule": "cosine"}, "lr_drops", "--schedule=step"),
        ({"momentum": 0.5, "optimizer": "lion"}, "momentum", "--optimizer=sgd or rmsprop"),
        ({"nesterov": True, "momentum": 0.5, "optimizer": "rmsprop"}, "nesterov", "sgd"),
        ({"nesterov": True, "optimizer": "sgd"}, "nesterov", "--momentum"),
        ({"clip_norm": 1, "clip_value": 1}, "clip_value", "clip_norm=1.0"),
        ({"warmup_epochs": 2, "epochs": 2}, "warmup_epochs", "2 epoch(s)"),
        ({"schedule": "custom"}, "schedule", "as lr"),
        ({"rewind": "pretrained"}, "rewind", "init"),
    ],
)
def test_fields_of_the_training_that_contradict_each_other_are_refused(
    recipe, fields, field, words
):
    with pytest.raises(FieldError) as caught:
        resolve(fields, recipe(source="digits"))
    assert caught.value.field == field
    assert words in str(caught.value)


def test_a_schedule_by_flag_replaces_that_of_the_recipe(recipe):
    found = resolve({"schedule": "cosine"}, recipe(source="digits", lr_drops=[3]))
    assert found.schedule == "cosine"
    assert "lr_drops" not in found.identity()


def test_drops_of_a_recipe_that_have_no_effect_are_named(recipe):
    late = recipe(source="digits", lr_drops=[3, 5, 9], epochs=20)
    assert not resolve({}, late).notes
    (note,) = resolve({"epochs": "5"}, late).notes
    assert "after epoch 5, 9 have no effect" in note
    assert not resolve({"epochs": "5", "schedule": "cosine"}, late).notes
    assert resolve({"epochs": "10", "lr_drops": "9"}, late).lr_drops == (9,)
    with pytest.raises(FieldError, match="^lr_drops=10: a level has 10 epoch"):
        resolve({"epochs": "10", "lr_drops": "10"}, late)


def test_asymmetric_noise_needs_a_map(recipe):
    flags = {"label_noise": 0.2, "noise_kind": "asymmetric"}
    with pytest.raises(FieldError, match=r"^noise_map=.*: .* needs the image of each class"):
        resolve(flags, recipe(source="digits"))


@pytest.mark.parametrize(
    "form", ["init", "pretrained", "random", "none", "step:1", "step:20000", "epoch:3"]
)
def test_rewind_has_six_forms(form):
    assert Experiment(rewind=form).rewind == form


@pytest.mark.parametrize("form", ["", "Init", "step", "step:", "step:0", "step:1.5", "epoch:-1"])
def test_rewind_has_no_other_form(form):
    with pytest.raises(
        FieldError, match="choose one of init, pretrained, step:K, epoch:K, random, none"
    ):
        Experiment(rewind=form)


def test_bounds_are_possible_values():
    # Level 0 alone is the dense network; an output layer may be left whole.
    bounds = {"levels": 0, "output_prune_rate": 0, "epochs": 1, "batch_size": 1, "momentum": 0}
    assert {k: getattr(Experiment(**bounds), k) for k in bounds} == bounds


def test_output_layer_is_pruned_at_half_the_rate_unless_told():
    assert Experiment(prune_rate=0.2).output_rate == 0.1
    assert Experiment(prune_rate=0.2, output_prune_rate=0.3).output_rate == 0.3
    assert Experiment(prune_rate=0.2, output_prune_rate=0).output_rate == 0
    assert Experiment(prune_rate=0.2, scope="global").output_rate == 0.2
    for scope in ("local", "global"):
        assert Experiment(prune_rate=0.2, exclude_output=True, scope=scope).output_rate == 0


def test_an_excluded_output_layer_has_no_rate():
    given = {"exclude_output": True, "output_prune_rate": 0.1}
    with pytest.raises(FieldError, match=r"^output_prune_rate=0\.1: .*exclude_output"):
        check_together(Experiment(**given), given)


def test_experiment_is_frozen_and_survives_json():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.seed = 1
    experiment = dataclasses.replace(BASE, settings={"gamma": 2.0, "alpha": [1.0]})
    record = json.loads(json.dumps(experiment.as_dict()))
    assert list(record) == [*FIELDS, "settings"]
    assert recorded(record) == experiment
    assert recorded(record, seed=5).seed == 5
    assert recorded({"seed": 3, "of_a_later_version": 1}) == Experiment(seed=3)


# --- hyperparameters of strategies and criteria ----------------------------------------------------


def test_no_hyperparameter_has_the_name_of_a_field():
    assert not setting_fields().keys() & FIELDS.keys()


@pytest.mark.parametrize(("field", "name"), METHODS)
def test_hyperparameters_are_the_rows_unless_given(field, name):
    row, defaults = row_of(field, name), defaults_of(field, name)
    plain = Experiment(**{field: name})
    assert plain.settings == defaults
    assert plain.settings_of(row.hyperparameters) == defaults
    for setting, default in defaults.items():
        changed = another(row, setting)
        found = Experiment.of(**{field: name, setting: as_flag(changed)})
        assert found.settings == {**defaults, setting: changed}
        assert found.run_id() != plain.run_id()
        # The same value given is the same experiment.
        assert Experiment.of(**{field: name, setting: default}).run_id() == plain.run_id()
    written = {k: field_module.as_json(v) for k, v in defaults.items()}
    own = {} if name == FIELDS[field].default else {field: name}
    assert plain.identity() == own | written


@pytest.mark.parametrize("name", setting_fields())
@pytest.mark.parametrize("calib", STRATEGIES)
def test_a_hyperparameter_of_another_method_is_refused(calib, name):
    if name in defaults_of("calib", calib):
        assert resolve({"calib": calib, name: as_flag(another(STRATEGIES[calib], name))})
        return
    with pytest.raises(FieldError) as caught:
        resolve({"calib": calib, name: "0.5"})
    assert caught.value.field == name
    assert all(owner in str(caught.value) for owner in (f"calib={calib}", *setting_owners()[name]))


def test_an_unknown_name_is_neither_field_nor_hyperparameter():
    with pytest.raises(FieldError, match=r"^gamma=2: .*calib=lwcc .* calib_weight"):
        Experiment.of(calib="lwcc", gamma=2)


def test_a_custom_methods_settings_wait_for_its_class():
    @dataclasses.dataclass(frozen=True)
    class Focal:
        gamma: float = 2.0
        alpha: tuple[float, ...] = (1.0,)

    class Nothing:
        pass

    nothing = dataclasses.dataclass(Nothing)
    waiting = Experiment.of(calib="mine:Focal", gamma="3")
    assert waiting.settings == {"gamma": "3"}
    settled = waiting.with_methods(Focal, nothing)
    assert settled.settings == {"gamma": 3.0, "alpha": (1.0,)}
    assert settled.identity() == {"calib": "mine:Focal", "gamma": 3.0, "alpha": [1.0]}
    with pytest.raises(FieldError, match=r"^gamma=x: must be a number"):
        Experiment.of(calib="mine:Focal", gamma="x").with_methods(Focal, nothing)
    with pytest.raises(FieldError, match=r"^beta=1: .* gamma, alpha"):
        Experiment.of(calib="mine:Focal", beta=1).with_methods(Focal, nothing)
    clash = dataclasses.make_dataclass("Clash", [("lr", float, 0.1)])
    with pytest.raises(FieldError, match=r"^lr=0\.1: .*another field"):
        waiting.with_methods(clash, nothing)


def test_a_hyperparameter_in_a_recipe_waits_for_its_strategy(recipe):
    """A recipe holds them for all strategies; only an explicit one must apply."""
    config = recipe(source="digits", calib_weight=0.7, mixup_a=0.4)
    assert resolve({}, config).settings == {}
    assert resolve({"calib": "mixup"}, config).settings == {"mixup_a": 0.4}


def test_a_recipe_holds_settings_of_a_custom_method_in_a_table(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('source = "digits"\ncalib = "mine:Focal"\n[set]\ngamma = 3.0\nalpha = 1\n')
    assert resolve({}, str(path)).settings == {"gamma": 3.0, "alpha": 1}
    assert resolve({"gamma": "4"}, str(path)).settings == {"gamma": "4", "alpha": 1}
    assert resolve({"calib": "none"}, str(path)).settings == {}


def test_a_recipe_has_a_table_for_one_strategy(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('source = "digits"\ncalib_weight = 0.7\n[strategy.mda]\ncalib_weight = 0.2\n')
    weights = {name: resolve({"calib": name}, str(path)).settings for name in ("mda", "lwcc")}
    assert {name: found["calib_weight"] for name, found in weights.items()} == {
        "mda": 0.2,
        "lwcc": 0.7,
    }
    found = resolve({"calib": "mda", "calib_weight": "0.4"}, str(path)).settings
    assert found["calib_weight"] == 0.4
    assert resolve({"calib": "mine:Mda"}, str(path)).settings == {}
    assert resolve({}, str(path)).settings == {}


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("[strategy.mad]\ncalib_weight = 1", "strategy.mad: must be a table .* NAME one of none, "),
        ("strategy = 3", "strategy.: must be a table"),
        ("[strategy]\nmda = 3", "strategy.mda: must be a table"),
        ("[strategy.mda]\ncalib_weight = -1", "strategy.mda.calib_weight=-1: must be"),
        (
            "[strategy.mda]\nepochs = 3",
            "strategy.mda.epochs=3: no such hyperparameter; choose from",
        ),
    ],
)
def test_a_wrong_table_of_a_strategy_is_refused(tmp_path, table, line):
    path = tmp_path / "own.toml"
    path.write_text(f'source = "digits"\n{table}\n')
    with pytest.raises(UsageError, match=f"own.toml: {line}"):
        resolve({}, str(path))


STOCHASTIC = [name for name in STRATEGIES if "passes" in defaults_of("calib", name)]


@pytest.mark.parametrize("calib", STOCHASTIC)
def test_a_stochastic_strategy_without_dropout_is_refused(calib, recipe):
    line = r"^dropout_rate=0(\.0)?: must lie strictly between 0 and 1"
    with pytest.raises(FieldError, match=line):
        resolve({"calib": calib, "dropout_rate": "0"})
    with pytest.raises(UsageError, match=line.removeprefix("^")):
        resolve({"calib": calib}, recipe(source="digits", dropout_rate=0))


def test_a_custom_strategy_may_have_hyperparameters_of_these_names():
    @dataclasses.dataclass(frozen=True)
    class Own:
        dropout_rate: float = hyperparameter(0.0, "none by default")
        lwcc_form: str = hyperparameter("convex", "no weight beside it")

    experiment = Experiment(calib="mine:Own").with_methods(Own, NoHyperparameters)
    check_together(experiment, {})
    assert experiment.settings == {"dropout_rate": 0.0, "lwcc_form": "convex"}


@pytest.mark.parametrize("calib", STRATEGIES)
def test_averaging_passes_needs_dropout(calib):
    flags = {"calib": calib, "mc_eval": "8"}
    if calib in STOCHASTIC:
        assert resolve(flags).mc_eval == 8
        return
    with pytest.raises(FieldError) as caught:
        resolve(flags)
    assert caught.value.field == "mc_eval"
    assert all(name in str(caught.value) for name in (f"calib={calib}", *STOCHASTIC))
    # Whether a ticket's network has some is seen when it is read; a custom strategy says so itself.
    assert resolve(flags | {"ticket": "run/tickets/level_08"}).mc_eval == 8
    assert resolve({"calib": "a:B", "mc_eval": "8"}).mc_eval == 8


# --- recipes -------------------------------------------------------------------------------------


def test_dataset_picks_the_recipe_of_that_name():
    for name in recipe_names():
        fields = read_recipe(recipe_directory() / f"{name}.toml")
        assert resolve({"dataset": name}).dataset == name
        assert resolve({"dataset": name}).epochs == fields["epochs"]
    assert resolve({}) == resolve({"dataset": FIELDS["dataset"].default})


def test_unknown_dataset_is_told_the_recipes():
    with pytest.raises(FieldError) as caught:
        resolve({"dataset": "imagenet"})
    assert caught.value.field == "dataset"
    assert all(name in str(caught.value) for name in [*recipe_names(), "--config=FILE.toml"])


def test_ones_own_recipe_is_named_by_its_file_and_reads_the_set_of_its_name(recipe):
    found = resolve({}, recipe(epochs=3))
    assert (found.dataset, found.source, found.epochs) == ("own", "own", 3)
    found = resolve({}, recipe(dataset="mine", source="svhn_cropped"))
    assert (found.dataset, found.source) == ("mine", "svhn_cropped")


def test_dataset_beside_a_recipe_for_another_is_refused(recipe):
    assert resolve({"dataset": "own"}, recipe()).dataset == "own"
    with pytest.raises(FieldError, match=r"^dataset=mnist: contradicts --config=.*own\.toml, a "):
        resolve({"dataset": "mnist"}, recipe())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"epoch = 3", "unknown field 'epoch'; did you mean epochs?"),
        (b"zzz = 3", "unknown field 'zzz'; choose one of dataset, "),
        (b"epochs 3", "own.toml: is not a recipe: "),
        (b"model = '\xff'", "own.toml: is not a recipe: "),
    ],
)
def test_broken_recipe_is_named(tmp_path, text, line):
    path = tmp_path / "own.toml"
    path.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        resolve({}, str(path))
    assert str(path) in str(caught.value)
    assert line in str(caught.value)


@pytest.mark.parametrize("place", ["absent.toml", "."])
def test_recipe_that_cannot_be_read_is_named(tmp_path, place):
    with pytest.raises(UsageError, match=r"^config=.*: cannot be read: (No such file|Is a dir)"):
        resolve({}, str(tmp_path / place))


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"model": "vgg99"}, "model=vgg99: choose one of"),
        ({"calib": "lwc"}, "calib=lwc: choose one of "),
        ({"ticket": "t", "calib": "lwc"}, "calib=lwc: choose one of "),
    ],
)
def test_unknown_names_are_refused(flags, line):
    with pytest.raises(FieldError) as caught:
        resolve(flags)
    assert str(caught.value).startswith(line)


# --- starting from a ticket ----------------------------------------------------------------------


def test_a_ticket_trains_one_level_unless_told():
    assert resolve({"ticket": "run/tickets/level_08"}).levels == 0
    assert resolve({"ticket": "run/tickets/level_08", "levels": "4"}).levels == 4


def test_a_run_is_transferred_whole_unless_told(tmp_path):
    for level in range(3):
        (tmp_path / "tickets" / f"level_0{level}").mkdir(parents=True)
    assert resolve({"ticket": str(tmp_path)}).levels == 2
    assert resolve({"ticket": str(tmp_path), "levels": "1"}).levels == 1
    one = tmp_path / "tickets" / "level_02"
    assert resolve({"ticket": str(one)}).levels == 0


def test_what_says_how_to_prune_means_nothing_for_a_run_of_tickets(tmp_path, recipe):
    (tmp_path / "tickets" / "level_00").mkdir(parents=True)
    fields = {name for name, field in FIELDS.items() if field.metadata["of_pruning"]}
    assert fields == {
        *("prune_rate", "criterion", "scope", "count", "output_prune_rate", "exclude_output"),
        "rewind",
    }
    for name in fields:
        value, also = others(name)[0], ALSO.get(name, {})
        value = "gradient" if name == "criterion" else value
        with pytest.raises(FieldError, match=": every level starts from a ticket of "):
            resolve({"ticket": str(tmp_path), name: value, **also})
        # After one ticket there are levels to prune; a recipe serves other runs too.
        assert resolve({"ticket": str(tmp_path / "tickets" / "level_00"), name: value, **also})
        assert resolve({"ticket": str(tmp_path)}, recipe(source="digits", **{name: value}))


def test_what_a_ticket_brings_cannot_be_asked_for():
    brought = {name for name, field in FIELDS.items() if field.metadata["from_ticket"]}
    scaling = {"input_mean", "input_std"}
    initial = {"initializer", "bias_initializer", "norm_initializer", "use_bias"}
    assert brought == {"model", "exclude", "prune_depthwise", "precision"} | initial | scaling
    for name in brought - scaling:
        with pytest.raises(FieldError, match=f"^{name}=.*: is determined by the ticket"):
            resolve({"ticket": "t", name: others(name)[0]})
    with pytest.raises(FieldError, match=r"^dropout_at=head: is determined by the ticket"):
        resolve({"ticket": "t", "calib": "vwcc", "dropout_at": "head"})
    scaling = {"ticket": "t", "input_mean": "0.5", "input_std": "0.5"}
    with pytest.raises(FieldError, match=r"^input_mean=0.5: is determined by the ticket"):
        resolve(scaling)
