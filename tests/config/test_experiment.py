"""Most tests here go over FIELDS, so that a field is covered by being there."""

import dataclasses
import json
import math
import types
import typing

import pytest

from lotcal_tf.config import experiment as module
from lotcal_tf.config.experiment import FIELDS, Experiment
from lotcal_tf.config.recipes import read_recipe, recipe_directory, recipe_names, resolve
from lotcal_tf.config.registry import STRATEGIES
from lotcal_tf.errors import FieldError, UsageError

# Every field that depends on another means something here; a strategy of one's own takes all
# hyperparameters that are given.
GIVEN = {
    "calib": "mine:Own",
    "dropout_rate": 0.5,
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
ALSO = {"control": {"ticket": "run/tickets/level_08"}} | {
    name: {"source": "mixture"} for name in FIELDS if name.startswith("mixture_")
}
CANDIDATES = {
    int: (7, 3),
    float: (0.25, 0.125, 1.0),
    str: ("step:3", "lenet_10", "own_module:Class"),
}
# No result depends on them; of a ticket, it depends on what is in it, not on where it lies.
NO_RESULT = {"data_dir", "distribute", "levels", "ticket", "export_logits", "plan", "out"}
OF_STRATEGY = [name for name, field in FIELDS.items() if field.metadata["of_strategy"]]
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


def another(name, default):
    """A value of a hyperparameter beside a row's."""
    return next(value for value in others(name) if value != default)


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
    for value in (True, {}, [[1]], object()):
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
    other, applies, words = FIELDS[name].metadata["only_with"]
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
    assert str(caught.value).startswith(f"{name}={value}: only means something with {words}; ")
    assert f"{other}={without}" in str(caught.value)
    # Flags that make it apply make it right: that of the field it depends on, and what that needs.
    flags, needed = {name: value}, other
    while needed:
        flags[needed] = getattr(base, needed)
        needed = (FIELDS[needed].metadata["only_with"] or (None,))[0]
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
        ({"epochs": 2.5}, "epochs=2.5: must be a whole number"),
        ({"batch_size": -60}, "batch_size=-60: must be at least 1"),
        ({"levels": -1}, "levels=-1: must be at least 0"),
        ({"seed": -1}, "seed=-1: must be at least 0"),
        ({"ece_bins": 0}, "ece_bins=0: must be at least 1"),
        ({"validation_size": 0}, "validation_size=0: must be at least 1"),
        ({"optimizer": "rmsprop"}, "optimizer=rmsprop: choose one of adam, sgd"),
        ({"lr_drops": "80,80"}, "lr_drops=80,80: must be rising epoch numbers, e.g. 80,120"),
        ({"lr_drops": "0,3"}, "lr_drops=0,3: must be rising epoch numbers, e.g. 80,120"),
        ({"passes": 1}, "passes=1: must be at least 2"),
        ({"passes": 0}, "passes=0: must be at least 2"),
        ({"passes": 2.5}, "passes=2.5: must be a whole number"),
        ({"dropout_rate": 1}, "dropout_rate=1: must lie in [0, 1)"),
        ({"dropout_rate": -0.1}, "dropout_rate=-0.1: must lie in [0, 1)"),
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
        ({"mixture_classes": 1}, "mixture_classes=1: must be at least 2"),
        ({"mixture_clusters": 0}, "mixture_clusters=0: must be at least 1"),
        ({"mixture_dimensions": 61}, "mixture_dimensions=61: must be 1 to 60"),
        ({"label_noise": 1}, "label_noise=1: must lie in [0, 1)"),
        ({"label_noise": "-0.2"}, "label_noise=-0.2: must lie in [0, 1)"),
        ({"noise_kind": "all"}, "noise_kind=all: choose one of symmetric, uniform, asymmetric"),
        ({"noise_map": "1,-1"}, "noise_map=1,-1: must be class numbers, 0 or more"),
        ({"export_logits": "no"}, "export_logits=no: choose one of raw, scaled"),
        ({"input_mean": (0.1,)}, "input_std=(): must have as many values as input_mean=(0.1,)"),
        (
            {"input_mean": "0", "input_std": "0"},
            "input_std=0: must be finite numbers above 0",
        ),
    ],
)
def test_wrong_value_is_told_as_it_was_given(wrong, line):
    with pytest.raises(FieldError) as caught:
        Experiment(**wrong)
    assert str(caught.value) == line


