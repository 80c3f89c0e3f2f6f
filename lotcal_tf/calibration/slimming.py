"""`slimming`: drives whole channels to zero, for networks that are really smaller and faster.

A pruned network is faster where whole channels are dead, and magnitude pruning alone leaves few.
Network slimming (Liu et al. 2017, arXiv 1708.06519) adds the L1 norm of BatchNorm's scales to the
loss. That shrinks all scales of a layer alike, which the next BatchNorm undoes. Here a layer pays for
how many of its scales are in use, which a common factor does not change: (Σ|γ|)² / Σγ², between 1 and
the number of channels (Hoyer-square: Yang et al. 2020, arXiv 1908.09979). The product of two layers'
numbers is the cost of the convolution between them, as in MorphNet (Gordon et al. 2018, arXiv
1711.06798). The kernels of channels that fall out of use are decayed, so that pruning removes their
weights first.

It is meant for chains of convolutions, each followed by a BatchNorm; a branch's channels are priced
by the convolution before it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from lotcal_tf.calibration.losses import cross_entropy
from lotcal_tf.calibration.strategy import Logs, Strategy
from lotcal_tf.config import hyperparameters
from lotcal_tf.errors import UsageError

# A scale below this share of its layer's mean counts as partly out of use, a scale of 0 as wholly.
WORTHLESS = 0.1


@dataclass(frozen=True)
class Block:
    """A convolution and the BatchNorm behind it.

    Attributes:
      kernel: `(height, width, inputs, channels)`.
      scales: BatchNorm's, `(channels,)`.
      places: in the convolution's output map.
    """

    kernel: "tf.Variable"
    scales: "tf.Variable"
    places: int


def blocks(network: Any) -> list[Block]:
    """The network's convolutions with a BatchNorm behind them, in order; masked ones too.

    Raises:
      UsageError: there is none.
    """
    found, kernel = [], None
    for layer in network.layers:
        own = getattr(getattr(layer, "layer", layer), "kernel", None)
        if own is not None:
            kernel = own if len(own.shape) == 4 else None
        elif kernel is not None and getattr(layer, "gamma", None) is not None:
            _, height, width, _ = layer.output_shape
            found.append(Block(kernel, layer.gamma, height * width))
            kernel = None
    if not found:
        raise UsageError("slimming needs BatchNorm behind convolutions: the network has none")
    return found


def effective(scales: Any) -> "tf.Tensor":
    """The share of `(channels,)` scales that count: 1 where all are alike, 1 / channels for one."""
    sizes = tf.abs(scales)
    squares = tf.reduce_sum(sizes**2) + 1e-12
    return tf.reduce_sum(sizes) ** 2 / squares / float(scales.shape[0])


def cost(network: Any) -> "tf.Tensor":
    """What the channels that count cost, of what all would: 0 to 1.

    Half of it multiplications, which latency goes by, and half of it weights, which bytes go by.
    """
    found = blocks(network)
    weights = np.array([np.prod(block.kernel.shape) for block in found], "float64")
    products = weights * [block.places for block in found]
    priced = (weights / weights.sum() + products / products.sum()) / 2
    shares = [effective(block.scales) for block in found]
    pairs = zip(priced, [1.0, *shares[:-1]], shares, strict=True)
    return tf.add_n([float(price) * before * own for price, before, own in pairs])


def worthless(network: Any) -> "tf.Tensor":
    """The squared kernels of channels whose scales count less, each by how much less."""
    sums = []
    for block in blocks(network):
        sizes = tf.abs(tf.stop_gradient(tf.convert_to_tensor(block.scales)))
        less = tf.nn.relu(1.0 - sizes / (WORTHLESS * tf.reduce_mean(sizes) + 1e-12))
        sums.append(tf.reduce_sum(less * tf.reduce_sum(tf.square(block.kernel), axis=(0, 1, 2))))
    return tf.add_n(sums)


class Slimming(Strategy):
    """Cross-entropy plus the network's cost and the decay of unused kernels; logs `cost` too.

    Raises:
      UsageError: no convolution of the network has a BatchNorm behind it.
    """

    Hyperparameters = hyperparameters.Slimming
    log_names = (*Strategy.log_names, "cost")

    def __init__(self, network: Any, **given: Any) -> None:
        super().__init__(network, **given)
        blocks(network)  # Here, so that it is refused before anything is trained.

    def train_step(self, data: Any) -> Logs:
        """One step; see `Strategy.train_step`."""
        inputs, labels = data
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            price = cost(self.network)
            loss = tf.reduce_mean(cross_entropy(labels, logits)) + self.penalty()
            loss += self.hyper.slimming_strength * price
            loss += self.hyper.slimming_decay * worthless(self.network)
        return self.descend(tape, loss, labels, logits) | {"cost": price}
