"""An optimizer or a learning-rate schedule that the caller passes as an object.

Only the configuration of the object is used: a run trains fresh copies, so that it can be repeated
and resumed, and the configuration is part of its identity.
"""

import copy
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from lotcal_tf.compat import keras
from lotcal_tf.config import custom
from lotcal_tf.config.experiment import FIELDS, Experiment
from lotcal_tf.config.optimizers import OPTIMIZERS, WITH_DECOUPLED_DECAY
from lotcal_tf.errors import FieldError, first_line

# Adafactor multiplies the mean squared gradients of a row and of a column, and adds this number to
# the squares. With Keras's 1e-30 the product is 0 in float32 where both are pruned, and the step NaN.
ADAFACTOR_EPSILON = 1e-16

# Entries of a configuration that do not change the steps.
_WITHOUT_EFFECT = ("name", "jit_compile", "is_legacy_optimizer")
# The fields that are arguments of the object's constructor instead.
_OF_OPTIMIZER = ("momentum", "nesterov", "weight_decay", "clip_norm", "clip_value", "ema")
_OF_SCHEDULE = ("schedule", "warmup_epochs", "lr_drops", "lr_drop_factor")


@dataclasses.dataclass(frozen=True)
class GivenOptimizer:
    """An optimizer, a schedule, or both, as objects.

    Attributes:
      kind: the class of the optimizer; None: the optimizer is named by fields.
      config: its configuration, without the learning rate.
      undecayed: patterns of the weights that its weight decay leaves out.
      schedule: the learning rate as a function of the step; None: fields describe it.
      fields: the fields that describe the objects, for records.
      content: what else the identity of the run needs: configurations and digests of source code.
    """

    kind: Any
    config: Mapping[str, Any]
    undecayed: tuple[str, ...]
    schedule: Any
    fields: Mapping[str, Any]
    content: Mapping[str, str]

    def make(self, rate: Any) -> Any:
        """A new optimizer with the learning rate `rate`; None if fields name the optimizer."""
        if self.kind is None:
            return None
        # A copy, since `from_config` may change its argument.
        config = copy.deepcopy(dict(self.config))
        optimizer = self.kind.from_config(config | {"learning_rate": rate})
        if self.undecayed:
            optimizer.exclude_from_weight_decay(var_names=list(self.undecayed))
        return optimizer

    def describe(self, experiment: Experiment) -> Experiment:
        """The experiment with fields that describe the objects."""
        return dataclasses.replace(experiment, **self.fields)


def take_objects(values: Mapping[str, Any]) -> tuple[dict[str, Any], GivenOptimizer | None]:
    """Separates an optimizer and a schedule that are objects from the other fields.

    Args:
      values: fields by name. `optimizer` may be an instance of `tf_keras.optimizers.Optimizer` or
        its serialised configuration; `lr` may be a `LearningRateSchedule`.

    Returns:
      The other fields, and the objects; None if there are none.

    Raises:
      FieldError: an object cannot be used, or a field contradicts it.
    """
    others = dict(values)
    optimizer = None
    if not isinstance(others.get("optimizer", ""), str):
        optimizer = _optimizer(others.pop("optimizer"))
    schedule, rate = None, None
    if optimizer is not None:
        _refuse(others, (*_OF_OPTIMIZER, "lr"), "is an argument of the optimizer that is passed")
        rate = optimizer._learning_rate
    elif not isinstance(others.get("lr", 0), int | float | str | np.number | None):
        rate = others.pop("lr")
    if rate is not None and not _is_number(rate):
        schedule = _schedule(rate)
        _refuse(others, _OF_SCHEDULE, "is set by the schedule that is passed")
    if optimizer is None and schedule is None:
        return others, None
    return others, _given(optimizer, schedule)


def _given(optimizer: Any, schedule: Any) -> GivenOptimizer:
    """The record of the objects."""
    fields: dict[str, Any] = {}
    content: dict[str, str] = {}
    kind, config, undecayed = None, dict[str, Any](), tuple[str, ...]()
    if schedule is not None:
        fields |= {"schedule": "custom", "lr": FIELDS["lr"].default}
        fields |= {name: FIELDS[name].default for name in _OF_SCHEDULE[1:]}
        content["lr_schedule"] = _text(schedule, schedule.get_config())
        content["lr_source"] = _source("lr", type(schedule))
    if optimizer is not None:
        kind, config = type(optimizer), optimizer.get_config()
        rate = config.pop("learning_rate")
        if schedule is None:
            # The shortest number that is the same in float32.
            fields["lr"] = float(str(np.float32(rate)))
        fields |= _described(kind, config)
        undecayed = tuple(getattr(optimizer, "_exclude_from_weight_decay_names", None) or ())
        effective = {n: v for n, v in config.items() if n not in _WITHOUT_EFFECT}
        effective |= {"exclude_from_weight_decay": list(undecayed)} if undecayed else {}
        content["optimizer_config"] = _text(optimizer, effective)
        content["optimizer_source"] = _source("optimizer", kind)
    return GivenOptimizer(kind, config, undecayed, schedule, fields, content)


