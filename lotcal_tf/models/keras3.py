"""Keras 3 models as tf_keras models with the same weights and outputs, and the way back.

The graph of a model is replayed on inputs of the other Keras. Each layer is made from its
configuration, see `keras3_config`; operations without a layer are in `keras3_operations`.
"""

import itertools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.compat import keras, keras3
from lotcal_tf.config.arguments import custom_objects_of
from lotcal_tf.errors import UsageError
from lotcal_tf.inputs import packed
from lotcal_tf.models import keras3_operations as operations
from lotcal_tf.models.keras3_config import OWN_ACTIVATIONS, NoTwin, Translation
from lotcal_tf.models.keras_graph import steps
from lotcal_tf.models.stateless_dropout import StatelessDropout, plain_dropout

# Names that Keras 3 gives to inputs and models. Twins get names of tf_keras, which `keras_graph` can
# tell from a user's.
_AUTOMATIC = re.compile(r"(input_layer|functional|sequential)(_\d+)?")
# How much outputs may differ, relative to the largest one.
_TOLERANCE = 1e-5
# Outputs that are computed in 16 bits may differ by this many steps of their type.
_STEPS_OF_16_BITS = 8
_RESOLUTION: Mapping[Any, float] = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


def is_keras3(model: Any) -> bool:
    """Whether an object is a Keras 3 model; does not import Keras 3."""
    found = sys.modules.get("keras")
    kind = getattr(found, "Model", None)
    newer = str(getattr(found, "__version__", "")).startswith("3")
    return newer and isinstance(kind, type) and isinstance(model, kind)


def from_keras3(
    model: Any, examples: Any = None, custom_objects: Mapping[str, Any] | None = None
) -> "keras.Model":
    """The tf_keras model with the layers, weights and outputs of a Keras 3 model.

    Layers keep their names; inputs, models and operations only where the user named them. A layer that
    is shared stays shared, and a nested model stays nested. Sequential models become functional ones.
    Operations of `keras.ops` become layers of tf_keras.

    Args:
      model: functional or sequential, and built; may be nested. It is not changed.
      examples: inputs `(N, …)`, or a list or dictionary of them for several inputs. Both models are
        run on them; without them, outputs are not compared.
      custom_objects: tf_keras classes of custom layers by name, unless they are registered with
        `tf_keras.saving.register_keras_serializable` under the name that they have in Keras 3.

    Returns:
      The tf_keras model, with the outputs of the original within 1e-5 of the largest one.

    Raises:
      UsageError: the model is not a Keras 3 model, is subclassed or has no weights yet; a layer has
        no twin in tf_keras; or the outputs differ.
    """
    if not is_keras3(model):
        raise UsageError(f"a Keras 3 model is needed, and this is a {type(model).__name__}")
    twin = _Twin(Translation.from_keras3(custom_objects_of(custom_objects))).of(model)
    if examples is not None:
        check_same_outputs(model, twin, examples)
    return twin


