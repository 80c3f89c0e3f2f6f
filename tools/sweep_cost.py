"""What a sweep costs beside its runs: runs that sleep, on local workers of Ray.

    python tools/sweep_cost.py --out=DIR --runs=1000 --workers=20 --seconds=1

Each run sleeps and writes the tables of a run with 20 levels. Prints the time of the checks before the first
run, and that of the sweep beside the sleep. A report over the directory then shows its cost.
"""

import argparse
import functools
import time
from pathlib import Path

from lotcal_tf.config.extras import imported
from lotcal_tf.config.sealed import seal
from lotcal_tf.sweeps.display import Display
from lotcal_tf.sweeps.grid import Grid
from lotcal_tf.sweeps.jobs import LOGS, Job, jobs_of
from lotcal_tf.sweeps.perform import DONE, Outcome
from lotcal_tf.sweeps.ray_cluster import RayWorkers
from lotcal_tf.sweeps.runner import Runner


def sleep(job: Job, seconds: float) -> Outcome:
    """Sleeps, and leaves what a finished run leaves, without tensors."""
    time.sleep(seconds)
    for level in range(job.experiment.levels + 1):
        (job.directory / "tickets" / f"level_{level:02d}").mkdir(parents=True)
    record = {"run_id": job.name, "experiment": job.experiment.as_dict()}
    (job.directory / "experiment.json").write_bytes(seal(record))
    return Outcome(DONE, seconds=seconds)


def main() -> None:
    """Runs the sweep and prints its costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0)
    given = parser.parse_args()
    begun = time.perf_counter()
    grid = Grid(fields={"levels": 19}, axes={"seed": range(given.runs)})
    jobs = jobs_of(grid, given.out)
    checked = time.perf_counter() - begun
    head = {"num_cpus": given.workers, "include_dashboard": False}
    cluster = imported("ray.cluster_utils", "ray").Cluster(True, head_node_args=head)
    work = functools.partial(sleep, seconds=given.seconds)
    workers = RayWorkers(
        work, cluster.address, None, lambda job: 1, 0.0, given.out.absolute() / LOGS, print
    )
    begun = time.perf_counter()
    Runner(jobs, workers, given.out, Display(jobs, shown=False)).run()
    whole = time.perf_counter() - begun
    cluster.shutdown()
    least = given.seconds * -(-given.runs // given.workers)
    begun = time.perf_counter()
    assert all(job.is_finished for job in jobs)
    found = time.perf_counter() - begun
    print(f"{given.runs} runs on {given.workers} workers, {given.seconds:g} s each")
    print(f"checks before the first run: {checked:.1f} s")
    print(f"sweep: {whole:.1f} s, of which sleep {least:.1f} s")
    print(f"cost of a run beside its work: {1000 * (whole - least) / given.runs:.0f} ms")
    print(f"finding that all are finished: {found:.2f} s")


if __name__ == "__main__":
    main()
