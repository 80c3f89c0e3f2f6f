"""`lwcc` and `lwcc_si`: what is wrong or unsure is drawn to the uniform distribution."""

from typing import Any

import tensorflow as tf

from lotcal_tf.calibration import losses
from lotcal_tf.calibration.strategy import Logs, Strategy


class LikelihoodWeighted(Strategy):
    """Minimises `losses.lwcc`; hyperparameter `calib_weight`."""

    def train_step(self, data: Any) -> Logs:
        """One step; see `Strategy.train_step`."""
        inputs, labels = data
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            each = losses.lwcc(labels, logits, weight=self.hyper["calib_weight"])
            loss = tf.reduce_mean(each) + self.penalty()
        return self.descend(tape, loss, labels, logits)


class LikelihoodWeightedStochastic(Strategy):
    """Minimises `losses.lwcc_si`; hyperparameters `calib_weight`, `passes` and the dropout's."""

    def train_step(self, data: Any) -> Logs:
        """One step; see `Strategy.train_step`."""
        inputs, labels = data
        with tf.GradientTape() as tape:
            logits = self.stochastic(inputs)
            each = losses.lwcc_si(labels, logits, weight=self.hyper["calib_weight"])
            loss = tf.reduce_mean(each) + self.penalty()
        return self.descend(tape, loss, labels, logits)
