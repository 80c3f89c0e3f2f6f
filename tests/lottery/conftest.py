"""A real search that takes a second: an 8-6-3 network on three blobs, nine steps an epoch."""

import dataclasses

import numpy as np
import pytest

from lotcal_tf.calibration.strategies import CrossEntropy
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.arrays import from_arrays
from lotcal_tf.lottery.search import Search
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.criteria import Magnitude

STEPS = 9  # 90 training examples in batches of 10


@dataclasses.dataclass
class StartedSearch:
    """A search that has begun, and what each level's training was really started with."""

    search: Search
    starts: dict = dataclasses.field(default_factory=dict)
    first_steps: dict = dataclasses.field(default_factory=dict)

    @property
    def store(self):
        return self.search.store

    def run(self):
        train = self.search.trainer.train

        def watched(level, *, first_step=0, **rest):
            self.starts[level] = masking.values(self.search.network)
            self.first_steps[level] = first_step
            return train(level, first_step=first_step, **rest)

        self.search.trainer.train = watched
        self.search.run()
        return self

    def tickets(self):
        return [self.store.read(level) for level in range(self.store.finished())]


def make_network():
    """8-6-3 with what holds no kernel but state (BatchNorm) and what draws (Dropout)."""
    keras.utils.set_random_seed(7)
    x = inputs = keras.Input((8,), name="inputs")
    x = keras.layers.Dense(6, activation="relu", name="hidden")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.25, name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="tiny")


@pytest.fixture(scope="session")
def network():
    return make_network()


@pytest.fixture(scope="session")
def dataset():
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(3, 8))

    def blobs(count):
        labels = draw.integers(0, 3, count)
        return centres[labels] + draw.normal(size=(count, 8)), labels

    return from_arrays(
        blobs(90), blobs(30), blobs(30), classes=3, validation_size=None, seed=0, input_range=1.0
    )


@pytest.fixture(scope="session")
def begin(network, dataset):
    """begin(directory, start=…, dataset=…, strategy=…, criterion=…, observers=…, **fields) → a StartedSearch."""

    def begin(
        directory,
        *,
        start=network,
        dataset=dataset,
        strategy=CrossEntropy,
        criterion=Magnitude,
        observers=(),
        estimate_time=False,
        callbacks=(),
        **fields,
    ):
        given = {"epochs": 2, "levels": 3, "batch_size": 10, "lr": 0.02} | fields
        store = RunStore(directory)
        search = Search(
            Experiment.of(**given),
            start,
            dataset,
            strategy,
            criterion,
            store,
            observers,
            estimate_time=estimate_time,
            callbacks=callbacks,
        )
        store.begin({"run_id": "tiny", "experiment": given})
        return StartedSearch(search)

    return begin
