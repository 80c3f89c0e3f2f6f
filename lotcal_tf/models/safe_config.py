"""Checks that a model's configuration runs no code while the model is built from it.

The rules are the same for tickets, `.keras` files and `.h5` files, of tf_keras and of Keras 3. Keras's
safe mode refuses Python lambdas. It still imports any module that a configuration names, and calls any
of TensorFlow's functions that a bare operation names, such as the deletion of files. Here a
configuration may name listed classes and functions only, and those that the caller registered.
"""

import functools
import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError

FIX = (
    "decorate it with @keras.saving.register_keras_serializable(), or pass custom_objects "
    "(--custom_objects=module:Class)"
)
# Layers that hold code, run a program from another file, or look up functions by name.
_WITH_CODE = frozenset(
    {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
    | {"ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer", "DenseFeatures"}
    | {"DropoutWrapper", "ResidualWrapper", "DeviceWrapper"}
)
_MODELS = {"Functional", "Sequential", "Model", "SyncBatchNormalization"}
_POLICIES = {"Policy", "DTypePolicy", "FloatDTypePolicy", "DTypePolicyMap"}
# Plain values that Keras stores as dictionaries, by their `class_name`.
_VALUES = {"__tuple__", "__numpy__", "__tensor__", "__bytes__", "__ellipsis__", "__slice__"}
_VALUES |= {"__keras_tensor__", "TensorShape"}
_TRAINING = ("compile_config", "training_config")
# The modules of Keras in which classes and functions are found.
_PARTS = (
    "activations|constraints|dtype_policies|initializers|layers|mixed_precision|models|random"
    "|regularizers|engine|ops|backend"
)
_MODULES = re.compile(rf"(tf_)?keras(\.src)?(\.({_PARTS})(\.\w+)*)?")
_TF_INITIALIZERS = "tensorflow.python.ops.init_ops_v2"  # of tf.constant_initializer and the like
# Classes of operations in Keras 3 that call a function which they are given.
_CALLING = {"AssociativeScan", "Cond", "ForiLoop", "Map", "Scan", "Switch", "VectorizedMap"}
_CALLING |= {"WhileLoop", "Vectorize", "Piecewise"}

# TensorFlow's functions that only compute, by their public names.
_COMPUTES = re.compile(
    r"(compat\.v1\.)?("
    r"(math|nn|linalg|signal|bitwise|strings|sparse|ragged|dtypes|quantization)\.(?!map_)[a-z]\w*"
    r"|__operators__\.\w+|image\.(?!decode|is_jpeg|extract_jpeg)[a-z]\w+"
    r"|random\.(normal|uniform|shuffle|stateless_\w+)"
    r"|keras\.activations\.(?!get$|serialize$|deserialize$)[a-z]\w+"
    r"|keras\.backend\.(abs|all|any|arange|argmax|argmin|batch_dot|batch_flatten"
    r"|batch_normalization|bias_add|cast|clip|concatenate|conv\w+|cos|cumprod|cumsum|dot|dropout|elu"
    r"|equal|exp|expand_dims|flatten|gather|greater|greater_equal|hard_sigmoid|int_shape"
    r"|l2_normalize|less|less_equal|log|max|maximum|mean|min|minimum|not_equal|one_hot|ones_like"
    r"|permute_dimensions|pool[23]d|pow|prod|relu|repeat|repeat_elements|reshape|resize_images"
    r"|resize_volumes|reverse|round|shape|sigmoid|sign|sin|softmax|softplus|softsign"
    r"|spatial_[23]d_padding|sqrt|square|squeeze|stack|std|stop_gradient|sum|tanh"
    r"|temporal_padding|tile|transpose|var|zeros_like)"
    r"|abs|acosh?|add(_n)?|argmax|argmin|argsort|asinh?|atan2?|atanh|batch_to_space|bitcast"
    r"|boolean_mask|broadcast_(dynamic_shape|static_shape|to)|cast|clip_by_(global_norm|norm|value)"
    r"|complex|concat|constant|convert_to_tensor|cosh?|cumsum|divide|dynamic_(partition|stitch)"
    r"|einsum|ensure_shape|equal|exp|expand_dims|eye|fill|floor|gather|gather_nd|greater"
    r"|greater_equal|histogram_fixed_width(_bins)?|identity|identity_n|less|less_equal|linspace"
    r"|logical_(and|not|or)|matmul|matrix_square_root|maximum|meshgrid|minimum|multiply|negative"
    r"|norm|not_equal|one_hot|ones|ones_like|pad|parallel_stack|pow|range|rank|realdiv"
    r"|reduce_(all|any|logsumexp|max|mean|min|prod|sum)|repeat|reshape|reverse|reverse_sequence"
    r"|roll|round|saturate_cast|scalar_mul|scatter_nd|searchsorted|sequence_mask|shape|shape_n"
    r"|sigmoid|sign|sinh?|size|slice|sort|space_to_batch(_nd)?|split|sqrt|square|squeeze|stack"
    r"|stop_gradient|strided_slice|subtract|tanh?|tensor_scatter_nd_(add|max|min|sub|update)"
    r"|tensordot|tile|transpose|truediv|truncatediv|truncatemod|unique|unique_with_counts"
    r"|unravel_index|unstack|where|zeros|zeros_like)"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_DEEPEST = 200  # levels of nesting; each nested model takes about five
_TOO_DEEP = "the model's configuration is nested too deeply"


def check_config(
    config: Any,
    *,
    of: Any = keras,
    custom: Mapping[str, Any] | None = None,
    file: str = "",
) -> Any:
    """Checks a configuration, as JSON gives it, before Keras sees it.

    Args:
      config: a configuration.
      of: the Keras that will build it: tf_keras or Keras 3.
      custom: classes and functions of the caller, by name, beside those that are registered.
      file: where the configuration is from, for messages.

    Returns:
      The configuration without optimizers, losses and metrics of the model and of models in it.

    Raises:
      UsageError: it holds a Python function, names a class or function that is neither on the list
        nor registered, or an operation that does more than compute; it is nested too deeply, or its
        layers form a cycle.
    """
    subject = f"{file}: " if file else ""
    try:
        _Checker(of, dict(custom or {}), subject).check(config, "", 0)
        return _without_training(config)
    except RecursionError as error:
        raise UsageError(f"{subject}{_TOO_DEEP}") from error


def _without_training(config: Any) -> Any:
    if isinstance(config, list):
        return [_without_training(part) for part in config]
    if not isinstance(config, dict):
        return config
    return {key: _without_training(part) for key, part in _kept(config)}


def _kept(part: dict[str, Any]) -> list[tuple[str, Any]]:
    """The entries of a part without those for training."""
    dropped = _TRAINING if "class_name" in part else ()
    return [(key, value) for key, value in part.items() if key not in dropped]


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


class _Checker:
    """Checks the parts of one configuration."""

    def __init__(self, of: Any, custom: dict[str, Any], subject: str) -> None:
        self._of, self._custom, self._subject = of, custom, subject

    def check(self, part: Any, within: str, depth: int) -> None:
        """Checks a part and all parts of it; `within` is the layer that it belongs to, for messages."""
        if depth > _DEEPEST:
            raise UsageError(f"{self._subject}{_TOO_DEEP}")
        if isinstance(part, list | tuple):
            if "COMPOSITE_TYPE" in part:
                raise self._refusal(within, "sparse and ragged constants are not loaded")
            for item in part:
                self.check(item, within, depth + 1)
        if not isinstance(part, dict):
            return
        kind, inner = part.get("class_name"), part.get("config")
        if "class_name" in part:
            if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                within = f"layer {inner['name']!r} ({kind}): "
            self._check_object(kind, part, within)
        elif is_bytecode(part):
            self._check_object("__lambda__", part, within)
        path = next(
            (k for k in ("vocabulary", "idf_weights") if isinstance(part.get(k), str)), None
        )
        if path is not None:
            raise self._refusal(within, f"{path} names a file, which is not read: give a list")
        for _, value in _kept(part):
            self.check(value, within, depth + 1)
        if isinstance(part.get("layers"), list) and "input_layers" in part:
            self._check_graph(part["layers"], within)

    def _refusal(self, within: str, problem: str) -> UsageError:
        # Names come from the file, and an error is one line.
        return UsageError(_CONTROL.sub(" ", f"{self._subject}{within}{problem}"))

    def _check_object(self, kind: Any, part: dict[str, Any], within: str) -> None:
        """Checks a dictionary that stands for an object of class `kind`, but not its parts."""
        name, inner = part.get("registered_name"), part.get("config")
        if not isinstance(kind, str) or not isinstance(name, str | None):
            raise self._refusal(within, "class_name must be a string")
        if kind in _WITH_CODE:
            raise self._refusal(
                within,
                "a Python function inside the model cannot be loaded again without running unknown "
                "code: use a layer of Keras (e.g. Rescaling, Activation), or write a "
                f"keras.layers.Layer and {FIX}",
            )
        if kind in ("TFOpLambda", "SlicingOpLambda"):
            self._check_operation(inner, within)
        elif kind == "function":
            self._check_function(part, within)
        elif not (kind in _VALUES or self._is_listed(part) or self._is_custom(kind, name)):
            raise self._refusal(within, f"class {name or kind!r} is not registered: {FIX}")

    def _check_operation(self, inner: Any, within: str) -> None:
        function = inner.get("function") if isinstance(inner, dict) else None
        if not (isinstance(function, str) and _COMPUTES.fullmatch(function)):
            raise self._refusal(
                within,
                f"the operation tf.{function} may do more than compute: put it into a "
                f"keras.layers.Layer and {FIX}",
            )

    def _check_function(self, part: Mapping[str, Any], within: str) -> None:
        name, module = part.get("config"), part.get("module")
        listed = name in _functions(self._of) and (
            module in (None, "builtins") or self._is_module(module)
        )
        if not (isinstance(name, str) and (listed or self._is_registered(name))):
            raise self._refusal(within, f"function {name!r} is not registered: {FIX}")

    def _is_listed(self, part: Mapping[str, Any]) -> bool:
        """Whether Keras would build an object of a listed class."""
        kind, module = str(part["class_name"]), part.get("module")
        if part.get("registered_name") not in (None, kind):
            return False
        if module == _TF_INITIALIZERS:
            return kind in _tf_initializers()
        # A class that is written without its module is one that Keras finds by its name alone.
        if "module" in part and module is None:
            return False
        # Layers and operations have names in common.
        if str(module).startswith("keras.src.ops."):
            return kind in _operations(self._of) and self._is_module(module)
        return kind in _classes(self._of) and (module is None or self._is_module(module))

    def _is_module(self, module: Any) -> bool:
        return isinstance(module, str) and _MODULES.fullmatch(module) is not None

    def _is_registered(self, name: str) -> bool:
        return self._registered(name) is not None

    def _registered(self, name: str) -> Any:
        return self._of.saving.get_registered_object(name, self._custom)

    def _is_custom(self, kind: str, name: str | None) -> bool:
        """Whether a class is the caller's by both names: Keras uses one or the other."""
        if self._is_registered(kind):
            return True
        found = None if name is None else self._registered(name)
        return found is not None and kind in (getattr(found, "__name__", None), *_classes(self._of))

    def _check_graph(self, layers: list[Any], within: str) -> None:
        """Checks the calls of layers.

        Keras would wait without end for layers that wait for each other, and would call a layer
        without inputs while it builds the model.
        """
        named = {str(layer.get("name")): layer for layer in layers if isinstance(layer, dict)}
        waiting = {name: _nodes(layer) for name, layer in named.items()}
        first = {name: _first_node(layer) for name, layer in named.items()}
        names, done = set(named), dict.fromkeys(named, 0)
        for name, nodes in waiting.items():
            if not all(_sources(node, names) for node in nodes):
                raise self._refusal(within, f"layer {name!r} is called without an input")
        while any(waiting.values()):
            before = sum(map(len, waiting.values()))
            for name, nodes in waiting.items():
                while nodes and all(
                    index < done[other] + first[other] for other, index in _sources(nodes[0], names)
                ):
                    nodes.pop(0)
                    done[name] += 1
            if sum(map(len, waiting.values())) == before:
                stuck = next(name for name, nodes in waiting.items() if nodes)
                raise self._refusal(within, f"the inputs of layer {stuck!r} cannot be computed")


def _nodes(layer: Mapping[str, Any]) -> list[Any]:
    """The calls of a layer in a functional model; an input has none."""
    nodes = layer.get("inbound_nodes")
    return list(nodes) if isinstance(nodes, list) else []


def _first_node(layer: Mapping[str, Any]) -> int:
    """The number of a layer's first call: a model that is built has one from its own inputs."""
    inner = layer.get("config")
    parts = inner.get("layers") if isinstance(inner, dict) else None
    first = parts[0] if isinstance(parts, list) and parts else None
    built = isinstance(first, dict) and first.get("class_name") == "InputLayer"
    return 1 if layer.get("class_name") == "InputLayer" or built else 0


def _sources(part: Any, names: set[str]) -> list[tuple[str, int]]:
    """The calls on which a call depends: `[name, call, output, …]` anywhere in it."""
    if isinstance(part, dict):
        return [source for value in part.values() for source in _sources(value, names)]
    if not isinstance(part, list):
        return []
    if len(part) >= 3 and isinstance(part[0], str) and all(type(n) is int for n in part[1:3]):
        own = [(part[0], part[1])] if part[0] in names else []
        return own + _sources(part[3:], names)
    return [source for item in part for source in _sources(item, names)]


@functools.cache
def _classes(of: Any) -> frozenset[str]:
    """The names of the classes that a configuration may name."""
    bases = [(of.layers, of.layers.Layer)]
    bases += [(of.initializers, of.initializers.Initializer)]
    bases += [(of.regularizers, of.regularizers.Regularizer)]
    bases += [(of.constraints, of.constraints.Constraint)]
    found = {
        name
        for module, base in bases
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, base)
    }
    return frozenset((found | _MODELS | _POLICIES | {"SeedGenerator"}) - _WITH_CODE)


@functools.cache
def _operations(of: Any) -> frozenset[str]:
    """The classes of operations of Keras 3 that only compute."""
    if of is keras:
        return frozenset()
    base = importlib.import_module("keras.src.ops.operation").Operation
    modules = [importlib.import_module(f"keras.src.ops.{m}") for m in ("core", "image", "linalg")]
    modules += [importlib.import_module(f"keras.src.ops.{m}") for m in ("math", "nn", "numpy")]
    found = {n for m in modules for n, kind in vars(m).items() if inspect.isclass(kind)
             and issubclass(kind, base)}  # fmt: skip
    return frozenset(found - _CALLING)


@functools.cache
def _functions(of: Any) -> frozenset[str]:
    """The functions that a configuration may name: activations."""
    found = {name for name, value in vars(of.activations).items() if inspect.isfunction(value)}
    names = {"leaky_relu", "log_softmax", "relu6", "silu", "softmax_v2"}
    return frozenset((found | names) - {"get", "serialize", "deserialize"})


@functools.cache
def _tf_initializers() -> frozenset[str]:
    module = importlib.import_module(_TF_INITIALIZERS)
    kinds = vars(module).items()
    return frozenset(
        n for n, k in kinds if inspect.isclass(k) and issubclass(k, module.Initializer)
    )
