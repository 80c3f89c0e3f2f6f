"""Performs one run of a sweep, in the process of a worker."""

import contextlib
import dataclasses
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lotcal_tf.config import custom
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.process import Stopped, stoppable
from lotcal_tf.errors import FieldError, LotcalError, RunInUse
from lotcal_tf.files import NO_SPACE
from lotcal_tf.sweeps.jobs import Job

DONE, FAILED, STOPPED, IN_USE, NO_ROOM = "done", "failed", "stopped", "in use", "no room"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run of a sweep ended.

    Attributes:
      how: `done`, `failed`, `stopped` (by a signal; it can be resumed), `in use` (another process
        writes it) or `no room` (the disk is full).
      line: one line that says why; empty if it is done.
      seconds: how long it took.
    """

    how: str
    line: str = ""
    seconds: float = 0.0


TaskOf = Callable[[Experiment], Any]
CustomObjects = str | Mapping[str, Any] | None


def perform(
    job: Job, task_of: TaskOf | None = None, custom_objects: CustomObjects = None
) -> Outcome:
    """Runs, or goes on with, a run, and says how it ended; raises nothing.

    Args:
      job: the run.
      task_of: see `run_experiment`.
      custom_objects: the model's custom classes and functions, by name or as `module:Class[,module:Class]`.
    """
    begun = time.perf_counter()
    try:
        # A signal to all processes of a sweep comes twice, since the sweep passes it on.
        with stoppable(second_exits=False):
            _run(job, task_of, custom_objects)
        how, line = DONE, ""
    except BaseException as error:
        how, line = _described(error)
    return Outcome(how, " ".join(line.split()), time.perf_counter() - begun)


def predict(job: Job, custom_objects: CustomObjects = None) -> float | str:
    """The seconds of a whole run, 0 if they cannot be estimated; or why it cannot run."""
    try:
        with stoppable(second_exits=False), tempfile.TemporaryDirectory() as directory:
            from lotcal_tf.lottery.run import predicted_seconds

            # The levels that are finished count, too.
            new = dataclasses.replace(job.experiment, out=str(Path(directory) / "new"))
            with _known(custom_objects):
                return predicted_seconds(new) or 0.0
    except BaseException as error:
        return _described(error)[1]


def _run(job: Job, task_of: TaskOf | None, custom_objects: CustomObjects) -> None:
    from lotcal_tf.lottery.run import run_experiment

    # A directory that exists is locked before data is loaded, so another sweep takes another run.
    job.directory.mkdir(parents=True, exist_ok=True)
    try:
        with _known(custom_objects):
            run_experiment(job.experiment, task_of, estimate_time=False)
    finally:
        with contextlib.suppress(OSError):
            job.directory.rmdir()  # if it is still empty


@contextlib.contextmanager
def _known(custom_objects: CustomObjects) -> Iterator[None]:
    """Inside it, Keras knows the custom classes and functions of a model."""
    from lotcal_tf.compat import keras

    if custom_objects is None or isinstance(custom_objects, str):
        custom_objects = custom.load_custom_objects(custom_objects)
    with keras.utils.custom_object_scope(custom_objects):
        yield


def _described(error: BaseException) -> tuple[str, str]:
    """How a run ended that raised an error, and why."""
    if isinstance(error, KeyboardInterrupt):
        name = error.name if isinstance(error, Stopped) else "SIGINT"
        return STOPPED, f"ended by {name}"
    if isinstance(error, RunInUse):
        return IN_USE, str(error)
    if isinstance(error, LotcalError | OSError) and _is_full(error):
        return NO_ROOM, str(error)
    if isinstance(error, LotcalError):
        return FAILED, f"--{error}" if isinstance(error, FieldError) else str(error)
    if isinstance(error, MemoryError):
        return FAILED, "out of memory: choose fewer workers, or a smaller network or batch_size"
    traceback.print_exc()
    return FAILED, f"{type(error).__name__}: {error}"


def _is_full(error: BaseException | None) -> bool:
    """Whether an error comes from a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return True
        error = error.__cause__ or error.__context__
    return False
