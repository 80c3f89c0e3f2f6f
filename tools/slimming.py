"""A strategy of one's own for tickets that are really faster: it makes whole channels worthless.

PYTHONPATH=tools python -m lotcal_tf.train --dataset=cifar10 --model=vgg19_32 --calib=slimming:Slimming …

A pruned network is faster where whole channels are dead, and magnitude pruning alone leaves few. Network
slimming (Liu et al. 2017, arXiv 1708.06519) adds the L1 norm of BatchNorm's scales to the loss. That shrinks all of a
layer's scales alike, which the next BatchNorm undoes. Here a layer pays for how many of its scales count, which no
common factor changes: (Σ|γ|)² / Σγ², between 1 and the number of channels (Hoyer-square: Yang et al. 2020,
arXiv 1908.09979). Two layers' numbers multiplied are what the convolution between them costs, as in MorphNet
(Gordon et al. 2018, arXiv 1711.06798). The kernels of channels that count no more are decayed, so that pruning takes
their weights first.

For chains of convolutions, each with a BatchNorm behind it; a branch's channels are priced by the convolution before.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

import lotcal_tf
from lotcal_tf.errors import UsageError

# Added while all channels count alike; from there in proportion to multiplications and weights.
STRENGTH = 4.0
# A scale below this share of its layer's mean counts less, at 0 not at all …
WORTHLESS = 0.1
# … and its channel's kernel is decayed, by at most this times its squared weights.
DECAY = 0.1


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


class Slimming(lotcal_tf.Strategy):
    """Cross-entropy, `STRENGTH` times the network's cost, and `DECAY` for worthless kernels.

    Logs `cost` besides.
    """

    log_names = (*lotcal_tf.Strategy.log_names, "cost")

    def __init__(self, network: Any, **hyperparameters: Any) -> None:
        """See `Strategy`; raises UsageError where the network has nothing to slim."""
        super().__init__(network, **hyperparameters)
        blocks(network)  # Here, so that it is told before anything is trained.

    def train_step(self, data: Any) -> dict[str, "tf.Tensor"]:
        """One step; see `Strategy.train_step`."""
        inputs, labels = data
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            price = cost(self.network)
            slim = STRENGTH * price + DECAY * worthless(self.network)
            loss = tf.reduce_mean(losses) + self.penalty() + slim
        return self.descend(tape, loss, labels, logits) | {"cost": price}
