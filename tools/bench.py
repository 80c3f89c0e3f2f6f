"""Compares the time of a training step with a lower bound and with other training loops.

    python tools/bench.py --data_dir=DIR      on MNIST; without --data_dir, on noise of its shape
    python tools/bench.py --strategies        all strategies, compared with `none`
    python tools/bench.py --resnet            ResNet-20 on CIFAR-10 (or noise of its shape), compared with Keras `fit`
    python tools/bench.py --head              a convolutional network with dropout before the classifier only
    python tools/bench.py --memory            memory of T passes, with dropout at the head or in blocks
    python tools/bench.py --mixture           mixture_linear: dense, 0.5 % kept, and its matrix products alone
    python tools/bench.py --run --threads=1   a pruning run of 16 levels with 5 epochs: time outside steps, memory

By default, all contenders train LeNet-300-100 with batches of 60 and Adam. They are timed in turn, over
several rounds, so that a slow phase of the machine affects all of them. Compare ratios of medians. The
lower bound ("floor") is a hand-written loop of the same computation, masks included, in which an epoch is
one XLA program. Contenders whose library is not installed are left out.
"""

import argparse
import dataclasses
import importlib.util
import multiprocessing
import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from lotcal_tf import seeds
from lotcal_tf.calibration.strategies import CrossEntropy
from lotcal_tf.compat import keras, tfmot
from lotcal_tf.config import registry
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.recipes import resolve
from lotcal_tf.data import sources
from lotcal_tf.data.arrays import from_arrays
from lotcal_tf.data.splits import Dataset, ResidentSplit
from lotcal_tf.lottery.search import Observer, Search
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.lottery.tensorboard import TensorBoardLog
from lotcal_tf.lottery.ticket import wrap_for_training
from lotcal_tf.models.build import build_model
from lotcal_tf.pruning import masking, selection
from lotcal_tf.pruning.criteria import Magnitude
from lotcal_tf.training import programs, state, threads
from lotcal_tf.training.trainer import Trainer

import tensorflow as tf  # isort: skip  (after compat, which picks Keras)

BATCH, RATE = 60, 1.2e-3
Contender = Callable[[], int]  # Runs some steps and returns their number.

# Convolutional contenders train on the examples of this number of steps, and validate on a ninth of
# that number, as in the recipe (45 000 and 5 000 examples).
CONVOLUTIONAL: dict[str, Any] = {
    "batch_size": 128,
    "optimizer": "sgd",
    "lr": 0.01,
    "momentum": 0.9,
}
CONVOLUTIONAL_STEPS = 36
MIXTURE_EPOCHS = 20


def data(data_dir: str | None) -> tuple[Experiment, Dataset]:
    """Loads MNIST, or makes noise of its shape."""
    experiment = resolve({"dataset": "mnist", "data_dir": data_dir, "epochs": 1, "lr": RATE})
    if data_dir:
        return experiment, registry.source("mnist").load()(experiment)
    draw = np.random.default_rng(0)
    arrays = draw.integers(0, 256, (60_000, 28, 28, 1), np.uint8), draw.integers(0, 10, 60_000)
    test = arrays[0][:10_000], arrays[1][:10_000]
    return experiment, from_arrays(
        arrays, test, classes=10, validation_size=5000, seed=0, input_range=255.0
    )


