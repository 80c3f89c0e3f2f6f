"""Finds lottery tickets: one experiment, a chain of levels, and the best ticket as files.

The run directory holds experiment.json, metrics.csv, history.csv, tickets/, a TensorBoard log and
export/. The same command again continues an interrupted run, more --levels a finished one.
"""

from lotcal_tf.config import flags
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.run_directory import check_ticket
from lotcal_tf.training.distributed import cluster


def main(experiment: Experiment) -> None:
    """Runs the experiment, shows its levels and exports the best ticket.

    Raises:
      LotcalError: what went wrong, in one line.
    """
    cluster.of(experiment.distribute)
    if experiment.ticket:
        check_ticket(experiment.ticket)
    # Only now: importing TensorFlow takes seconds, wrong flags are told at once.
    flags.start_tensorflow()
    from lotcal_tf.lottery.run import export_best, run_experiment

    run = run_experiment(experiment)
    if not run.chief:
        print(f"{run.directory}: this worker is done; the chief has written, and exports")
        return
    if run.found == len(run.records):
        print(
            f"{run.directory} is finished: {run.found} levels; --levels={run.found} and more extend it"
        )
    exported = export_best(run, scaled=experiment.export_logits == "scaled")
    print(run.table())
    print(f"best: level {run.best.level}, {100 * run.best.density:.1f} % of the prunable weights")
    print(f"exported, and held against the ticket on {exported.examples:,} examples:")
    for path in exported.files.values():
        print(f"  {path}")
    print(f"more formats, and their speed: python -m lotcal_tf.export --run={run.directory}")
    print(f"watch: tensorboard --logdir {run.directory / 'tensorboard'}")


if __name__ == "__main__":
    flags.run("train", __doc__, main)
