"""Event files of TensorBoard: their events, and files that are appended to or replaced as a whole.

`tf.summary` can only append. A log must also take back what a killed process wrote, and sort its points:
TensorBoard drops the points of a series that stand before a point with a smaller step.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.util.tensor_util import make_tensor_proto

_BUCKETS = 30
Image: TypeAlias = NDArray[np.uint8]


def event(step: int, *summaries: Summary) -> Event:
    """The event of some summaries at a step, at this time."""
    values = [value for summary in summaries for value in summary.value]
    return Event(wall_time=time.time(), step=step, summary=Summary(value=values))


def scalars(values: Mapping[str, float]) -> Iterator[Summary]:
    """Scalars by their tags."""
    return (scalar_pb(tag, value) for tag, value in values.items())


def histogram(tag: str, values: NDArray[np.floating]) -> Summary:
    """A histogram of any number of values, in 30 buckets of equal width."""
    counts, edges = np.histogram(values, _BUCKETS)
    rows = np.stack([edges[:-1], edges[1:], counts], axis=1)
    metadata = histogram_metadata.create_summary_metadata(None, None)
    return _summary(tag, rows, tf.float64, metadata)


def image(tag: str, pixels: Image) -> Summary:
    """An image `(height, width, 3)`."""
    height, width, _ = pixels.shape
    content = [str(width), str(height), tf.io.encode_png(pixels).numpy()]
    metadata = image_metadata.create_summary_metadata(None, None)
    return _summary(tag, content, tf.string, metadata)


def _summary(tag: str, values: Any, dtype: "tf.DType", metadata: Any) -> Summary:
    tensor = make_tensor_proto(values, dtype=dtype)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


class EventFile:
    """One event file in a directory, which may have others.

    Args:
      directory: a run of TensorBoard.
      name: of the file, beside TensorBoard's `events.out.tfevents`. A file that replaces another has a new
        number, because TensorBoard follows a file that it has opened.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        self._writer: tf.io.TFRecordWriter | None = None

    @property
    def is_open(self) -> bool:
        """Whether events can be appended."""
        return self._writer is not None

    def read(self) -> list[Event]:
        """The events that are there, as far as they are not damaged.

        After a kill two files have the same events: each is given once.
        """
        # The loader warns of TensorFlow's deprecated reader, which it uses, and of truncated files.
        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        found = [event for path in self._paths() for event in EventFileLoader(str(path)).Load()]
        events = [event for event in found if event.HasField("summary")]
        tagged = {(e.step, *(value.tag for value in e.summary.value)): e for e in events}
        return [*tagged.values()]

    def replace(self, events: Iterable[Event]) -> None:
        """Writes events in place of those that are there; more can be appended.

        Raises:
          OSError, tf.errors.OpError: the file cannot be written.
        """
        self.close()
        before = self._paths()
        self.directory.mkdir(parents=True, exist_ok=True)
        number = max([0, *(int(path.suffix[1:]) for path in before)]) + 1
        path = self.directory / f"events.out.tfevents.{self.name}.{number:06d}"
        self._writer = tf.io.TFRecordWriter(str(path))
        self.append([Event(wall_time=time.time(), file_version="brain.Event:2"), *events])
        for old in before:
            old.unlink(missing_ok=True)

    def append(self, events: Iterable[Event]) -> None:
        """Adds events to the file that `replace` has begun, and flushes it.

        Raises:
          OSError, tf.errors.OpError: the file cannot be written.
        """
        assert self._writer is not None
        for event in events:
            self._writer.write(event.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _paths(self) -> list[Path]:
        """The file, and after a kill another one, in the order of their numbers."""
        found = self.directory.glob(f"events.out.tfevents.{self.name}.*")
        return sorted(path for path in found if path.suffix[1:].isdigit())
