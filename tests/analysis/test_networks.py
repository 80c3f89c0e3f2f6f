"""The stored predictions of a study: noisy labels and truth as in training, without the data set."""

import hashlib

import numpy as np
import pytest
import safetensors.numpy

from lotcal_tf.analysis.label_noise import Study
from lotcal_tf.analysis.networks import MOST, plane, read_predicted, shown
from lotcal_tf.analysis.runs import read_run
from lotcal_tf.config.run_directory import level_path
from lotcal_tf.config.sealed import seal
from lotcal_tf.data import mixtures
from lotcal_tf.data.noise import with_label_noise
from lotcal_tf.errors import UsageError
from tests.analysis.conftest import write_run

MIXTURE = {"source": "mixture_linear", "nu": 0.5, "dimensions": 4}


def write_predictions(directory, level, labels, logits):
    """The files of a ticket that a report reads."""
    ticket = level_path(directory, level)
    ticket.mkdir(parents=True)
    content = safetensors.numpy.save({"test/labels": labels, "test/logits": logits})
    (ticket / "predictions.safetensors").write_bytes(content)
    digests = {"predictions": hashlib.sha256(content).hexdigest()}
    header = {"level": level, "sha256": digests, "record": {}, "history": []}
    header |= {"architecture": {"config": {}}, "input_range": None, "callbacks": None}
    (ticket / "ticket.json").write_bytes(seal({**header, "class_names": None}))


def written(directory, start=300_000, classes=2, examples=5000, **fields):
    """A run whose levels 0 and best have predictions."""
    run = read_run(write_run(directory, start=start, fields={**MIXTURE, **fields}))
    draw = np.random.default_rng(start)
    for level in (0, run.descent.best):
        labels = draw.integers(0, classes, examples).astype(np.int32)
        logits = draw.normal(size=(examples, classes)).astype(np.float32)
        write_predictions(directory, level, labels, logits)
    return run


@pytest.mark.parametrize("source", ["mixture_linear", "mixture_xor"])
def test_noisy_labels_and_conditionals_are_those_of_training(tmp_path, source):
    run = read_run(write_run(tmp_path / "a", fields={**MIXTURE, "source": source, "seed": 3}))
    dataset = with_label_noise(mixtures.load(run.experiment), run.experiment)
    clean = np.concatenate([labels.numpy() for _, labels in dataset.test.in_order(1000)])
    write_predictions(run.directory, 0, clean, np.zeros((5000, 2), np.float32))
    found = read_predicted(run, 0)
    assert (found.noisy == dataset.noisy_test_labels).all() and (found.noisy != clean).any()
    assert (found.labels == clean).all()
    np.testing.assert_allclose(plane(run).truth, dataset.truth[:, 1], atol=1e-12)


def test_the_plane_of_the_centres_by_hand(tmp_path, monkeypatch):
    def draw(mixture, count, split):
        assert split == "test"
        return np.array([[0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], [0, 0, 0.5, 0.5]]), None

    monkeypatch.setattr(mixtures.Mixture, "draw", draw)
    linear = read_run(write_run(tmp_path / "a", fields=MIXTURE))
    xor = read_run(write_run(tmp_path / "b", fields={**MIXTURE, "source": "mixture_xor"}))
    for run in (linear, xor):
        assert plane(run).places.tolist() == [[0, 0], [1, 1], [1, 0], [0, 1]]
    assert plane(linear).position.tolist() == [0, 1, 0.5, 0.5]
    assert plane(linear).centers.tolist() == [[[0, 0]], [[1, 1]]]
    # From class 0 to class 1 along the first half: backwards where the second half is at 1.
    assert plane(xor).position.tolist() == [0, 0, 1, 1]
    assert plane(xor).centers.tolist() == [[[0, 0], [1, 1]], [[0, 1], [1, 0]]]
    assert plane(read_run(write_run(tmp_path / "c"))) is None
    odd = {**MIXTURE, "source": "mixture_xor", "dimensions": 5}
    assert plane(read_run(write_run(tmp_path / "e", fields=odd))) is None
    assert plane(read_run(write_run(tmp_path / "d", fields={**MIXTURE, "classes": [1, 0]}))) is None


def test_the_largest_network_of_each_difficulty_is_shown(tmp_path):
    runs = [
        written(tmp_path / f"{start}-{nu}-{seed}", start=start, nu=nu, seed=seed)
        for nu in (0.5, 0.6)
        for start in (200_000, 300_000)
        for seed in (0, 1)
    ]
    found = shown(Study(runs))
    assert [one.title for one in found] == ["lenet_300, nu 0.5", "lenet_300, nu 0.6"]
    for one in found:
        assert {name: len(own) for name, own in one.networks.items()} == {
            "full": 2,
            "best ticket": 2,
            "small dense": 2,
        }
    small = read_predicted(runs[0], 0).logits
    assert (found[0].networks["small dense"][0].logits == small).all()


def test_at_most_some_rows_and_none_without_predictions(tmp_path):
    runs = [written(tmp_path / f"{n}", nu=n / 10) for n in range(1, MOST + 4)]
    found = shown(Study(runs))
    assert len(found) == MOST
    assert (found[0].title, found[-1].title) == ("lenet_300, nu 0.1", f"lenet_300, nu 0.{MOST + 3}")
    assert shown(Study([read_run(write_run(tmp_path / "without"))])) == []


@pytest.mark.parametrize(
    ("labels", "logits"),
    [
        (np.array([0, 2], np.int32), np.zeros((2, 2), np.float32)),
        (np.array([0, 1], np.int32), np.full((2, 2), np.nan, np.float32)),
        (np.array([0], np.int32), np.zeros((2, 2), np.float32)),
    ],
)
def test_what_is_not_a_prediction_is_left_out(tmp_path, labels, logits):
    run = read_run(write_run(tmp_path / "a"))
    for level in (0, run.descent.best):
        write_predictions(run.directory, level, labels, logits)
    with pytest.raises(UsageError):
        read_predicted(run, 0)
    assert shown(Study([run])) == []