def images(data_dir: str | None, steps: int) -> Dataset:
    """Loads CIFAR-10, or makes noise of its shape: `steps` training batches, and a ninth for validation."""
    size = CONVOLUTIONAL["batch_size"]
    counts = {"train": steps * size, "validation": steps * size // 9}
    if data_dir is None:
        draw = np.random.default_rng(0)

        def noise(count: int) -> ResidentSplit:
            pixels = draw.integers(0, 256, (count, 32, 32, 3), np.uint8)
            return ResidentSplit.of(pixels, draw.integers(0, 10, count))

        splits = {name: noise(count) for name, count in counts.items()}
    else:
        experiment = resolve({"dataset": "cifar10", "data_dir": data_dir})
        whole = registry.source(experiment.source).load()(experiment)
        splits = {}
        for name, count in counts.items():
            inputs, labels = next(getattr(whole, name).in_order(count))
            splits[name] = ResidentSplit(inputs, labels)
    return Dataset(10, splits["train"], splits["validation"], None, 255.0)


def ours(
    dataset: Dataset, calib: str = "none", model: str = "lenet_300_100", **given: Any
) -> Contender:
    """An epoch as a level trains it, including shuffling, masks, and training and validation metrics."""
    fields = {"dataset": "mnist", "calib": calib, "model": model, "epochs": 1, "lr": RATE}
    experiment = resolve(fields | given)
    settings = experiment.settings
    dropout = {n: settings[n] for n in ("dropout_rate", "dropout_at") if n in settings}
    shape = dataset.train.shape
    network = build_model(model, shape, 10, seed=0, input_range=255.0, **dropout)
    strategy = registry.STRATEGIES[calib].load()
    trainer = Trainer(experiment, strategy, wrap_for_training(network, []), dataset)

    def run() -> int:
        for _ in trainer.train(0):
            pass
        return trainer.total_steps

    return run


def floor(dataset: Dataset) -> Contender:
    """The same computation by hand; an epoch is one XLA program on pure tensors."""
    split = dataset.train
    assert isinstance(split, ResidentSplit)
    steps = split.count // BATCH
    draw = np.random.default_rng(0)
    sizes = [(784, 300), (300, 100), (100, 10)]
    weights = [tf.constant(draw.normal(0, 0.05, s), tf.float32) for s in sizes]
    weights += [tf.zeros([s[1]]) for s in sizes]
    masks = [tf.ones(s) for s in sizes]
    state = [weights, [tf.zeros_like(w) for w in weights], [tf.zeros_like(w) for w in weights]]

    @tf.function(jit_compile=True)
    def epoch(x: Any, y: Any, weights: Any, m: Any, v: Any, begun: Any) -> Any:
        def step(i: Any, loss_sum: Any, hits: Any, w: Any, m: Any, v: Any) -> Any:
            images = tf.cast(tf.slice(x, [i * BATCH, 0, 0, 0], [BATCH, 28, 28, 1]), tf.float32)
            labels = tf.slice(y, [i * BATCH], [BATCH])
            with tf.GradientTape() as tape:
                tape.watch(w)
                h = tf.reshape(images, [BATCH, 784]) / 255.0
                for layer in range(3):
                    h = h @ (w[layer] * masks[layer]) + w[3 + layer]
                    h = tf.nn.relu(h) if layer < 2 else h
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=h)
                )
            g = tape.gradient(loss, w)
            t = tf.cast(begun + i + 1, tf.float32)
            rate = RATE * tf.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            m = [0.9 * a + 0.1 * b for a, b in zip(m, g, strict=True)]
            v = [0.999 * a + 0.001 * b * b for a, b in zip(v, g, strict=True)]
            w = [a - rate * b / (tf.sqrt(c) + 1e-7) for a, b, c in zip(w, m, v, strict=True)]
            hit = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(h, -1, tf.int32), labels), tf.float32))
            return i + 1, loss_sum + loss, hits + hit, w, m, v

        zero = tf.constant(0.0)
        return tf.while_loop(lambda i, *_: i < steps, step, (0, zero, zero, weights, m, v))

    done = 0

    def run() -> int:
        nonlocal done
        places = tf.constant(seeds.generator(0, "bench", done).permutation(split.count), tf.int32)
        x, y = tf.gather(split.inputs, places), tf.gather(split.labels, places)
        result = epoch(x, y, *state, tf.constant(done))
        state[:] = result[3:]
        done += steps
        float(result[1])
        return steps

    return run


