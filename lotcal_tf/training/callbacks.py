"""Which Keras callbacks a training run accepts."""

from collections.abc import Iterable
from typing import Any

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError

# Keras marks its own, empty methods with `_is_default`.
_BATCH_METHODS = (
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_batch_begin",
    "on_batch_end",
)


def check_callbacks(callbacks: Iterable[Any]) -> None:
    """Checks that every callback can be called.

    Many training steps run inside one compiled function, so nothing can be called between them.
    Keras's own callbacks that can work per batch, such as `ModelCheckpoint`, are accepted with
    settings by which they only work per epoch.

    Args:
      callbacks: the user's callbacks.

    Raises:
      UsageError: one of them is not an instance of tf_keras's `Callback`, or it needs to be called
        at every batch of the training.
    """
    for callback in callbacks:
        kind = callback if isinstance(callback, type) else type(callback)
        if not isinstance(callback, keras.callbacks.Callback):
            raise UsageError(f"callbacks: {kind.__name__} {_reason(kind, callback)}")
        if callback._implements_train_batch_hooks():
            overridden = [
                name
                for name in _BATCH_METHODS
                if not getattr(getattr(callback, name), "_is_default", False)
            ]
            raise UsageError(
                f"callbacks: {kind.__name__} has {' and '.join(overridden)}, but training steps "
                "run inside one compiled function: use on_epoch_end"
            )


def _reason(kind: type, callback: Any) -> str:
    if callback is kind:
        return "is a class: give an instance of it"
    if any(base.__module__.partition(".")[0] == "keras" for base in kind.__mro__):
        return "is a Keras 3 callback: derive it from tf_keras.callbacks.Callback"
    return "is not a Keras callback: derive it from tf_keras.callbacks.Callback"
