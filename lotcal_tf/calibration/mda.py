"""`mda`: the batch's mean prediction is held to the class prior."""

from typing import Any

import tensorflow as tf

from lotcal_tf.calibration import losses
from lotcal_tf.calibration.strategy import Logs, Strategy


class MarginalDistributionAlignment(Strategy):
    """Minimises `losses.mda`; hyperparameters `calib_weight` and `prior`."""

    batch_wide = True

    def train_step(self, data: Any) -> Logs:
        """One step; see `Strategy.train_step`."""
        inputs, labels = data
        settings = {"weight": self.hyper["calib_weight"], "prior": self.hyper["prior"]}
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            loss = losses.mda(labels, logits, **settings) + self.penalty()
        return self.descend(tape, loss, labels, logits)