def to_keras3(model: "keras.Model", custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The Keras 3 model with the layers, weights and outputs of a tf_keras model.

    Args:
      model: functional or sequential, and built; may be nested; without masks.
      custom_objects: Keras 3 classes of custom layers by name, unless they are registered.

    Raises:
      UsageError: a layer has no twin in Keras 3.
    """
    return _Twin(Translation.to_keras3(custom_objects)).of(model)


def check_same_outputs(model: Any, twin: Any, examples: Any) -> None:
    """Compares the outputs of a model and of its twin in the other Keras.

    Args:
      model, twin: the models.
      examples: see `from_keras3`; a list is in the order of `model.inputs`.

    Raises:
      UsageError: the outputs differ, or are not finite.
    """
    fixed, parts = model.inputs[0].shape[0], _flat(examples)
    if fixed:
        parts = [np.resize(x, (fixed, *np.shape(x)[1:])) for x in parts]
    if not all(len(part) for part in parts if np.ndim(part)):
        raise UsageError("examples is empty: at least one example is needed")
    try:
        found = [_array(x) for x in _flat(twin(packed(twin, parts), training=False))]
    except (TypeError, ValueError) as error:
        problem = f"model {model.name!r} cannot take the examples: pass inputs (N, …) for each of its inputs"
        raise UsageError(f"{problem}: {str(error)[:200]}") from error
    expected = [_array(x) for x in _flat(model(packed(model, parts), training=False))]
    tolerance = max(_TOLERANCE, _STEPS_OF_16_BITS * _resolution(model))
    if not all(np.isfinite(one).all() for one in expected):
        raise UsageError(
            f"model {model.name!r} gives NaN or infinity for the examples: pass inputs for which it is finite"
        )
    for one, other in zip(expected, found, strict=True):
        limit = tolerance * max(np.abs(one).max(initial=0.0), np.finfo(np.float32).tiny)
        difference = np.abs(one - other).max(initial=0.0)
        if not difference <= limit:  # NaN is refused too
            raise UsageError(
                f"model {model.name!r}: outputs of Keras 3 and tf_keras differ by {difference:.3g}, more than "
                f"{limit:.3g}: build the model in tf_keras (import tf_keras as keras)"
            )


def _resolution(model: Any) -> float:
    """The resolution of a 16-bit type that a layer computes in; 0: there is none."""
    types = [getattr(layer, "compute_dtype", None) for layer in model.layers]
    return max(_RESOLUTION.get(name, 0.0) for name in [None, *types])


def _array(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(as_array(tensor), np.float64)


def as_array(tensor: Any) -> NDArray:
    """A tensor or variable of either Keras as an array."""
    if hasattr(tensor, "numpy"):
        return np.asarray(tensor.numpy())
    return np.asarray(keras3().ops.convert_to_numpy(tensor))


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """A nested structure with its leaves replaced; dictionaries in the order of their keys."""
    if isinstance(value, Mapping):
        return {key: _mapped(value[key], function) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return type(value)([_mapped(item, function) for item in value])
    return function(value)


def _flat(value: Any) -> list[Any]:
    leaves: list[Any] = []
    _mapped(value, leaves.append)
    return leaves


class _Twin:
    """Makes the twin of one model; layers and models that are shared are made once."""

    def __init__(self, translation: Translation) -> None:
        self._translation = translation
        self._made: dict[int, Callable[..., Any]] = {}
        self._pairs: list[tuple[Any, Any]] = []
        self._names: set[str] = set()

    def of(self, model: Any) -> Any:
        """The twin, with the weights of the model."""
        self._names = set(_names(model))
        twin = self._model(model)
        for layer, new in self._pairs:
            self._copy_weights(layer, new)
        return twin

    def _model(self, model: Any) -> Any:
        graph = self._graph(model)
        made = {id(x): self._input(x) for x in graph.inputs}

        def twin_of(x: Any) -> Any:
            return made.get(id(x), x)

        for node in _needed(graph):
            layer = getattr(node, "operation", None) or node.layer
            args, kwargs = _mapped(_arguments(node), twin_of)
            outputs = _flat(node.outputs)
            results = _flat(self._call(layer, args, kwargs, outputs[0]))
            made.update({id(x): y for x, y in zip(outputs, results, strict=True)})
        inputs, outputs = _mapped(_structures(graph), twin_of)
        return self._translation.target.Model(inputs, outputs, name=self._name(model.name))

    def _graph(self, model: Any) -> Any:
        """The functional model that a model consists of.

        Raises:
          UsageError: it is subclassed, or has no weights yet.
        """
        source = self._translation.source
        if isinstance(model, source.Sequential):
            graph = getattr(model, "_functional", None) if source is not keras else model
            if graph is None or not model.built:
                raise UsageError(
                    f"model {model.name!r} has no weights yet: let it begin with keras.Input(shape)"
                )
            return graph
        if not _is_functional(model):
            raise UsageError(
                f"model {model.name!r} ({type(model).__name__}) is a subclassed model, and a functional or "
                "sequential one is needed: build it as keras.Model(inputs, outputs)"
            )
        return model

    def _input(self, tensor: Any) -> Any:
        layer = tensor._keras_history[0]
        if getattr(tensor, "sparse", False):
            raise self._translation.refusal(layer, "takes sparse tensors")
        dtype = getattr(tensor.dtype, "name", tensor.dtype)
        shape = tuple(tensor.shape)
        return self._translation.target.Input(
            batch_shape=shape, dtype=dtype, name=self._name(layer.name)
        )

    def _free_name(self, stem: str) -> str:
        """A name as tf_keras would give it, which no layer has."""
        numbered = (f"{stem}_{number}" for number in itertools.count(1))
        name = next(name for name in itertools.chain([stem], numbered) if name not in self._names)
        self._names.add(name)
        return name

    def _name(self, name: str) -> str | None:
        """The name of a twin; None: an automatic one."""
        return None if self._translation.target is keras and _AUTOMATIC.fullmatch(name) else name

    def _call(self, layer: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """Calls the twin of a layer, model or operation; `output` is what the original gives."""
        try:
            if operations.is_operation(layer):
                return operations.in_keras3(layer, args, kwargs)
            if not hasattr(layer, "weights"):
                return operations.in_tensorflow(
                    layer, args, kwargs, str(output.dtype), self._free_name
                )
        except (NoTwin, TypeError, ValueError, KeyError) as error:
            problem = error if isinstance(error, NoTwin) else f"cannot be translated ({error})"
            raise self._translation.refusal(layer, str(problem).splitlines()[0]) from error
        return self._callable(layer)(*args, **kwargs)

    def _callable(self, layer: Any) -> Callable[..., Any]:
        """What to call for a layer or model; the same each time."""
        if id(layer) not in self._made:
            make = self._model if self._is_model(layer) else self._layer
            self._made[id(layer)] = make(layer)
        return self._made[id(layer)]

    def _is_model(self, layer: Any) -> bool:
        return _is_functional(layer) or isinstance(layer, self._translation.source.Sequential)

    def _layer(self, layer: Any) -> Callable[..., Any]:
        """What to call for a layer: its twin, and layers for an activation that the target lacks."""
        kind = type(layer).__name__
        if kind == "TimeDistributed" and self._is_model(layer.layer):
            distributed = self._translation.target.layers.TimeDistributed
            twin = self._callable(layer.layer)
            return distributed(twin, name=self._name(layer.name), dtype=layer.dtype_policy.name)
        if kind == "Normalization":
            return self._normalization(layer)
        if isinstance(layer, StatelessDropout):
            return self._translation.layer(plain_dropout(layer))
        activation = layer.get_config().get("activation")
        if activation not in OWN_ACTIVATIONS if isinstance(activation, str) else True:
            new = self._translation.layer(layer)
            self._pairs.append((layer, new))
            return new
        new = self._translation.layer(layer, activation="linear")
        self._pairs.append((layer, new))
        after = self._activation(str(activation), layer)
        return lambda *args, **kwargs: after(new(*args, **kwargs))

    def _activation(self, name: str, layer: Any) -> Callable[[Any], Any]:
        """hard_sigmoid or hard_silu of the source, as layers that both have."""
        layers, dtype = self._translation.target.layers, layer.compute_dtype
        slope = 0.2 if self._translation.source is keras else 1 / 6
        rescaling = layers.Rescaling(slope, 0.5, name=f"{layer.name}_rescaling", dtype=dtype)
        clipped = layers.ReLU(max_value=1.0, name=f"{layer.name}_relu", dtype=dtype)
        if name == "hard_sigmoid":
            return lambda x: clipped(rescaling(x))
        product = layers.Multiply(name=f"{layer.name}_multiply", dtype=dtype)
        return lambda x: product([x, clipped(rescaling(x))])

    def _normalization(self, layer: Any) -> Any:
        """A Normalization layer with the mean and variance that the original has learned."""
        learned = {
            name: as_array(weight).reshape(-1).tolist()
            for name, weight in zip(("mean", "variance"), layer.weights, strict=False)
        }
        return self._translation.layer(layer, **learned)

    def _copy_weights(self, layer: Any, new: Any) -> None:
        """Copies the weights of a layer, whose names and shapes must agree in order."""
        own, twins = _weights(layer), _weights(new)
        if [key for key, _ in own] != [key for key, _ in twins]:
            problem = (
                f"has the weights {_listed(own)}, and in {self._translation.name} {_listed(twins)}"
            )
            raise self._translation.refusal(layer, problem)
        for (_, variable), (_, twin) in zip(own, twins, strict=True):
            twin.assign(as_array(variable))


def _names(model: Any) -> Iterator[str]:
    """The names of all layers of a model and of models in it."""
    for layer in getattr(model, "layers", ()):
        yield layer.name
        yield from _names(layer)


def _listed(weights: list[tuple[tuple[str, tuple[int, ...]], Any]]) -> str:
    return ", ".join(f"{name} {shape}" for (name, shape), _ in weights) or "none"


def _weights(layer: Any) -> list[tuple[tuple[str, tuple[int, ...]], Any]]:
    """The weights of a layer in order, each with the last part of its name and its shape."""

    def name(weight: Any) -> str:
        # The kernel of DepthwiseConv2D is called `depthwise_kernel` in tf_keras.
        return weight.name.rpartition("/")[2].partition(":")[0].removeprefix("depthwise_")

    return [((name(weight), tuple(weight.shape)), weight) for weight in layer.weights]


def _is_functional(model: Any) -> bool:
    return hasattr(model, "_nodes_by_depth")


def _arguments(node: Any) -> tuple[Any, dict[str, Any]]:
    """The arguments of a node, without those that the other Keras adds by itself.

    These are the masks that Keras passes on, and `training`: Keras 3 replaces it by that of the whole
    model.
    """
    of_keras3 = hasattr(node, "operation")
    args = node.arguments.args if of_keras3 else node.call_args
    kwargs = node.arguments.kwargs if of_keras3 else node.call_kwargs
    masks = [getattr(x, "_keras_mask", None) for x in _flat(args)]
    kept = {}
    for name, value in kwargs.items():
        if name == "training" and of_keras3:
            continue
        if name == "mask" or name.endswith("_mask"):
            leaves = _flat(value)
            if all(leaf is None or any(leaf is mask for mask in masks) for leaf in leaves):
                continue
        kept[name] = value
    return args, kept


def _needed(graph: Any) -> list[Any]:
    """The nodes that outputs depend on, in order; a mask that Keras passes on is computed for no other."""
    wanted = {id(x) for x in graph.outputs}
    found = []
    for node in reversed(steps(graph)):
        if any(id(x) in wanted for x in _flat(node.outputs)):
            found.append(node)
            wanted |= {id(x) for x in _flat(_arguments(node))}
    return found[::-1]


def _structures(graph: Any) -> tuple[Any, Any]:
    """The inputs and the outputs of a functional model, as they are nested."""
    if hasattr(graph, "_inputs_struct"):
        return graph._inputs_struct, graph._outputs_struct
    return graph._nested_inputs, graph._nested_outputs
