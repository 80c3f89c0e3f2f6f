"""Shows how far a sweep is: one bar for all runs on a terminal, and one line for each run that ends."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from lotcal_tf.config.process import tolerant
from lotcal_tf.sweeps.jobs import Job
from lotcal_tf.sweeps.perform import DONE, Outcome
from lotcal_tf.tables import duration


class Display:
    """The progress of a sweep, on standard error. To be used in a `with` statement.

    Args:
      jobs: all jobs.
      shown: whether to show anything.
      stream: the output; None: standard error.
    """

    def __init__(
        self, jobs: Sequence[Job], shown: bool = True, stream: TextIO | None = None
    ) -> None:
        self.stream = tolerant((stream or sys.stderr) if shown else None)
        self._runs, self._ended = len(jobs), 0
        self._levels = {job.name: job.experiment.levels + 1 for job in jobs}
        self._done: dict[str, int] = {}
        self._bar: tqdm | None = None

    def __enter__(self) -> "Display":
        if self.stream.isatty():
            total = sum(self._levels.values())
            self._bar = tqdm(total=total, unit="level", file=self.stream, smoothing=0)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def show(self, levels: Mapping[str, int]) -> None:
        """Moves the bar.

        Args:
          levels: the finished levels of each run that goes on, by its name.
        """
        self._done |= levels
        if self._bar is not None:
            self._bar.n = sum(min(n, self._levels[name]) for name, n in self._done.items())
            self._bar.set_postfix_str(
                f"{self._ended} of {self._runs} runs ended, {len(levels)} running", refresh=False
            )
            self._bar.refresh()

    def ended(self, job: Job, outcome: Outcome, *, found: bool = False) -> None:
        """Takes account of a run that has ended, and writes its line.

        Args:
          job: the run.
          outcome: how it ended.
          found: whether it had ended before; it has no line of its own then.
        """
        self._ended += 1
        self._done[job.name] = self._levels[job.name]
        if found:
            return
        how = f"done in {duration(outcome.seconds)}"
        if outcome.how != DONE:
            how = f"{outcome.how}: {outcome.line}"
        self.line(f"[{self._ended}/{self._runs}] {job.name}: {how}")

    def line(self, text: str) -> None:
        """Writes a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)
