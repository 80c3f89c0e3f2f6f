"""`slimming`: drives whole channels to zero, so that exported networks are smaller and faster.

A pruned network is faster if whole channels are dead, and magnitude pruning leaves few of these.
Network slimming (Liu et al. 2017, arXiv 1708.06519) adds the L1 norm of BatchNorm's scales to the
loss. That shrinks all scales of a layer equally, which the next BatchNorm reverses. Here the loss
contains the effective number of scales in a layer, which does not depend on a common factor:
(Σ|γ|)² / Σγ², between 1 and the number of channels (Hoyer-square: Yang et al. 2020, arXiv
1908.09979). The cost of a convolution is the product of these numbers before and after it, as in
MorphNet (Gordon et al. 2018, arXiv 1711.06798). The kernels of channels with small scales decay, so
that pruning removes their weights first.

The strategy is meant for sequences of convolutions that are each followed by a BatchNorm. In a branch,
the cost of a convolution takes its inputs from the previous convolution in layer order.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from lotcal_tf.calibration.losses import cross_entropy, mean
from lotcal_tf.calibration.strategy import Logs, Strategy
from lotcal_tf.compat import keras
from lotcal_tf.config import hyperparameters
from lotcal_tf.errors import UsageError

# Kernels decay for scales below this share of their layer's mean; the smaller the scale, the more.
WORTHLESS = 0.1


@dataclass(frozen=True)
class Block:
    """A convolution and the BatchNorm that follows it.

    Attributes:
      kernel: `(height, width, inputs, channels)`.
      scales: γ of the BatchNorm, `(channels,)`.
      places: number of pixels in the output of the convolution.
    """

    kernel: "tf.Variable"
    scales: "tf.Variable"
    places: int


def blocks(network: Any) -> list[Block]:
    """The convolutions of a network that are followed by a BatchNorm, masked or not, in layer order.

    Raises:
      UsageError: the network has none.
    """
    found, kernel = [], None
    for layer in network.layers:
        inner, scales = getattr(layer, "layer", layer), getattr(layer, "gamma", None)
        own = getattr(inner, "kernel", None)
        if own is not None:
            # The kernel of a transposed convolution has its channels in another place.
            plain = len(own.shape) == 4 and "Transpose" not in type(inner).__name__
            kernel = own if plain else None
        elif any("kernel" in weight.name for weight in layer.weights):
            kernel = None  # of a separable convolution, say
        elif kernel is not None and scales is not None:
            if len(layer.output_shape) == 4:
                found.append(Block(kernel, scales, _pixels(layer)))
            kernel = None
    if not found:
        raise UsageError(
            f"calib=slimming: model {network.name!r} has no convolution followed by BatchNorm, and at least one is "
            "needed; choose another model or strategy"
        )
    return found


def _pixels(layer: Any) -> int:
    _, height, width, _ = layer.output_shape
    if height is None or width is None:
        raise UsageError(
            f"calib=slimming: the output of layer {layer.name!r} is of open size, and the cost of a channel is its "
            "number of pixels: give the model a fixed input size"
        )
    return int(height * width)


def effective(scales: Any) -> "tf.Tensor":
    """The effective share of scales `(channels,)`: 1 if all are equal, 1 / channels if one is not 0."""
    sizes = tf.abs(scales)
    squares = tf.reduce_sum(sizes**2) + 1e-12
    return tf.reduce_sum(sizes) ** 2 / squares / float(scales.shape[0])


def cost(network: Any) -> "tf.Tensor":
    """The cost of the effective channels relative to that of all channels, in (0, 1].

    Half of it is multiplications, which determine latency, and half is weights, which determine size.
    """
    found = blocks(network)
    weights = np.array([np.prod(block.kernel.shape) for block in found], "float64")
    products = weights * [block.places for block in found]
    priced = (weights / weights.sum() + products / products.sum()) / 2
    shares = [effective(block.scales) for block in found]
    pairs = zip(priced, [1.0, *shares[:-1]], shares, strict=True)
    return tf.add_n([float(price) * before * own for price, before, own in pairs])


def worthless(network: Any) -> "tf.Tensor":
    """The sum of squared kernels of channels with small scales, with a weight in [0, 1] per channel."""
    sums = []
    for block in blocks(network):
        sizes = tf.abs(tf.stop_gradient(tf.convert_to_tensor(block.scales)))
        less = tf.nn.relu(1.0 - sizes / (WORTHLESS * tf.reduce_mean(sizes) + 1e-12))
        sums.append(tf.reduce_sum(less * tf.reduce_sum(tf.square(block.kernel), axis=(0, 1, 2))))
    return tf.add_n(sums)


class Slimming(Strategy):
    """Cross-entropy plus the network's cost and the decay of unused kernels; also logs `cost`.

    Raises:
      UsageError: no convolution of the network is followed by a BatchNorm.
    """

    Hyperparameters = hyperparameters.Slimming
    takes_weights = True
    log_names = (*Strategy.log_names, "cost")

    def __init__(self, network: Any, **given: Any) -> None:
        super().__init__(network, **given)
        blocks(network)  # Raises before training starts.

    def train_step(self, data: Any) -> Logs:
        """See `Strategy.train_step`."""
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            price = cost(self.network)
            loss = mean(cross_entropy(labels, logits), weights) + self.penalty()
            loss += self.hyper.slimming_strength * price
            loss += self.hyper.slimming_decay * worthless(self.network)
        return self.descend(tape, loss, labels, logits) | {"cost": price}
