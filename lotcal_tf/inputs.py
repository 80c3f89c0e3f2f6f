"""The inputs of models: one array, or several by name or in order, as Keras takes them.

Inputs are one array `(N, …)`; for a model with several inputs, a dictionary of arrays by the names of
its inputs, or a tuple of arrays in the order of `model.inputs`. What a model takes is described by
`Specs`. Functions that map over inputs leave a single array a single array.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.errors import UsageError

# The name, shape (with the batch axis) and type of each input, in the order of the model's inputs. Of
# a model, every floating type is float32, since data is kept as float32 and Keras casts it.
Specs = Mapping[str, "tf.TensorSpec"]


def specs_of(model: Any) -> dict[str, "tf.TensorSpec"]:
    """What a functional or sequential model of tf_keras or Keras 3 takes.

    Raises:
      UsageError: an input is ragged, sparse or a string.
    """
    nested = _nested_inputs(model)
    names = sorted(nested) if isinstance(nested, dict) else [x.name for x in model.inputs]
    if not isinstance(nested, dict):
        names = getattr(model, "input_names", names)
    found = {}
    for name, x in zip(names, model.inputs, strict=True):
        spec = _type_spec(x)
        if not isinstance(spec, tf.TensorSpec):
            kind = type(spec).__name__.removesuffix("Spec")
            raise UsageError(
                f"input {name!r} of the model is a {kind}: a dense tensor is needed; pad the examples"
            )
        dtype = spec.dtype
        if not (dtype.is_floating or dtype.is_integer or dtype.is_bool):
            raise UsageError(
                f"input {name!r} of the model has dtype {dtype.name}: numbers are needed; move "
                "layers such as TextVectorization and StringLookup from the model to the data"
            )
        found[name] = tf.TensorSpec(spec.shape, tf.float32 if dtype.is_floating else dtype, name)
    return found


def _nested_inputs(model: Any) -> Any:
    """The inputs of a model as they are nested; None if it has none of its own."""
    return getattr(model, "_nested_inputs", getattr(model, "_inputs_struct", None))


def _type_spec(x: Any) -> Any:
    """The type of an input; Keras 3 describes it by attributes."""
    if hasattr(x, "type_spec"):
        return x.type_spec
    kind = tf.SparseTensorSpec if getattr(x, "sparse", False) else tf.TensorSpec
    return kind(x.shape, x.dtype)


def packed(model: Any, parts: Sequence[Any]) -> Any:
    """The values of a model's inputs, in the order of `specs_of`, as the model is called with them."""
    nested = _nested_inputs(model)
    if isinstance(nested, dict):
        return dict(zip(sorted(nested), parts, strict=True))
    return single_or_list(parts)


def arranged(given: Any, specs: Specs | None, of: str, *, ordered: bool = True) -> Any:
    """Brings inputs into the form in which a model takes them.

    Args:
      given: arrays, tensors or specs of them: one, or a dictionary, tuple or list.
      specs: what the model takes; None: unknown, then a single input is expected.
      of: what they are, for messages: `train inputs`.
      ordered: whether the order of the model's inputs is known, so that a tuple is accepted.

    Returns:
      For a model with one input, that; else a dictionary in the order of `specs`, or a tuple.

    Raises:
      UsageError: names or number of the inputs are not those of the model.
    """
    if specs is None:
        return given
    names = ", ".join(specs)
    takes = f"the model takes {len(specs)} input{'s' if len(specs) > 1 else ''}: {names}"
    if isinstance(given, Mapping):
        if set(given) != set(specs):
            found = ", ".join(map(str, given)) or "none"
            raise UsageError(
                f"{of} have the names {found}, and {takes}; name inputs with keras.Input(…, name=…)"
            )
        values = {name: given[name] for name in specs}
        return values if len(specs) > 1 else next(iter(values.values()))
    if len(specs) == 1:
        return given
    if isinstance(given, tuple | list) and len(given) == len(specs) and ordered:
        return tuple(given)
    form = "a dictionary with these names" + (", or a tuple in this order" if ordered else "")
    count = f"{len(given)} elements" if isinstance(given, tuple | list) else "no names"
    raise UsageError(f"{of} have {count}, and {takes}; give {form}")