def keras_fit(dataset: Dataset, prunable: bool = False) -> Contender:
    """Keras `fit` as usually written, with or without TFMOT's pruning wrappers."""
    split = dataset.train
    assert isinstance(split, ResidentSplit)
    x = split.inputs.numpy().astype("float32") / 255.0
    y = split.labels.numpy()
    model: Any = build_model("lenet_300_100", (28, 28, 1), 10, seed=0)
    callbacks = []
    if prunable:
        schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, 0, frequency=100)
        model = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
        callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE), loss, metrics=["accuracy"])

    def run() -> int:
        model.fit(x, y, BATCH, verbose=0, callbacks=callbacks)
        return -(-len(x) // BATCH)

    return run


def convolutional_fit(
    dataset: Dataset, model: str, pipeline: bool = False, steps_per_execution: int = 1
) -> Contender:
    """Keras `fit` of the unmasked network, without XLA, which is slower for convolutions on this CPU.

    Like a level of this package, it trains one shuffled epoch, then evaluates the validation split.
    """
    split, held_out = dataset.train, dataset.validation
    assert isinstance(split, ResidentSplit) and isinstance(held_out, ResidentSplit)
    network = build_model(model, split.shape, dataset.classes, seed=0, input_range=255.0)
    network.compile(
        keras.optimizers.SGD(CONVOLUTIONAL["lr"], CONVOLUTIONAL["momentum"]),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
        steps_per_execution=steps_per_execution,
    )
    batch = CONVOLUTIONAL["batch_size"]
    given: dict[str, Any]
    if pipeline:
        shuffled = tf.data.Dataset.from_tensor_slices((split.inputs, split.labels))
        shuffled = shuffled.shuffle(split.count).batch(batch).prefetch(tf.data.AUTOTUNE)
        given = {"x": shuffled}
    else:
        given = {"x": split.inputs.numpy(), "y": split.labels.numpy(), "batch_size": batch}
    measured = tf.data.Dataset.from_tensor_slices((held_out.inputs, held_out.labels)).batch(500)

    def run() -> int:
        network.fit(**given, validation_data=measured, verbose=0)
        return split.count // batch

    return run


def torch_eager(dataset: Dataset) -> Contender:
    """Eager PyTorch with masks and data in memory; batches are drawn by index."""
    import torch

    split = dataset.train
    assert isinstance(split, ResidentSplit)
    x = torch.tensor(split.inputs.numpy().reshape(split.count, -1)).float() / 255.0
    y = torch.tensor(split.labels.numpy()).long()
    sizes = [(784, 300), (300, 100), (100, 10)]
    layers = [torch.nn.Linear(*size) for size in sizes]
    masks = [torch.ones_like(layer.weight) for layer in layers]
    optimizer = torch.optim.Adam([p for layer in layers for p in layer.parameters()], lr=RATE)

    def run() -> int:
        order = torch.randperm(split.count)
        for i in range(300):
            batch = order[i * BATCH : (i + 1) * BATCH]
            h = x[batch]
            for place, (layer, mask) in enumerate(zip(layers, masks, strict=True)):
                h = torch.nn.functional.linear(h, layer.weight * mask, layer.bias)
                h = torch.relu(h) if place < 2 else h
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(h, y[batch]).backward()
            optimizer.step()
        return 300

    return run


def pruning_run(experiment: Experiment, dataset: Dataset, checkpoint_minutes: float) -> None:
    """Carries out a pruning run; prints where its time goes, and its memory.

    CPU time is that of the process; other processes disturb the wall time.
    """
    experiment = dataclasses.replace(
        experiment, levels=15, epochs=5, checkpoint_minutes=checkpoint_minutes
    )
    model = build_model("lenet_300_100", (28, 28, 1), 10, seed=0, input_range=255.0)
    strategy = registry.STRATEGIES[experiment.calib].load()
    with tempfile.TemporaryDirectory() as directory:
        store, memory = RunStore(Path(directory)), MemoryWatch()
        log = TensorBoardLog(Path(directory), experiment)
        search = Search(experiment, model, dataset, strategy, Magnitude, store, [log, memory])
        parts = watch_parts(search)
        store.begin({})
        whole = Stopwatch(search.run)
        drawn = writer_seconds()
        whole()
        drawn = writer_seconds() - drawn
    compilation = parts.pop("compilation")
    rows = {name: (part.cpu, part.wall) for name, part in parts.items()}
    rows["TensorBoard"] = drawn, 0.0
    all_cpu, all_wall = whole.cpu + drawn - compilation.cpu, whole.wall - compilation.wall
    known_cpu, known_wall = map(sum, zip(*rows.values(), strict=True))
    rows |= {"other": (all_cpu - known_cpu, all_wall - known_wall), "all": (all_cpu, all_wall)}
    print(f"run of {experiment.levels + 1} levels, without {compilation.wall:.1f} s of compilation")
    print("| part | CPU s | share | wall s | share |\n|---|---|---|---|---|")
    for name, (cpu, wall) in rows.items():
        shares = 100 * cpu / all_cpu, 100 * wall / all_wall
        print(f"| {name} | {cpu:.2f} | {shares[0]:.1f} % | {wall:.2f} | {shares[1]:.1f} % |")
    steps_cpu, steps_wall = rows["steps"]
    print(f"not in steps: {100 * (1 - steps_cpu / all_cpu):.1f} % of the CPU time")
    print(f"not in steps: {100 * (1 - steps_wall / all_wall):.1f} % of the wall time")
    print(f"compilations: {search.trainer.loop.compilations}")
    print(
        f"memory after level 2: {memory.after[2]:.0f} MB, after level 15: {memory.after[15]:.0f} MB"
    )
    for name in ("copying the state", "writing checkpoints"):
        if parts[name].calls:
            print(f"{name}: {1e3 * parts[name].wall / parts[name].calls:.1f} ms")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def watch_parts(search: Search) -> dict[str, "Stopwatch"]:
    """Replaces functions that a search calls by ones that measure their time; none is inside another."""
    trainer, call = search.trainer, programs.call
    steps, compilation = Stopwatch(finished(call)), Stopwatch(finished(call))

    def timed(function: Any, *given: Any) -> Any:
        if function is not trainer.loop.run_steps:
            return call(function, *given)
        return (steps if trainer.loop.compilations else compilation)(function, *given)

    programs.call = timed
    parts = {"compilation": compilation, "steps": steps}

    def watch(name: str, owner: Any, method: str) -> None:
        parts[name] = Stopwatch(getattr(owner, method))
        setattr(owner, method, parts[name])

    watch("predictions", trainer, "predict")
    watch("metrics", search, "_measure")
    watch("pruning", search.pruner, "prune")
    watch("saving tickets", search.store, "save")
    watch("beginning levels", trainer, "_begin")
    watch("copying the state", state, "take")
    watch("writing checkpoints", search.store, "save_checkpoint")
    parts["shuffling"] = shuffling = Stopwatch(next)
    shuffled = ResidentSplit.shuffled

    def blocks(*given: Any) -> Iterator[Any]:
        yield shuffling(shuffled(*given))

    ResidentSplit.shuffled = blocks  # type: ignore[method-assign, assignment]
    return parts


def finished(call: Callable[..., Any]) -> Callable[..., Any]:
    """A function that waits for the results of steps."""

    def waiting(*given: Any) -> Any:
        result = call(*given)
        result[1].numpy()
        return result

    return waiting


def writer_seconds() -> float:
    """The CPU time of the thread that writes TensorBoard logs."""
    writers = [t for t in threading.enumerate() if t.name.startswith("lotcal_tf tensorboard")]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(t.ident)) for t in writers if t.ident)


