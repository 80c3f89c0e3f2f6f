"""What experiment.json says about a run."""

import dataclasses
import json
import os
import platform
import shutil
import subprocess

import pytest
import tensorflow as tf

import lotcal_tf
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.lottery import provenance
from lotcal_tf.lottery.provenance import describe


@pytest.fixture(scope="module")
def chain(begin, tmp_path_factory):
    return begin(tmp_path_factory.mktemp("provenance") / "run", levels=1, plan="graph").run()


def told(chain, **content):
    search = chain.search
    return describe(search.experiment, content, search.dataset, search)


def test_it_survives_json_and_names_the_experiment(chain):
    record = told(chain, ticket="0123456789")
    assert json.loads(json.dumps(record)) == record
    assert record["content"] == {"ticket": "0123456789"}
    assert record["run_id"] == chain.search.experiment.run_id(ticket="0123456789")
    assert record["run_id"] != told(chain)["run_id"]
    # Every field, so that the experiment can be made again from the record alone.
    assert Experiment(**record["experiment"]) == chain.search.experiment


def test_realised_figures_by_hand(chain):
    # 8x6 and 6x3 kernels, 6 and 3 biases, BatchNorm's scale, shift, mean and variance of 6 each.
    assert told(chain)["realised"] == {
        "examples": {"train": 90, "val": 30, "test": 30},
        "input_shape": [8],
        "classes": 3,
        "steps_per_epoch": 9,
        "parameters": 48 + 6 + 18 + 3 + 4 * 6,
        "kernels": 48 + 18,
        "prunable": 48 + 18,
        "remaining_at_start": 48 + 18,
        "plan": "graph",
        "threads": int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or len(os.sched_getaffinity(0)),
        "replicas": 1,
    }


def test_noise_is_told_by_what_it_came_to(chain, dataset):
    assert "wrong_labels" not in told(chain)["realised"]
    noisy = dataclasses.replace(dataset, wrong_labels={"train": 0.2, "val": 0.1})
    record = describe(chain.search.experiment, {}, noisy, chain.search)
    assert record["realised"]["wrong_labels"] == {"train": 0.2, "val": 0.1}


def test_a_ticket_tells_what_is_left_of_the_original_network(chain, begin, tmp_path):
    started = begin(tmp_path, start=[chain.store.read(1)], levels=0, plan="graph")
    realised = told(started)["realised"]
    assert (realised["prunable"], realised["remaining_at_start"]) == (66, 38 + 16)


def test_the_software_that_ran(chain):
    software = told(chain)["software"]
    assert software["lotcal_tf"] == lotcal_tf.__version__
    assert software["python"] == platform.python_version()
    assert software["tensorflow"] == tf.__version__
    assert {"tf-keras", "tensorflow-model-optimization", "numpy", "git"} <= set(software)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_revision_is_the_checkouts_and_says_when_it_was_edited(tmp_path, monkeypatch):
    def git(*words):
        identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        call = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()

    module = tmp_path / "lotcal_tf" / "lottery" / "provenance.py"
    installed = tmp_path / "venv" / "lotcal_tf" / "lottery" / "provenance.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(module))
    assert provenance.revision() is None  # an installed copy
    git("init")
    assert provenance.revision() is None  # nothing committed yet: no revision, and no error
    git("add", "-A")
    git("commit", "-m", "first")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert provenance.revision() == commit
    module.write_text("edited")
    assert provenance.revision() == f"{commit}+changes"
    # A copy installed within somebody's checkout is not of that checkout's revision.
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert provenance.revision() is None