def flat(inputs: Any) -> list[tuple[str, Any]]:
    """Each input with its key, keys of a dictionary sorted; a single input has the empty key."""
    if isinstance(inputs, Mapping):
        return sorted(inputs.items())
    if isinstance(inputs, tuple):
        return [(str(place), part) for place, part in enumerate(inputs)]
    return [("", inputs)]


def matched(inputs: Any, specs: Specs | None) -> Any:
    """The spec of each input, in the structure of the inputs; None for each without `specs`."""
    if isinstance(inputs, Mapping):
        return {name: None if specs is None else specs[name] for name in inputs}
    if isinstance(inputs, tuple):
        return tuple(specs.values()) if specs is not None else (None,) * len(inputs)
    return None if specs is None else next(iter(specs.values()))


def cast(inputs: Any, specs: Specs) -> Any:
    """Casts tensors to the types that a model takes."""
    return mapped(lambda x, spec: tf.cast(x, spec.dtype), inputs, specs)


def by_name(inputs: Any, specs: Specs) -> dict[str, NDArray]:
    """Arrays by the names of the model's inputs, in its order and of the types that it takes."""
    found = {}
    values = inputs
    if not isinstance(inputs, Mapping) or len(specs) == 1:  # A single input may have another name.
        values = dict(zip(specs, (x for _, x in flat(inputs)), strict=True))
    for name, spec in specs.items():
        found[name] = np.asarray(values[name]).astype(spec.dtype.as_numpy_dtype, copy=False)
    return found


def single_or_list(parts: Sequence[Any]) -> Any:
    """The value of a single input, or the list of several, as a Keras model is called with them."""
    return parts[0] if len(parts) == 1 else list(parts)


def fixed_batch(specs: Specs) -> int | None:
    """The batch size of a model with a fixed one; else None."""
    sizes = {spec.shape[0] for spec in specs.values()} - {None}
    return int(sizes.pop()) if sizes else None


def misfit(specs: Specs, shape: Any) -> bool:
    """Whether examples of a shape, see `shape_of`, cannot be the inputs described by `specs`."""
    given = shape if isinstance(shape, dict) else {"": shape}
    if len(given) != len(specs):
        return True
    pairs = [(spec, given[name]) for name, spec in specs.items() if name in given]
    if len(pairs) < len(specs):  # in order
        pairs = list(zip(specs.values(), given.values(), strict=True))
    return not all(spec.shape[1:].is_compatible_with(one) for spec, one in pairs)


def select(inputs: Any, rows: Any) -> Any:
    """The examples that `rows` (a slice, indices or booleans) selects."""
    return tf.nest.map_structure(lambda x: x[rows], inputs)


def count(inputs: Any) -> int:
    """The number of examples."""
    return len(flat(inputs)[0][1])


def concatenated(parts: list[Any]) -> Any:
    """Concatenates NumPy inputs along the axis of examples."""
    return tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def padded(inputs: Any, missing: int) -> Any:
    """Appends `missing` examples of zeros to tensors."""
    if not missing:
        return inputs
    return tf.nest.map_structure(
        lambda x: tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1)), inputs
    )


def examples_bytes(inputs: Any) -> Iterator[bytes]:
    """The values of each example of NumPy inputs as bytes."""
    parts = [part for _, part in flat(inputs)]
    for example in zip(*parts, strict=True):
        yield b"".join(value.tobytes() for value in example)


def shape_of(spec: Any) -> Any:
    """The shape of one example from its spec: a tuple, or for several inputs a dictionary of them."""
    if isinstance(spec, tf.TensorSpec):
        return tuple(spec.shape)
    return {key: tuple(part.shape) for key, part in flat(spec)}


def example_shape(inputs: Any) -> Any:
    """The shape of one example of arrays or tensors, see `shape_of`."""
    return shape_of(tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape[1:]), inputs))


def image_shape(shape: Any) -> bool:
    """Whether an example, by its `shape_of`, is one image `(height, width, channels)`."""
    return isinstance(shape, tuple) and len(shape) == 3


def mapped(function: Any, inputs: Any, specs: Specs | None) -> Any:
    """Maps over inputs and their specs; `tf.nest` cannot, since it sorts the keys of dictionaries."""
    spec = matched(inputs, specs)
    if isinstance(inputs, Mapping):
        return {name: function(x, spec[name]) for name, x in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(function(x, one) for x, one in zip(inputs, spec, strict=True))
    return function(inputs, spec)
