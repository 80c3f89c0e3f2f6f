"""A ticket's temperature, and folding it into the last layer, so that the softmax is calibrated."""

import numpy as np

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.lottery.ticket import Ticket
from lotcal_tf.pruning import masking


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
