"""Contract tests of every recipe in configs; new files are tested without further code."""

import dataclasses
import re
import shlex
from itertools import takewhile
from pathlib import Path

import pytest

from lotcal_tf.config import flags, registry
from lotcal_tf.config.experiment import FIELDS, Experiment, check_together, setting_fields
from lotcal_tf.config.recipes import read_recipe, resolve
from lotcal_tf.sweeps.grid import read_grid

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "configs").glob("*.toml"))
GRIDS = sorted((ROOT / "configs" / "grids").glob("*.toml"))
PRUNING_RUN = {"prune_rate": 0.2, "rewind": "init", "validation_size": 5000, "calib": "none"}
LENET = PRUNING_RUN | {
    "model": "lenet_300_100",
    "optimizer": "adam",
    "lr": 1e-4,
    "weight_decay": 0.0,
    "lr_drops": (),
    "epochs": 60,
    "batch_size": 60,
    "scope": "local",
    "output_rate": 0.1,
}
CONVOLUTIONAL = PRUNING_RUN | {
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "lr_drop_factor": 0.1,
    "scope": "global",
    "output_rate": 0.0,
    "initializer": "kaiming_normal",
}
PAPER = {
    "mnist": LENET | {"source": "mnist"},
    "fashion_mnist": LENET | {"source": "fashion_mnist"},
    "cifar10": CONVOLUTIONAL
    | {
        "source": "cifar10",
        "augment": "crop_flip",
        "model": "resnet18",
        "lr": 0.01,
        "lr_drops": (80, 120),
        "epochs": 130,
        "batch_size": 128,
        "exclude": ("*_shortcut",),
    },
    "svhn": CONVOLUTIONAL
    | {
        "source": "svhn_cropped",
        "model": "vgg19",
        "lr": 0.05,
        "lr_drops": (50, 75),
        "epochs": 100,
        "batch_size": 250,
        "exclude": (),
    },
}


# The recipes of "Quantifying lottery tickets under label noise" (arXiv 2306.12190).
NOISE = {
    "label_noise": 0.2,
    "noise_kind": "uniform",
    "initializer": "kaiming_normal",
    "use_bias": True,
    "bias_initializer": "fan_in_uniform",
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "lr_drops": (),
    "epochs": 120,
    "batch_size": 128,
    "drop_remainder": False,
    "prune_rate": 0.2,
    "scope": "global",
    "count": "openlth",
    "output_rate": 0.2,
    "exclude": (),
    "rewind": "init",
    "augment": "none",
    "calib": "none",
}
NOISE_MNIST = NOISE | {"source": "mnist", "input_mean": (0.1307,), "input_std": (0.3081,)}
NOISE_NORM = {"norm_initializer": "uniform", "momentum": 0.9}
MIXTURE = NOISE | {
    "initializer": "kaiming_uniform",
    "use_bias": False,
    "bias_initializer": "zeros",
    "dimensions": 100,
    "epochs": 1000,
    "batch_size": 1024,
}
PAPER |= {
    "mnist_noise": NOISE_MNIST | {"model": "lenet_300_100"},
    "mnist_noise_resnet": NOISE_MNIST | NOISE_NORM | {"model": "resnet8_11"},
    "fashion_mnist_noise": NOISE
    | {"source": "fashion_mnist", "model": "lenet_500_100", "epochs": 320},
    "cifar10_noise": NOISE
    | NOISE_NORM
    | {
        "source": "cifar10",
        "input_mean": (0.485, 0.456, 0.406),
        "input_std": (0.229, 0.224, 0.225),
        "augment": "crop_flip",
        "weight_decay": 1e-4,
        "lr_drops": (80, 120),
        "lr_drop_factor": 0.1,
        "epochs": 160,
        "rewind": "epoch:10",
    },
    "mixture_linear": MIXTURE | {"source": "mixture_linear", "nu": 0.2, "label_noise": 0.05},
    "mixture_xor": MIXTURE | {"source": "mixture_xor", "nu": 0.6, "label_noise": 0.25},
}


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def path(request):
    return request.param


def header(path):
    lines = takewhile(lambda line: line.startswith("#"), path.read_text("utf-8").splitlines())
    return "\n".join(line.removeprefix("#").strip() for line in lines)