class Stopwatch:
    """A function that measures the time of its calls.

    Attributes:
      wall: seconds.
      cpu: seconds of the process, without the thread that writes TensorBoard logs.
      calls: the number of calls.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.wall, self.cpu, self.calls = function, 0.0, 0.0, 0

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Calls the function."""
        wall, cpu = time.perf_counter(), time.process_time() - writer_seconds()
        result = self.function(*given, **named)
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - writer_seconds() - cpu
        self.calls += 1
        return result


class MemoryWatch(Observer):
    """An observer that records the memory after each level, in units of 2**20 bytes."""

    def __init__(self) -> None:
        self.after: list[float] = []

    def on_level(self, ticket: Any, predictions: Any) -> None:
        """Records the memory in use."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.after.append(pages * resource.getpagesize() / (1 << 20))


def main() -> None:
    """Prints milliseconds per step of each contender, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", help="TFDS directory that contains MNIST or CIFAR-10")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--run", action="store_true", help="time a whole pruning run")
    parser.add_argument(
        "--checkpoint_minutes",
        type=float,
        default=Experiment.checkpoint_minutes,
        help="of --run; 0: after each epoch (default: %(default)g)",
    )
    parser.add_argument("--strategies", action="store_true", help="compare the strategies")
    parser.add_argument("--resnet", action="store_true", help="compare ResNet-20 with Keras fit")
    parser.add_argument("--head", action="store_true", help="vwcc with dropout at the head only")
    parser.add_argument(
        "--model", default="resnet20", help="built-in network for --resnet, --head and --memory"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=CONVOLUTIONAL_STEPS,
        help="steps per epoch for --resnet, --head and --memory",
    )
    parser.add_argument("--memory", action="store_true", help="compare the memory of T passes")
    parser.add_argument("--threads", type=int, help="CPU threads; default: one per CPU")
    parser.add_argument("--mixture", action="store_true", help="the recipe mixture_linear")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        threads.require(arguments.threads)
    if arguments.mixture:
        compare("500 hidden units, batch 1024", mixture_rows(), arguments.rounds)
        return
    if arguments.memory:
        memory(arguments.model, arguments.steps)
        return
    if arguments.resnet or arguments.head:
        contenders = resnet_rows if arguments.resnet else head_rows
        rows = contenders(images(arguments.data_dir, arguments.steps), arguments.model)
        compare(f"{arguments.model}, batch 128", rows, arguments.rounds)
        return
    experiment, dataset = data(arguments.data_dir)
    if arguments.run:
        pruning_run(experiment, dataset, arguments.checkpoint_minutes)
        return
    if arguments.strategies:
        # slimming needs convolutions.
        names = [name for name in registry.STRATEGIES if name != "slimming"]
        rows = {name: ours(dataset, name) for name in names}
        compare("LeNet-300-100, batch 60, T = 5", rows, arguments.rounds)
        return
    rows = {
        "ours": ours(dataset),
        "floor (one XLA program by hand)": floor(dataset),
        "Keras fit": keras_fit(dataset),
        "TFMOT prune_low_magnitude fit": keras_fit(dataset, prunable=True),
    }
    if importlib.util.find_spec("torch"):
        rows["PyTorch eager, masked"] = torch_eager(dataset)
    compare("LeNet-300-100, batch 60", rows, arguments.rounds)


