"""A strategy of one's own for tickets that are really faster: it makes whole channels worthless.

PYTHONPATH=tools python -m lotcal_tf.train --dataset=cifar10 --model=vgg19_16 --calib=slimming:Slimming …

A pruned network is faster where whole channels are dead, and magnitude pruning alone leaves few. Network
slimming (Liu et al. 2017, arXiv 1708.06519) adds the L1 norm of BatchNorm's scales to the loss; here each channel
pays by what it costs, as in MorphNet (Gordon et al. 2018, arXiv 1711.06798). Scales that do not help fall to about 0.
The gradients of the weights before them fall too, so that weight decay shrinks these (at once under Adam, whose
steps do not shrink with the gradient), and pruning takes them first.
"""

from typing import Any

import numpy as np
import tensorflow as tf

import lotcal_tf

# Added for each unit of scale of a channel of median cost.
STRENGTH = 5e-3


def scales(network: Any) -> tuple[list[Any], list[float]]:
    """The scales `(channels,)` of each BatchNorm over maps, and what one of its channels costs.

    The cost is that of multiplying it with the channels before and beside it at each place of its
    map, over the median of all layers.

    Raises:
      ValueError: there is no BatchNorm over maps.
    """
    found, costs, before = [], [], int(network.input_shape[-1])
    for layer in network.layers:
        if getattr(layer, "gamma", None) is not None and len(layer.output_shape) == 4:
            _, height, width, own = layer.output_shape
            found.append(layer.gamma)
            costs.append(height * width * (before + own))
            before = own
    if not found:
        raise ValueError("slimming needs BatchNorm after convolutions: the network has none")
    return found, [cost / float(np.median(costs)) for cost in costs]


class Slimming(lotcal_tf.Strategy):
    """Cross-entropy, and `STRENGTH` for each scale, by its channel's cost."""

    def train_step(self, data: Any) -> dict[str, "tf.Tensor"]:
        """One step; see `Strategy.train_step`."""
        inputs, labels = data
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            priced = zip(*scales(self.network), strict=True)
            slim = tf.add_n([cost * tf.reduce_sum(tf.abs(gamma)) for gamma, cost in priced])
            loss = tf.reduce_mean(losses) + self.penalty() + STRENGTH * slim
        return self.descend(tape, loss, labels, logits)
