"""What TensorBoard shows of a search: scalars an epoch and a level, histograms, diagram, hparams."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow as tf

from lotcal_tf.lottery.search import Predictions
from lotcal_tf.lottery.ticket import Record, Ticket
from lotcal_tf.metrics.reliability import reliability_diagram
from lotcal_tf.training.trainer import Progress


class Board:
    """An observer that writes a TensorBoard log.

    Args:
      directory: where to.
      hparams: the experiment's fields, for the HParams plugin.
      bins: of the reliability diagram.

    Scalars of an epoch stand at epochs counted over the whole chain; what is told of a level, at
    the level's number.
    """

    def __init__(self, directory: Path, hparams: Mapping[str, Any], bins: int) -> None:
        """See the class."""
        self.directory, self.bins = directory, bins
        self.hparams = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in hparams.items()
        }
        self.epochs = int(hparams["epochs"])
        self._writer: tf.summary.SummaryWriter | None = None
        self._pen = ThreadPoolExecutor(1)
        self._written: list[Future[None]] = []

    def on_start(self, total_steps: int, done: Sequence[Record]) -> None:
        """Opens the log."""
        from tensorboard.plugins.hparams import api as hparams_api

        self._writer = tf.summary.create_file_writer(str(self.directory))
        with self._writer.as_default(step=0):
            hparams_api.hparams(self.hparams, trial_id=self.directory.parent.name)

    def on_forecast(self, seconds: float) -> None:
        """Nothing to log."""

    def on_progress(self, progress: Progress) -> None:
        """Writes an epoch's scalars."""
        row = progress.epoch
        if row is None or self._writer is None:
            return
        with self._writer.as_default(step=row.level * self.epochs + row.epoch):
            for name, value in row.figures.items():
                tf.summary.scalar(f"epoch/{name}", value)

    def on_level(self, ticket: Ticket, predictions: Predictions) -> None:
        """Writes a level's scalars, histograms and reliability diagram, while the next one trains."""
        if self._writer is not None:
            self._written.append(
                self._pen.submit(self._write_level, self._writer, ticket, predictions)
            )

    def _write_level(
        self, writer: "tf.summary.SummaryWriter", ticket: Ticket, predictions: Predictions
    ) -> None:
        with writer.as_default(step=ticket.level):
            for name, value in ticket.record.items():
                if isinstance(value, int | float):
                    tf.summary.scalar(f"level/{name}", value)
            for name, mask in ticket.masks.items():
                tf.summary.histogram(f"mask/{name}", mask.astype("float32"))
                tf.summary.histogram(f"weight/{name}", ticket.trained[name][mask])
            split = "test" if "test" in predictions else "val"
            title = f"level {ticket.level}, {100 * ticket.density:.1f} % kept, {split}"
            image = reliability_diagram(*predictions[split], bins=self.bins, title=title)
            tf.summary.image(f"reliability/{split}", image[None])
        writer.flush()

    def on_end(self) -> None:
        """Closes the log, when all is written."""
        written, self._written = self._written, []
        for level in written:
            level.result()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
