"""Which Keras callbacks a training run accepts, and how their state is kept over levels.

Keras's own callbacks start anew at each level, or only watch. A callback that carries state from one
level to the next has two more methods, as optimizers of PyTorch have them:

- `state_dict()` returns its state as JSON values;
- `load_state_dict(state)` sets it.

The state is stored with each finished level, and set when an interrupted run is continued.
"""

import dis
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import CodeType
from typing import Any

import numpy as np

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
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            problem = "would start a level from its backup; a run resumes by itself: leave it out"
            raise UsageError(f"callbacks: {kind.__name__} {problem}")
        if getattr(callback, "load_weights_on_restart", False):
            problem = "would start a level from its file: leave out load_weights_on_restart"
            raise UsageError(f"callbacks: {kind.__name__} {problem}")
        if any(pair in _RATE_AS_ATTRIBUTE for pair in _names(callback)):
            problem = "assigns to optimizer.learning_rate, which follows the schedule: use "
            problem += "self.model.optimizer.learning_rate.assign(…)"
            raise UsageError(f"callbacks: {kind.__name__} {problem}")
        if has_state(callback):
            _state(callback)  # Raises where it is not JSON.


def has_state(callback: Any) -> bool:
    """Whether a callback has `state_dict` and `load_state_dict`."""
    return all(callable(getattr(callback, n, None)) for n in ("state_dict", "load_state_dict"))


def states(callbacks: Iterable[Any]) -> list[dict[str, Any]]:
    """The states of those callbacks that have one, in order, as JSON values.

    Raises:
      UsageError: a state cannot be written as JSON.
    """
    return [{"class": _name(c), "state": _state(c)} for c in callbacks if has_state(c)]


def restore(callbacks: Iterable[Any], stored: Sequence[Mapping[str, Any]]) -> None:
    """Sets the stored states of callbacks; `check_resumable` has compared them."""
    for callback, found in zip(filter(has_state, callbacks), stored, strict=True):
        callback.load_state_dict(found["state"])


def check_resumable(
    callbacks: Sequence[Any], stored: Sequence[Mapping[str, Any]], finished: int
) -> None:
    """Checks that an interrupted run can be continued with these callbacks.

    Args:
      callbacks: the user's callbacks.
      stored: what `states` returned after the last finished level.
      finished: the number of finished levels.

    Raises:
      UsageError: the states are those of other callbacks, or a callback that stops the training or
        changes weights or the learning rate has no state that could be restored.
    """
    before, now = [s["class"] for s in stored], [_name(c) for c in callbacks if has_state(c)]
    begun = f"the {finished} finished level(s)"
    if before != now:
        names = [", ".join(names) or "none" for names in (before, now)]
        raise UsageError(
            f"callbacks: {begun} had those with state {names[0]}, here they are {names[1]}: pass the "
            "same callbacks, or choose another out"
        )
    for callback in callbacks:
        acts = _acts(callback)
        if acts and not has_state(callback):
            raise UsageError(
                f"callbacks: {type(callback).__name__} uses {', '.join(acts)}, and what it counted in "
                f"{begun} is lost: give it state_dict() and load_state_dict(state), or choose another "
                "out to begin again"
            )


def resume_within_level(callbacks: Sequence[Any], stored: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a level can be continued after some of its epochs with these callbacks.

    Keras's own callbacks that change the training, such as `ReduceLROnPlateau`, count within a level and
    have no state that could be restored: with them a level begins again.

    Args:
      callbacks: the user's callbacks.
      stored: what `states` returned after the last of those epochs.
    """
    same = [s["class"] for s in stored] == [_name(c) for c in callbacks if has_state(c)]
    return same and all(has_state(c) or not _acts(c, keras_too=True) for c in callbacks)


# What a callback does that changes the training: sets this attribute, or calls one of these.
_STOP = "stop_training"
_ACTING = (_STOP, "assign", "assign_add", "assign_sub", "load_weights", "set_value", "set_weights")
_RATE_AS_ATTRIBUTE = (("optimizer", "lr"), ("optimizer", "learning_rate"))


def _acts(callback: Any, keras_too: bool = False) -> list[str]:
    """The names of what a callback does that changes the training."""
    return sorted({name for _, name in _names(callback, keras_too) if name in _ACTING})


def _names(callback: Any, keras_too: bool = False) -> Iterator[tuple[str, str]]:
    """The attributes that a callback's code sets or calls, each with the name before it.

    Args:
      callback: the callback.
      keras_too: whether to read the code of its classes that are Keras's, too.
    """
    classes = [c for c in type(callback).__mro__ if c is not keras.callbacks.Callback]
    own = [vars(c) for c in classes if keras_too or c.__module__.partition(".")[0] != "tf_keras"]
    for values in (*own, vars(callback)):  # A LambdaCallback has its functions as attributes.
        for value in values.values():
            code = getattr(value, "__code__", None)
            if isinstance(code, CodeType):
                yield from _names_in(code)


def _names_in(code: CodeType) -> Iterator[tuple[str, str]]:
    before = ""
    for step in dis.get_instructions(code):
        if not isinstance(step.argval, str):
            continue
        stored = step.opname == "STORE_ATTR"
        # `stop_training` is also read, and a rate too; only setting them changes something.
        if stored or (step.argval in _ACTING and step.argval != _STOP):
            yield before, step.argval
        before = step.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _name(callback: Any) -> str:
    return f"{type(callback).__module__}:{type(callback).__qualname__}"


def _state(callback: Any) -> Any:
    try:
        text = json.dumps(callback.state_dict(), default=_number)
    except (TypeError, ValueError) as error:
        line = f"callbacks: state_dict() of {type(callback).__name__} must return JSON values"
        raise UsageError(f"{line}: {error}") from error
    return json.loads(text)


def _number(value: Any) -> Any:
    """A scalar of NumPy, or of a tensor, as a number."""
    if np.ndim(value) == 0 and hasattr(value, "dtype"):
        return np.asarray(value).item()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _reason(kind: type, callback: Any) -> str:
    if callback is kind:
        return "is a class: give an instance of it"
    if any(base.__module__.partition(".")[0] == "keras" for base in kind.__mro__):
        return "is a Keras 3 callback: derive it from tf_keras.callbacks.Callback"
    return "is not a Keras callback: derive it from tf_keras.callbacks.Callback"
