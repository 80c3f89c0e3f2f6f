"""Shows the progress of a search: a bar on a terminal, and one line per level."""

import sys
from collections.abc import Sequence
from typing import TextIO

import tensorflow as tf
from tqdm import tqdm

from lotcal_tf import tables
from lotcal_tf.config.process import tolerant
from lotcal_tf.lottery import health
from lotcal_tf.lottery.run_tables import selected_level
from lotcal_tf.lottery.search import Observer, Predictions
from lotcal_tf.lottery.ticket import Record, Ticket
from lotcal_tf.training.trainer import Progress


def level_line(record: Record) -> str:
    """Formats a finished level as one line, with the metrics of the test split if there is one."""
    split = "test" if "test_accuracy" in record else "val"
    return (
        f"level {record['level']:2d}: {tables.percent(record['density']):>7} kept, {split} accuracy "
        f"{tables.percent(record[f'{split}_accuracy'], 2)}, ECE {record[f'{split}_ece']:.4f}, "
        f"NLL {record[f'{split}_nll']:.4f} ({record['seconds']:.1f} s)"
    )


def table(records: Sequence[Record]) -> str:
    """Formats the levels of a run as a table. It marks the selected level."""
    split = "test" if "test_accuracy" in records[0] else "val"
    selected = selected_level(records)
    transferred = any("source_level" in record for record in records)
    rows = [["level", *(["source"] if transferred else []), "kept", "weights", "accuracy"]]
    rows[0] += ["ECE", "NLL", "Brier", "val NLL"]
    for r in records:
        values = [r[f"{split}_{name}"] for name in ("ece", "nll", "brier")]
        rows.append(
            [
                str(r["level"]),
                *([str(r.get("source_level", ""))] if transferred else []),
                tables.percent(r["density"]),
                f"{r['weights']:,}",
                tables.percent(r[f"{split}_accuracy"], 2),
                *(f"{value:.4f}" for value in (*values, r["val_nll"])),
            ]
        )
    head, *lines = tables.plain(rows).splitlines()
    marked = [
        line + "  <- selected" * (r["level"] == selected)
        for r, line in zip(records, lines, strict=True)
    ]
    bins = records[0]["ece_bins"]
    title = f"metrics of the {split} split before temperature scaling; ECE in {bins} bins"
    return "\n".join([title, head, *marked])


class ProgressBar(Observer):
    """An observer that shows a progress bar on a terminal, and writes one line per level.

    Args:
      stream: the output. Default: standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or tolerant(sys.stderr)
        self._bar: tqdm | None = None
        self._level, self._step, self._last, self._remaining = -1, 0, 0, ""

    def on_start(
        self, total_steps: int, done: Sequence[Record], left: Sequence[int], epochs: int
    ) -> None:
        """Says what is finished, and shows the bar."""
        if left and (done or epochs):
            after = f", after {epochs} of its epochs" if epochs else ""
            self.line(f"{len(done)} finished levels found, going on at level {left[0]}{after}")
        levels = f"{len(left)} level{'s' * (len(left) != 1)}"
        self._remaining = f"the {levels} left" if done else levels
        if self.stream.isatty():
            self._bar = tqdm(total=total_steps, unit="step", file=self.stream, smoothing=0.05)

    def on_time_estimate(self, seconds: float) -> None:
        """Writes the estimate, and restarts the clock of the bar."""
        self.line(
            f"predicted: about {tables.duration(seconds)} for {self._remaining} on this {_device()}"
        )
        if self._bar is not None:
            self._bar.reset()

    def on_progress(self, progress: Progress) -> None:
        """Moves the bar."""
        if progress.level != self._level:
            # The bar's total does not contain the steps that late rewinding skips.
            self._level, self._step = progress.level, progress.first_step
        if self._bar is not None:
            self._bar.update(progress.step - self._step)
            if progress.epoch is not None:
                row = progress.epoch
                self._bar.set_description(f"level {row.level} epoch {row.epoch}")
                self._bar.set_postfix(val=tables.percent(row.val_accuracy), refresh=False)
        self._step, self._last = progress.step, progress.last_step

    def on_level(self, ticket: Ticket, predictions: Predictions) -> None:
        """Writes the line of the level, and one for each of its problems."""
        if self._bar is not None:
            self._bar.total -= self._last - self._step  # The steps that the level stopped before.
            self._bar.refresh()
        self.line(level_line(ticket.record))
        found = health.problems(ticket.masks, ticket.trained, *predictions["val"])
        for problem in found.values():
            self.line(f"level {ticket.level}: {problem}")

    def on_end(self) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def line(self, text: str) -> None:
        """Writes a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)


def _device() -> str:
    return "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
