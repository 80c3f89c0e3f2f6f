"""The built-in calibration strategies: each is one `train_step`; the losses are in `losses`."""

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from lotcal_tf import compat  # noqa: F401  (before TFP, whose import fails otherwise)
from lotcal_tf.calibration import losses
from lotcal_tf.calibration.strategy import Logs, Strategy
from lotcal_tf.seeds import draw_seed, random_bits


class CrossEntropy(Strategy):
    """Minimises the batch's mean cross-entropy."""

    def train_step(self, data: Any) -> Logs:
        """One step; see `Strategy.train_step`."""
        inputs, labels = data
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            loss = tf.reduce_mean(losses.cross_entropy(labels, logits)) + self.penalty()
        return self.descend(tape, loss, labels, logits)


class VarianceWeighted(Strategy):
    """Minimises `losses.vwcc`; hyperparameters `passes` and the dropout's."""

    def train_step(self, data: Any) -> Logs:
        """One step; see `Strategy.train_step`."""
        inputs, labels = data
        with tf.GradientTape() as tape:
            logits = self.stochastic(inputs)
            loss = tf.reduce_mean(losses.vwcc(labels, logits)) + self.penalty()
        return self.descend(tape, loss, labels, logits)


class Mixup(Strategy):
    """Cross-entropy of λx_i + (1 − λ)x_j against λy_i + (1 − λ)y_j; hyperparameter `mixup_a`.

    The pairs come from a permutation of the batch, and each example has a λ ~ Beta(a, a) of its own.
    """

    batch_wide = True  # An example of one device may be mixed with one of another.

    def train_step(self, data: Any) -> Logs:
        """One step; see `Strategy.train_step`."""
        inputs, labels = data
        inputs, labels = self.mix(inputs, tf.one_hot(labels, self.network.output_shape[-1]))
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            loss = tf.reduce_mean(losses.cross_entropy(labels, logits)) + self.penalty()
        return self.descend(tape, loss, labels, logits)

    def mix(self, inputs: "tf.Tensor", labels: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        """Mixes a batch with itself, permuted.

        Args:
          inputs: `(N, …)` float.
          labels: `(N, K)` float.
        """
        count = inputs.shape[0]
        keys = random_bits(draw_seed("mixup/pairs"), count)
        order = tf.argsort(tf.bitcast(keys, tf.int64))
        # The quantile of a uniform draw: `Beta.sample` gives other numbers compiled than not.
        bits = random_bits(draw_seed("mixup/share"), count)
        bits = tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64))
        uniform = (tf.cast(tf.bitcast(bits, tf.int64), tf.float32) + 0.5) / 2.0**24
        share = tfp.distributions.Beta(self.hyper["mixup_a"], self.hyper["mixup_a"]).quantile(
            uniform
        )
        return _mixture(share, inputs, order), _mixture(share, labels, order)


def _mixture(share: "tf.Tensor", values: "tf.Tensor", order: "tf.Tensor") -> "tf.Tensor":
    share = tf.reshape(share, [-1] + [1] * (values.shape.rank - 1))
    return share * values + (1 - share) * tf.gather(values, order)


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
