"""Builds a built-in model for a data set: input layer, scaling of the inputs, network."""

import itertools
from collections.abc import Callable, Sequence

from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.errors import FieldError
from lotcal_tf.models.checks import check_images
from lotcal_tf.models.initial import redraw, with_starts
from lotcal_tf.models.precision import policy
from lotcal_tf.models.stateless_dropout import StrategyDropout

# Arguments of VarianceScaling. As in the papers, Kaiming normal is not truncated; Keras's `he_normal` is.
INITIALIZERS = {
    "glorot_normal": (1.0, "fan_avg", "truncated_normal"),
    "glorot_uniform": (1.0, "fan_avg", "uniform"),
    "kaiming_normal": (2.0, "fan_in", "untruncated_normal"),
    "kaiming_uniform": (2.0, "fan_in", "uniform"),
}


def build_model(
    name: str,
    shape: Sequence[int],
    classes: int,
    *,
    seed: int,
    initializer: str = "glorot_normal",
    use_bias: bool = True,
    bias_initializer: str = "zeros",
    norm_initializer: str = "ones",
    input_range: float = 1.0,
    input_mean: Sequence[float] = (),
    input_std: Sequence[float] = (),
    dropout_rate: float = 0.0,
    dropout_at: str = "blocks",
    precision: str = "float32",
) -> "keras.Model":
    """Builds a model that takes the raw inputs of a data set and returns logits.

    Scaling is part of the model, so that tickets and exported files also take raw inputs.

    Args:
      name: name of the model, e.g. `lenet_300_100`.
      shape: shape of one example.
      classes: number of classes.
      seed: seed of the initial weights.
      initializer: a name of `INITIALIZERS`, of the kernels.
      use_bias, bias_initializer, norm_initializer: see `initial.with_starts`.
      input_range: largest value that inputs can take; inputs are divided by it.
      input_mean, input_std: mean and standard deviation of the inputs after this division; one value,
        or one per channel. Empty: inputs are not standardised.
      dropout_rate: rate of the dropout layers to insert, in [0, 1); 0 inserts none.
      dropout_at: `blocks`: after each block; `head`: before the classifier only.
      precision: the dtype policy of its layers, by the name of Keras.

    Raises:
      FieldError: the network needs images, or larger images; or mean and standard deviation do not
        fit the channels of the inputs.
    """
    family, arguments = registry.model(name)
    if family.smallest:
        check_images(name, shape, family.smallest)
    factor, mode, distribution = INITIALIZERS[initializer]

    def draw() -> "keras.initializers.Initializer":
        return keras.initializers.VarianceScaling(factor, mode, distribution)

    dropout = _dropout(dropout_rate, "block" if dropout_at == "blocks" else "head")
    with policy(precision):
        inputs = keras.Input(tuple(shape), name="inputs")
        x = _scaled(inputs, input_range, input_mean, input_std)
        model = keras.Model(
            inputs, family.load()(x, classes, draw, dropout, **arguments), name=name
        )
        if (use_bias, bias_initializer, norm_initializer) != (True, "zeros", "ones"):
            model = with_starts(model, use_bias, bias_initializer, norm_initializer)
        return redraw(model, seed, "initial")


def _dropout(rate: float, wanted: str) -> "Callable[[str, keras.KerasTensor], keras.KerasTensor]":
    """A function that inserts a dropout layer at the places `wanted`; with rate 0 at none."""
    numbers = itertools.count(1)

    def dropout(place: str, x: "keras.KerasTensor") -> "keras.KerasTensor":
        if not rate or place != wanted:
            return x
        # The seed of a mask depends on the layer's name. An automatic name would depend on the models
        # built before in this process.
        return StrategyDropout(rate, name=f"dropout_{next(numbers)}")(x)

    return dropout


def _scaled(
    x: "keras.KerasTensor", input_range: float, mean: Sequence[float], std: Sequence[float]
) -> "keras.KerasTensor":
    """Divides inputs by their range and standardises them; no layer is added if nothing changes."""
    # Of images the channels, of a table the features.
    channels = x.shape[-1] if len(x.shape) in (2, 4) else 1
    if len(mean) not in (0, 1, channels):
        kind = "feature" if len(x.shape) == 2 else "channel"
        problem = f"the inputs have {channels} {kind}(s): give one value, or one per {kind}"
        raise FieldError("input_mean", tuple(mean), problem)
    mean, std = (list(mean) or [0.0]), (list(std) or [1.0])
    scale = [1.0 / (input_range * s) for s in std]
    offset = [-m / s for m, s in zip(mean, std, strict=True)]
    if all(s == 1.0 for s in scale) and not any(offset):
        return x
    return keras.layers.Rescaling(_single(scale), _single(offset), name="scaling")(x)


def _single(numbers: list[float]) -> float | list[float]:
    return numbers[0] if len(numbers) == 1 else numbers