def test_a_field_needs_what_the_field_it_depends_on_needs(recipe):
    # A map means nothing beside a kind that means nothing itself, and changes no id there.
    quiet = {"noise_kind": "asymmetric", "noise_map": (1, 0)}
    assert Experiment(**quiet).run_id() == Experiment().run_id()
    with pytest.raises(FieldError) as caught:
        resolve({"noise_map": "1,0"}, recipe(source="digits", noise_kind="asymmetric"))
    line = "noise_map=1,0: only means something with --label_noise; here label_noise=0.0"
    assert str(caught.value) == line


def test_asymmetric_noise_needs_a_map(recipe):
    flags = {"label_noise": 0.2, "noise_kind": "asymmetric"}
    with pytest.raises(FieldError, match=r"^noise_map=.*: .* needs the image of each class"):
        resolve(flags, recipe(source="digits"))


@pytest.mark.parametrize("form", ["init", "random", "none", "step:1", "step:20000", "epoch:3"])
def test_rewind_has_five_forms(form):
    assert Experiment(rewind=form).rewind == form


@pytest.mark.parametrize("form", ["", "Init", "step", "step:", "step:0", "step:1.5", "epoch:-1"])
def test_rewind_has_no_other_form(form):
    with pytest.raises(FieldError, match="choose one of init, step:K, epoch:K, random, none"):
        Experiment(rewind=form)


def test_bounds_are_possible_values():
    # Level 0 alone is the dense network; an output layer may be left whole.
    bounds = {"levels": 0, "output_prune_rate": 0, "epochs": 1, "batch_size": 1, "momentum": 0}
    assert {k: getattr(Experiment(**bounds), k) for k in bounds} == bounds


def test_output_layer_is_pruned_at_half_the_rate_unless_told():
    assert Experiment(prune_rate=0.2).output_rate == 0.1
    assert Experiment(prune_rate=0.2, output_prune_rate=0.3).output_rate == 0.3
    assert Experiment(prune_rate=0.2, output_prune_rate=0).output_rate == 0
    assert Experiment(prune_rate=0.2, output_prune_rate=0.3, scope="global").output_rate == 0


def test_experiment_is_frozen_and_survives_json():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.seed = 1
    assert list(BASE.as_dict()) == list(FIELDS)
    assert Experiment(**json.loads(json.dumps(BASE.as_dict()))) == BASE


# --- hyperparameters of strategies -----------------------------------------------------------------


@pytest.mark.parametrize("calib", STRATEGIES)
def test_hyperparameters_are_the_rows_unless_given(calib):
    defaults = STRATEGIES[calib].hyperparameters
    assert Experiment(calib=calib).hyperparameters == defaults
    # What other strategies have is not handed to this one.
    everything = {name: others(name)[0] for name in OF_STRATEGY}
    found = Experiment(calib=calib, **everything).hyperparameters
    assert found == {name: everything[name] for name in defaults}


def test_ones_own_strategy_takes_what_is_given():
    assert Experiment(calib="my.module:Mine").hyperparameters == {}
    given = {"calib_weight": 0.0, "passes": 4, "prior": ()}
    assert Experiment(calib="my.module:Mine", **given).hyperparameters == given


@pytest.mark.parametrize("calib", STRATEGIES)
@pytest.mark.parametrize("name", OF_STRATEGY)
def test_a_flag_of_another_strategy_is_refused_and_changes_no_id(calib, name):
    value = another(name, STRATEGIES[calib].hyperparameters.get(name))
    plain = Experiment(calib=calib)
    given = dataclasses.replace(plain, **{name: value})
    if name in STRATEGIES[calib].hyperparameters:
        assert given.run_id() != plain.run_id()
        assert getattr(resolve({"calib": calib, name: as_flag(value)}), name) == value
        return
    assert given.run_id() == plain.run_id()
    with pytest.raises(FieldError) as caught:
        resolve({"calib": calib, name: as_flag(value)})
    users = [s for s, row in STRATEGIES.items() if name in row.hyperparameters]
    line = f"{name}={as_flag(value)}: is no hyperparameter of calib={calib}; "
    assert str(caught.value) == f"{line}of {', '.join(users)} it is"


