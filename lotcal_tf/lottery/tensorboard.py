"""Writes the TensorBoard log of a search: scalars, histograms, reliability diagrams, HParams.

TensorBoard names a run by its directory. So the event files lie in directories of the run directory, which
make one run of TensorBoard each: `train`, `validation`, `test` and `selected`.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lotcal_tf.config.experiment import Experiment, by_section
from lotcal_tf.config.process import tolerant
from lotcal_tf.lottery import event_files
from lotcal_tf.lottery.event_files import EventFile
from lotcal_tf.lottery.run_tables import selected_level
from lotcal_tf.lottery.search import Observer, Predictions
from lotcal_tf.lottery.ticket import Record, Ticket
from lotcal_tf.metrics.reliability import reliability_diagram
from lotcal_tf.training.trainer import Epoch, Progress


class _Writer:
    """One thread for all logs, since each thread that draws a diagram keeps memory and file handles."""

    def __init__(self) -> None:
        self._thread = self._new()

    def submit(self, write: Callable[..., None], *given: Any) -> "Future[None]":
        """Calls a function in the thread, after those before it."""
        try:
            return self._thread.submit(write, *given)
        except BaseException:
            # A signal that comes while the thread starts: the pool does not know the thread then, so at its
            # end the process would wait for it and never end it. This lets it end after its work.
            self._thread.shutdown(wait=False)
            self._thread = self._new()
            raise

    @staticmethod
    def _new() -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "lotcal_tf tensorboard")


_WRITER = _Writer()
# The runs of TensorBoard by the prefixes of the columns of `metrics.csv` and `history.csv`.
_RUNS = {"train": "train", "val": "validation", "test": "test"}
_METRICS = ("accuracy", "ece", "nll", "brier")
# What else a level shows, and in which run.
_OF_LEVEL = {"density": "train", "temperature": "validation"}
_LAYERS = "layer_density/"
_SELECTED = ("level", "density", "weights", "temperature")


def hyperparameters(experiment: Experiment) -> dict[str, bool | int | float | str]:
    """The fields and settings that apply and have a value, as the HParams plugin takes them."""
    sections = by_section(experiment.as_dict()).values()
    effective = {name: value for section in sections for name, value in section.items()}
    return {
        name: _typed(value)
        for name, value in effective.items()
        if value is not None and value != "" and value != () and value != []
    }


def _typed(value: Any) -> bool | int | float | str:
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in value)
    return value if isinstance(value, bool | int | float | str) else str(value)


def level_step(record: Record) -> int:
    """The step of a level's scalars: the weights that are kept, per million of the prunable ones."""
    return round(1e6 * record["remaining"] / record["prunable"])


