"""`none`: plain cross-entropy, what the calibrated strategies are compared with."""

from typing import Any

import tensorflow as tf

from lotcal_tf.calibration.losses import cross_entropy
from lotcal_tf.calibration.strategy import Logs, Strategy


class CrossEntropy(Strategy):
    """Minimises the batch's mean cross-entropy."""

    def train_step(self, data: Any) -> Logs:
        """One step; see `Strategy.train_step`."""
        inputs, labels = data
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            loss = tf.reduce_mean(cross_entropy(labels, logits)) + self.penalty()
        return self.descend(tape, loss, labels, logits)
