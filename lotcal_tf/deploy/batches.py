"""Running a model over many examples, a batch at a time; over some of them; beside other work."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
from numpy.typing import NDArray


def spread(count: int, wanted: int) -> NDArray[np.intp]:
    """Places of at most `wanted` of `count` examples, all over them: they may lie class by class."""
    return np.linspace(0, count - 1, min(count, wanted)).astype(np.intp)


def in_batches(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    inputs: NDArray[np.float32],
    size: int,
    *,
    full: bool = False,
) -> NDArray[np.float32]:
    """What `run` gives `(n, K)` for batches `(n, …)`, as one array `(N, K)`.

    Args:
      run: the model.
      inputs: `(N, …)`, N >= 1.
      size: of a batch; the last one may be smaller.
      full: whether the model takes no smaller one: the last example is then repeated, and what it
        gives for the repeated ones is left out.
    """
    pieces = []
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        count = len(batch)
        if full:
            batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, 0)])
        pieces.append(run(batch)[:count])
    return np.concatenate(pieces)


class Beside:
    """A thread that runs models one after another, while the caller does something else.

    Leaving its `with` block ends what still runs within a batch, and leaves out what is not begun.
    """

    def __init__(self) -> None:
        """See the class."""
        self._thread = ThreadPoolExecutor(1)
        self._over = threading.Event()

    def __enter__(self) -> "Beside":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Waits for the batch that is being run."""
        self._over.set()
        self._thread.shutdown(cancel_futures=True)

    def run(
        self,
        runner: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        inputs: NDArray[np.float32],
        size: int = 1000,
    ) -> "Future[NDArray[np.float32]]":
        """What a model will have given `(N, K)` for inputs `(N, …)`, in batches of `size`."""

        def attentive(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            if self._over.is_set():
                raise CancelledError
            return runner(batch)

        return self._thread.submit(in_batches, attentive, inputs, size)