def _described(kind: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that describe an optimizer."""
    name = kind.__name__.lower()
    builtin = name in OPTIMIZERS and _is_keras(kind)
    own = config.get("weight_decay") if builtin and name in WITH_DECOUPLED_DECAY else None
    return {
        "optimizer": name if builtin else custom.name_of(kind),
        "momentum": config.get("momentum") or 0.0,
        "nesterov": bool(config.get("nesterov")),
        "weight_decay": own or 0.0,
        "clip_norm": config.get("global_clipnorm"),
        "clip_value": config.get("clipvalue"),
        "ema": config.get("ema_momentum", 0.0) if config.get("use_ema") else 0.0,
    }


def _optimizer(given: Any) -> Any:
    """The optimizer of the field `optimizer`, checked: a copy can be made from its configuration.

    Raises:
      FieldError: it is of another kind, or its configuration is not complete.
    """
    if isinstance(given, Mapping):
        given = _from_config(given)
    kind: Any = given if isinstance(given, type) else type(given)
    if isinstance(given, keras.mixed_precision.LossScaleOptimizer):
        problem = "pass its inner optimizer: the loss is scaled where layers compute in float16"
        raise FieldError("optimizer", kind.__name__, problem)
    if not isinstance(given, keras.optimizers.Optimizer):
        raise FieldError("optimizer", kind.__name__, _not_an_optimizer(given, kind))
    if getattr(given, "_exclude_from_weight_decay", None):
        problem = "exclude_from_weight_decay(var_list=…) cannot be copied: use var_names"
        raise FieldError("optimizer", kind.__name__, problem)
    try:
        config = given.get_config()
        again = kind.from_config(copy.deepcopy(config)).get_config()
        same = _text(given, config) == _text(given, again)
    except (KeyError, NotImplementedError, TypeError, ValueError) as error:
        line = first_line(error)
        problem = f"cannot be copied: its get_config must return every argument ({line})"
        raise FieldError("optimizer", kind.__name__, problem) from error
    if config.get("epsilon_1", 1.0) < ADAFACTOR_EPSILON:
        problem = f"epsilon_1={config['epsilon_1']} gives NaN where a row and a column are pruned: "
        raise FieldError("optimizer", kind.__name__, f"{problem}pass {ADAFACTOR_EPSILON} or more")
    if not same or "learning_rate" not in config or not hasattr(given, "_learning_rate"):
        problem = "cannot be copied: its get_config must return every argument, learning_rate too"
        raise FieldError("optimizer", kind.__name__, problem)
    return given


def _from_config(given: Mapping[str, Any]) -> Any:
    config = copy.deepcopy(dict(given))
    if isinstance(config.get("config"), dict):
        # Without it Keras makes an optimizer of its older kind.
        config["config"].setdefault("is_legacy_optimizer", False)
    try:
        return keras.optimizers.get(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        line = first_line(error)
        problem = f"is not a configuration by keras.optimizers.serialize: {line}"
        raise FieldError("optimizer", given.get("class_name", "{…}"), problem) from error


def _not_an_optimizer(given: Any, kind: type) -> str:
    if given is kind:
        return "is a class: pass an instance of it"
    if any(base.__module__.partition(".")[0] == "keras" for base in kind.__mro__):
        return f"is a Keras 3 optimizer: use tf_keras.optimizers.{kind.__name__}"
    if any(".legacy." in f"{base.__module__}." or "optimizer_v2" in base.__module__
           for base in kind.__mro__):  # fmt: skip
        return "is a legacy optimizer: use the class of the same name in tf_keras.optimizers"
    names = ", ".join(OPTIMIZERS)
    return f"must be one of {names}, or an instance of tf_keras.optimizers.Optimizer"


def _schedule(given: Any) -> Any:
    """The schedule, checked: its configuration can be written.

    Raises:
      FieldError: it is of another kind, or has no complete configuration.
    """
    name = type(given).__name__
    if not isinstance(given, keras.optimizers.schedules.LearningRateSchedule):
        problem = "must be a number, or an instance of tf_keras's LearningRateSchedule"
        raise FieldError("lr", name, problem)
    try:
        copied = type(given).from_config(copy.deepcopy(given.get_config()))
        same = _text(copied, copied.get_config()) == _text(given, given.get_config())
    except (KeyError, NotImplementedError, TypeError, ValueError) as error:
        line = first_line(error)
        problem = f"cannot be copied: its get_config must return every argument ({line})"
        raise FieldError("lr", name, problem) from error
    if not same:
        raise FieldError("lr", name, "cannot be copied: its get_config must return every argument")
    return copied


def _refuse(values: Mapping[str, Any], names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if name in values:
            raise FieldError(name, values[name], f"{reason}: set it there")


def _is_number(rate: Any) -> bool:
    """Whether a learning rate is a number, or a variable that holds one."""
    return isinstance(rate, int | float | np.number) or hasattr(rate, "numpy")


def _is_keras(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "tf_keras"


def _source(field: str, kind: type) -> str:
    """A digest of a custom class's source; empty for a class of Keras."""
    return "" if _is_keras(kind) else custom.source_digest(field, kind)


def _text(described: Any, config: Mapping[str, Any]) -> str:
    """A configuration as JSON text with the name of its class.

    Raises:
      TypeError: it holds something that JSON cannot.
    """
    content = {"class_name": type(described).__name__, "config": config}
    return json.dumps(content, sort_keys=True, default=lambda value: np.asarray(value).tolist())
