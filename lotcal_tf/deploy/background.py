"""Running models in the background, while the caller does something else."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.formats.batches import in_batches


class Background:
    """A thread that runs models one after another.

    Leaving its `with` block ends what still runs within a batch, and leaves out what is not begun.
    """

    def __init__(self) -> None:
        """See the class."""
        self._thread = ThreadPoolExecutor(1)
        self._over = threading.Event()

    def __enter__(self) -> "Background":
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
