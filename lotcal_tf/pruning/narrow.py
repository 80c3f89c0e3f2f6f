"""Leaves out hidden units that contribute nothing, so that a step of a sparse network costs less.

In a chain of fully connected layers without biases, a hidden unit without an incoming weight gives 0, and
one without an outgoing weight is not read. Neither changes the logits, and the gradients of all their
weights are 0. So a step without them gives the same gradients, up to the rounding of shorter sums.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.pruning.masked import Masked

# Layers without weights that may stand before the first fully connected one.
_BEFORE = (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Flatten)
# Activations that give 0 for 0.
_ACTIVATIONS = ("relu", "linear", "tanh")
# Two widths to which units are padded differ by this factor, so that few programs are compiled.
_RATIO = math.sqrt(2)
# Leaving units out must save this share of the multiplications; gathering weights costs, too.
_LEAST_SAVING = 0.25


@dataclasses.dataclass(frozen=True)
class Units:
    """The hidden units that a step computes.

    Attributes:
      widths: their number in each hidden layer. A program is compiled for these widths.
      kept: their places in each hidden layer, `(width,)`, rising. Some are there to fill the width.
    """

    widths: tuple[int, ...]
    kept: tuple[NDArray[np.int64], ...]


def layers_of(network: "keras.Model") -> list[Masked]:
    """The layers of a masked network that is a chain of fully connected layers without biases; else empty."""
    layers = list(network.layers)
    chain = all(b.input is a.output for a, b in itertools.pairwise(layers))
    before = list(itertools.takewhile(lambda layer: type(layer) in _BEFORE, layers))
    dense = layers[len(before) :]
    if not chain or len(dense) < 2:
        return []
    return dense if all(map(_fits, dense)) else []


def _fits(layer: "keras.layers.Layer") -> bool:
    inner = layer.layer if isinstance(layer, Masked) else layer
    if not isinstance(layer, Masked) or type(inner) is not keras.layers.Dense:
        return False
    config = inner.get_config()
    plain = all(config[f"{part}_regularizer"] is None for part in ("kernel", "activity"))
    return plain and not inner.use_bias and config["activation"] in _ACTIVATIONS


def units_of(network: "keras.Model") -> Units | None:
    """The hidden units to compute with the current masks; None if leaving out others does not pay."""
    masks = [layer.masks[0].numpy() > 0 for layer in layers_of(network)]
    if not masks:
        return None
    used = [np.ones(mask.shape[1], bool) for mask in masks[:-1]]
    before = -1
    while before != sum(map(np.sum, used)):
        before = sum(map(np.sum, used))
        for place, own in enumerate(used):
            own &= masks[place][_rows(used, place)].any(0)
            own &= masks[place + 1][:, _rows(used, place + 2)].any(1)
    kept = tuple(_filled(own) for own in used)
    widths = tuple(map(len, kept))
    inputs, classes = masks[0].shape[0], masks[-1].shape[1]
    full = _products(inputs, *(mask.shape[1] for mask in masks[:-1]), classes)
    if _products(inputs, *widths, classes) > (1 - _LEAST_SAVING) * full:
        return None
    return Units(widths, kept)


def _rows(used: list[NDArray[np.bool_]], place: int) -> NDArray[np.bool_] | slice:
    """Which units before hidden layer `place` are used; inputs and logits are all used."""
    return used[place - 1] if 0 < place <= len(used) else slice(None)


def _filled(used: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The places of used units and of as many others as fill one of few widths."""
    size, needed = len(used), max(1, int(used.sum()))
    steps = math.floor(math.log(size / needed, _RATIO) + 1e-9)
    width = max(needed, math.ceil(size / _RATIO**steps))
    order = np.argsort(~used, kind="stable")
    return np.sort(order[: min(width, size)])


def _products(*sizes: int) -> int:
    return sum(a * b for a, b in itertools.pairwise(sizes))


class Places:
    """The places of the units as variables, so that the levels with the same widths share a program."""

    def __init__(self, network: "keras.Model", widths: tuple[int, ...]) -> None:
        self.layers, self.widths = layers_of(network), widths
        # Of 64 bits, since integers of 32 bits do not go to a GPU.
        self.variables = [tf.Variable(tf.zeros(width, tf.int64)) for width in widths]

    def set(self, units: Units) -> None:
        """Sets the places."""
        for variable, kept in zip(self.variables, units.kept, strict=True):
            variable.assign(kept)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside it, the network computes these units only."""
        ends: list[tf.Variable | None] = [None, *self.variables, None]
        for layer, units in zip(self.layers, itertools.pairwise(ends), strict=True):
            # Keras would take the places for weights of the layer.
            layer.__dict__["units"] = units
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.__dict__["units"]
