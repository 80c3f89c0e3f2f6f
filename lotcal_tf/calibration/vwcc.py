"""`vwcc`: what stochastic passes disagree about is drawn to the uniform distribution."""

from typing import Any

import tensorflow as tf

from lotcal_tf.calibration import losses
from lotcal_tf.calibration.strategy import Logs, Strategy


class VarianceWeighted(Strategy):
    """Minimises `losses.vwcc`; hyperparameters `passes` and the dropout's."""

    def train_step(self, data: Any) -> Logs:
        """One step; see `Strategy.train_step`."""
        inputs, labels = data
        with tf.GradientTape() as tape:
            logits = self.stochastic(inputs)
            loss = tf.reduce_mean(losses.vwcc(labels, logits)) + self.penalty()
        return self.descend(tape, loss, labels, logits)