def test_a_hyperparameter_in_a_recipe_waits_for_its_strategy(recipe):
    """A recipe holds them for all strategies; only an explicit flag must apply."""
    config = recipe(source="digits", calib_weight=0.7, mixup_a=0.4)
    assert resolve({}, config).hyperparameters == {}
    assert resolve({"calib": "mixup"}, config).hyperparameters == {"mixup_a": 0.4}


@pytest.mark.parametrize("calib", [s for s, row in STRATEGIES.items() if row.hyperparameters])
def test_the_id_holds_a_rows_defaults(calib, monkeypatch):
    """Other defaults in a later version are another experiment; the same ones given are the same."""
    plain, defaults = Experiment(calib=calib), STRATEGIES[calib].hyperparameters
    assert Experiment(calib=calib, **defaults).run_id() == plain.run_id()
    written = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
    assert plain.identity() == {"calib": calib} | written
    before = plain.run_id()
    for name in defaults:
        changed = dict(defaults) | {name: another(name, defaults[name])}
        row = dataclasses.replace(STRATEGIES[calib], hyperparameters=changed)
        with monkeypatch.context() as patch:
            patch.setattr(module.registry, "STRATEGIES", {**STRATEGIES, calib: row})
            assert Experiment(calib=calib).run_id() != before


STOCHASTIC = [name for name, row in STRATEGIES.items() if "passes" in row.hyperparameters]


@pytest.mark.parametrize("calib", STOCHASTIC)
def test_a_stochastic_strategy_without_dropout_is_refused(calib, recipe):
    line = f"^dropout_rate=0.0: calib={calib} needs dropout: its passes would all be the same$"
    with pytest.raises(FieldError, match=line):
        resolve({"calib": calib, "dropout_rate": "0"})
    with pytest.raises(FieldError, match=line):
        resolve({"calib": calib}, recipe(source="digits", dropout_rate=0))


@pytest.mark.parametrize("calib", STRATEGIES)
def test_averaging_passes_needs_dropout(calib):
    flags = {"calib": calib, "mc_eval": "8"}
    if calib in STOCHASTIC:
        assert resolve(flags).mc_eval == 8
        return
    with pytest.raises(FieldError) as caught:
        resolve(flags)
    line = f"mc_eval=8: needs dropout, and calib={calib} has none; {', '.join(STOCHASTIC)} have"
    assert str(caught.value) == line
    # Whether a ticket's network has some is seen when it is read; one's own strategy says so.
    assert resolve(flags | {"ticket": "run/tickets/level_08"}).mc_eval == 8
    assert resolve({"calib": "a:B", "dropout_rate": "0.1", "mc_eval": "8"}).mc_eval == 8


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
    assert str(caught.value).startswith("dataset=imagenet: no recipe of that name; ")
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
        (b"zzz = 3", "unknown field 'zzz'; fields are dataset, "),
        (b"epochs 3", "own.toml is not a recipe: "),
        (b"model = '\xff'", "own.toml is not a recipe: "),
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
    with pytest.raises(UsageError, match=r"^cannot read the recipe .*: (No such file|Is a dir)"):
        resolve({}, str(tmp_path / place))


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"model": "vgg99"}, "model=vgg99: no such model"),
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
    assert fields == {"prune_rate", "scope", "output_prune_rate", "rewind"}
    for name in fields:
        value = others(name)[0]
        with pytest.raises(FieldError, match=f"^{name}=.*: every level starts from a ticket of "):
            resolve({"ticket": str(tmp_path), name: value})
        # After one ticket there are levels to prune; a recipe serves other runs too.
        assert resolve({"ticket": str(tmp_path / "tickets" / "level_00"), name: value})
        assert resolve({"ticket": str(tmp_path)}, recipe(source="digits", **{name: value}))


def test_what_a_ticket_brings_cannot_be_asked_for():
    brought = {name for name, field in FIELDS.items() if field.metadata["from_ticket"]}
    scaling = {"input_mean", "input_std"}
    assert brought == {"model", "initializer", "exclude", "dropout_at"} | scaling
    for name in brought - scaling:
        with pytest.raises(FieldError, match=f"^{name}=.*: a ticket brings its own"):
            resolve({"ticket": "t", name: others(name)[0]})
    scaling = {"ticket": "t", "input_mean": "0.5", "input_std": "0.5"}
    with pytest.raises(FieldError, match=r"^input_mean=0.5: a ticket brings its own"):
        resolve(scaling)