def test_recipe_resolves_to_its_fields(path):
    fields = read_recipe(path)
    for name, settings in fields.pop("strategy", {}).items():
        found = resolve({"dataset": path.stem, "calib": name}).settings
        assert {key: found[key] for key in settings} == settings
    experiment = resolve({"dataset": path.stem})
    # TOML has lists for tuples; hyperparameters belong to their strategy.
    own = fields.keys() & FIELDS.keys()
    assert {name: experiment.as_dict()[name] for name in own} == {
        name: fields[name] for name in own
    }
    assert fields.keys() - own <= setting_fields().keys()
    registry.model(experiment.model)
    registry.strategy(experiment.calib)


def test_recipe_sets_all_fields_that_define_the_run(path):
    # Readers find them in the recipe, and a change of defaults does not change the recipe.
    needed = {"source", "model", "initializer", "optimizer", "lr", "epochs", "batch_size"}
    assert needed | {"levels", "prune_rate", "scope", "rewind"} <= set(read_recipe(path))


def test_recipe_has_no_paths_and_no_field_without_effect(path):
    fields = read_recipe(path)
    assert not fields.keys() & {"data_dir", "out", "ticket", "plan"}
    experiment = resolve({"dataset": path.stem})
    check_together(experiment, fields)


def test_header_gives_the_command_that_runs_the_recipe(path):
    (command,) = re.findall(r"^python -m lotcal_tf\.train (.*)$", header(path), re.MULTILINE)
    request = flags.Command("train", "").read(shlex.split(command))
    experiment = resolve(request.given, request.config)
    assert experiment.run_id() == resolve({"dataset": path.stem}).run_id()
    # Data in files needs a directory; built-in data needs none.
    assert ("--data_dir=" in command) == registry.source(experiment.source).from_files


def test_header_gives_metrics_and_time(path):
    assert re.search(r"^(Expect: .*\d|Metrics .*docs/results/)", header(path), re.MULTILINE)
    time = r"^Time( \(estimate\))?: (.*\d+ (s|min|h)\b|not measured yet)"
    assert re.search(time, header(path), re.MULTILINE)


def test_documents_that_headers_name_exist():
    named = [name for path in RECIPES for name in re.findall(r"\bdocs/[\w./-]+\w", header(path))]
    assert "docs/results/paper.md" in named
    assert not [name for name in named if not (ROOT / name).is_file()]


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_a_grid_gives_runs_of_its_recipe(path):
    grid = read_grid(path)
    assert grid.fields["dataset"] == path.stem
    experiments = [resolve(point) for point in grid.points()]
    assert len({experiment.run_id() for experiment in experiments}) == len(experiments)
    assert {e.dataset for e in experiments} == {path.stem}
    assert {e.model for e in experiments} == set(grid.axes["model"])
    # Each network has its own number of levels; dense ones are larger than the end of a chain.
    assert all(experiment.levels > 0 for experiment in experiments)


@pytest.mark.parametrize("name", PAPER)
def test_papers_recipes_hold_the_papers_settings(name):
    experiment = resolve({"dataset": name})
    assert {field: getattr(experiment, field) for field in PAPER[name]} == PAPER[name]


def test_the_halves_of_cifar10_differ_in_nothing_else():
    fields = [read_recipe(ROOT / "configs" / f"cifar10{half}.toml") for half in "ab"]
    assert [recipe.pop("half") for recipe in fields] == ["a", "b"]
    assert fields[0] == fields[1]
    paper = {
        "source": "cifar10",
        "augment": "crop_flip",
        "model": "resnet18",
        "initializer": "kaiming_normal",
        "optimizer": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "lr_drops": [80, 120],
        "epochs": 130,
        "batch_size": 128,
        "scope": "global",
        "prune_rate": 0.2,
        "exclude": ["*_shortcut"],
        "rewind": "init",
    }
    assert {name: fields[0][name] for name in paper} == paper


def test_default_recipe_needs_no_network():
    assert resolve({}).dataset == "digits"
    assert resolve({}).source in registry.SOURCES


def test_a_source_alone_has_the_recipe_of_its_name_or_an_empty_one():
    found = resolve({"source": "tiny/fog:1.0.0"})
    assert found == dataclasses.replace(
        Experiment.of(), dataset="tiny-fog-1.0.0", source="tiny/fog:1.0.0"
    )
    assert resolve({"source": "mnist"}) == resolve({"dataset": "mnist"})
    assert resolve({"dataset": "digits", "source": "mnist"}).epochs == resolve({}).epochs
