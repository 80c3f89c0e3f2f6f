"""Writes the TensorBoard log of a search: scalars, histograms, reliability diagrams, HParams."""

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow as tf

from lotcal_tf.config.process import tolerant
from lotcal_tf.lottery.search import Predictions
from lotcal_tf.lottery.ticket import Record, Ticket
from lotcal_tf.metrics.reliability import reliability_diagram
from lotcal_tf.training.trainer import Epoch, Progress

# One thread for all logs: memory and file handles are kept for each thread that draws a diagram.
_WRITER = ThreadPoolExecutor(1, "lotcal_tf tensorboard")


class TensorBoardLog:
    """An observer that writes a TensorBoard log, in a background thread and with one file per level.

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
        self._level: int | None = None
        self._file: tf.summary.SummaryWriter | None = None
        self._broken = False
        self._pending: list[Future[None]] = []

    def on_start(self, total_steps: int, done: Sequence[Record], epochs: int) -> None:
        """Does nothing; a file is opened when its level has something to write."""

    def on_time_estimate(self, seconds: float) -> None:
        """Does nothing."""

    def on_progress(self, progress: Progress) -> None:
        """Writes the scalars of an epoch, if one has ended."""
        if progress.epoch is not None and not self._broken:
            self._pending.append(_WRITER.submit(self._write_epoch, progress.epoch))

    def on_level(self, ticket: Ticket, predictions: Predictions) -> None:
        """Writes a level's scalars, histograms and reliability diagram.

        It waits until those of the level before are written, so that tickets do not pile up in memory.
        """
        self._wait()
        if not self._broken:
            self._pending.append(_WRITER.submit(self._write_level, ticket, predictions))

    def _file_of(self, level: int) -> "tf.summary.SummaryWriter":
        """The file of a level; that of the level before is closed."""
        if self._file is None or self._level != level:
            self._close()
            self._file = tf.summary.create_file_writer(
                str(self.directory), filename_suffix=f".level_{level:02d}"
            )
            self._level = level
            self._write_hparams(self._file)
        return self._file

    def _write_hparams(self, file: "tf.summary.SummaryWriter") -> None:
        from tensorboard.plugins.hparams import api as hparams_api

        with file.as_default(step=0):
            hparams_api.hparams(self.hparams, trial_id=self.directory.parent.name)

    def _write_epoch(self, row: Epoch) -> None:
        file = self._file_of(row.level)
        with file.as_default(step=row.level * self.epochs + row.epoch):
            for name, value in row.metrics.items():
                tf.summary.scalar(f"epoch/{name}", value)
        file.flush()  # A run that is killed may go on after this epoch.

    def _write_level(self, ticket: Ticket, predictions: Predictions) -> None:
        file = self._file_of(ticket.level)
        with file.as_default(step=ticket.level):
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
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def on_end(self) -> None:
        """Waits until everything is written, and closes the log."""
        self._pending.append(_WRITER.submit(self._close))
        self._wait()

    def _wait(self) -> None:
        pending, self._pending = self._pending, []
        for part in pending:
            try:
                part.result()
            except (tf.errors.OpError, OSError) as error:  # The disk is full, or gone.
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Ends the log with a line; a run must not end because of its log."""
        if not self._broken:
            self._broken, self._file = True, None
            reason = (str(error).splitlines() or [""])[0]
            line = (
                f"the TensorBoard log {self.directory} cannot be written, the run goes on: {reason}"
            )
            print(line, file=tolerant(sys.stderr))
