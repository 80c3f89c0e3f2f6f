"""Tickets that were never trained: weights and masks drawn, which is all that exporting looks at."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.lottery.ticket import Ticket, architecture_of
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.rewind import masked_start

TEMPERATURE = 2.5


@pytest.fixture(scope="session")
def inputs():
    return np.random.default_rng(5).normal(size=(23, 4, 2)).astype("float32")


@pytest.fixture(scope="session")
def make_ticket():
    """make_ticket(seed) → a ticket of level 2 with about half its weights pruned."""

    def make(seed=0):
        x = given = keras.Input((4, 2), name="inputs")
        x = keras.layers.Flatten(name="flatten")(keras.layers.Rescaling(0.5, name="scaling")(x))
        x = keras.layers.Dense(6, activation="relu", name="hidden")(x)
        x = keras.layers.Dropout(0.5, name="dropout")(x)
        x = keras.layers.BatchNormalization(name="norm")(x)
        model = keras.Model(given, keras.layers.Dense(3, name="logits")(x), name="tiny")
        draw = np.random.default_rng(seed)
        weights = {
            name: draw.normal(size=value.shape).astype("float32")
            for name, value in masking.values(model).items()
        }
        # A variance is above 0; so is the scale, whose sign a converter may fold into a zero.
        weights |= {n: abs(v) + 0.5 for n, v in weights.items() if n[-5:] in ("gamma", "iance")}
        masks = {
            name: draw.random(weights[name].shape) < 0.5
            for name in ("hidden/kernel", "logits/kernel")
        }
        trained = masked_start(weights, masks)
        return Ticket(
            2,
            architecture_of(model),
            masks,
            weights,
            trained,
            {"level": 2, "temperature": TEMPERATURE},
        )

    return make


@pytest.fixture(scope="session")
def ticket(make_ticket):
    return make_ticket()


@pytest.fixture(scope="session")
def logits(ticket, inputs):
    """What the ticket computes, by hand in float64."""
    t = {name: value.astype("float64") for name, value in ticket.trained.items()}
    flat = inputs.reshape(len(inputs), -1) * 0.5
    hidden = np.maximum(flat @ t["hidden/kernel"] + t["hidden/bias"], 0)
    scale = t["norm/gamma"] / np.sqrt(t["norm/moving_variance"] + 1e-3)
    normed = (hidden - t["norm/moving_mean"]) * scale + t["norm/beta"]
    return normed @ t["logits/kernel"] + t["logits/bias"]
