"""A ticket's temperature, and folding it into the last layer, so that the softmax is calibrated."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.calibration.post_hoc import fit_temperature
from lotcal_tf.compat import keras
from lotcal_tf.errors import ExportMismatch, UsageError
from lotcal_tf.formats import tflite
from lotcal_tf.formats.batches import spread
from lotcal_tf.formats.format import PROBABILITIES, Material
from lotcal_tf.formats.tflite_file import flatbuffer
from lotcal_tf.lottery.ticket import Ticket
from lotcal_tf.pruning import masking

# Examples on which a file's logits are held against what they were before they were divided.
_CHECKED = 500


def temperature_of(ticket: Ticket) -> float:
    """The temperature that a ticket's level was given, fitted on validation data.

    Raises:
      UsageError: its record holds none.
    """
    if "temperature" not in ticket.record:
        raise UsageError(
            f"the ticket of level {ticket.level} records no temperature: take its raw logits, or let "
            "its level be trained again"
        )
    return float(ticket.record["temperature"])


def fold_temperature(model: "keras.Model", temperature: float) -> None:
    """Divides the last layer's weights and biases by T, in place: logits become logits / T.

    Every zero stays a zero, and nothing is added to what the network computes.

    Args:
      model: plain; its logits come straight from a linear layer.
      temperature: T > 0.

    Raises:
      UsageError: the logits are not what a linear last layer gives; the model is as it was.
    """
    last = masking.output_layer(model)
    before = masking.values(model)
    examples = np.random.default_rng(0).normal(size=(8, *model.input_shape[1:])).astype("float32")
    wanted = model(examples, training=False).numpy() / temperature
    scaled = {
        name: value / np.float32(temperature) if name.rpartition("/")[0] == last else value
        for name, value in before.items()
    }
    masking.assign(model, scaled)
    found = model(examples, training=False).numpy()
    if not np.allclose(found, wanted, rtol=1e-4, atol=1e-5):
        masking.assign(model, before)
        raise UsageError(
            f"layer {last!r} is not a linear last layer: the temperature cannot be folded into it; "
            "export raw logits and divide them by the temperature"
        )


def refit(path: Path, material: Material) -> float:
    """Fits a temperature to what a written `.tflite` file gives, and folds it into that file.

    Quantisation moves logits, so the ticket's own temperature need not fit the file. No weight is
    quantised anew: see `flatbuffer.divide_logits`.

    Args:
      path: the file, of logits or probabilities; replaced.
      material: with validation data.

    Returns:
      T, which the file's logits have been divided by, beside what was folded in before.

    Raises:
      UsageError: there are no validation data.
      ExportMismatch: the file's new logits are not the old ones divided by T; it is as it was.
    """
    inputs, labels = material.of_validation("a quantised file's temperature")
    before, step = _log_probabilities(path, inputs)
    temperature = fit_temperature(labels, before)
    work = path.with_name(f".{path.name}.new")
    try:
        work.write_bytes(flatbuffer.divide_logits(path.read_bytes(), temperature))
        places = spread(len(inputs), _CHECKED)
        after, _ = _log_probabilities(work, inputs[places])
        wanted = before[places] / temperature
        wanted -= np.log(np.exp(wanted).sum(-1, keepdims=True))
        # Rounding may go to the neighbouring number. Tiny probabilities have no digits left.
        likely = wanted > -20
        limit = step / temperature + 2e-3 * max(1.0, float(np.abs(wanted[likely]).max(initial=0)))
        if not (np.abs(after - wanted)[likely] <= limit).all():
            raise ExportMismatch(
                f"{path.name}: the temperature cannot be folded into its last layer: export raw logits"
            )
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)
    return temperature


def _log_probabilities(path: Path, inputs: NDArray[np.float32]) -> tuple[NDArray, float]:
    """The logarithms `(N, K)` of what a file holds for probable, and the step of its logits."""
    runner = tflite.Runner(path)
    given = runner(inputs).astype(np.float64)
    if runner.output == PROBABILITIES:
        given = np.log(np.maximum(given, np.finfo(np.float32).tiny))
    given -= given.max(-1, keepdims=True)
    normed = given - np.log(np.exp(given).sum(-1, keepdims=True))
    return normed, 2 * flatbuffer.logit_step(path.read_bytes())
