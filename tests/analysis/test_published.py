"""The published table against the arithmetic of OpenLTH, and where it is used."""

import math
from pathlib import Path

import numpy as np
import pytest

from lotcal_tf.analysis.published import published_beside, published_rows, published_with
from lotcal_tf.analysis.runs import RecordedRun

NOISE = {"label_noise": 0.2, "noise_kind": "uniform"}


def run(start=266_200, known=10, **fields):
    whole = {"source": "mnist", "model": "lenet_300_100", "seed": 0, "levels": 0, **NOISE, **fields}
    columns = {"weights": np.array([float(start)])}
    return RecordedRun(Path("run"), whole, {}, {}, 100, columns, classes=known)


@pytest.mark.parametrize(
    "row",
    [r for r in published_rows() if r.full_weights and r.best_weights],
    ids=lambda r: r.full_weights,
)
def test_every_best_size_is_a_level_of_its_chain(row):
    # OpenLTH prunes one weight more than the fifth, rounded up.
    weights = row.full_weights
    while weights > row.best_weights:
        weights -= math.ceil(0.2 * weights) + 1
    assert weights == row.best_weights


def test_it_has_all_rows_of_the_tables():
    counts: dict[tuple[str, str], int] = {}
    for row in published_rows():
        key = row.source, row.network
        counts[key] = counts.get(key, 0) + 1
    assert counts == {
        ("mnist", "lenet_W_100"): 7,
        ("mnist", "lenet_W"): 7,
        ("mnist", "resnet8_W"): 7,
        ("cifar10", "resnet20_W"): 12,
        ("cifar10", "vgg16"): 1,
        ("mixture_linear", "lenet_W"): 10,
        ("mixture_xor", "lenet_W"): 7,
    }


def test_a_width_stands_beside_its_own_row():
    row = published_beside(run())
    assert (row.full_error, row.best_weights, row.best_error) == (0.163, 5987, 0.071)
    assert published_beside(run(start=266_201)) is None
    assert len(published_with(run(start=266_201))) == 7
    linear = {"source": "mixture_linear", "model": "lenet_50", "label_noise": 0.05, "nu": 0.2}
    assert published_beside(run(known=2, **linear)).best_error == 0.21
    # The network of the subsets was not published, so they stand beside no width.
    subset = {"source": "cifar10", "model": "resnet20_80", "classes": [0, 1, 2, 3, 4]}
    assert published_beside(run(known=5, **subset)) is None
    assert [row.best_weights for row in published_with(run(known=5, **subset))] == [16_312]


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "fashion_mnist"},
        {"label_noise": 0.4},
        {"train_size": 5000},
        {"noise_kind": "symmetric"},
        {"model": "lenet_300_50"},
    ],
)
def test_nothing_is_published_on_other_data_noise_or_networks(fields):
    assert published_with(run(**fields)) == []
    assert published_with(run(known=5)) == published_with(run(known=None)) == []
