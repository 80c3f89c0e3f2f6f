"""The number of threads that TensorFlow runs an operation on a CPU with.

Matrix products and convolutions are split by it, so results can depend on it in the last bits. A run
uses one per CPU, records that number, and continues with the recorded one.
"""

import os

import tensorflow as tf

from lotcal_tf.config.process import cpus
from lotcal_tf.errors import FieldError


def in_effect() -> int:
    """The number of threads that operations of this process use, or will use."""
    configured = tf.config.threading.get_intra_op_parallelism_threads()
    return configured or _of_environment() or cpus()


def require(threads: int) -> None:
    """Sets the number of threads. That is possible before the first operation of the process.

    Raises:
      FieldError: operations have run with another number.
    """
    if not _set(threads):
        problem = (
            f"TensorFlow runs with {in_effect()} in this process already: leave threads out, or call "
            f"tf.config.threading.set_intra_op_parallelism_threads({threads}) before its first operation"
        )
        raise FieldError("threads", threads, problem)


def resume(requested: int | None, recorded: int | None) -> list[str]:
    """Sets the number of threads that a run began with, if no other is requested.

    Args:
      requested: by the user, and set already; None: the recorded number.
      recorded: the number that the run began with; None: it is new, or does not say.

    Returns:
      Messages for the user: the number differs from the recorded one, or there are too few CPUs.
    """
    if requested is None and recorded is not None:
        _set(recorded)
    now, notes = in_effect(), []
    if recorded not in (None, now):
        notes.append(
            f"threads={now}, and the run began with {recorded}: new levels can differ in the last bits from those "
            f"of a run that was not interrupted (--threads={recorded} avoids it)"
        )
    if now > cpus():
        notes.append(f"threads={now}, and this machine has {cpus()} CPUs: training is slower")
    return notes


def _set(threads: int) -> bool:
    """Sets the number of threads; returns whether it is in effect."""
    if threads != in_effect():
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError:  # Operations have run.
            return False
    return True


def _of_environment() -> int:
    """The default that TensorFlow reads from the environment; 0: none."""
    text = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return int(text) if text.isdecimal() else 0
