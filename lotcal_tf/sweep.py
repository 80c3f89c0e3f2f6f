"""Runs a sweep: one pruning run for each combination of the values of some fields.

A comma list (--calib=none,vwcc) or a range (--seed=0..4) makes a field an axis; --grid=FILE.toml describes
larger designs. Every run has its own directory in --out, named after its axes. The same command skips
finished runs and resumes the others; several sweeps may share a directory. All flags of train can be used.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lotcal_tf.config import custom, flags
from lotcal_tf.config.arguments import SweepArguments, directory_of
from lotcal_tf.config.fields import checked
from lotcal_tf.config.recipes import recipe_names
from lotcal_tf.errors import RunsFailed, UsageError
from lotcal_tf.sweeps.grid import Grid, flag_values, read_grid
from lotcal_tf.sweeps.jobs import LOGS, Job, jobs_of
from lotcal_tf.sweeps.perform import DONE
from lotcal_tf.sweeps.runner import predict_jobs, run_jobs
from lotcal_tf.tables import duration

FLAGS = (
    flags.Flag("grid", "a grid file (TOML): axes, combinations to leave out, dependent fields"),
    flags.Flag(
        "workers",
        "runs at the same time, each in its own process; default: one per CPU, or one if there is a GPU",
    ),
    flags.Flag("ray", "run on a Ray cluster: its address, or auto for the one of this machine"),
    flags.Flag("gpus", "share of a GPU for each run, on a Ray cluster", default="0"),
    flags.Flag(
        "dry_run", "print the train commands and the predicted time, and train nothing", switch=True
    ),
    flags.CUSTOM_OBJECTS,
)
COMMAND = flags.Command("sweep", f"{__doc__ or ''}\nRecipes: {', '.join(recipe_names())}.", FLAGS)


def main(request: flags.Request) -> None:
    """Runs all runs of the sweep that are not finished.

    Raises:
      LotcalError: with a message of one line; a run failed.
    """
    own, given = request.own, dict(request.given)
    if not given.get("out"):
        raise UsageError("--out is missing: name the directory of the sweep")
    out = directory_of("out", given.pop("out"))
    custom.check_custom_objects(own["custom_objects"])
    options = checked(SweepArguments, {name: own[name] for name in ("workers", "ray", "gpus")})
    grid = Grid() if own["grid"] is None else read_grid(Path(own["grid"]))
    if any(":" in str(given.get(name)) for name in ("calib", "criterion")):
        flags.start_tensorflow()  # which the user's classes import
    jobs = jobs_of(grid.with_values({}, flag_values(given)), out, request.config)
    if own["dry_run"]:
        _predict(jobs, options.workers, own["custom_objects"])
        return
    results = run_jobs(jobs, out, options, custom_objects=own["custom_objects"])
    failed = [result for result in results if result.how != DONE]
    if failed:
        raise RunsFailed(
            f"{len(failed)} of {len(results)} runs failed, first {failed[0].name}: {failed[0].line}; "
            f"what it printed is in {out / LOGS}; the same command tries them again"
        )
    print(f"{out}: {len(results)} of {len(results)} runs are finished")
    place = shlex.quote(str(out))
    print(f"report: python -m lotcal_tf.report {place} -o report.html")
    print(f"TensorBoard: tensorboard --logdir {place}")


def _predict(jobs: Sequence[Job], workers: int | None, custom_objects: str | None) -> None:
    """Prints the commands of the unfinished runs, and on standard error the predicted time."""
    left = [job for job in jobs if not job.is_finished]
    own = [f"--custom_objects={custom_objects}"] if custom_objects else []
    for job in left:
        print(shlex.join([*job.command, *own]), flush=True)
    if compared := sum(job.is_finished and job.can_change for job in jobs):
        print(
            f"{compared} finished runs use your own code or files: the sweep compares these with what "
            "they were, and refuses runs that differ",
            file=sys.stderr,
        )
    if not left:
        print(f"all {len(jobs)} runs are finished", file=sys.stderr)
        return
    seconds = predict_jobs(left, workers, custom_objects)
    words = f"about {duration(seconds)} of training; each process takes some seconds to start"
    print(f"{len(left)} of {len(jobs)} runs left: {words}", file=sys.stderr)


def run(argv: list[str] | None = None) -> None:
    """Runs the command and exits with its exit code."""
    flags.run(COMMAND, main, argv, interrupted="run the same command again to continue")


if __name__ == "__main__":
    run()
