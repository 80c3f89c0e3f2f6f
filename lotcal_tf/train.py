"""Finds lottery tickets: one experiment, a chain of levels, and the best ticket as files.

The run directory holds experiment.json, metrics.csv, history.csv, tickets/, a TensorBoard log and
export/. The same command again continues an interrupted run, more --levels a finished one.
"""

from pathlib import Path

from lotcal_tf import cli
from lotcal_tf.experiment import Experiment


def main(experiment: Experiment) -> None:
    """Runs the experiment, shows its levels and exports the best ticket.

    Raises:
      LotcalError: what went wrong, in one line.
    """
    # Only now: importing TensorFlow takes seconds, wrong flags are told at once.
    from lotcal_tf import library

    run = library.run_experiment(experiment)
    best = run.best
    exported = library.export_ticket(best, Path(run.directory) / "export", library.test_inputs(run.dataset))
    print(run.table())
    print(f"best: level {best.level}, {100 * best.density:.1f} % of the prunable weights")
    print(f"exported, and equal to the ticket on {exported.examples} examples:")
    print(f"  {exported.saved_model}\n  {exported.tflite}")
    print(f"watch: tensorboard --logdir {run.directory / 'tensorboard'}")


if __name__ == "__main__":
    cli.run("train", __doc__, main)
