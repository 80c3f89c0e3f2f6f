"""`nba`: confidences in the extreme bins cost."""

from typing import Any

import tensorflow as tf

from lotcal_tf.calibration import losses
from lotcal_tf.calibration.strategy import Logs, Strategy


class NormalisedBinAssignment(Strategy):
    """Minimises `losses.nba`; hyperparameters `calib_weight`, `nba_bins` and `nba_width`."""

    def train_step(self, data: Any) -> Logs:
        """One step; see `Strategy.train_step`."""
        inputs, labels = data
        settings = {
            "weight": self.hyper["calib_weight"],
            "bins": self.hyper["nba_bins"],
            "width": self.hyper["nba_width"],
        }
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            loss = losses.nba(labels, logits, **settings) + self.penalty()
        return self.descend(tape, loss, labels, logits)
