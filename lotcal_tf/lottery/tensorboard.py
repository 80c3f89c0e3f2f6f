"""Writes the TensorBoard log of a search: scalars, histograms, reliability diagrams, HParams."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow as tf

from lotcal_tf.lottery.search import Predictions
from lotcal_tf.lottery.ticket import Record, Ticket
from lotcal_tf.metrics.reliability import reliability_diagram
from lotcal_tf.training.trainer import Progress


class TensorBoardLog:
    """An observer that writes a TensorBoard log.

    The step of an epoch's scalars is the number of the epoch, counted over all levels. The step of
    a level's scalars, histograms and images is the number of the level.

    Args:
      directory: the directory of the log.
      hparams: the experiment's fields, for the HParams plugin.
      bins: number of bins of the reliability diagram.
    """

    def __init__(self, directory: Path, hparams: Mapping[str, Any], bins: int) -> None:
        self.directory, self.bins = directory, bins
        self.hparams = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in hparams.items()
        }
        self.epochs = int(hparams["epochs"])
        self._writer: tf.summary.SummaryWriter | None = None
        self._executor = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []

    def on_start(self, total_steps: int, done: Sequence[Record], epochs: int) -> None:
        """Opens the log."""
        from tensorboard.plugins.hparams import api as hparams_api

        self._writer = tf.summary.create_file_writer(str(self.directory))
        with self._writer.as_default(step=0):
            hparams_api.hparams(self.hparams, trial_id=self.directory.parent.name)

    def on_time_estimate(self, seconds: float) -> None:
        """Does nothing."""

    def on_progress(self, progress: Progress) -> None:
        """Writes the scalars of an epoch, if one has ended."""
        row = progress.epoch
        if row is None or self._writer is None:
            return
        with self._writer.as_default(step=row.level * self.epochs + row.epoch):
            for name, value in row.metrics.items():
                tf.summary.scalar(f"epoch/{name}", value)

    def on_level(self, ticket: Ticket, predictions: Predictions) -> None:
        """Writes a level's scalars, histograms and reliability diagram in a background thread."""
        if self._writer is not None:
            self._pending.append(
                self._executor.submit(self._write_level, self._writer, ticket, predictions)
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
        """Waits until everything is written, and closes the log."""
        pending, self._pending = self._pending, []
        for level in pending:
            level.result()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
