"""Losses as pure functions of labels and logits, in float32, finite for logits of ±1e4."""

import tensorflow as tf


def cross_entropy(labels: "tf.Tensor", logits: "tf.Tensor") -> "tf.Tensor":
    """Cross-entropy −log p[y] of each example.

    Args:
      labels: `(N,)`, whole numbers in [0, K).
      logits: `(N, K)`.

    Returns:
      `(N,)` float32, 0 or more.
    """
    logits = tf.cast(logits, tf.float32)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
