"""What happens to each job of a sweep, with workers that only pretend."""

import errno
import io

import pytest

from lotcal_tf.config.sealed import seal
from lotcal_tf.errors import RunInUse, TrainingDiverged
from lotcal_tf.sweeps import perform, runner
from lotcal_tf.sweeps.display import Display
from lotcal_tf.sweeps.grid import Grid
from lotcal_tf.sweeps.jobs import jobs_of
from lotcal_tf.sweeps.perform import DONE, FAILED, IN_USE, NO_ROOM, STOPPED, Outcome
from lotcal_tf.sweeps.runner import Runner


class Pretend:
    """Workers whose jobs end at once, as `script` says: a list of results for each seed."""

    def __init__(self, script, count=2):
        self.script, self.count = script, count
        self.begun, self.active, self.calls = [], [], []

    def has_room(self):
        return len(self.active) < self.count

    def begin(self, job):
        assert self.has_room()
        self.begun.append(job.experiment.seed)
        self.active.append(job)

    def wait(self, seconds):
        ended, self.active = self.active, []
        results = [(job, self.script[job.experiment.seed].pop(0)) for job in ended]
        for _, result in results:
            if isinstance(result, KeyboardInterrupt):
                self.active = ended
                self.script = {job.experiment.seed: [Outcome(STOPPED)] for job in ended}
                raise result
        return results

    def stop(self):
        self.calls.append("stop")

    def close(self):
        assert not self.active
        self.calls.append("close")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(script) → the workers, the results by seed and the lines."""
    monkeypatch.setattr(runner, "RETRY_SECONDS", 0.0)

    def call(script, finished=()):
        jobs = jobs_of(Grid(fields={"levels": 0}, axes={"seed": list(script)}), tmp_path)
        for job in jobs:
            if job.experiment.seed in finished:
                (job.directory / "tickets" / "level_00").mkdir(parents=True)
                (job.directory / "experiment.json").write_bytes(seal({}))
        workers, lines = Pretend({seed: list(each) for seed, each in script.items()}), io.StringIO()
        results = Runner(jobs, workers, tmp_path, Display(jobs, stream=lines)).run()
        assert [result.directory for result in results] == [job.directory for job in jobs]
        return workers, [(r.how, r.line) for r in results], lines.getvalue().splitlines()

    return call


def test_finished_runs_are_skipped(run):
    workers, results, lines = run({0: [Outcome(DONE)], 1: [], 2: [Outcome(DONE)]}, finished=[1])
    assert workers.begun == [0, 2]
    assert results == [(DONE, "")] * 3
    assert len(lines) == 2


def test_a_failure_does_not_stop_the_others(run):
    bad = Outcome(FAILED, "the loss is not finite")
    workers, results, lines = run({0: [bad], 1: [Outcome(DONE)], 2: [Outcome(DONE)]})
    assert workers.begun == [0, 1, 2]
    assert results == [(FAILED, "the loss is not finite"), (DONE, ""), (DONE, "")]
    assert any("the loss is not finite" in line for line in lines)
    assert workers.calls == ["close"]


def test_a_job_whose_worker_dies_is_tried_once_more(run):
    died = RuntimeError("its worker process ended with signal SIGKILL")
    workers, results, _ = run({0: [died, Outcome(DONE)], 1: [died, died]})
    assert sorted(workers.begun) == [0, 0, 1, 1]
    assert results[0] == (DONE, "")
    assert results[1][0] == FAILED
    assert "SIGKILL" in results[1][1]


def test_only_deaths_of_a_worker_count_as_such(run):
    died = RuntimeError("its worker process ended with signal SIGKILL")
    before = [Outcome(IN_USE), Outcome(NO_ROOM, "no room"), Outcome(IN_USE)]
    workers, results, _ = run({0: [*before, died, Outcome(DONE)]})
    assert len(workers.begun) == 5
    assert results == [(DONE, "")]


def test_a_run_of_another_process_is_looked_at_again(run):
    workers, results, lines = run({0: [Outcome(IN_USE)] * 3 + [Outcome(DONE)], 1: [Outcome(DONE)]})
    assert workers.begun.count(0) == 4
    assert results == [(DONE, "")] * 2
    assert sum("another process" in line for line in lines) == 1


def test_a_full_disk_pauses_the_sweep(run, monkeypatch):
    tries = []

    def write(path, content):
        tries.append(path)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner, "write_new", write)
    full = Outcome(NO_ROOM, "metrics.csv: No space left on device")
    workers, results, lines = run({0: [full, Outcome(DONE)], 1: [full, Outcome(DONE)]})
    assert len(tries) == 3
    assert sorted(workers.begun) == [0, 0, 1, 1]
    assert results == [(DONE, "")] * 2
    assert sum("waits until there is room" in line for line in lines) == 1


def test_a_run_without_room_although_files_can_be_written_fails_at_last(run):
    """Its files may be larger than what is free, or on another disk."""
    full = Outcome(NO_ROOM, "tensors: No space left on device")
    workers, results, _ = run({0: [full] * 9, 1: [Outcome(DONE)]})
    assert sorted(workers.begun) == [0, 0, 1]
    assert results == [(FAILED, full.line), (DONE, "")]


def test_a_signal_stops_all_runs_and_waits_for_them(tmp_path):
    jobs = jobs_of(Grid(axes={"seed": [0, 1, 2]}), tmp_path)
    workers = Pretend({0: [KeyboardInterrupt()], 1: [Outcome(DONE)], 2: []})
    with pytest.raises(KeyboardInterrupt):
        Runner(jobs, workers, tmp_path, Display(jobs, shown=False)).run()
    assert workers.begun == [0, 1]
    assert workers.calls == ["stop", "close"]


def test_a_bar_counts_levels(tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    jobs = jobs_of(Grid(fields={"levels": 3}, axes={"seed": [0, 1]}), tmp_path)
    stream = Terminal()
    with Display(jobs, stream=stream) as display:
        display.show({jobs[0].name: 2, jobs[1].name: 1})
        assert "3/8" in stream.getvalue()
        display.ended(jobs[1], Outcome(DONE, seconds=3))
        display.show({jobs[0].name: 2})
    assert "6/8" in stream.getvalue()
    assert "1 of 2 runs" in stream.getvalue()


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "how", "named"),
    [
        (RunInUse("out", "x", "process 1 writes it"), IN_USE, "process 1"),
        (TrainingDiverged(1, 2, 3), FAILED, "level 1"),
        (OSError(errno.ENOSPC, "No space left on device", "a.csv"), NO_ROOM, "a.csv"),
        (caused(TrainingDiverged(1, 2, 3), OSError(errno.EDQUOT, "quota")), NO_ROOM, ""),
        (OSError(errno.EACCES, "denied"), FAILED, "denied"),
        (MemoryError(), FAILED, "memory"),
        (ZeroDivisionError("by zero"), FAILED, "by zero"),
        (KeyboardInterrupt(), STOPPED, "SIGINT"),
    ],
)
def test_how_a_run_ends_that_raises(tmp_path, monkeypatch, capfd, error, how, named):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("lotcal_tf.lottery.run.run_experiment", fails)
    (job,) = jobs_of(Grid(), tmp_path)
    outcome = perform.perform(job)
    assert outcome.how == how
    assert named in outcome.line
    unknown = how == FAILED and not isinstance(error, TrainingDiverged | MemoryError)
    assert ("Traceback" in capfd.readouterr().err) == unknown
    assert not job.directory.exists()