class TensorBoardLog(Observer):
    """An observer that writes a TensorBoard log, in a background thread.

    The runs `train`, `validation` and `test` share their tags. The step of `epoch/…` is the number of the
    epoch, counted over all levels; that of histograms and images is the number of the level; that of
    `level/…` and `layer_density/…` is the number of weights kept, per million, so that these charts show a
    metric against density. The run `selected` has the metrics of the selected level and the
    hyperparameters, which are a row of the HParams table.

    A log that is continued has each point once. If a level in the middle is trained again, its events are
    sorted in at the end, since TensorBoard drops points that stand before one
    with a smaller step.

    The hyperparameters are not declared by `hparams_config`: TensorBoard reads only the declaration of one
    run, and would hide the hyperparameters that others have in addition. It finds the types from the values.

    Args:
      directory: the run directory.
      experiment: the settings.
    """

    def __init__(self, directory: Path, experiment: Experiment) -> None:
        self.directory, self.experiment = directory, experiment
        self._logs = {run: EventFile(directory / run, "log") for run in _RUNS.values()}
        self._levels: dict[str, dict[int, Any]] = {run: {} for run in _RUNS.values()}
        self._records: dict[int, Record] = {}
        self._broken = self._fills_gap = False
        self._pending: list[Future[None]] = []

    def on_start(
        self, total_steps: int, done: Sequence[Record], left: Sequence[int], epochs: int
    ) -> None:
        """Keeps what an earlier process has logged of the finished levels and epochs."""
        begun = left[0] * self.experiment.epochs if left else 0
        self._submit(self._begin, tuple(done), range(begun, begun + epochs))

    def on_progress(self, progress: Progress) -> None:
        """Writes the scalars of an epoch, if one has ended."""
        if progress.epoch is not None:
            self._submit(self._write_epoch, progress.epoch)

    def on_level(self, ticket: Ticket, predictions: Predictions) -> None:
        """Writes a level's scalars, histograms and reliability diagram.

        It waits until those of the level before are written, so that tickets do not pile up in memory.
        """
        self._wait()
        self._submit(self.write_level, ticket, predictions)

    def on_end(self) -> None:
        """Waits until everything is written, and closes the log."""
        self._pending.append(_WRITER.submit(self._close))
        self._wait()

    def _submit(self, write: Callable[..., None], *given: Any) -> None:
        if not self._broken:
            self._pending.append(_WRITER.submit(write, *given))

    def _begin(self, done: Sequence[Record], begun: range) -> None:
        """Begins the files anew, with their events of finished levels and of the epochs `begun`."""
        self._records = {record["level"]: record for record in done}
        self._fills_gap = [*self._records] != [*range(len(done))]

        def holds(event: Any) -> bool:
            level = event.step // self.experiment.epochs if _is_of_epoch(event) else event.step
            return level in self._records or (_is_of_epoch(event) and event.step in begun)

        for log in self._logs.values():
            if events := log.read():
                log.replace(sorted(filter(holds, events), key=_step))
        for run, log in self._logs.items():
            self._levels[run] = {e.step: e for e in EventFile(log.directory, "levels").read()}
        for record in done:
            step = level_step(record)
            for run, values in _level_scalars(record).items():
                self._levels[run].setdefault(step, _event(step, values))
        if done:
            self._write_levels()

    def _write_epoch(self, row: Epoch) -> None:
        step = row.level * self.experiment.epochs + row.epoch
        for prefix in ("train", "val"):
            values = {
                f"epoch/{name.removeprefix(f'{prefix}_')}": value
                for name, value in row.metrics.items()
                if name.startswith(f"{prefix}_")
            }
            self._append(_RUNS[prefix], _event(step, values))

    def write_level(self, ticket: Ticket, predictions: Predictions) -> None:
        """Writes what TensorBoard shows of a finished level."""
        step = level_step(ticket.record)
        found = _level_scalars(ticket.record)
        found["train"] |= {
            _LAYERS + name: float(mask.mean()) for name, mask in ticket.masks.items()
        }
        for run, values in found.items():
            self._levels[run][step] = _event(step, values)
        self._records[ticket.level] = ticket.record
        self._write_levels()
        weights = (
            event_files.histogram(f"weight/{name}", ticket.trained[name][mask])
            for name, mask in ticket.masks.items()
        )
        self._append("train", event_files.event(ticket.level, *weights))
        split = "test" if "test" in predictions else "val"
        title = f"level {ticket.level}, {100 * ticket.density:.1f} % kept, {_RUNS[split]}"
        bins = self.experiment.ece_bins
        image = reliability_diagram(*predictions[split], bins=bins, title=title)
        shown = event_files.image("reliability", image)
        self._append(_RUNS[split], event_files.event(ticket.level, shown))

    def _write_levels(self) -> None:
        """Writes the scalars of all levels, the sparsest first, and those of the selected level."""
        for run, levels in self._levels.items():
            if levels:
                _write(self.directory / run, "levels", [levels[step] for step in sorted(levels)])
        selected = self._records[selected_level([*self._records.values()])]
        names = [f"{split}_{name}" for split in ("test", "val") for name in _METRICS]
        values = {f"selected/{n}": selected[n] for n in (*_SELECTED, *names) if n in selected}
        row = event_files.event(0, self._hparams())
        # TensorBoard reads the last value. The step grows with the levels, also while it watches.
        _write(self.directory / "selected", "log", [row, _event(len(self._records), values)])

    def _hparams(self) -> Any:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        return hparams_pb(hyperparameters(self.experiment), trial_id=self.directory.name)

    def _append(self, run: str, event: Any) -> None:
        log = self._logs[run]
        if log.is_open:
            log.append([event])
        else:
            log.replace([event])

    def _close(self) -> None:
        for log in self._logs.values():
            if self._fills_gap and log.is_open:
                log.replace(sorted(log.read(), key=_step))
            log.close()

    def _wait(self) -> None:
        pending, self._pending = self._pending, []
        for part in pending:
            try:
                part.result()
            except Exception as error:  # The disk is full or gone, or a library fails.
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Ends the log with a line; a run must not end because of its log."""
        if not self._broken:
            self._broken = True
            reason = (str(error).splitlines() or [""])[0]
            line = f"the TensorBoard log of {self.directory} cannot be written, the run goes on: {reason}"
            print(line, file=tolerant(sys.stderr))


def _event(step: int, values: Mapping[str, float]) -> Any:
    return event_files.event(step, *event_files.scalars(values))


def _step(event: Any) -> int:
    return int(event.step)


def _is_of_epoch(event: Any) -> bool:
    return all(value.tag.startswith("epoch/") for value in event.summary.value)


def _level_scalars(record: Record) -> dict[str, dict[str, float]]:
    """The scalars of a level by run and tag."""
    found: dict[str, dict[str, float]] = {}
    for prefix, run in _RUNS.items():
        own = {name: record.get(f"{prefix}_{name}") for name in _METRICS}
        own |= {name: record.get(name) for name, where in _OF_LEVEL.items() if where == run}
        values = {f"level/{name}": value for name, value in own.items() if value is not None}
        if values:
            found[run] = values
    return found


def _write(directory: Path, name: str, events: Sequence[Any]) -> None:
    """Writes an event file as a whole."""
    file = EventFile(directory, name)
    file.replace(events)
    file.close()
