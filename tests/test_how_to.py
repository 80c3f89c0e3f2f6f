"""The code of every page in docs/how-to runs, in the order of the page, on small data."""

import re
import shlex
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from lotcal_tf import evaluate, export, train

PAGES = Path(__file__).resolve().parents[1] / "docs" / "how-to"
COMMANDS = {f"lotcal_tf.{c.__name__.rpartition('.')[2]}": c for c in (evaluate, export, train)}
# A page's commands with short training; it says what a user would run.
SHORT = {"lotcal_tf.train": ["--epochs=1", "--levels=1", "--batch_size=8", "--plan=graph"]}
NEEDS = {"mlflow": ["mlflow", "sqlalchemy"]}


def photos(directory):
    """Three classes of twelve small images, and one more image."""
    image = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(0)
    for place, name in enumerate(("cat", "dog", "owl")):
        (directory / name).mkdir(parents=True)
        for number in range(20):
            pixels = draw.integers(0, 80, (40, 36, 3)) + 80 * place
            image.fromarray(pixels.astype(np.uint8)).save(directory / name / f"{number:03d}.png")
    image.fromarray(pixels.astype(np.uint8)).save(directory.parent / "test.jpg")


def blocks(page):
    return re.findall(r"```(python|sh)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_pages_are_found():
    assert {page.stem for page in PAGES.glob("*.md")} == {
        *("images", "keras3", "pretrained", "text", "mlflow"),
    }


@pytest.mark.full
@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_page_runs(page, tmp_path, monkeypatch, call_command):
    for module in NEEDS.get(page.stem, []):
        pytest.importorskip(module, reason=f"needs pip install 'lotcal-tf[{page.stem}]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", mock.Mock())  # logging needs an account
    if page.stem == "images":
        photos(tmp_path / "photos")
    names = {"__name__": "__main__"}
    for kind, text in blocks(page):
        if kind == "sh":
            for line in text.splitlines():
                python, option, module, *flags = shlex.split(line)
                assert (python, option) == ("python", "-m")
                done = call_command(COMMANDS[module], *flags, *SHORT.get(module, []))
                assert done.code == 0, done.err
        else:
            exec(compile(text, page.name, "exec"), names)
    check = globals().get(f"check_{page.stem}")
    if check is not None:
        check(names, tmp_path)


def check_images(names, directory):
    export_directory = directory / "runs" / "photos" / "int8"
    assert (export_directory / "labels.txt").read_text().split() == ["cat", "dog", "owl"]
    assert names["p"].shape == (3,)
    assert names["p"].sum() == pytest.approx(1, abs=0.02)


def check_keras3(names, directory):
    x = names["x"][1400:]
    ticket = names["run"].selected
    # The file's logits are divided by the temperature.
    logits = ticket.record["temperature"] * names["loaded"].predict(x, verbose=0)
    assert logits == pytest.approx(ticket.model().predict(x, verbose=0), abs=1e-3)


def check_pretrained(names, directory):
    run, model = names["run"], names["model"]
    kernel = model.get_layer("block_1_expand").kernel.numpy()
    (path,) = (path for path in run.ticket(1).rewind if "block_1_expand/" in path)
    assert (run.ticket(1).rewind[path] == kernel).all()


def check_text(names, directory):
    vocabulary = (directory / "runs" / "text" / "vocabulary.txt").read_text()
    assert len(vocabulary.splitlines()) == len(names["vectorize"].get_vocabulary())
    assert (directory / "runs" / "text" / "export" / "labels.txt").read_text().split() == [
        *("bad", "good"),
    ]


def check_mlflow(names, directory):
    client = names["mlflow"].MlflowClient("sqlite:///mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")
    assert len(client.search_runs([experiment.experiment_id])) == 3
    calls = [name for name, _, _ in names["wandb"].mock_calls]
    assert calls == 3 * ["init", *(5 * ["log"]), "finish"]
    started = [call.kwargs["name"] for call in names["wandb"].init.call_args_list]
    assert started == ["level_00", "level_01", "level_02"]
    logged = [call.args[0]["val_loss"] for call in names["wandb"].log.call_args_list]
    assert logged == [
        row["val_loss"] for level in range(3) for row in names["run"].ticket(level).history
    ]
