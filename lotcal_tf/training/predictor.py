"""Computes the logits of whole splits with a compiled function."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.data.splits import Split
from lotcal_tf.inputs import cast, padded, specs_of
from lotcal_tf.models.stateless_dropout import Passes
from lotcal_tf.seeds import named_seed, step_seed
from lotcal_tf.training import programs

# How many examples are predicted at once: many for dense networks, fewer for convolutional ones,
# whose feature maps need more memory.
PREDICT_EXAMPLES = {"xla": 5000, "graph": 500}
# How many of them a program of XLA computes at once: their activations stay in the processor's cache.
BLOCK_EXAMPLES = 1000


class Predictor:
    """Computes a network's logits for whole splits. It is compiled once per batch size.

    Args:
      network: returns logits `(N, K)`.
      plan: `xla` or `graph`.
      passes: if 0, dropout is off. Otherwise the number of stochastic passes; the logarithm of
        their mean probability takes the place of the logits.
      seed: seed of the passes. Every split and level gets the same dropout masks.
      batch_size: examples in a batch. Default: `PREDICT_EXAMPLES` of the plan.

    Attributes:
      logits: the compiled function. It returns the logits of a batch of inputs.
    """

    def __init__(
        self,
        network: "keras.Model",
        plan: str,
        passes: int = 0,
        seed: int = 0,
        batch_size: int | None = None,
    ) -> None:
        self.batch_size = batch_size or PREDICT_EXAMPLES[plan]
        stochastic = Passes(network, passes) if passes else None
        specs = specs_of(network)
        pass_seed = tf.constant(named_seed(seed, "mc_eval"), tf.int32)

        def forward(inputs: Any) -> "tf.Tensor":
            return tf.cast(network(inputs, training=False), tf.float32)

        def in_blocks(inputs: Any) -> "tf.Tensor":
            count = tf.nest.flatten(inputs)[0].shape[0]
            if count is None or count % BLOCK_EXAMPLES or count == BLOCK_EXAMPLES:
                return forward(inputs)
            blocks = tf.nest.map_structure(
                lambda x: tf.reshape(x, [-1, BLOCK_EXAMPLES, *x.shape[1:]]), inputs
            )
            found = tf.map_fn(forward, blocks, fn_output_signature=tf.float32)
            return tf.reshape(found, [count, found.shape[-1]])

        def logits(inputs: Any) -> "tf.Tensor":
            inputs = cast(inputs, specs)
            if stochastic is None:
                return in_blocks(inputs) if plan == "xla" else forward(inputs)
            with step_seed(pass_seed):
                each = tf.cast(stochastic(inputs, training=False), tf.float32)
            log_p = tf.nn.log_softmax(each)
            return tf.reduce_logsumexp(log_p, 0) - math.log(passes)

        self.logits = tf.function(logits, jit_compile=plan == "xla")

    def __call__(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Returns labels `(N,)` and logits `(N, K)` of all examples of the split, in its order."""
        labels, logits = zip(*self.batches(split), strict=True)
        return np.concatenate(labels), np.concatenate(logits)

    def batches(self, split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Gives labels and logits of a split in batches."""
        most = split.at_once(self.batch_size)
        for inputs, labels in split.in_order(most):
            count = labels.shape[0]
            # A smaller batch is padded to the next power of 2: few shapes, so few compilations.
            size = min(most, 1 << (count - 1).bit_length())
            logits = programs.call(self.logits, padded(inputs, size - count))
            yield labels.numpy(), logits.numpy()[:count]
