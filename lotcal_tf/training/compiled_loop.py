"""The compiled program of many training steps, fed block by block.

A program runs a stretch of steps over a block of examples that lies in memory; one tracing, one
compilation serves every level, since masks, weights and seeds are data to it. `fit` of Keras
drives it: the program stands in for its `train_function`.
"""

import bisect
from collections.abc import Iterator, Sequence

import tensorflow as tf

from lotcal_tf.calibration.strategy import Logs, Strategy
from lotcal_tf.compat import keras
from lotcal_tf.data.augment import Augmentation, draw
from lotcal_tf.data.splits import Split, share
from lotcal_tf.seeds import draw_seed, step_seed
from lotcal_tf.training.distributed.distribution import ONE_DEVICE, Distribution

# How many steps run before Python is visited (progress, Ctrl-C): well under a second of dense
# steps, some seconds of convolutional ones. Results do not depend on it.
VISIT_STEPS = {"xla": 128, "graph": 16}

_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv2D", "SeparableConv2D")


def choose_plan(plan: str, network: "keras.Model") -> str:
    """The plan a network runs by.

    Args:
      plan: `xla`, `graph`, or `auto`.
      network: the network to train.

    Returns:
      `xla`: the stretch of steps is one compiled program; fastest for dense networks, by 2 to 4
      times. `graph`: the same steps as a TensorFlow graph, whose convolutions come from oneDNN:
      3 times faster than XLA's on CPUs. `auto` takes `graph` for a network with convolutions where
      there is no GPU. A rule, not a race: two runs of one experiment must choose alike.
    """
    if plan != "auto":
        return plan
    convolutional = any(type(part).__name__ in _CONVOLUTIONS for part in network._flatten_layers())
    return "graph" if convolutional and not tf.config.list_logical_devices("GPU") else "xla"


def stretches(first: int, last: int, most: int, cuts: Sequence[int] = ()) -> list[tuple[int, int]]:
    """Cuts the steps [first, last) into stretches of at most `most` that end at each of `cuts`."""
    ends = sorted({*range(most, last, most), *(cut for cut in cuts if first < cut < last), last})
    ends = ends[bisect.bisect_right(ends, first) :]
    return list(zip([first, *ends[:-1]], ends, strict=True))


