"""Contract tests over every strategy, model and source: a new row is tried by being there."""

import re

import numpy as np
import pytest

from lotcal_tf.config import registry
from lotcal_tf.config.experiment import FIELDS, Experiment, unmet_condition
from lotcal_tf.errors import FieldError

TABLES = {
    "strategy": registry.STRATEGIES,
    "criterion": registry.CRITERIA,
    "model": registry.MODELS,
    "source": registry.SOURCES,
    "corruption": registry.CORRUPTIONS,
}
ROWS = [(table, name) for table, rows in TABLES.items() for name in rows]
CLASSES, SHAPE = 3, (16, 16, 1)


@pytest.fixture
def build():
    from lotcal_tf.models.build import build_model

    return lambda name, **dropout: build_model(name, SHAPE, CLASSES, seed=0, **dropout)


@pytest.mark.parametrize(("table", "name"), ROWS)
def test_row_is_described_and_loads(table, name):
    row = TABLES[table][name]
    assert callable(row.load())
    assert row.load().__doc__
    assert row.summary.strip()
    assert "\n" not in row.summary
    assert re.fullmatch(r"\w+", name), "a name is typed on a command line"


@pytest.mark.parametrize("source", [*registry.SOURCES, "a_tfds_data_set"])
def test_fields_of_a_source_apply_to_the_sources_that_list_them_only(source):
    owned = {field for row in registry.SOURCES.values() for field in row.fields}
    experiment = Experiment(source=source)
    applying = {field for field in owned if unmet_condition(FIELDS[field], experiment) is None}
    assert applying == set(registry.source(source).fields)


@pytest.mark.parametrize("name", registry.STRATEGIES)
def test_strategy_declares_its_hyperparameters_in_its_row(name):
    """Its steps are tested in tests/calibration/test_contract.py."""
    from lotcal_tf.calibration.strategy import Strategy

    row = registry.STRATEGIES[name]
    found = row.load()
    assert issubclass(found, Strategy)
    assert "train_step" in vars(found)
    assert found.Hyperparameters is row.hyperparameters


@pytest.mark.parametrize("family", registry.MODELS)
def test_model_has_one_row_and_gives_logits(family, build):
    row = registry.MODELS[family]
    assert registry.model(row.example)[0] is row
    fits = [f for f, other in registry.MODELS.items() if other.arguments(row.example) is not None]
    assert fits == [family]
    model = build(row.example)
    assert model.output_shape == (None, CLASSES)
    logits = model(16 * np.random.default_rng(0).random((5, *SHAPE), np.float32)).numpy()
    assert logits.shape == (5, CLASSES)
    # Probabilities would all be positive and add up to 1.
    assert not np.allclose(logits.sum(-1), 1, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("lenet_10", {"widths": (10,)}),
        ("lenet_300_100", {"widths": (300, 100)}),
        ("resnet18", {"depth": 18, "width": None}),
        ("resnet18_4", {"depth": 18, "width": 4}),
        ("resnet56_8", {"depth": 56, "width": 8}),
        ("lenet_10000_100", {"widths": (10000, 100)}),
        ("vgg16_8", {"depth": 16, "width": 8}),
        ("vgg19", {"depth": 19, "width": None}),
        ("vgg19_16", {"depth": 19, "width": 16}),
    ],
)
def test_a_name_says_what_the_builder_is_given(name, arguments):
    assert registry.model(name)[1] == arguments


