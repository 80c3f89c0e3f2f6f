"""Running models in a background thread."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.formats.batches import in_batches


class Background:
    """A thread that runs models one after another.

    Leaving its `with` block stops the current model after its current batch, and cancels the others.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._stopped = threading.Event()

    def __enter__(self) -> "Background":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.shutdown(cancel_futures=True)

    def run(
        self,
        runner: Callable[[Any], NDArray[np.float32]],
        inputs: Any,
        size: int = 1000,
    ) -> "Future[NDArray[np.float32]]":
        """Starts a model; the future gives its outputs `(N, K)` for inputs `(N, …)`.

        Args:
          runner: the model.
          inputs: `(N, …)`, see `lotcal_tf.inputs`.
          size: of a batch.
        """

        def stoppable(batch: Any) -> NDArray[np.float32]:
            if self._stopped.is_set():
                raise CancelledError
            return runner(batch)

        return self._thread.submit(in_batches, stoppable, inputs, size)
