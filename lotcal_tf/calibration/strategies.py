"""The built-in calibration strategies: each is one `train_step`; the losses are in `losses`."""

from typing import Any

import tensorflow as tf

from lotcal_tf.calibration import losses
from lotcal_tf.calibration.strategy import Logs, Strategy
from lotcal_tf.compat import keras
from lotcal_tf.config import hyperparameters
from lotcal_tf.errors import FieldError
from lotcal_tf.seeds import draw_seed, random_bits


class CrossEntropy(Strategy):
    """Minimises the batch's mean cross-entropy."""

    takes_weights = True

    def train_step(self, data: Any) -> Logs:
        """See `Strategy.train_step`."""
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            loss = losses.mean(losses.cross_entropy(labels, logits), weights) + self.penalty()
        return self.descend(tape, loss, labels, logits)


class VarianceWeighted(Strategy):
    """Minimises `losses.vwcc`."""

    Hyperparameters = hyperparameters.Vwcc
    takes_weights = True

    def train_step(self, data: Any) -> Logs:
        """See `Strategy.train_step`."""
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            logits = self.stochastic(inputs)
            loss = losses.mean(losses.vwcc(labels, logits), weights) + self.penalty()
        return self.descend(tape, loss, labels, logits)


class Mixup(Strategy):
    """Cross-entropy of λx_i + (1 − λ)x_j with labels λy_i + (1 − λ)y_j (arXiv 1710.09412).

    Pairs come from a random permutation of the batch; each example has its own λ ~ Beta(a, a). With
    weights w of examples, the loss is λ·w_i·CE(y_i) + (1 − λ)·w_j·CE(y_j).

    Raises:
      FieldError: an input of the network is an integer, e.g. a token, which cannot be mixed.
    """

    Hyperparameters = hyperparameters.Mixup
    batch_wide = True  # An example may be mixed with one on another device.
    takes_weights = True

    def __init__(self, network: "keras.Model", **given: Any) -> None:
        super().__init__(network, **given)
        for x in network.inputs:
            if not x.dtype.is_floating or _read_as_tokens(x):
                problem = (
                    f"mixes inputs, and input {x.node.layer.name!r} of the model holds integers: "
                    "choose another strategy"
                )
                raise FieldError("calib", "mixup", problem)

    def train_step(self, data: Any) -> Logs:
        """See `Strategy.train_step`."""
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        labels = tf.one_hot(labels, self.network.output_shape[-1])
        targets = labels if weights is None else labels * weights[:, None]
        inputs, (labels, targets) = self.mix(inputs, (labels, targets))
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            # Cross-entropy is linear in the labels, and so in their weights.
            loss = tf.reduce_mean(losses.cross_entropy(targets, logits)) + self.penalty()
        return self.descend(tape, loss, labels, logits)

    def mix(self, inputs: Any, labels: Any) -> tuple[Any, Any]:
        """Mixes each example of a batch with another one.

        Args:
          inputs: `(N, …)` float, or nested dictionaries and tuples of such tensors.
          labels: `(N, K)` float, e.g. one-hot; likewise.

        Returns:
          Mixed inputs and labels of the same structure and shapes.
        """
        count = tf.nest.flatten(inputs)[0].shape[0]
        keys = random_bits(draw_seed("mixup/pairs"), count)
        order = tf.argsort(tf.bitcast(keys, tf.int64))
        # Beta draws are quantiles of uniform ones: `Beta.sample` gives other numbers if compiled.
        bits = random_bits(draw_seed("mixup/share"), count)
        bits = tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64))
        uniform = (tf.cast(tf.bitcast(bits, tf.int64), tf.float32) + 0.5) / 2.0**24
        # Imported here because TFP takes a second, and `compat` must be imported before it.
        import tensorflow_probability as tfp

        share = tfp.distributions.Beta(self.hyper.mixup_a, self.hyper.mixup_a).quantile(uniform)
        mixed: tuple[Any, Any] = tf.nest.map_structure(
            lambda values: _mixture(share, values, order), (inputs, labels)
        )
        return mixed


def _read_as_tokens(x: "keras.KerasTensor") -> bool:
    """Whether an `Embedding` reads an input, whatever type the input declares."""
    readers = (node.outbound_layer for node in x.node.layer.outbound_nodes)
    # A masked layer is inside its wrapper.
    return any(isinstance(getattr(r, "layer", r), keras.layers.Embedding) for r in readers)


def _mixture(share: "tf.Tensor", values: "tf.Tensor", order: "tf.Tensor") -> "tf.Tensor":
    share = tf.reshape(share, [-1] + [1] * (values.shape.rank - 1))
    return share * values + (1 - share) * tf.gather(values, order)


class MarginalDistributionAlignment(Strategy):
    """Minimises `losses.mda`.

    Weights of examples apply to the cross-entropy, not to the marginal distribution of the batch.

    Raises:
      FieldError: the prior does not have one share per class of the network.
    """

    Hyperparameters = hyperparameters.Mda
    takes_weights = True
    batch_wide = True

    def __init__(self, network: "keras.Model", **given: Any) -> None:
        super().__init__(network, **given)
        prior, classes = self.hyper.prior, network.output_shape[-1]
        if prior and len(prior) != classes:
            problem = (
                f"has {len(prior)} shares, and the data has {classes} classes: give one per class"
            )
            raise FieldError("prior", prior, problem)

    def train_step(self, data: Any) -> Logs:
        """See `Strategy.train_step`."""
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        hyper = self.hyper
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            loss = losses.mda(
                labels,
                logits,
                weight=hyper.calib_weight,
                prior=hyper.prior,
                example_weights=weights,
            )
            loss += self.penalty()
        return self.descend(tape, loss, labels, logits)


def _lwcc_settings(hyper: Any) -> dict[str, Any]:
    """The arguments of `losses.lwcc`."""
    return {"weight": hyper.calib_weight, "form": hyper.lwcc_form}


class LikelihoodWeighted(Strategy):
    """Minimises `losses.lwcc`."""

    Hyperparameters = hyperparameters.Lwcc
    takes_weights = True

    def train_step(self, data: Any) -> Logs:
        """See `Strategy.train_step`."""
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            each = losses.lwcc(labels, logits, **_lwcc_settings(self.hyper))
            loss = losses.mean(each, weights) + self.penalty()
        return self.descend(tape, loss, labels, logits)


class LikelihoodWeightedStochastic(Strategy):
    """Minimises `losses.lwcc_si`."""

    Hyperparameters = hyperparameters.LwccSi
    takes_weights = True

    def train_step(self, data: Any) -> Logs:
        """See `Strategy.train_step`."""
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            logits = self.stochastic(inputs)
            each = losses.lwcc_si(labels, logits, **_lwcc_settings(self.hyper))
            loss = losses.mean(each, weights) + self.penalty()
        return self.descend(tape, loss, labels, logits)


class NormalisedBinAssignment(Strategy):
    """Minimises `losses.nba`.

    Weights of examples apply to the cross-entropy, not to the bins of the batch.
    """

    Hyperparameters = hyperparameters.Nba
    takes_weights = True

    def train_step(self, data: Any) -> Logs:
        """See `Strategy.train_step`."""
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        settings = {
            "weight": self.hyper.calib_weight,
            "bins": self.hyper.nba_bins,
            "width": self.hyper.nba_width,
        }
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            loss = losses.nba(labels, logits, example_weights=weights, **settings) + self.penalty()
        return self.descend(tape, loss, labels, logits)
