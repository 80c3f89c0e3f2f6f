"""TensorBoard over the directory of a sweep: its HTTP interface, and its pages in a browser."""

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.lottery.run_tables import selected_level
from lotcal_tf.lottery.tensorboard import TensorBoardLog, hyperparameters, level_step
from tests import browser
from tests.cases import quick

pytestmark = pytest.mark.usefixtures("diagrams")

NAMES = {"none": "calib_none-seed_3-1a2b3c4d5e", "vwcc": "calib_vwcc-seed_3-0f9e8d7c6b"}
PARTS = ("train", "validation", "test", "selected")
LEVELS, EPOCHS = 2, 2
SECONDS = 60  # until TensorBoard has started, and until it has read what is new
# Every status, as TensorBoard's page asks for them.
STATUSES = [f"STATUS_{name}" for name in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]


class Board:
    """A running TensorBoard."""

    def __init__(self, url):
        self.url = url

    def get(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}data/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return json.load(answer)

    def series(self, run, tag):
        """[(step, value), …]."""
        rows = self.get(f"plugin/scalars/scalars?run={run}&tag={tag}")
        return [(step, np.float32(value)) for _, step, value in rows]

    def wait(self, condition):
        """Waits until TensorBoard has read what is new."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, self.get("runs")
            time.sleep(0.2)


@contextlib.contextmanager
def tensorboard(directory, loader):
    """Runs TensorBoard over a directory, on a free port."""
    command = [sys.executable, "-m", "tensorboard.main", "--host=127.0.0.1", "--port=0"]
    options = [f"--logdir={directory}", f"--load_fast={loader}", "--reload_interval=1"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if found := re.search(r"TensorBoard \S+ at (http://\S+)", line):
                yield Board(found[1])
                break
        else:
            raise AssertionError("TensorBoard has not started")
    finally:
        process.terminate()
        process.communicate()


def train(begin, directory, calib, levels):
    experiment = Experiment.of(calib=calib, epochs=EPOCHS, seed=3, clip_norm=CLIP[calib])
    log = TensorBoardLog(directory, experiment)
    return begin(directory, observers=[log], levels=levels, plan="graph").run()


CLIP = {"none": None, "vwcc": 1.0}


# TensorBoard has two readers. The one in Python, for platforms without the other, follows only the last
# file of each directory, so that it shows levels after a restart.
@pytest.fixture(
    scope="module",
    params=quick(["true", "false"], "true"),
    ids=["while it grows", "at the end"],
)
def watched(request, begin, tmp_path_factory):
    """TensorBoard over a sweep, and the records of its runs."""
    sweep = tmp_path_factory.mktemp("sweep")
    chains = {}

    def run(levels):
        for calib, name in NAMES.items():
            chains[calib] = train(begin, sweep / name, calib, levels)

    run(LEVELS - 1 if request.param == "true" else LEVELS)
    with tensorboard(sweep, request.param) as board:
        selected = [f"{name}/selected" for name in NAMES.values()]
        board.wait(lambda: set(selected) <= set(board.get("runs")))
        run(LEVELS)  # If it is finished, it is not trained again.
        board.wait(
            lambda: all(
                board.series(run, "selected/level")[-1][0] == LEVELS + 1 for run in selected
            )
        )
        yield board, {calib: chain.store.records() for calib, chain in chains.items()}


@pytest.mark.full
def test_a_run_is_named_by_its_directory(watched):
    board, _ = watched
    assert set(board.get("runs")) == {f"{name}/{part}" for name in NAMES.values() for part in PARTS}


def test_each_point_is_served_once_and_the_sparsest_level_first(watched):
    board, records = watched
    for calib, name in NAMES.items():
        for part, prefix in (("train", "train"), ("validation", "val"), ("test", "test")):
            expected = [
                (level_step(record), np.float32(record[f"{prefix}_nll"]))
                for record in reversed(records[calib])
            ]
            assert board.series(f"{name}/{part}", "level/nll") == expected
        epochs = board.series(f"{name}/validation", "epoch/loss")
        assert [step for step, _ in epochs] == [*range(EPOCHS * (LEVELS + 1))]


def test_the_hparams_table_has_a_row_for_each_run(watched):
    board, records = watched
    request = {"allowedStatuses": STATUSES, "startIndex": 0, "sliceSize": 10}
    found = board.get("plugin/hparams/session_groups", request)
    assert found["totalSize"] == len(NAMES)
    rows = {group["name"]: group for group in found["sessionGroups"]}
    assert set(rows) == set(NAMES.values())
    for calib, name in NAMES.items():
        experiment = Experiment.of(calib=calib, epochs=EPOCHS, seed=3, clip_norm=CLIP[calib])
        assert rows[name]["hparams"] == hyperparameters(experiment)
        selected = records[calib][selected_level(records[calib])]
        values = {v["name"]["tag"]: v["value"] for v in rows[name]["metricValues"]}
        assert len(values) == 12
        for tag, value in values.items():
            assert value == np.float32(selected[tag.removeprefix("selected/")])


def test_the_columns_of_the_hparams_table_have_types(watched):
    board, _ = watched
    found = board.get("plugin/hparams/experiment", {})
    columns = {info["name"]: info for info in found["hparamInfos"]}
    types = {name: info["type"].removeprefix("DATA_TYPE_") for name, info in columns.items()}
    assert (types["calib"], types["lr"], types["exclude_output"]) == ("STRING", "FLOAT64", "BOOL")
    # Of one run only.
    assert (types["passes"], types["clip_norm"]) == ("FLOAT64", "FLOAT64")
    assert [name for name, info in columns.items() if info["differs"]] == ["calib"]
    assert all(m["name"]["tag"].startswith("selected/") for m in found["metricInfos"])


def test_the_images_are_reliability_diagrams(watched):
    board, _ = watched
    found = board.get("plugin/images/tags")
    assert {run: list(tags) for run, tags in found.items()} == {
        f"{name}/test": ["reliability"] for name in NAMES.values()
    }
    run = f"{NAMES['none']}/test"
    images = board.get(f"plugin/images/images?run={run}&tag=reliability&sample=0")
    assert [image["step"] for image in images] == [*range(LEVELS + 1)]
    url = f"{board.url}data/plugin/images/individualImage?{images[0]['query']}"
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        assert answer.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.full
def test_the_charts_are_drawn_in_a_browser(watched):
    board, _ = watched
    with browser.opened(f"{board.url}#timeseries", 1400, 1200) as page:
        page.wait_for_selector("scalar-card canvas, scalar-card svg", state="attached")
        page.wait_for_selector("text=epoch/accuracy")
        assert page.errors == []
    with browser.opened(f"{board.url}#hparams", 1400, 1200) as page:
        for name in NAMES.values():
            page.wait_for_selector(f"text={name}", state="attached")
        assert page.errors == []
