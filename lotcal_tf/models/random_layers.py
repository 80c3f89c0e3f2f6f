"""Random layers of Keras without state: all their draws are functions of the training step's seed.

Keras's random layers (noise, image augmentation, dropout of recurrent and attention layers, …) draw from
hidden generators that checkpoints do not contain, so a repeated or resumed run would differ. In the
network that is trained, `StepGenerator` replaces these generators; the layers themselves stay.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from lotcal_tf.compat import RandomGenerator, keras
from lotcal_tf.errors import UsageError, first_line
from lotcal_tf.models.stateless_dropout import drop
from lotcal_tf.seeds import in_step, next_seed, random_bits, step_seed

Leaves = Iterable[tuple[str, "keras.layers.Layer"]]

# The types of TensorFlow's operations that draw random numbers and have state or a seed of their own.
_DRAWS = re.compile(
    "(Random(Uniform|UniformInt|StandardNormal|Gamma|Poisson|PoissonV2|Shuffle)"
    "|(Parameterized)?TruncatedNormal|Multinomial|Rng.*|Stateful.*|NonDeterministicInts"
    "|.*CandidateSampler|Fractional(Max|Avg)Pool|SampleDistortedBoundingBox(V2)?)"
)
# Modules of Keras whose layers draw from a `RandomGenerator`, if at all. A bare operation may be random,
# and so are the wrappers of cells from TensorFlow 1.
_KNOWN = ("tf_keras.src.engine.", "tf_keras.src.layers.", "lotcal_tf.")
_UNKNOWN = ("tf_keras.src.layers.core.tf_op_layer", "tf_keras.src.layers.rnn.cell_wrappers")


# The probabilities that a normal draw is below −2, and below 2.
_WITHIN_TWO = (0.022750131948179212, 0.9772498680518208)


class StepGenerator(RandomGenerator):
    """A `RandomGenerator` without state: the seed of the training step determines its draws.

    Its draws are numbered within a step, so that each is different.

    Args:
      original: the generator that it replaces.
      use: a name that no other generator of the network has.
    """

    def __init__(self, original: RandomGenerator, use: str) -> None:
        # A layer's configuration contains the type of its generator.
        super().__init__(original._seed, rng_type=original._rng_type)
        self._use = use

    def _maybe_init(self) -> None:
        """Creates no state."""

    def make_seed_for_stateless_op(self) -> "tf.Tensor":
        """The seed of the next draw, int32 `(2,)`.

        Outside a training step it is constant: some layers, e.g. RandomCrop, trace their draws also
        for inference, and do not use them.
        """
        return next_seed(self._use) if in_step() else tf.zeros([2], tf.int32)

    def make_legacy_seed(self) -> int:
        """Raises UsageError: no seed makes an operation with state repeatable."""
        raise UsageError(
            f"layer {self._use!r} draws by an operation that has state: use the methods random_normal, "
            "random_uniform, truncated_normal and dropout of its generator, or make_seed_for_stateless_op"
        )

    def random_normal(
        self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, nonce: Any = None
    ) -> "tf.Tensor":
        """Normal draws; see `RandomGenerator`."""
        # Quantiles of uniform draws: TensorFlow's normal draws are other numbers if compiled.
        draws = tf.math.ndtri(self._uniform(shape))
        return tf.cast(mean + stddev * draws, dtype or keras.backend.floatx())

    def truncated_normal(
        self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, nonce: Any = None
    ) -> "tf.Tensor":
        """Normal draws within two standard deviations of the mean; see `RandomGenerator`."""
        low, high = _WITHIN_TWO
        draws = tf.math.ndtri(low + (high - low) * self._uniform(shape))
        return tf.cast(mean + stddev * draws, dtype or keras.backend.floatx())

    def random_uniform(
        self,
        shape: Any,
        minval: Any = 0.0,
        maxval: Any = None,
        dtype: Any = None,
        nonce: Any = None,
    ) -> "tf.Tensor":
        """Uniform draws in [minval, maxval); see `RandomGenerator`. maxval=None: 1."""
        dtype = tf.as_dtype(dtype or keras.backend.floatx())
        if not dtype.is_integer:
            high = 1.0 if maxval is None else maxval
            return tf.cast(minval + (high - minval) * self._uniform(shape), dtype)
        low, high = (tf.cast(bound, tf.int64) for bound in (minval, maxval))
        draws = tf.bitcast(tf.bitwise.right_shift(self._bits(shape), _shift(1)), tf.int64)
        return tf.cast(low + draws % (high - low), dtype)

    def _uniform(self, shape: Any) -> "tf.Tensor":
        """Uniform draws in (0, 1), float32."""
        # With 24 bits the largest one would be rounded to 1.
        bits = tf.bitwise.right_shift(self._bits(shape), _shift(41))
        return (tf.cast(tf.bitcast(bits, tf.int64), tf.float32) + 0.5) / 2.0**23

    def _bits(self, shape: Any) -> "tf.Tensor":
        """Random bits, uint64, which are the same with and without compilation."""
        shape = tf.convert_to_tensor(shape, tf.int32)
        bits = random_bits(self.make_seed_for_stateless_op(), tf.reduce_prod(shape))
        return tf.reshape(bits, shape)

    def dropout(self, inputs: Any, rate: float, noise_shape: Any = None) -> "tf.Tensor":
        """Drops inputs; see `stateless_dropout.drop`."""
        shape = tf.shape(inputs) if noise_shape is None else tf.convert_to_tensor(noise_shape)
        return drop(inputs, rate, shape, self.make_seed_for_stateless_op)


def _shift(bits: int) -> "tf.Tensor":
    return tf.constant(bits, tf.uint64)


def seed_layers(leaves: Leaves) -> None:
    """Replaces the generators of all random layers, in place; the layers must be built.

    Args:
      leaves: paths and layers of a network, see `masking.leaf_layers`.
    """
    for path, layer in leaves:
        for number, (attributes, name) in enumerate(_generators(layer)):
            # Written to __dict__ directly, since Keras would track the new generator.
            attributes[name] = StepGenerator(attributes[name], f"{path}/{number}")


def _generators(layer: "keras.layers.Layer") -> list[tuple[dict[str, Any], str]]:
    """The attributes of a layer and of layers inside it that hold generators, as (dictionary, key)."""
    return [
        (part.__dict__, name)
        for part in layer._flatten_layers()
        for name, value in part.__dict__.items()
        if isinstance(value, RandomGenerator)
    ]


def check_draws(network: "keras.Model", leaves: Leaves) -> None:
    """Checks that no layer of a network draws random numbers that the step's seed does not determine.

    Only networks with custom layers or bare operations are traced; Keras's own layers are known.

    Args:
      network: its generators have been replaced by `seed_layers`.
      leaves: paths and layers of the network.

    Raises:
      UsageError: a layer does, or the network cannot be called in training.
    """
    layers = dict(leaves)
    parts = [part for layer in layers.values() for part in layer._flatten_layers()]
    if all(_is_known(type(part).__module__) for part in parts):
        return
    for operation, kind in _random_operations(network):
        path = max((path for path in layers if f"/{path}/" in f"/{operation}"), key=len, default="")
        named = f"layer {path!r} ({type(layers[path]).__name__})" if path else operation
        raise UsageError(
            f"{named} draws random numbers ({kind}) that the seed of the run does not determine: derive "
            "the layer from keras.__internal__.layers.BaseRandomLayer and draw by its _random_generator, or draw by "
            "tf.random.stateless_uniform and the like with seed=lotcal_tf.draw_seed(self.name)"
        )


def _is_known(module: str) -> bool:
    return module.startswith(_KNOWN) and not module.startswith(_UNKNOWN)


def _random_operations(network: "keras.Model") -> Iterator[tuple[str, str]]:
    """The random operations of a network in training: each one's path of names, and its type."""

    @tf.function
    def train(inputs: Any, seed: "tf.Tensor") -> Any:
        # While operations are deterministic, TensorFlow would refuse the draws that are looked for.
        tf.compat.v1.get_default_graph().seed = 0
        with step_seed(seed):
            return network(inputs, training=True)

    inputs = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), network.input)
    try:
        traced = train.get_concrete_function(inputs, tf.TensorSpec([2], tf.int32))
    except UsageError:
        raise
    except Exception as error:  # The layers are the caller's code, and can raise anything.
        line = first_line(error)
        raise UsageError(f"model {network.name!r} cannot be called in training: {line}") from error
    graph = traced.graph.as_graph_def()
    functions = {function.signature.name: function.node_def for function in graph.library.function}
    kinds: dict[str, str | None] = {}

    def inside(name: str) -> str | None:
        """The type of the first random operation in a function, or in those that it calls."""
        if name not in kinds:
            kinds[name] = None
            kinds[name] = next(filter(None, map(kind_of, functions.get(name, ()))), None)
        return kinds[name]

    def kind_of(node: Any) -> str | None:
        if _DRAWS.fullmatch(node.op):
            return str(node.op)
        called = [value.func.name for value in node.attr.values()]
        called += [f.name for value in node.attr.values() for f in value.list.func]
        return next(filter(None, map(inside, filter(None, called))), None)

    for node in graph.node:
        kind = kind_of(node)
        if kind is not None:
            yield node.name, kind
