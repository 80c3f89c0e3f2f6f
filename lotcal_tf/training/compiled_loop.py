"""Runs many training steps in one call of a compiled TensorFlow function.

The function loops over the batches of a block of examples that lies in memory. It is traced and
compiled once for all levels, because masks, weights and seeds are data to it.
"""

import bisect
import contextlib
import dataclasses
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from lotcal_tf.calibration.strategy import Logs, Strategy
from lotcal_tf.compat import keras
from lotcal_tf.data.augment import Augmentation, draw
from lotcal_tf.data.splits import Split, share
from lotcal_tf.errors import FieldError
from lotcal_tf.inputs import cast, padded, single_or_list, specs_of
from lotcal_tf.pruning.narrow import Places, Units
from lotcal_tf.seeds import draw_seed, step_seed
from lotcal_tf.training import programs
from lotcal_tf.training.distributed.distribution import ONE_DEVICE, Distribution

# After this many steps control returns to Python, which updates progress and handles Ctrl-C. That
# is well under a second for dense networks, and some seconds for convolutional ones. The number
# does not change the trained weights.
MAX_STEPS_PER_CALL = {"xla": 128, "graph": 16}

_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv2D", "SeparableConv2D")
# The layers of the built-in networks, which XLA compiles, as training wraps them.
_COMPILED = (
    *("Functional", "Sequential", "InputLayer", "Masked", "Rescaling", "Flatten", "Dense"),
    *("BatchNormalization", "LayerNormalization", "ReLU", "Activation", "Add", "Conv2D"),
    *("ZeroPadding2D", "MaxPooling2D", "GlobalAveragePooling2D", "StatelessDropout"),
    "StrategyDropout",
)
# What stands for a dimension of any size where a network is translated without data.
_ANY_SIZE = 32
_RECURRENT = ("RNN", "SimpleRNN", "GRU", "LSTM", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")


def choose_plan(plan: str, network: "keras.Model") -> str:
    """Chooses how the steps of a network are executed.

    Args:
      plan: `xla`, `graph`, or `auto`.
      network: the network to train.

    Returns:
      `xla`: one XLA program runs many steps. This is 2 to 4 times faster for dense networks.
      `graph`: a TensorFlow graph runs the same steps. Its convolutions come from oneDNN, which is
      3 times faster than XLA on CPUs; recurrent layers are faster, too. `auto` chooses `graph` for a
      network with convolutions or recurrent layers where there is no GPU, or with operations that XLA
      cannot compile, and `xla` otherwise. It never measures, so that two runs of one experiment choose
      the same plan.

    Raises:
      FieldError: the plan is `xla`, and XLA cannot compile the network.
    """
    kinds = {type(part).__name__ for part in network._flatten_layers()}
    faster = not kinds.isdisjoint((*_CONVOLUTIONS, *_RECURRENT))
    if plan == "graph" or (plan == "auto" and faster and not tf.config.list_logical_devices("GPU")):
        return "graph"
    refused = _not_compiled(network)
    if plan == "xla" and refused:
        raise FieldError("plan", plan, f"XLA cannot compile {refused}: choose graph or auto")
    return "graph" if refused else "xla"


def _not_compiled(network: "keras.Model") -> str:
    """The part of a network whose training XLA cannot compile, in words; empty if there is none.

    Its operations are translated for XLA, which takes a tenth of a second or more, and not compiled.
    """
    layers = [one for one in network._flatten_layers() if type(one).__name__ not in _COMPILED]
    if not layers:
        return ""
    specs = [
        tf.TensorSpec([spec.shape[0] or 1, *(n or _ANY_SIZE for n in spec.shape[1:])], spec.dtype)
        for spec in specs_of(network).values()
    ]

    def gradients(*inputs: "tf.Tensor") -> Any:
        with step_seed(tf.constant([0, 0])), tf.GradientTape() as tape:
            outputs = network(single_or_list(inputs), training=True)
        return tape.gradient(outputs, network.trainable_variables)

    try:
        refused = _refused(gradients, *specs)
    except Exception:  # of a layer; unless the size is its cause, the training will show it
        return ""
    if not refused:
        return ""
    named = [one for one in layers if one.name in refused.split("/")]
    return f"layer {named[-1].name!r} ({type(named[-1]).__name__})" if named else "a layer"


def _refused(function: Any, *specs: Any) -> str:
    """The operation of a function that cannot be translated for XLA: its name, after those of its layers.

    Args:
      function: takes tensors.
      *specs: describe the tensors.

    Returns:
      The name; empty if all can be translated, `unknown` if XLA does not name it.
    """
    translate = tf.function(function, jit_compile=True).experimental_get_compiler_ir(*specs)
    try:
        with warnings.catch_warnings(action="ignore"):  # of `device_name`
            # Without a device it would draw a random number to find one, which has no seed here.
            translate(stage="hlo", device_name=tf.zeros([]).device)
    except ValueError as error:
        named = re.search(r"node ([^}]+)}}|node `([^`]+)`", str(error))
        return "".join(named.groups("")) if named else "unknown"
    return ""


def step_ranges(
    first: int, last: int, most: int, pause_at: Sequence[int] = ()
) -> list[tuple[int, int]]:
    """Splits the steps [first, last) into the ranges that one call each runs.

    Args:
      first: the first step.
      last: the step after the last one.
      most: a range ends at every multiple of this.
      pause_at: more steps at which a range ends. Those outside (first, last) have no effect.

    Returns:
      Ranges [begin, end), in order.
    """
    ends = sorted({*range(most, last, most), *(p for p in pause_at if first < p < last), last})
    ends = ends[bisect.bisect_right(ends, first) :]
    return list(zip([first, *ends[:-1]], ends, strict=True))


@dataclasses.dataclass(frozen=True)
class LoopProgress:
    """The state of an epoch after a call of the compiled function.

    Attributes:
      step: how many steps of the epoch are done, counted from its beginning.
      means: the mean of each logged value over the steps that were taken; a smaller batch at the end
        of the epoch counts by its share of a batch.
      finite: whether the loss of every step was finite. If not, the last step is the one whose
        loss was not, and the epoch ends there.
    """

    step: int
    means: Mapping[str, float]
    finite: bool


class CompiledLoop:
    """Runs the `train_step` of a calibration strategy over an epoch, many steps in each call.

    Args:
      strategy: compiled with an optimizer that is built.
      batch_size: examples in a step, over all processes.
      plan: `xla` or `graph`. Several devices need `graph`.
      augmentation: changes the images of a batch before the step.
      class_weight: weights of the classes in the loss; empty: none. An example's weight is multiplied
        by that of its class.
      distribution: the devices that share every step. If they belong to several processes, this
        one holds and changes only its own rows of each batch.
      drop_remainder: whether the examples that are left over after the whole batches of an epoch are
        dropped. Otherwise they are the batch of one more step.

    Attributes:
      run_steps: the compiled function. It runs steps of a block.
      compilations: how many times `run_steps` was traced, and so compiled; see `programs` for when not.
    """

    def __init__(
        self,
        strategy: Strategy,
        batch_size: int,
        plan: str,
        augmentation: Augmentation | None = None,
        distribution: Distribution = ONE_DEVICE,
        class_weight: Sequence[float] = (),
        drop_remainder: bool = True,
    ) -> None:
        self.class_weight = tuple(class_weight)
        self.strategy, self.distribution = strategy, distribution
        self.augmentation = augmentation
        self.batch_size, self.plan = batch_size, plan
        self.drop_remainder = drop_remainder
        self.compilations = 0
        self.run_steps = self._compiled(batch_size)
        self.places: Places | None = None
        # The compiled functions by their batch size and the widths of the hidden layers.
        self._functions: dict[Any, Any] = {(batch_size, None): self.run_steps}
        self._places: dict[tuple[int, ...], Places] = {}
        self._own_rows = share(batch_size, distribution.worker, distribution.workers)

    def _compiled(self, batch_size: int, places: Places | None = None) -> Any:
        """The compiled function for batches of a size, over all processes, and for some hidden units."""

        def steps(block: tuple[Any, ...], bounds: "tf.Tensor", seed: "tf.Tensor") -> Any:
            with contextlib.nullcontext() if places is None else places.applied():
                return self._steps(block, bounds, seed, batch_size)

        return tf.function(steps, jit_compile=self.plan == "xla", reduce_retracing=False)

    def epoch(
        self,
        split: Split,
        shuffle: tuple[int, int],
        seed: tuple[int, int],
        first: int = 0,
        pause_at: Sequence[int] = (),
    ) -> Iterator[LoopProgress]:
        """Trains for one epoch.

        Args:
          split: the training examples.
          shuffle: seed of the order of the examples.
          seed: seed of the random draws within the steps.
          first: the step of the epoch to begin with.
          pause_at: steps of the epoch after which control returns to Python, in addition to
            `MAX_STEPS_PER_CALL`. Those outside the epoch have no effect.

        Yields:
          The state of the epoch after each call of the compiled function.
        """
        steps, most = split.count // self.batch_size, MAX_STEPS_PER_CALL[self.plan]
        size = split.block_steps(self.batch_size, most)
        rows = size * (self._own_rows.stop - self._own_rows.start)
        worker, workers = self.distribution.worker, self.distribution.workers
        drop = self.drop_remainder
        blocks = split.shuffled(self.batch_size, most, shuffle, worker, workers, drop)
        remainder = 0 if drop else split.count % self.batch_size
        starts = [*range(0, steps, size), *([steps] if remainder else [])]
        epoch_seed = tf.constant(seed, tf.int32)
        sums, batches = dict.fromkeys(self.strategy.log_names, 0.0), 0.0
        for start, block in zip(starts, blocks, strict=True):
            end = min(start + size, steps)
            run, weight = self._function(self.batch_size), 1.0
            if start == steps:
                end = steps + 1
                run, weight = self._function(remainder), remainder / self.batch_size
            if end <= first:
                continue
            if start < steps:
                # Zeros that no step reads: one shape, so one compilation.
                block = padded(block, rows - block[1].shape[0])
            for begin, stop in step_ranges(max(start, first), end, most, pause_at):
                bounds = tf.constant([begin - start, stop - start, start], tf.int32)
                added, place, failed = programs.call(run, block, bounds, epoch_seed)
                sums = {name: total + weight * float(added[name]) for name, total in sums.items()}
                step = start + int(place)
                batches += weight * (step - begin)
                means = {name: total / batches for name, total in sums.items()}
                yield LoopProgress(step, means, finite=not failed)
                if failed:
                    return

    def traced(self, split: Split) -> Any:
        """Traces one step without running it, and returns what it would log.

        Args:
          split: the training examples.

        Raises:
          FieldError: the plan is `xla`, and XLA cannot compile the step.
        """
        worker, workers = self.distribution.worker, self.distribution.workers
        drop = self.drop_remainder
        block = next(split.shuffled(self.batch_size, 1, (0, 0), worker, workers, drop))

        def step(block: tuple[Any, ...], place: "tf.Tensor", seed: "tf.Tensor") -> Logs:
            return self._step(block, place, seed, self.batch_size)

        specs = tf.nest.map_structure(tf.TensorSpec.from_tensor, block)
        given = specs, tf.TensorSpec([], tf.int32), tf.TensorSpec([2], tf.int32)
        logs = tf.function(step).get_concrete_function(*given).structured_outputs

        def of_tensors(*parts: "tf.Tensor") -> Logs:
            return step(*tf.nest.pack_sequence_as(given, parts))

        if self.plan == "xla" and (refused := _refused(of_tensors, *tf.nest.flatten(given))):
            problem = f"XLA cannot compile an operation of the step ({refused}): choose graph"
            raise FieldError("plan", self.plan, problem)
        return logs

    def use_units(self, units: Units | None) -> None:
        """Lets the steps from now on compute some of the hidden units only; None: all."""
        if units is None:
            self.places = None
            return
        if units.widths not in self._places:
            self._places[units.widths] = Places(self.strategy.network, units.widths)
        self.places = self._places[units.widths]
        self.places.set(units)

    def _function(self, batch_size: int) -> Any:
        """The compiled function for a batch size and the current hidden units."""
        key = batch_size, None if self.places is None else self.places.widths
        if key not in self._functions:
            self._functions[key] = self._compiled(batch_size, self.places)
        return self._functions[key]

    def _steps(
        self, block: tuple[Any, ...], bounds: "tf.Tensor", seed: "tf.Tensor", batch_size: int
    ) -> tuple[dict[str, "tf.Tensor"], "tf.Tensor", "tf.Tensor"]:
        """Runs steps of a block, and stops early after a step whose loss is not finite.

        Args:
          block: the inputs of the block's examples, their labels and, if they have any, weights.
          bounds: `(3,)`: the first step, the step after the last one, both within the block, and
            the number of steps of the epoch before the block.
          seed: `(2,)`, of the epoch's random draws.
          batch_size: examples in a step, over all processes.

        Returns:
          The sums of the logs, the step after the last one taken, and whether its loss was not
          finite.
        """
        self.compilations += 1
        begin, stop, before = tf.unstack(bounds)
        strategy = self.strategy

        def step(
            place: "tf.Tensor", sums: dict[str, "tf.Tensor"], failed: "tf.Tensor"
        ) -> tuple["tf.Tensor", dict[str, "tf.Tensor"], "tf.Tensor"]:
            logs = self._step(block, place, seed + tf.stack([0, before + place]), batch_size)
            total = {name: sums[name] + logs[name] for name in sums}
            return place + 1, total, ~tf.math.is_finite(logs["loss"])

        none = {name: tf.constant(0.0) for name in strategy.log_names}
        place, sums, failed = tf.while_loop(
            lambda place, _, failed: (place < stop) & ~failed,
            step,
            (begin, none, tf.constant(False)),
            parallel_iterations=1,
        )
        return sums, place, failed

    def _step(
        self, block: tuple[Any, ...], place: "tf.Tensor", seed: "tf.Tensor", batch_size: int
    ) -> Logs:
        """Takes one step.

        Args:
          block, batch_size: see `_steps`.
          place: the number of the step within the block.
          seed: `(2,)`, of the step's random draws.
        """
        strategy = self.strategy
        own = share(batch_size, self.distribution.worker, self.distribution.workers)
        size, specs = own.stop - own.start, specs_of(strategy.network)

        def train_step(data: tuple[Any, ...], seed: "tf.Tensor") -> Logs:
            with step_seed(seed):
                return strategy.train_step(data)

        batch, *targets = tf.nest.map_structure(lambda part: _rows(part, place * size, size), block)
        if self.augmentation is not None:
            # Drawn for the whole batch, so that any number of processes draws the same.
            with step_seed(seed):
                draws = draw(draw_seed("augment"), batch_size)
            batch = self.augmentation(batch, draws[own])
        data = (cast(batch, specs), *self._weighted(*targets))
        return self.distribution.run(train_step, data, seed)

    def _weighted(
        self, labels: "tf.Tensor", weights: "tf.Tensor | None" = None
    ) -> tuple["tf.Tensor", ...]:
        """Labels `(N,)`, and their weights `(N,)` in the loss, if there are any."""
        if self.class_weight:
            of_class = tf.gather(tf.constant(self.class_weight, tf.float32), labels)
            weights = of_class if weights is None else weights * of_class
        return (labels,) if weights is None else (labels, weights)


def _rows(block: "tf.Tensor", start: "tf.Tensor", size: int) -> "tf.Tensor":
    """Returns `size` rows of a block, with a static shape, as XLA needs it."""
    begin = tf.concat([[start], tf.zeros([block.shape.rank - 1], tf.int32)], 0)
    return tf.slice(block, begin, [size, *block.shape[1:]])
