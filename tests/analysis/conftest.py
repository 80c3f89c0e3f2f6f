"""Hand-made run directories: a curve of double descent at any starting size, no training."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from lotcal_tf.analysis.runs import DIFFICULTY, RecordedRun

# Error on noisy labels, by weights: a peak at 36 000, a valley at 6 000, ruin below 1 000.
PLACES = np.log([100, 400, 2_000, 6_000, 14_000, 36_000, 90_000, 300_000])
ERRORS = [0.90, 0.60, 0.26, 0.20, 0.26, 0.36, 0.33, 0.30]
TRAINED = [0.90, 0.60, 0.24, 0.18, 0.15, 0.03, 0.00, 0.00]


def curve(weights, shift=1.0):
    """Training and validation error at given weights; `shift` moves the curve to larger ones."""
    at = np.log(np.asarray(weights) / shift)
    return np.interp(at, PLACES, TRAINED), np.interp(at, PLACES, ERRORS)


def write_run(
    directory, start=300_000, levels=24, shift=1.0, fields=None, columns=(), examples=6000
):
    """A finished run: experiment.json and metrics.csv; `columns` are left out."""
    directory.mkdir(parents=True)
    weights = [round(start * 0.8**level) for level in range(levels + 1)]
    train, error = curve(weights, shift)
    experiment = {
        "dataset": "tiny_noise",
        "source": "tiny",
        "label_noise": 0.2,
        "noise_kind": "uniform",
        "model": f"lenet_{start // 1000}",
        "seed": 0,
        "levels": levels,
        "out": str(directory),
        **(fields or {}),
    }
    realised = {"examples": {"train": 54_000, "val": examples, "test": 10_000}}
    realised["wrong_labels"] = {"train": 0.18, "val": 0.18}
    whole = {"experiment": experiment, "content": {}, "realised": realised}
    (directory / "experiment.json").write_text(json.dumps(whole))
    rows = []
    for level, kept in enumerate(weights):
        clean = (error[level] - 0.18) / 0.82
        row = {
            "level": level,
            "density": kept / weights[0],
            "weights": kept,
            "train_accuracy": 1 - train[level],
            "val_accuracy": 1 - error[level],
            "test_accuracy": 1 - clean,
            "test_ece": clean / 2,
            "test_overconfidence": clean / 2 - 0.15,
            "test_wrong_confident": clean / 2,
            "test_kl_true": clean,
            "protected": "",
        }
        rows.append({name: value for name, value in row.items() if name not in columns})
    with (directory / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return directory


@pytest.fixture
def written_run(tmp_path):
    """written_run(name, …) writes a run directory of that name."""
    return lambda name, **given: write_run(tmp_path / name, **given)


TRAIN = [0.0, 0.02, 0.15, 0.18, 0.6]
ERROR = [0.30, 0.40, 0.25, 0.20, 0.65]  # the best is level 3


@pytest.fixture
def recorded_run():
    """recorded_run(sizes) → a run with a best ticket of `sizes[3]` weights, given five sizes."""

    def make(sizes, model="net", seed=0, difficulty=None, **columns):
        levels = len(sizes)
        fields = {"model": model, "seed": seed, "source": "mixture_linear", "levels": levels - 1}
        fields |= {} if difficulty is None else {DIFFICULTY: difficulty}
        found = {
            "weights": sizes,
            "density": np.array(sizes) / sizes[0],
            "train_accuracy": 1 - np.array(TRAIN[:levels]),
            "val_accuracy": 1 - np.array(ERROR[:levels]),
            "test_accuracy": 1 - np.array(ERROR[:levels]) / 2,
        } | columns
        arrays = {name: np.array(values, float) for name, values in found.items()}
        name = f"{model}-{seed}-{difficulty}-{levels}"
        if difficulty is None:
            fields["source"] = "tiny"
        return RecordedRun(Path(name), fields, {}, {}, 6000, arrays)

    return make


@pytest.fixture
def sized(recorded_run):
    """sized(best) → a run of five levels whose best ticket has `best` weights."""

    def make(best, start=1000, **given):
        return recorded_run([start, 800, 600, best, 10], **given)

    return make