def mixture_rows() -> dict[str, Contender]:
    """Levels of `mixture_linear`, and the matrix products of their steps alone, in one XLA program."""
    experiment = resolve({"dataset": "mixture_linear", "epochs": MIXTURE_EPOCHS})
    dataset = sources.load(experiment)

    def level(share: float) -> Contender:
        network = build_model(
            experiment.model,
            dataset.train.shape,
            2,
            seed=0,
            initializer=experiment.initializer,
            use_bias=experiment.use_bias,
        )
        wrapped = wrap_for_training(network, [])
        masks = {
            name: np.ones(v.shape, bool) for name, v in masking.mask_variables(wrapped).items()
        }
        weights = masking.values(wrapped)
        if share < 1:
            scores = {name: np.abs(weights[name]) for name in masks}
            least = selection.count(masks) - round(share * selection.count(masks))
            masks = selection.prune(lambda _: scores, masks, least).masks
        masking.assign_masks(wrapped, masks)
        trainer = Trainer(experiment, CrossEntropy, wrapped, dataset)

        def run() -> int:
            for _ in trainer.train(0):
                pass
            return trainer.total_steps

        return run

    return {
        "ours, dense": level(1.0),
        "its matrix products alone": products(dataset, experiment.batch_size),
        "ours, 0.5 % kept": level(0.005),
    }