class TrainingProgram:
    """Runs a strategy's `train_step` over blocks; callable as Keras's `train_function`.

    Args:
      strategy: compiled with an optimizer that is built.
      batch_size: examples a step, of all processes together.
      plan: `xla` or `graph`.
      augmentation: what is done to a batch's images before the step, if anything.
      distribution: the devices that share a step; `graph` where they are several. Where they
        belong to several processes, only this one's rows of a batch are held and changed here.

    Attributes:
      compiled: how often the program was traced, which is how often it was compiled.
      failed_step: the step of the current epoch whose loss was not finite, else None.
    """

    def __init__(
        self,
        strategy: Strategy,
        batch_size: int,
        plan: str,
        augmentation: Augmentation | None = None,
        distribution: Distribution = ONE_DEVICE,
    ) -> None:
        """See the class."""
        self.strategy, self.distribution = strategy, distribution
        self.augmentation = augmentation
        self.batch_size = batch_size
        self._own = share(batch_size, distribution.worker, distribution.workers)
        self.plan = plan
        self.compiled = 0
        self.failed_step: int | None = None
        self._feed: Iterator[tuple[tf.Tensor, tf.Tensor, int, int, int]] = iter(())
        self._seed = tf.zeros([2], tf.int32)
        self._begin_epoch()
        self._run = tf.function(self._steps, jit_compile=plan == "xla", reduce_retracing=False)

    def _begin_epoch(self) -> None:
        self._sums = dict.fromkeys(self.strategy.log_names, 0.0)
        self._done = 0
        self.failed_step = None

    def visits(self, split: Split, cuts: Sequence[int] = ()) -> int:
        """How often a whole epoch visits Python; `cuts` are steps of the epoch to stop at."""
        return len(list(self._stretches(split, 0, cuts)))

    def _stretches(
        self, split: Split, first: int, cuts: Sequence[int]
    ) -> Iterator[tuple[int, int, int]]:
        """The epoch's stretches as (block, first step, last step)."""
        steps, most = split.count // self.batch_size, VISIT_STEPS[self.plan]
        size = split.block_steps(self.batch_size, most)
        for block, start in enumerate(range(0, steps, size)):
            end = min(start + size, steps)
            if end > first:
                for begin, stop in stretches(max(start, first), end, most, cuts):
                    yield block, begin, stop

    def feed(
        self,
        split: Split,
        shuffle: tuple[int, int],
        seed: tuple[int, int],
        first: int = 0,
        cuts: Sequence[int] = (),
    ) -> None:
        """Readies one epoch.

        Args:
          split: the training examples.
          shuffle: names the epoch's order.
          seed: of the draws within its steps.
          first: the epoch's step to begin with.
          cuts: steps that a visit must end at; those that lie outside the epoch do not matter.
        """

        def epoch() -> Iterator[tuple[tf.Tensor, tf.Tensor, int, int, int]]:
            most = VISIT_STEPS[self.plan]
            size = split.block_steps(self.batch_size, most)
            rows, devices = self._own.stop - self._own.start, self.distribution
            blocks = enumerate(
                split.shuffled(self.batch_size, most, shuffle, devices.worker, devices.workers)
            )
            place, examples = next(blocks)
            for block, begin, stop in self._stretches(split, first, cuts):
                while place < block:
                    place, examples = next(blocks)
                inputs, labels = (_filled(part, size * rows) for part in examples)
                yield inputs, labels, begin - block * size, stop - block * size, block * size

        self._begin_epoch()
        self._feed = epoch()
        self._seed = tf.constant(seed, tf.int32)

    def __call__(self, ticks: Iterator[object]) -> dict[str, float]:
        """Runs the next stretch; gives the epoch's means so far, and `steps` done in it."""
        next(ticks)
        stretch = next(self._feed, None)
        if stretch is not None and self.failed_step is None:
            inputs, labels, begin, stop, before = stretch
            bounds = tf.constant([begin, stop, before], tf.int32)
            sums, end, failed = self._run(inputs, labels, bounds, self._seed)
            for name, value in sums.items():
                self._sums[name] += float(value)
            self._done += int(end) - begin
            if failed:
                self.failed_step = before + int(end) - 1
        means = {name: total / max(1, self._done) for name, total in self._sums.items()}
        return means | {"steps": self._done}

    def _steps(
        self, inputs: "tf.Tensor", labels: "tf.Tensor", bounds: "tf.Tensor", seed: "tf.Tensor"
    ) -> tuple[dict[str, "tf.Tensor"], "tf.Tensor", "tf.Tensor"]:
        """Steps [begin, stop) of a block; ends early after a step whose loss is not finite."""
        self.compiled += 1
        begin, stop, before = tf.unstack(bounds)
        own, strategy = self._own, self.strategy
        size = own.stop - own.start

        def one(inputs: "tf.Tensor", labels: "tf.Tensor", seed: "tf.Tensor") -> Logs:
            with step_seed(seed):
                return strategy.train_step((inputs, labels))

        def step(
            place: "tf.Tensor", sums: dict[str, "tf.Tensor"], failed: "tf.Tensor"
        ) -> tuple["tf.Tensor", dict[str, "tf.Tensor"], "tf.Tensor"]:
            batch, truth = _rows(inputs, place * size, size), _rows(labels, place * size, size)
            own_seed = seed + tf.stack([0, before + place])
            if self.augmentation is not None:
                # Drawn for the whole batch, so that it is the same in any number of processes.
                with step_seed(own_seed):
                    draws = draw(draw_seed("augment"), self.batch_size)
                batch = self.augmentation(batch, draws[own])
            logs = self.distribution.run(one, tf.cast(batch, tf.float32), truth, own_seed)
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


def _filled(block: "tf.Tensor", count: int) -> "tf.Tensor":
    """A shorter block, with zeros that no step reaches: all of one shape, the program is compiled once."""
    missing = count - block.shape[0]
    if not missing:
        return block
    return tf.pad(block, [[0, missing]] + [[0, 0]] * (block.shape.rank - 1))


def _rows(block: "tf.Tensor", start: "tf.Tensor", size: int) -> "tf.Tensor":
    """`size` rows of a block; of known shape, as the compiler wants it."""
    begin = tf.concat([[start], tf.zeros([block.shape.rank - 1], tf.int32)], 0)
    return tf.slice(block, begin, [size, *block.shape[1:]])
