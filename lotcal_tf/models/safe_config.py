"""Checks that a model's configuration runs no code while the model is built from it.

Keras's safe mode refuses Python lambdas. It still imports any module that a configuration names, and calls
any of TensorFlow's functions that a bare operation names, such as the deletion of files.
"""

import re
from collections.abc import Mapping
from typing import Any

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError

FIX = (
    "decorate it with @keras.saving.register_keras_serializable(), or pass custom_objects "
    "(--custom_objects=module:Class)"
)
_OWN = ("keras", "tf_keras", "lotcal_tf")
_INITIALIZERS = "tensorflow.python.ops.init_ops_v2"  # of tf.constant_initializer and the like
_FUNCTIONS = ("activations", "constraints", "initializers", "losses", "metrics", "regularizers")
# Functions of TensorFlow that compute on tensors, by their public names.
_COMPUTES = re.compile(
    r"(compat\.v1\.)?((math|nn|linalg|image|signal|strings|bitwise|sparse|ragged|random|dtypes"
    r"|quantization|__operators__|keras\.backend|keras\.activations)\.)?\w+"
)
# And those among them that do something else.
_RUNS = re.compile(
    r"py_func(tion)?|numpy_function|print|Print|function|import_graph_def|load_\w+|\w+_file|\w+_files"
)


def check_config(config: Any, within: str = "") -> None:
    """Checks a configuration, as JSON gives it.

    Args:
      config: a configuration, or a part of one.
      within: the layer that the part belongs to, for the message.

    Raises:
      UsageError: it holds a Python function, or names a class or function that is neither Keras's nor
        registered, or an operation that does more than compute.
    """
    if isinstance(config, list | tuple):
        for part in config:
            check_config(part, within)
    if not isinstance(config, dict):
        return
    kind, inner = config.get("class_name"), config.get("config")
    if is_bytecode(config):
        kind = "__lambda__"
    if isinstance(kind, str):
        if isinstance(inner, dict) and "name" in inner:
            within = f"layer {inner['name']!r} ({kind}): "
        _check_object(kind, config, within)
    for part in config.values():
        check_config(part, within)


def is_bytecode(part: Mapping[str, Any]) -> bool:
    """Whether a part is a Python lambda, as tf_keras writes one that is an activation."""
    code = part.get("value")
    return (
        part.keys() == {"value"}
        and isinstance(code, list)
        and bool(code)
        and isinstance(code[0], str)
        # A connection to a layer, `{"value": ["query", 0, 0]}`, has the same key.
        and not all(isinstance(place, int) for place in (code[1:3] or [""]))
    )


def _check_object(kind: str, config: dict[str, Any], within: str) -> None:
    """Checks a dictionary that stands for an object of class `kind`, but not its parts."""
    inner = config.get("config")
    if kind in ("Lambda", "__lambda__") and not _is_registered(kind):
        raise UsageError(
            f"{within}a Python function inside the model cannot be loaded again without running unknown "
            "code: use a layer of Keras (e.g. Rescaling, Activation), or write a keras.layers.Layer and "
            f"{FIX}"
        )
    if kind in ("TFOpLambda", "SlicingOpLambda") and isinstance(inner, dict):
        name = str(inner.get("function", ""))
        if not _COMPUTES.fullmatch(name) or _RUNS.fullmatch(name.rpartition(".")[2]):
            raise UsageError(
                f"{within}the operation tf.{name} may do more than compute: put it into a keras.layers.Layer and {FIX}"
            )
    module = config.get("module")
    if kind == "function":
        name = str(inner)
        known = any(hasattr(getattr(keras, place), name) for place in _FUNCTIONS)
    else:  # Keras writes the module of a class of a script as None.
        name = str(config.get("registered_name") or kind)
        known = module is not None or config.get("registered_name") is None
    places = (None, _INITIALIZERS, "builtins" if kind == "function" else None)
    known = known and (module in places or _root(module) in _OWN)
    if kind == "__typespec__":
        known = str(module).startswith("tensorflow.python.")
    if not known and not _is_registered(name):
        what = "function" if kind == "function" else "class"
        raise UsageError(f"{within}{what} {name!r} is not registered: {FIX}")


def _root(module: Any) -> str:
    return str(module).partition(".")[0]


def _is_registered(name: str) -> bool:
    return keras.saving.get_registered_object(name) is not None
