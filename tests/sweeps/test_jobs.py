"""The runs of a sweep: names, directories, commands, sources."""

import dataclasses
import shlex
from pathlib import Path

import pytest

from lotcal_tf import sweep, train
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.recipes import resolve
from lotcal_tf.config.sealed import seal
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.sweeps.grid import Grid, flag_values, read_grid
from lotcal_tf.sweeps.jobs import Job, jobs_of

SMALL = {"model": "lenet_20_10", "epochs": 2, "levels": 1}


def jobs(out, fields=SMALL, **axes):
    return jobs_of(Grid(fields=fields, axes=axes), out)


def test_directories_are_named_after_the_axes_and_a_digest(tmp_path):
    found = jobs(tmp_path, calib=["none", "vwcc"], seed=[0, 1])
    starts = [
        "calib_none-seed_0-",
        "calib_none-seed_1-",
        "calib_vwcc-seed_0-",
        "calib_vwcc-seed_1-",
    ]
    assert [job.name[:-10] for job in found] == starts
    assert len({job.name[-10:] for job in found}) == 4
    assert [job.directory for job in found] == [tmp_path / job.name for job in found]


def test_a_directory_is_found_again_by_other_axes(tmp_path):
    (first,) = jobs(tmp_path, {**SMALL, "calib": "vwcc"}, seed=[1])
    (tmp_path / first.name).mkdir()
    again = jobs(tmp_path, calib=["none", "vwcc"], seed=[0, 1])
    assert first.name in [job.name for job in again]
    assert len({job.name for job in again}) == 4


def test_the_digest_ignores_what_results_do_not_depend_on(tmp_path):
    def digests(**fields):
        return [job.name[-10:] for job in jobs(tmp_path, {**SMALL, **fields}, seed=[0, 1])]

    assert digests() == digests(levels=3, threads=1, plan="graph")
    assert not set(digests()) & set(digests(epochs=3))


def test_a_hyperparameter_reaches_the_strategies_that_have_it(tmp_path):
    found = jobs(tmp_path, calib=["none", "vwcc"], dropout_rate=[0.1, 0.2])
    settings = [
        (job.experiment.calib, job.experiment.settings.get("dropout_rate")) for job in found
    ]
    assert settings == [("none", None), ("vwcc", 0.1), ("vwcc", 0.2)]
    with pytest.raises(UsageError, match="mixup_a"):
        jobs(tmp_path, {**SMALL, "mixup_a": 0.2}, calib=["none", "vwcc"])


@pytest.mark.parametrize(
    ("fields", "axes"),
    [({}, {"calib": ["none", "nonsense"]}), ({"nonsense": 1}, {}), ({"epochs": 0}, {}),
     ({"distribute": "multi_worker"}, {}), ({"ticket": "nowhere"}, {}), ({}, {"nonsense": [1, 2]})],
    ids=str,
)  # fmt: skip
def test_a_run_that_cannot_run_is_refused(tmp_path, fields, axes):
    with pytest.raises(UsageError, match=next(iter({**fields, **axes}))):
        jobs(tmp_path, {**SMALL, **fields}, **axes)


def test_the_command_of_a_run_is_the_same_experiment(tmp_path):
    fields = {**SMALL, "lr_drops": (1,), "exclude_output": False, "nesterov": True, "momentum": 0.9}
    found = jobs(tmp_path, {**fields, "optimizer": "sgd"}, calib=["lwcc"], prune_rate=[0.2, 0.3])
    for job in found:
        assert job.command[:3] == ["python", "-m", "lotcal_tf.train"]
        request = train.COMMAND.read(job.command[3:])
        assert resolve(request.given, request.config) == job.experiment


