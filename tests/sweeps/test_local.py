"""Worker processes of this machine, with work that needs no TensorFlow."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lotcal_tf.config.run_directory import recorded_threads
from lotcal_tf.config.sealed import seal
from lotcal_tf.errors import UsageError
from lotcal_tf.files import is_alive
from lotcal_tf.sweeps.grid import Grid
from lotcal_tf.sweeps.jobs import jobs_of
from lotcal_tf.sweeps.local import Died, LocalWorkers, threads_of


@pytest.fixture
def pool(tmp_path):
    """pool(work, count, threads) → workers that are closed at the end."""
    opened = []

    def make(work, count=1, threads=lambda job: 1):
        opened.append(LocalWorkers(work, count, threads, tmp_path / "logs"))
        return opened[-1]

    yield make
    for workers in opened:
        workers.close()


@pytest.fixture
def jobs(tmp_path):
    return jobs_of(Grid(axes={"seed": [0, 1, 2]}), tmp_path)


def results(workers, jobs):
    """Gives jobs one by one; their results by seed."""
    found, waiting = {}, list(jobs)
    while waiting or workers.active:
        while waiting and workers.has_room():
            workers.begin(waiting.pop(0))
        found |= {job.experiment.seed: result for job, result in workers.wait(5.0)}
    return found


def test_one_process_does_job_after_job(pool, jobs):
    def work(job):  # A function inside a function: cloudpickle sends it whole.
        import os

        print("seed", job.experiment.seed)
        return os.getpid()

    found = results(pool(work), jobs)
    assert len(set(found.values())) == 1
    assert found[0] != os.getpid()
    logs = {path.name: path.read_text() for path in (jobs[0].directory.parent / "logs").iterdir()}
    assert logs == {f"{job.name}.log": f"seed {job.experiment.seed}\n" for job in jobs}


def test_workers_run_at_the_same_time(pool, jobs, tmp_path):
    def work(job):
        import time
        from pathlib import Path

        here = Path(job.experiment.out).parent
        (here / f"begun_{job.experiment.seed}").touch()
        deadline = time.monotonic() + 20
        while len(list(here.glob("begun_*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(list(here.glob("begun_*")))

    assert results(pool(work, 2), jobs[:2]) == {0: 2, 1: 2}


def test_each_number_of_threads_has_processes_of_its_own(pool, jobs):
    def work(job):
        import os

        return os.getpid(), os.environ["TF_NUM_INTRAOP_THREADS"]

    found = results(pool(work, 1, lambda job: 1 + job.experiment.seed % 2), jobs)
    assert [found[seed][1] for seed in range(3)] == ["1", "2", "1"]
    assert found[0][0] != found[1][0]


def test_a_process_that_dies_takes_one_job_with_it(pool, jobs):
    def work(job):
        import os
        import signal

        if job.experiment.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if job.experiment.seed == 2:
            os._exit(7)
        return "done"

    found = results(pool(work), [jobs[1], jobs[2], jobs[0]])
    assert found[0] == "done"
    assert isinstance(found[1], Died)
    assert "SIGKILL" in str(found[1])
    assert isinstance(found[2], Died)
    assert "exit code 7" in str(found[2])


def test_a_job_can_be_stopped(pool, jobs):
    def work(job):
        import time

        from lotcal_tf.config.process import Stopped, stoppable

        try:
            with stoppable():
                print("begun", flush=True)
                time.sleep(60)
        except Stopped as stop:
            return stop.name

    workers = pool(work)
    workers.begin(jobs[0])
    log = jobs[0].directory.parent / "logs" / f"{jobs[0].name}.log"
    while not (log.is_file() and log.read_text()):
        time.sleep(0.01)
    workers.stop()
    assert [result for _, result in workers.wait(20.0)] == ["SIGTERM"]


SWEEP = """
import os, sys, time
from pathlib import Path
from lotcal_tf.sweeps.grid import Grid
from lotcal_tf.sweeps.jobs import jobs_of
from lotcal_tf.sweeps.local import LocalWorkers

def work(job):
    print(os.getpid(), flush=True)
    time.sleep(60)

out = Path(sys.argv[1])
(job,) = jobs_of(Grid(), out)
workers = LocalWorkers(work, 1, lambda job: 1, out / "logs")
workers.begin(job)
workers.wait(60.0)
"""


def test_workers_end_when_the_sweep_is_killed(tmp_path):
    sweep = subprocess.Popen([sys.executable, "-c", SWEEP, str(tmp_path)])
    logs, found = tmp_path / "logs", ""
    while not found.strip():
        time.sleep(0.01)
        found = "".join(path.read_text() for path in logs.glob("*")) if logs.is_dir() else ""
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    deadline = time.monotonic() + 20
    while is_alive(int(found)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(int(found))


def test_threads_are_those_of_the_job_of_the_run_or_a_share(tmp_path, monkeypatch):
    monkeypatch.setattr("lotcal_tf.sweeps.local.cpus", lambda: 8)

    def threads(workers, **fields):
        (job,) = jobs_of(Grid(fields={"calib": "none", **fields}), tmp_path)
        return threads_of(job, workers)

    assert threads(2) == 1  # dense
    assert threads(2, model="resnet8_4") == 4
    assert threads(16, model="resnet8_4") == 1
    assert threads(2, model="resnet8_4", threads=3) == 3
    (job,) = jobs_of(Grid(fields={"model": "resnet8_4"}), tmp_path)
    job.directory.mkdir()
    assert recorded_threads(job.directory) is None
    (job.directory / "experiment.json").write_bytes(seal({"realised": {"threads": 5}}))
    assert threads_of(job, 2) == 5


def test_work_that_cannot_be_sent_is_refused_before_a_process_starts(pool):
    lock = threading.Lock()
    with pytest.raises(UsageError, match="cannot be sent to a worker process .*lock"):
        pool(lambda job: lock)
