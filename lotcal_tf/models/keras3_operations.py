"""Operations in functional models: the pure ones of `keras.ops` and of TensorFlow, side by side.

An operation is a node of the graph without a layer, e.g. `x[:, 0]` or `keras.ops.mean(x)`. Only the
operations of these tables are translated. They compute their result from their arguments alone.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from lotcal_tf.compat import keras, keras3
from lotcal_tf.models.keras3_config import NoTwin

# By the class of an operation of Keras 3: the function of TensorFlow with the same arguments.
_SAME: Mapping[str, Callable[..., Any]] = {
    "Absolute": tf.abs,
    "Ceil": tf.math.ceil,
    "Cos": tf.cos,
    "Equal": tf.equal,
    "Erf": tf.math.erf,
    "Exp": tf.exp,
    "Expm1": tf.math.expm1,
    "Floor": tf.floor,
    "Greater": tf.greater,
    "GreaterEqual": tf.greater_equal,
    "Less": tf.less,
    "LessEqual": tf.less_equal,
    "Log": tf.math.log,
    "Log1p": tf.math.log1p,
    "LogicalAnd": tf.logical_and,
    "LogicalNot": tf.logical_not,
    "LogicalOr": tf.logical_or,
    "Matmul": tf.matmul,
    "Negative": tf.negative,
    "NotEqual": tf.not_equal,
    "Rsqrt": tf.math.rsqrt,
    "Sign": tf.sign,
    "Sin": tf.sin,
    "Sqrt": tf.sqrt,
    "Square": tf.square,
    "Where": tf.where,
}
# These compute in the type of their result, to which Keras 3 casts their arguments.
_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    "Add": tf.add,
    "Divide": tf.divide,
    "Maximum": tf.maximum,
    "Minimum": tf.minimum,
    "Multiply": tf.multiply,
    "Power": tf.pow,
    "Subtract": tf.subtract,
    "TrueDivide": tf.divide,
}
# The activation of that name, in a layer that compaction can follow.
_ACTIVATIONS: Mapping[str, str] = {
    name: name.lower()
    for name in ("Relu", "Relu6", "Selu", "Sigmoid", "Silu", "Softplus", "Softsign", "Tanh")
}
# Those of the next table that compute in the type of the result: Keras adds int8 as int32, and averages
# integers as floats.
_REDUCTIONS = ("Max", "Mean", "Min", "Prod", "Std", "Sum", "Var")
# With what the operation was created with, `op`.
_WITH_ARGUMENTS: Mapping[str, Callable[..., Any]] = {
    "BroadcastTo": lambda op, x: tf.broadcast_to(x, op.shape),
    "Cast": lambda op, x: tf.cast(x, op.dtype),
    "Clip": lambda op, x: tf.clip_by_value(x, op.x_min, op.x_max),
    "Concatenate": lambda op, xs: tf.concat(xs, op.axis),
    "Einsum": lambda op, *xs: tf.einsum(op.subscripts, *xs),
    "ExpandDims": lambda op, x: tf.expand_dims(x, op.axis),
    "Gelu": lambda op, x: tf.nn.gelu(x, op.approximate),
    "GetItem": lambda op, x, key: x[key],
    "LeakyRelu": lambda op, x: tf.nn.leaky_relu(x, op.negative_slope),
    "LogSoftmax": lambda op, x: tf.nn.log_softmax(x, op.axis),
    "Max": lambda op, x: tf.reduce_max(x, op.axis, op.keepdims),
    "Mean": lambda op, x: tf.reduce_mean(x, op.axis, op.keepdims),
    "Min": lambda op, x: tf.reduce_min(x, op.axis, op.keepdims),
    "Prod": lambda op, x: tf.reduce_prod(x, op.axis, op.keepdims),
    "Repeat": lambda op, x: tf.repeat(x, op.repeats, op.axis),
    "Reshape": lambda op, x: tf.reshape(x, [-1 if n is None else n for n in op.newshape]),
    "Squeeze": lambda op, x: tf.squeeze(x, op.axis),
    "Stack": lambda op, xs: tf.stack(xs, op.axis),
    "Std": lambda op, x: tf.math.reduce_std(x, op.axis, op.keepdims),
    "Sum": lambda op, x: tf.reduce_sum(x, op.axis, op.keepdims),
    "Take": lambda op, x, indices: tf.gather(x, indices, axis=op.axis),
    "Tile": lambda op, x: tf.tile(x, op.repeats),
    "Transpose": lambda op, x: tf.transpose(x, op.axes),
    "Var": lambda op, x: tf.math.reduce_variance(x, op.axis, op.keepdims),
}


def in_tensorflow(
    operation: Any,
    args: Any,
    kwargs: Mapping[str, Any],
    dtype: str,
    free_name: Callable[[str], str],
) -> Any:
    """Applies an operation of Keras 3 to tensors of tf_keras.

    A number that is added or multiplied becomes a `Rescaling` layer, which compaction can follow.

    Args:
      operation: the operation.
      args, kwargs: its arguments.
      dtype: of its result.
      free_name: returns an automatic name that begins with a text and that no layer has.

    Raises:
      NoTwin: it is not in the tables.
    """
    name = type(operation).__name__
    if not type(operation).__module__.startswith("keras.src.ops."):
        raise NoTwin("is an operation that keras.ops does not have")
    if name in _ARITHMETIC:
        number = _rescaling(name, args, dtype)
        if number is not None:
            tensor, scale, offset = number
            return keras.layers.Rescaling(scale, offset, dtype=dtype, name=free_name("rescaling"))(
                tensor
            )
        typed = [_typed(x, dtype) for x in args]
        return _ARITHMETIC[name](*typed, **kwargs)
    if name in _ACTIVATIONS:
        return keras.layers.Activation(
            _ACTIVATIONS[name], dtype=dtype, name=free_name("activation")
        )(*args)
    if name == "Softmax":
        return keras.layers.Softmax(operation.axis, dtype=dtype, name=free_name("softmax"))(*args)
    if name in _SAME:
        return _SAME[name](*args, **kwargs)
    if name in _REDUCTIONS:
        if getattr(operation, "initial", None) is not None:
            raise NoTwin("has the argument initial, which is not translated")
        args = (_typed(args[0], dtype), *args[1:])
    if name in _WITH_ARGUMENTS:
        return _WITH_ARGUMENTS[name](operation, *args, **kwargs)
    known = sorted({"Softmax", *_SAME, *_ARITHMETIC, *_ACTIVATIONS, *_WITH_ARGUMENTS})
    raise NoTwin(f"is an operation that is not translated (only {', '.join(known)})")


def _typed(x: Any, dtype: str) -> Any:
    """A tensor or number in the type of the result."""
    if isinstance(x, int | float):
        return float(x) if tf.as_dtype(dtype).is_floating else x
    return tf.cast(x, dtype) if _other_dtype(x, dtype) else x


def _other_dtype(x: Any, dtype: str) -> bool:
    return hasattr(x, "dtype") and tf.as_dtype(x.dtype) != tf.as_dtype(dtype)


def _rescaling(name: str, args: Any, dtype: str) -> tuple[Any, float, float] | None:
    """Tensor, factor and offset of an operation with a number; None: it has another form."""
    if len(args) != 2 or not tf.as_dtype(dtype).is_floating:
        return None
    first, second = args
    if isinstance(first, int | float) and name in ("Add", "Multiply"):
        first, second = second, first
    if isinstance(first, int | float) or not isinstance(second, int | float):
        return None
    if _other_dtype(first, dtype):
        return None
    by_name = {
        "Add": (1.0, float(second)),
        "Subtract": (1.0, -float(second)),
        "Multiply": (float(second), 0.0),
        "Divide": (1.0 / second if second else 0.0, 0.0),
        "TrueDivide": (1.0 / second if second else 0.0, 0.0),
    }
    found = by_name.get(name)
    return None if found is None or not found[0] else (first, *found)


# By the name of a function of TensorFlow: the function of `keras.ops` with the same arguments.
_OPS_SAME: Mapping[str, str] = {
    "__operators__.add": "add",
    "abs": "absolute",
    "exp": "exp",
    "math.abs": "absolute",
    "math.add": "add",
    "math.divide": "divide",
    "math.equal": "equal",
    "math.erf": "erf",
    "math.exp": "exp",
    "math.floor": "floor",
    "math.greater": "greater",
    "math.less": "less",
    "math.log": "log",
    "math.maximum": "maximum",
    "math.minimum": "minimum",
    "math.multiply": "multiply",
    "math.negative": "negative",
    "math.not_equal": "not_equal",
    "math.pow": "power",
    "math.rsqrt": "rsqrt",
    "math.sigmoid": "sigmoid",
    "math.sin": "sin",
    "math.cos": "cos",
    "math.softplus": "softplus",
    "math.sqrt": "sqrt",
    "math.square": "square",
    "math.subtract": "subtract",
    "math.tanh": "tanh",
    "math.truediv": "divide",
    "nn.relu": "relu",
    "nn.relu6": "relu6",
    "nn.selu": "selu",
    "nn.silu": "silu",
    "nn.tanh": "tanh",
    "where": "where",
}
# With the arguments of the function of TensorFlow: `of` gives one by its name.
_OPS: Mapping[str, Callable[..., Any]] = {
    "broadcast_to": lambda ops, of: ops.broadcast_to(of("input"), of("shape")),
    "cast": lambda ops, of: ops.cast(of("x"), tf.as_dtype(of("dtype")).name),
    "clip_by_value": lambda ops, of: ops.clip(of("t"), of("clip_value_min"), of("clip_value_max")),
    "concat": lambda ops, of: ops.concatenate(of("values"), of("axis")),
    "einsum": lambda ops, of: ops.einsum(of("equation"), *of("inputs")),
    "expand_dims": lambda ops, of: ops.expand_dims(of("input"), of("axis")),
    "gather": lambda ops, of: ops.take(of("params"), of("indices"), axis=of("axis") or 0),
    "linalg.matmul": lambda ops, of: ops.matmul(of("a"), of("b")),
    "nn.gelu": lambda ops, of: ops.gelu(of("features"), of("approximate") or False),
    "nn.leaky_relu": lambda ops, of: ops.leaky_relu(of("features"), of("alpha")),
    "nn.log_softmax": lambda ops, of: ops.log_softmax(of("logits"), _last(of("axis"))),
    "nn.softmax": lambda ops, of: ops.softmax(of("logits"), _last(of("axis"))),
    "repeat": lambda ops, of: ops.repeat(of("input"), of("repeats"), of("axis")),
    "reshape": lambda ops, of: ops.reshape(of("tensor"), of("shape")),
    "squeeze": lambda ops, of: ops.squeeze(of("input"), of("axis")),
    "stack": lambda ops, of: ops.stack(of("values"), of("axis")),
    "tile": lambda ops, of: ops.tile(of("input"), of("multiples")),
    "transpose": lambda ops, of: ops.transpose(of("a"), of("perm")),
    **{
        f"math.reduce_{tensorflow}": (
            lambda ops, of, name=name: getattr(ops, name)(
                of("input_tensor"), axis=of("axis"), keepdims=bool(of("keepdims"))
            )
        )
        for tensorflow, name in (
            *((name, name) for name in ("max", "mean", "min", "prod", "std", "sum")),
            ("variance", "var"),
        )
    },
}


def _last(axis: int | None) -> int:
    return -1 if axis is None else axis


def is_operation(layer: Any) -> bool:
    """Whether a layer of tf_keras is a bare function of TensorFlow."""
    return type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda")


def in_keras3(layer: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Applies a function of TensorFlow, a layer of tf_keras, to tensors of Keras 3.

    Args:
      layer: see `is_operation`.
      args, kwargs: its arguments.

    Raises:
      NoTwin: it is not in the tables.
    """
    ops = keras3().ops
    name = str(layer.symbol).removeprefix("compat.v1.")
    if name == "__operators__.getitem":
        return args[0][_slices(args[1])]
    signature = inspect.signature(layer.function)
    given = dict(signature.bind(*args, **kwargs).arguments)
    given.pop("name", None)
    if name in _OPS_SAME:
        return getattr(ops, _OPS_SAME[name])(*given.values())
    if name not in _OPS:
        raise NoTwin("is a function of TensorFlow that is not translated")
    defaults = {key: each.default for key, each in signature.parameters.items()}
    result = _OPS[name](ops, lambda key: given.pop(key, defaults.get(key)))
    for key, value in given.items():
        if value not in (None, False, 0, defaults[key]):
            raise NoTwin(f"has {key}={value!r}, which is not translated")
    return result


def _slices(key: Any) -> Any:
    """The key of an indexing as tf_keras keeps it, in Python's form."""
    if isinstance(key, list | tuple):
        return tuple(_slices(part) for part in key)
    if isinstance(key, Mapping):
        return slice(key["start"], key["stop"], key["step"])
    return key
