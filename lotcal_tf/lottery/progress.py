"""What a person sees while a search runs: a bar for the whole chain, or a line a level."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

import tensorflow as tf
from tqdm import tqdm

from lotcal_tf.lottery.search import Predictions
from lotcal_tf.lottery.ticket import Record, Ticket, best_level
from lotcal_tf.training.trainer import Progress


def percent(share: float, digits: int = 1) -> str:
    """0.9731 → `97.3 %`."""
    return f"{100 * share:.{digits}f} %"


def level_line(record: Record) -> str:
    """One finished level in a line, by the test split where there is one."""
    split = "test" if "test_accuracy" in record else "val"
    return (
        f"level {record['level']:2d}: {percent(record['density']):>7} kept, {split} accuracy "
        f"{percent(record[f'{split}_accuracy'], 2)}, ECE {record[f'{split}_ece']:.4f}, "
        f"NLL {record[f'{split}_nll']:.4f} ({record['seconds']:.1f} s)"
    )


def table(records: Sequence[Record]) -> str:
    """The levels of a run as a table to read; the best one is marked."""
    split = "test" if "test_accuracy" in records[0] else "val"
    best = best_level(records)
    head = f"{'level':>5} {'kept':>8} {'weights':>10} {'accuracy':>9} {'ECE':>7} {'NLL':>7} {'Brier':>7} {'val NLL':>8}"
    lines = [f"figures of the {split} split; ECE in {records[0]['ece_bins']} bins", head]
    for r in records:
        lines.append(
            f"{r['level']:>5} {percent(r['density']):>8} {r['weights']:>10,} {percent(r[f'{split}_accuracy'], 2):>9} "
            f"{r[f'{split}_ece']:>7.4f} {r[f'{split}_nll']:>7.4f} {r[f'{split}_brier']:>7.4f} {r['val_nll']:>8.4f}"
            f"{'  <- best' if r['level'] == best else ''}"
        )
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`, `25 h`, `4 days`: no finer than a prediction can be."""
    if seconds < 99.5:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 9 * 60 + 55:
        hours, tens = divmod(round(minutes / 10), 6)
        return f"{hours} h {10 * tens} min" if tens else f"{hours} h"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 72 else f"{round(hours / 24)} days"


class Forecast:
    """Foretells how long a search will take, from the first seconds of its own training.

    Nothing is run for it: a stretch of training is watched and what is left is taken to go at its
    pace. What compiles is not part of the stretch: it begins after the first visit, and anew after
    the first epoch where that ends earlier. A network so large that the stretch lies within one
    epoch is measured without validation, which is some percent of an epoch.

    Args:
      clock: gives seconds; the search begins now.
    """

    WATCHED = 5.0  # seconds

    def __init__(self, clock: Callable[[], float]) -> None:
        """See the class."""
        self._clock, self._begun = clock, clock()
        self._since: tuple[float, int] | None = None
        self._epoch_ended, self._told = False, False

    def seconds(self, done: int, total: int, epoch_ended: bool) -> float | None:
        """How long the whole search takes: told once, when enough was watched; else None.

        Args:
          done: steps of this search so far.
          total: steps it has in all.
          epoch_ended: whether an epoch has just ended.
        """
        now = self._clock()
        if self._since is None or (epoch_ended and not self._epoch_ended):
            self._since, self._epoch_ended = (now, done), epoch_ended
        watched, steps = now - self._since[0], done - self._since[1]
        if self._told or not steps or watched < self.WATCHED or done >= total:
            return None
        self._told = True
        return now - self._begun + watched / steps * (total - done)


class ProgressBar:
    """An observer that shows a bar with the time left on a terminal, plain lines elsewhere.

    Both tell, after the first seconds of training, how long the whole is predicted to take.

    Args:
      stream: where to; default: standard error.
      levels: how many levels the whole chain has, for the prediction's line.
      clock: gives seconds.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        levels: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """See the class."""
        self.stream, self.levels, self._clock = stream or sys.stderr, levels, clock
        self._bar: tqdm | None = None
        self._level, self._step = -1, 0
        self._done, self._total, self._ahead = 0, 0, ""
        self._forecast = Forecast(clock)

    def on_start(self, total_steps: int, done: Sequence[Record]) -> None:
        """Names what is already there, and begins."""
        if done:
            self.line(f"{len(done)} finished levels found, going on at level {len(done)}")
        self._done, self._total, self._forecast = 0, total_steps, Forecast(self._clock)
        left = self.levels - len(done)
        levels = f"{left} level{'s' * (left != 1)}"
        self._ahead = f"the {levels} left" if done else levels
        if self.stream.isatty():
            self._bar = tqdm(total=total_steps, unit="step", file=self.stream, smoothing=0.05)

    def on_progress(self, progress: Progress) -> None:
        """Moves the bar."""
        if progress.level != self._level:
            # A level's first visit tells how far it is; what it skipped was never in the total.
            self._level, self._step = progress.level, progress.first_step
        self._done += progress.step - self._step
        ended = progress.epoch is not None
        seconds = self._forecast.seconds(self._done, self._total, ended)
        if seconds is not None:
            self.line(f"predicted: about {duration(seconds)} for {self._ahead} on this {_device()}")
        if self._bar is not None:
            self._bar.update(progress.step - self._step)
            if progress.epoch is not None:
                row = progress.epoch
                self._bar.set_description(f"level {row.level} epoch {row.epoch}")
                self._bar.set_postfix(val=percent(row.val_accuracy), refresh=False)
        self._step = progress.step

    def on_level(self, ticket: Ticket, predictions: Predictions) -> None:
        """Writes the level's line."""
        self.line(level_line(ticket.record))

    def on_end(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def line(self, text: str) -> None:
        """Writes a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)


def _device() -> str:
    return "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
