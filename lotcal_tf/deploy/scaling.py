"""Temperatures: folding one into the last layer, so that the softmax of the logits is calibrated."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.calibration.post_hoc import chosen_temperature
from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.formats.batches import spread
from lotcal_tf.formats.format import Format, Material, Runner
from lotcal_tf.formats.outputs import PROBABILITIES
from lotcal_tf.inputs import by_name, count, select, single_or_list, specs_of
from lotcal_tf.pruning import masking

# Examples on which the logits of a file are verified after they were divided.
_VERIFIED = 500


def fold_temperature(model: "keras.Model", temperature: float, examples: Any) -> None:
    """Divides the last layer's weights and biases by T, in place: logits become logits / T.

    Zeros stay zeros, and the network has no additional operation.

    Args:
      model: plain; its logits are the outputs of a linear layer.
      temperature: T > 0.
      examples: inputs `(n, …)`, see `lotcal_tf.inputs`, on which the new logits are verified.

    Raises:
      UsageError: the last layer is not linear; the model is then unchanged.
    """
    last = masking.output_layer(model)
    before = masking.values(model)
    given = single_or_list(list(by_name(examples, specs_of(model)).values()))
    expected = model(given, training=False).numpy() / temperature
    scaled = {
        name: value / np.float32(temperature) if name.rpartition("/")[0] == last else value
        for name, value in before.items()
    }
    masking.assign(model, scaled)
    outputs = model(given, training=False).numpy()
    if not np.allclose(outputs, expected, rtol=1e-4, atol=1e-5):
        masking.assign(model, before)
        raise UsageError(
            f"the temperature cannot be folded into layer {last!r}, which is not a linear last layer: "
            "choose --export_logits=raw (in Python: scaled=False) and divide the logits by the temperature"
        )


def refit(path: Path, file_format: Format, material: Material) -> float:
    """Fits a temperature to a written quantised file, and divides the file's logits by it.

    Quantisation changes the logits, so the ticket's temperature need not be right for the file. No
    weight is quantised again, see `Format.divide_logits`.

    Args:
      path: the file, which gives logits or probabilities; it is replaced.
      file_format: its format.
      material: with validation data.

    Returns:
      T, the divisor of the logits in addition to any temperature folded in before. 1, and the file is
      unchanged, if the format or its last layer cannot divide logits, e.g. a pooling layer, or if a
      fitted one would be chance, see `chosen_temperature`.

    Raises:
      UsageError: there is no validation data.
    """
    inputs, labels = material.of_validation("the temperature of a quantised file")
    before = _log_probabilities(file_format.runner(path), inputs)
    temperature = chosen_temperature(labels, before)
    content = None if temperature == 1 else file_format.divide_logits(path, temperature)
    if content is None:
        return 1.0
    step = 2 * file_format.logit_step(path)
    # The suffix stays, by which a file is recognised.
    work = path.with_name(f".new.{path.name}")
    try:
        work.write_bytes(content)
        sample = spread(count(inputs), _VERIFIED)
        after = _log_probabilities(file_format.runner(work), select(inputs, sample))
        expected = before[sample] / temperature
        expected -= np.log(np.exp(expected).sum(-1, keepdims=True))
        # Values may be rounded to the neighbouring integer. Tiny probabilities have no digits left.
        likely = expected > -20
        largest = float(np.abs(expected[likely]).max(initial=0))
        limit = step / temperature + 2e-3 * max(1.0, largest)
        if not (np.abs(after - expected)[likely] <= limit).all():
            return 1.0
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)
    return temperature


def _log_probabilities(runner: Runner, inputs: Any) -> NDArray[np.float64]:
    """The logarithms `(N, K)` of a file's probabilities."""
    outputs = runner(inputs).astype(np.float64)
    if runner.output == PROBABILITIES:
        outputs = np.log(np.maximum(outputs, np.finfo(np.float32).tiny))
    outputs -= outputs.max(-1, keepdims=True)
    return outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
