"""The optimizers of Keras by name, and which fields apply to each. No TensorFlow here.

A test compares the names with those of the installed Keras.
"""

import re

# The names of the classes in `keras.optimizers`, in lower case.
OPTIMIZERS = (
    *("adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw"),
    *("ftrl", "lion", "nadam", "rmsprop", "sgd"),
)

# Their constructors take `momentum`; that of SGD takes `nesterov`, too.
WITH_MOMENTUM = ("rmsprop", "sgd")

# Their papers define decoupled weight decay: the weights shrink by rate × decay at each step, and
# the gradient stays as it is. All others get L2 decay, which is added to the gradient.
WITH_DECOUPLED_DECAY = ("adamw", "lion")


def optimizer(value: str) -> str | None:
    """A check: the name of an optimizer of Keras, or `module:Class`."""
    if value in OPTIMIZERS or is_custom(value):
        return None
    return f"choose one of {', '.join(OPTIMIZERS)}, or module:Class"


def is_custom(value: str) -> bool:
    """Whether a name is that of a custom class, `module:Class`."""
    return re.fullmatch(r"[\w.]+:[\w.]+", value) is not None