def test_a_dry_run_prints_the_commands_of_unfinished_runs(tmp_path, call_command, monkeypatch):
    monkeypatch.setattr(sweep, "predict_jobs", lambda jobs, workers, known: 60.0 * len(jobs))
    flags = ["--calib=none,vwcc", "--seed=0..1", *(f"--{n}={v}" for n, v in SMALL.items())]
    done = call_command(sweep, *flags, f"--out={tmp_path / 'new'}", "--dry_run")
    assert done.code == 0
    lines = done.out.splitlines()
    found = jobs(tmp_path / "new", calib=["none", "vwcc"], seed=[0, 1])
    assert [shlex.split(line) for line in lines] == [job.command for job in found]
    done = call_command(
        sweep, *flags, f"--out={tmp_path / 'new'}", "--dry_run", "--custom_objects=json:JSONEncoder"
    )
    own = ["--custom_objects=json:JSONEncoder"]
    assert [shlex.split(line) for line in done.out.splitlines()] == [
        [*job.command, *own] for job in found
    ]
    assert "4 min" in done.err[-1]
    assert not (tmp_path / "new").exists()


def test_the_directory_of_a_run_is_refused(tmp_path):
    (tmp_path / "tickets").mkdir()
    with pytest.raises(UsageError, match=f"^out={tmp_path}: is the directory of a run"):
        jobs(tmp_path, seed=[0, 1])


def test_a_dry_run_names_finished_runs_that_are_compared_first(tmp_path, call_command, monkeypatch):
    monkeypatch.setattr(Job, "is_finished", property(lambda job: True))
    flags = ["--seed=0..1", *(f"--{n}={v}" for n, v in SMALL.items()), f"--out={tmp_path / 'new'}"]
    done = call_command(sweep, *flags, "--dry_run")
    assert (done.code, done.out, done.err) == (0, "", ["all 2 runs are finished"])
    done = call_command(sweep, *flags, "--calib=json:JSONEncoder", "--dry_run")
    assert (done.code, done.out) == (0, "")
    assert done.err[0].startswith("2 finished runs use your own code")


@pytest.mark.parametrize(
    "text",
    [
        "[fields]\ncalib = 'mine:Class'",
        "[axes]\ncriterion = ['magnitude', 'mine:Class']",
        "[axes]\nseed = [0, 1]\n[[set]]\nwhen = { seed = 1 }\ncalib = 'mine:Class'",
    ],
)
def test_a_grid_file_cannot_name_code(tmp_path, text):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    grid = read_grid(path)
    with pytest.raises(UsageError, match="cannot import code"):
        jobs_of(grid, tmp_path)
    field = "calib" if "calib" in text else "criterion"
    given = grid.with_values({}, flag_values({field: "json:JSONEncoder"}))
    for job in jobs_of(given, tmp_path):
        assert getattr(job.experiment, field) == "json:JSONEncoder"


def test_the_way_out_of_a_grid_file_that_names_code_keeps_the_other_values(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text("[axes]\ncalib = ['none', 'json:JSONEncoder']")
    grid, way_out = read_grid(path), "--calib=none,json:JSONEncoder"
    with pytest.raises(FieldError, match=f"if you trust it, add {way_out}$"):
        jobs_of(grid, tmp_path)
    given = grid.with_values(*({}, flag_values({"calib": way_out.partition("=")[2]})))
    assert len(jobs_of(given, tmp_path)) == 2


OWN = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Focus:
    gamma: float = 1.0

class Focal:
    Hyperparameters = Focus
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_of_jobs.py").write_text(OWN)
    return "own_of_jobs:Focal"


def test_hyperparameters_reach_the_methods_that_have_them(own, tmp_path):
    fields = {"dataset": "digits", "gamma": "2", "dropout_rate": "0.3"}
    grid = Grid(fields=fields, axes={"calib": ["none", "vwcc", own]})
    found = {job.experiment.calib: job.experiment.settings for job in jobs_of(grid, tmp_path)}
    assert found["none"] == {}
    assert found[own] == {"gamma": 2.0}
    assert found["vwcc"]["dropout_rate"] == 0.3 and "gamma" not in found["vwcc"]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"gamma": "abc"}, "^gamma=abc: must be a number"),
        ({"gama": 1}, "^gama=1: no strategy or criterion of the sweep has it"),
        ({"dropout_rate": 0.1}, "^dropout_rate=0.1: no strategy or criterion of the sweep has it"),
        ({"calib": "own_of_jobs:Nope"}, "^calib=own_of_jobs:Nope: cannot be imported"),
    ],
)
def test_runs_of_own_methods_are_checked_first(own, tmp_path, fields, line):
    with pytest.raises(FieldError, match=line):
        jobs_of(Grid(fields={"dataset": "digits", "calib": own, **fields}), tmp_path)


