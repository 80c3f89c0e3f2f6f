"""The stored test predictions of the networks that a study compares, with clean and noisy labels."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lotcal_tf.analysis.label_noise import Study
from lotcal_tf.analysis.panels import NETWORK_STYLES, rows
from lotcal_tf.analysis.runs import DIFFICULTY, RecordedRun
from lotcal_tf.config.run_directory import level_path
from lotcal_tf.data.mixtures import TEST_SIZE, Mixture
from lotcal_tf.data.noise import noisy_labels
from lotcal_tf.errors import LotcalError
from lotcal_tf.lottery.ticket_files import read_predictions
from lotcal_tf.metrics import accuracy, log_softmax
from lotcal_tf.metrics.conditional import label_maps, seen_through_noise

# Rows of a figure of predictions.
MOST = 4


@dataclasses.dataclass(frozen=True)
class Predicted:
    """Predictions of a network on the test split.

    Attributes:
      labels: `(N,)`, clean.
      noisy: `(N,)`, the noisy copy of the labels that the run was measured on.
      logits: `(N, K)`.
    """

    labels: np.ndarray
    noisy: np.ndarray
    logits: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """`(N, K)`."""
        return np.exp(log_softmax(self.logits))


@dataclasses.dataclass(frozen=True)
class Shown:
    """A width whose predictions are drawn.

    Attributes:
      title: its network and difficulty.
      run: one of its runs.
      networks: by network (`full`, `best ticket`, `small dense`) the predictions of each seed.
    """

    title: str
    run: RecordedRun
    networks: Mapping[str, Sequence[Predicted]]


@dataclasses.dataclass(frozen=True)
class Plane:
    """The test examples of a mixture, seen on the plane through its centres.

    Attributes:
      places: `(N, 2)`, the mean input of each half of the dimensions in units of nu: the centres are
        at 0 and 1.
      position: `(N,)`, from the centre of class 0 (0) to that of class 1 (1).
      truth: `(N,)`, p* of class 1 of noisy labels.
      centers: the centres of each class, `(2, M, 2)`.
    """

    places: np.ndarray
    position: np.ndarray
    truth: np.ndarray
    centers: np.ndarray


def read_predicted(run: RecordedRun, level: int) -> Predicted:
    """Reads the predictions of a level; the noise of the labels is drawn again.

    Raises:
      LotcalError: they cannot be read, or are not predictions of classes.
    """
    labels, logits = read_predictions(level_path(run.directory, level), "test")
    accuracy(labels, logits)  # checks both
    noisy = noisy_labels(labels, *_noise(run, logits.shape[1]), run.seed, "test")
    return Predicted(labels, noisy, logits)


def _noise(run: RecordedRun, classes: int) -> tuple[float, np.ndarray]:
    """The rate of a run's label noise, and what noisy labels become."""
    image = run.field("noise_map") or list[int]()
    maps = label_maps(str(run.field("noise_kind")), classes, image)
    return float(run.field("label_noise")), maps


def shown(study: Study) -> list[Shown]:
    """The largest network with a best ticket of each difficulty and architecture, at most `MOST`.

    Of more than `MOST`, they are taken at equal distances. Runs whose predictions cannot be read, or
    are not stored, are left out.
    """
    found = []
    for runs in rows(study.runs).values():
        own = [run for run in runs if run.descent.best is not None]
        if own:
            largest = max(own, key=lambda run: run.start).model
            one = _read(study, [run for run in own if run.model == largest])
            found += [one] if one.networks else []
    chosen = np.unique(np.linspace(0, len(found) - 1, min(MOST, len(found))).round().astype(int))
    return [found[place] for place in chosen]


def _read(study: Study, runs: Sequence[RecordedRun]) -> Shown:
    """The networks of one width."""
    networks: dict[str, list[Predicted]] = {}
    for run in runs:
        levels = study.levels(run)
        try:
            one = {n: read_predicted(*levels[n]) for n in NETWORK_STYLES if n in levels}
        except LotcalError:  # damaged ones are named in the report already
            continue
        for name, predicted in one.items():
            networks.setdefault(name, []).append(predicted)
    first = runs[0]
    hard = "" if first.difficulty is None else f", {DIFFICULTY} {first.difficulty:g}"
    return Shown(first.model + hard, first, networks)


def plane(run: RecordedRun) -> Plane | None:
    """The test examples of a run's mixture, drawn again; None if its data is none, or a part of one."""
    if run.difficulty is None or run.field("classes"):
        return None
    try:
        mixture = Mixture.of(run.experiment)
    except LotcalError:  # a record that was edited
        return None
    inputs, _ = mixture.draw(TEST_SIZE, "test")
    truth = seen_through_noise(mixture.conditional(inputs), *_noise(run, 2))
    half = max(mixture.dimensions // 2, 1)

    def halves(points: np.ndarray) -> np.ndarray:
        first, second = points[..., :half], points[..., half:]
        second = second if second.shape[-1] else first  # one dimension has no second half
        return np.stack([first.mean(-1), second.mean(-1)], axis=-1) / mixture.nu

    places = halves(inputs.astype(np.float64))
    if mixture.xor:
        # Along the first half, on the side of the second half where the example lies.
        position = np.where(places[:, 1] < 0.5, places[:, 0], 1 - places[:, 0])
    else:
        position = inputs.mean(1, dtype=np.float64) / mixture.nu
    return Plane(places, position, truth[:, 1], halves(mixture.means))