@pytest.mark.parametrize("name", registry.SOURCES)
def test_source_gives_splits_that_fit_together(name, make_source):
    row = registry.source(name)
    directory = make_source(name) if row.from_files else None
    dataset = row.load()(Experiment(source=name, validation_size=50, data_dir=directory))
    splits = dataset.named_splits()
    assert list(splits) == ["train", "val", "test"]
    assert dataset.validation.count == 50
    seen = []
    for split in splits.values():
        inputs, labels = next(split.in_order(split.count))
        assert inputs.shape == (split.count, *dataset.train.shape)
        assert set(labels.numpy()) <= set(range(dataset.classes))
        if dataset.input_range is not None:
            assert inputs.numpy().min() >= 0
            assert inputs.numpy().max() <= dataset.input_range
        seen.append({example.tobytes() for example in inputs.numpy()})
    assert len(set.union(*seen)) == sum(map(len, seen)), "two splits share an example"
    if dataset.truth is not None:
        assert dataset.truth.shape == (dataset.test.count, dataset.classes)
        np.testing.assert_allclose(dataset.truth.sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("name", registry.FORMATS)
def test_format_has_a_name_for_the_command_line(name):
    assert re.fullmatch(r"\w+", name)


@pytest.mark.parametrize("name", registry.STRATEGIES)
def test_strategies_of_the_table_come_first(name):
    assert registry.strategy(name) is registry.STRATEGIES[name]


def test_a_custom_method_is_module_and_class():
    assert registry.strategy("my.module:Class") is None
    assert registry.criterion("my.module:Outer.Inner") is None


@pytest.mark.parametrize("name", ["", "lwc", "None", "my.module", ":Class", "module:", "a b:C"])
@pytest.mark.parametrize(
    ("field", "find", "rows"),
    [
        ("calib", registry.strategy, registry.STRATEGIES),
        ("criterion", registry.criterion, registry.CRITERIA),
    ],
)
def test_unknown_method_is_refused_with_the_choices(field, find, rows, name):
    with pytest.raises(FieldError) as caught:
        find(name)
    assert str(caught.value).startswith(f"{field}={name}: " if name else f"{field}: ")
    assert all(choice in str(caught.value) for choice in [*rows, "module:Class"])


@pytest.mark.parametrize(
    "name",
    ["", "lenet", "lenet_", "lenet_0", "lenet_300_0", "lenet_-3", "lenet_10x", "xlenet_10", "vgg"],
)
def test_unknown_model_is_told_the_choices(name):
    with pytest.raises(FieldError) as caught:
        registry.model(name)
    assert str(caught.value).startswith(f"model={name}: " if name else "model: ")
    assert all(row.example in str(caught.value) for row in registry.MODELS.values())


@pytest.mark.parametrize("name", ["mnist", "svhn_cropped", "no_such_set"])
def test_any_other_source_is_tfds(name):
    assert registry.source(name) is registry.TFDS
    assert callable(registry.TFDS.load())
    assert callable(registry.TFDS.load_test())


def test_a_source_without_a_way_to_its_test_split_alone_says_so():
    assert registry.SOURCES["digits"].load_test() is None


@pytest.mark.parametrize("name", ["", "fog", "Blur", "all"])
def test_unknown_corruption_is_told_the_choices(name):
    with pytest.raises(FieldError) as caught:
        registry.corruption(name)
    assert str(caught.value).startswith(f"shift={name}: " if name else "shift: ")
    assert all(choice in str(caught.value) for choice in registry.CORRUPTIONS)


def test_defaults_are_in_the_tables():
    registry.strategy(FIELDS["calib"].default)
    registry.model(FIELDS["model"].default)
    assert FIELDS["dataset"].default in registry.SOURCES, "the default must need no network"


@pytest.mark.parametrize("name", registry.CRITERIA)
def test_criterion_declares_its_hyperparameters_in_its_row(name):
    from lotcal_tf.pruning.criteria import Criterion

    row = registry.CRITERIA[name]
    assert issubclass(row.load(), Criterion)
    assert row.load().Hyperparameters is row.hyperparameters
    assert row.load()().hyper == row.hyperparameters()


def test_passes_come_with_dropout():
    for row in registry.STRATEGIES.values():
        hyper = row.hyperparameters()
        if hasattr(hyper, "passes"):
            assert hyper.passes >= 2
            assert 0 < hyper.dropout_rate < 1
            assert hyper.dropout_at