def source(path, levels=2, run_id="digits-x-1", **fields):
    """A directory that looks like a run with finished levels."""
    for level in range(levels):
        (path / "tickets" / f"level_{level:02d}").mkdir(parents=True)
    record = {"run_id": run_id, "experiment": {"levels": levels - 1, "settings": {}, **fields}}
    (path / "experiment.json").write_bytes(seal(record))
    return path


@pytest.fixture
def sources(tmp_path):
    place = tmp_path / "first"
    settings = {"passes": 3, "dropout_rate": 0.3, "dropout_at": "head"}  # a ticket has its dropout
    vwcc = {"calib": "vwcc", "settings": settings}
    source(place / "calib_none-seed_4-0123456789", run_id="a", calib="none", seed=4)
    source(place / "calib_vwcc-seed_5-0123456780", run_id="b", seed=5, **vwcc)
    (place / "logs").mkdir()
    return place


def test_one_run_for_each_run_of_another_sweep(tmp_path, sources):
    fields = {"epochs": 2, "ticket": f"sweep:{sources}"}
    found = jobs(tmp_path / "out", fields, seed=[0, 1])
    assert [job.experiment.seed for job in found] == [0, 0, 1, 1]
    names = [job.name[:-11] for job in found]
    assert names[:2] == ["seed_0-from_calib_none-seed_4", "seed_0-from_calib_vwcc-seed_5"]
    assert {job.experiment.ticket for job in found} == {
        str(path) for path in sources.glob("calib*")
    }
    assert len({job.name for job in found}) == 4


def test_fields_of_the_source(tmp_path, sources):
    fields = {"epochs": 2, "ticket": f"sweep:{sources}", "calib": "source", "seed": "source"}
    found = [job.experiment for job in jobs(tmp_path / "out", fields)]
    assert [(e.calib, e.seed, e.settings.get("dropout_rate")) for e in found] == [
        ("none", 4, None),
        ("vwcc", 5, 0.3),
    ]
    with pytest.raises(UsageError, match="seed"):
        jobs(tmp_path / "out", {"seed": "source"})


def test_a_sweep_without_tickets_is_no_source(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="ticket"):
            jobs(tmp_path / "out", {"ticket": f"sweep:{place}"})


def test_what_is_finished(tmp_path):
    (job,) = jobs(tmp_path)
    assert not job.is_finished
    source(job.directory, levels=1)
    assert not job.is_finished
    (job.directory / "tickets" / "level_01").mkdir()
    assert job.is_finished


@pytest.mark.parametrize(
    "fields",
    [
        {"calib": "json:JSONEncoder"},
        {"criterion": "json:JSONDecoder"},
        {"optimizer": "tests.custom:Optimizer"},
        {"model": "own.keras"},
        {"source": "folder"},
        {"source": "table"},
        {"source": "hf"},
    ],
    ids=lambda fields: "-".join(fields.values()),
)
def test_finished_runs_of_own_code_and_files_are_compared(tmp_path, monkeypatch, fields):
    monkeypatch.chdir(tmp_path)
    Path("own.keras").touch()
    experiment = dataclasses.replace(Experiment(source="digits", levels=0), **fields)
    (job,) = jobs_of(Grid(fields=fields), tmp_path, experiment_of=lambda given: experiment)
    source(job.directory, levels=1)
    assert job.is_finished and not job.can_be_skipped


def test_finished_runs_of_functions_are_compared_and_others_skipped(tmp_path):
    (plain,) = jobs(tmp_path, {"levels": 0})
    source(plain.directory, levels=1)
    assert plain.can_be_skipped
    (own,) = jobs_of(Grid(fields={"levels": 0}), tmp_path, content={"own_model": "a:b"})
    source(own.directory, levels=1)
    assert own.is_finished and not own.can_be_skipped