def products(dataset: Dataset, batch: int, hidden: int = 500) -> Contender:
    """The products of a step of a network with one hidden layer: two forward, three backward."""
    split = dataset.train
    assert isinstance(split, ResidentSplit)
    steps = split.count // batch
    draw = np.random.default_rng(0)
    sizes = [(split.shape[0], hidden), (hidden, dataset.classes)]
    weights = [tf.constant(draw.normal(0, 0.05, size), tf.float32) for size in sizes]

    @tf.function(jit_compile=True)
    def epoch(x: Any, first: Any, second: Any) -> Any:
        def step(i: Any, first: Any, second: Any) -> Any:
            inputs = tf.slice(x, [i * batch, 0], [batch, sizes[0][0]])
            units = inputs @ first
            logits = units @ second
            gradient = tf.matmul(units, logits, transpose_a=True)
            back = tf.matmul(logits, second, transpose_b=True)
            return i + 1, tf.matmul(inputs, back, transpose_a=True) * 1e-6, gradient * 1e-6

        return tf.while_loop(lambda i, *_: i < steps, step, (0, first, second))

    def run() -> int:
        for _ in range(MIXTURE_EPOCHS):
            float(epoch(split.inputs, *weights)[1][0, 0])
        return MIXTURE_EPOCHS * steps

    return run


def resnet_rows(dataset: Dataset, model: str) -> dict[str, Contender]:
    """A masked convolutional network, and Keras `fit` of the unmasked one with several settings."""
    rows = {"ours, masked": ours(dataset, model=model, **CONVOLUTIONAL)}
    augmented = CONVOLUTIONAL | {"augment": "crop_flip"}
    rows["ours, masked, crop and flip"] = ours(dataset, model=model, **augmented)
    for pipeline in (False, True):
        for steps in (1, 16):
            name = f"Keras fit, {'tf.data' if pipeline else 'arrays'}, {steps} steps per execution"
            rows[name] = convolutional_fit(dataset, model, pipeline, steps)
    return rows


def head_rows(dataset: Dataset, model: str) -> dict[str, Contender]:
    """The cost of T = 5 passes that share all layers but the classifier."""
    fields = CONVOLUTIONAL | {"passes": 5, "dropout_at": "head"}
    return {
        "none": ours(dataset, "none", model, **CONVOLUTIONAL),
        "vwcc, dropout before the classifier": ours(dataset, "vwcc", model, **fields),
    }


def memory(model: str, steps: int) -> None:
    """Prints the peak memory of training with T passes, and with batches T times as large."""
    passes = {"passes": 5}
    rows: dict[str, dict[str, Any]] = {
        "none": {},
        "vwcc, T = 5, dropout before the classifier": {"calib": "vwcc", "dropout_at": "head"},
        "vwcc, T = 5, dropout after each stage": {"calib": "vwcc", "dropout_at": "blocks"},
        "none, batches five times as large": {"batch_size": 5 * CONVOLUTIONAL["batch_size"]},
    }
    print(f"| {model}, batch 128 | peak memory, MB |\n|---|---|")
    for name, fields in rows.items():
        fields = CONVOLUTIONAL | (passes if "calib" in fields else {}) | fields
        # Separate processes, since a process keeps the memory that it has allocated.
        process = multiprocessing.get_context("spawn").Process(
            target=_print_peak, args=(name, model, steps, fields)
        )
        process.start()
        process.join()


def _print_peak(name: str, model: str, steps: int, fields: dict[str, Any]) -> None:
    ours(images(None, steps), model=model, **fields)()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {name} | {peak:.0f} |", flush=True)


def compare(title: str, contenders: dict[str, Contender], rounds: int) -> None:
    """Times the contenders in turn over several rounds, and prints ratios to the first contender."""
    for run in contenders.values():  # Tracing and compilation are not timed.
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, run in contenders.items():
            begun = time.perf_counter()
            steps = run()
            times[name].append((time.perf_counter() - begun) / steps * 1e3)
        print(f"round {number + 1} of {rounds} done", flush=True)
    first = next(iter(contenders))
    print(f"\n| {title} | ms per step (min, median, max) | it / {first} | {first} / it |")
    print("|---|---|---|---|")
    for name, t in times.items():
        middle = statistics.median(t)
        ratio = statistics.median(a / b for a, b in zip(t, times[first], strict=True))
        print(
            f"| {name} | {min(t):.2f}, {middle:.2f}, {max(t):.2f} | {ratio:.2f} | {1 / ratio:.2f} |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of the whole comparison {peak:.0f} MB")


if __name__ == "__main__":
    main()
