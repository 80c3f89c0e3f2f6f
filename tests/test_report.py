"""The command report and its page: on hand-made runs, on copies of a real one, and in a browser."""

import csv
import functools
import html
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import lotcal_tf
from lotcal_tf import files, metrics, report
from lotcal_tf.config import sealed
from lotcal_tf.files import sha256_of
from lotcal_tf.lottery.conditions import Condition, condition_row
from lotcal_tf.lottery.run_tables import as_csv
from tests import browser
from tests.analysis.test_networks import written

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = [90_000, 40_000, 20_000, 6_000, 1_000]
TRAIN = [0.0, 0.02, 0.15, 0.18, 0.6]
ERROR = [0.30, 0.40, 0.25, 0.20, 0.65]
MEASURED = ("nll", "ece", "brier", "nll_scaled", "ece_scaled")


def write_run(directory, seed=0, gain=0.0, failed=None, **fields):
    """A run of five levels; `gain` lowers its error at all levels."""
    directory.mkdir(parents=True)
    experiment = {
        "dataset": "tiny",
        "source": "tiny",
        "model": "lenet_5",
        "seed": seed,
        "levels": 4,
    }
    whole = {"experiment": experiment | fields, "realised": {"examples": {"val": 6000}}}
    whole |= {"failed": failed} if failed else {}
    (directory / "experiment.json").write_text(json.dumps(whole))
    records = []
    for level, weights in enumerate(WEIGHTS):
        error = {"train": TRAIN[level], "val": ERROR[level] - gain, "test": ERROR[level] / 2 - gain}
        record = {"level": level, "density": weights / WEIGHTS[0], "weights": weights}
        record |= {"seconds": 60.0, "temperature": 1.25, "test_overconfidence": error["val"] / 3}
        for split, value in error.items():
            record[f"{split}_accuracy"] = 1 - value
            record |= {f"{split}_{name}": value + seed / 100 for name in MEASURED}
            record[f"{split}_nll_se"] = 0.01
        records.append(record)
    (directory / "metrics.csv").write_bytes(as_csv(records))
    return directory


def write_tickets(run, predictions):
    """Tickets of which only the predictions can be read, one per level."""
    for level, (labels, logits) in enumerate(predictions):
        ticket = run / "tickets" / f"level_{level:02d}"
        ticket.mkdir(parents=True)
        path = ticket / "predictions.safetensors"
        path.write_bytes(safetensors.numpy.save({"test/labels": labels, "test/logits": logits}))
        header = {"level": level, "sha256": {"predictions": sha256_of(path)}, "record": {}}
        header |= {"history": [], "architecture": {"config": {}}}
        (ticket / "ticket.json").write_bytes(sealed.seal(header))


def some_predictions(seed, levels=5, examples=200):
    draw = np.random.default_rng(seed)
    return [(draw.integers(0, 3, examples), draw.normal(size=(examples, 3))) for _ in range(levels)]


@pytest.fixture
def call(call_command):
    return functools.partial(call_command, report)


@pytest.fixture
def sweep(tmp_path):
    """A sweep of two strategies and three seeds, one run of which is unfinished, and one failed."""
    for calib, gain in (("none", 0.0), ("vwcc", 0.01)):
        for seed in range(3):
            run = write_run(tmp_path / "sweep" / f"{calib} {seed}", seed, gain * seed, calib=calib)
            write_tickets(run, some_predictions(seed))
    write_run(tmp_path / "sweep" / "unfinished", 3, levels=9)
    write_run(tmp_path / "sweep" / "failed", 4, failed="out of memory")
    (tmp_path / "sweep" / "logs").mkdir()
    return tmp_path / "sweep"


def rows_of(path, **values):
    """The rows of a CSV file with some values."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def text_of(path):
    """The text of a page, without its figures."""
    page = re.sub(r"data:image[^\"]*|<style>.*?</style>", "", path.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_all_files_are_written_and_the_same_each_time(call, sweep, tmp_path):
    out = tmp_path / "deep" / "er"
    argv = [sweep, "-o", out / "report.html", f"--figures={out}/figures", f"--csv={out}/a.csv"]
    argv += [f"--markdown={out}/a.md", f"--latex={out}/a.tex", "--rank=val_nll"]
    done = call(*argv)
    assert (done.code, done.err) == (0, [])
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    figures = {f"group_1_{name}" for name in ("metrics", "reliability", "scaled")}
    assert names == {"report.html", "a.csv", "a.md", "a.tex"} | {
        f"figures/{name}.{form}" for name in figures for form in ("svg", "pdf")
    }
    assert f"  {out}/report.html" in done.out.splitlines()
    assert "| calib=none" in done.out, "the ranking is printed, too"
    before = {name: (out / name).read_bytes() for name in names}
    assert call(*argv).code == 0
    assert {name: (out / name).read_bytes() for name in names} == before


def test_numbers_by_hand(call, sweep, tmp_path):
    """Accuracies of `vwcc` exceed those of `none` by 0, 0.01 and 0.02 for the seeds 0, 1 and 2."""
    call(sweep, "-o", tmp_path / "a.html", f"--csv={tmp_path}/a.csv", "--densities=1,0.22")
    path = tmp_path / "a.csv"
    (mean,) = rows_of(path, setting="calib=vwcc", kind="mean", metric="test_accuracy", at="100 %")
    assert float(mean["value"]) == pytest.approx(0.86) and mean["n"] == "3"
    assert float(mean["sd"]) == pytest.approx(0.01)
    (rise,) = rows_of(path, kind="difference from none", metric="test_accuracy", at="22 %")
    half = 4.302652730 * 0.01 / np.sqrt(3)
    found = [float(rise[name]) for name in ("value", "low", "high")]
    assert found == pytest.approx([0.01, 0.01 - half, 0.01 + half])
    assert "+1.00 [−1.48, +3.48]" in text_of(tmp_path / "a.html")
    # The selected level: the sparsest within 0.01 of the lowest validation NLL, that of 6 000 weights.
    (chosen,) = rows_of(path, setting="calib=none", kind="mean", metric="test_nll", at="selected")
    assert float(chosen["value"]) == pytest.approx(ERROR[3] / 2 + 0.01)


def add_conditions(sweep, corruptions=(("blur", 1), ("blur", 2))):
    """The ECE is 0.1 and 0.3 on `corruptions`, and 0.05 lower for `vwcc`; the AUROC is higher by its seed / 10."""
    for calib in ("none", "vwcc"):
        for seed in range(3):
            rows = []
            for level in range(len(WEIGHTS)):
                gain = 0.05 * (calib == "vwcc")
                for place, one in enumerate(corruptions):
                    found = {"accuracy": 0.5, "ece": 0.1 + 0.2 * place - gain, "nll": 1, "brier": 1}
                    rows.append(condition_row(level, "", Condition(*one), found))
                found = {"auroc": 0.6 + seed / 10 * (calib == "vwcc"), "confidence": 0.5}
                rows.append(condition_row(level, "", Condition(unseen="cars"), found))
            (sweep / f"{calib} {seed}" / "conditions.csv").write_bytes(as_csv(rows))
            shutil.rmtree(sweep / f"{calib} {seed}" / "tickets")  # otherwise rows need their digest


def test_corrupted_and_unseen_data_are_compared(call, sweep, tmp_path):
    add_conditions(sweep)
    argv = [sweep, "-o", tmp_path / "a.html", f"--csv={tmp_path}/a.csv", f"--figures={tmp_path}/f"]
    done = call(*argv)
    assert (done.code, done.err) == (0, [])
    value = functools.partial(rows_of, tmp_path / "a.csv", at="100 %")
    (mean,) = value(setting="calib=none", kind="mean", metric="test_shifted_ece")
    assert (float(mean["value"]), mean["n"]) == (pytest.approx(0.2), "3")
    (fall,) = value(setting="calib=vwcc", kind="difference from none", metric="test_shifted_ece")
    assert [float(fall[n]) for n in ("value", "low", "high")] == pytest.approx([-0.05] * 3)
    (rise,) = value(setting="calib=vwcc", kind="difference from none", metric="test_auroc_cars")
    half = 4.302652730 * 0.1 / np.sqrt(3)
    found = [float(rise[n]) for n in ("value", "low", "high")]
    assert found == pytest.approx([0.1, 0.1 - half, 0.1 + half])
    text = text_of(tmp_path / "a.html")
    assert "severities: blur 1, 2." in text
    assert "AUROC of confidence, cars" in text
    assert {"group_1_shifted.svg", "group_1_unseen.svg"} <= {p.name for p in tmp_path.glob("f/*")}


def test_the_number_of_seeds_is_that_of_the_measured_runs(call, sweep, tmp_path):
    add_conditions(sweep)
    for seed in (0, 2):
        (sweep / f"none {seed}" / "conditions.csv").unlink()
    assert call(sweep, "-o", tmp_path / "a.html", f"--markdown={tmp_path}/a.md").code == 0
    section = (tmp_path / "a.md").read_text().partition("### Corrupted images")[2]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| calib=")]
    assert [[cell.strip() for cell in row] for row in rows[:2]] == [
        ["calib=none", "1"],
        ["calib=vwcc", "3"],
    ]


def test_runs_under_different_corruptions_are_not_compared(call, sweep, tmp_path):
    add_conditions(sweep)
    path = sweep / "none 2" / "conditions.csv"
    path.write_text(path.read_text().replace("blur,2", "blur,3"))
    assert call(sweep, "-o", tmp_path / "a.html", f"--csv={tmp_path}/a.csv").code == 0
    assert "measured on different corruptions" in text_of(tmp_path / "a.html")
    assert not rows_of(tmp_path / "a.csv", metric="test_shifted_ece")
    assert rows_of(tmp_path / "a.csv", metric="test_auroc_cars")


def test_single_runs_have_intervals_from_their_predictions(call, sweep, tmp_path):
    call(sweep, "-o", tmp_path / "a.html", f"--csv={tmp_path}/a.csv", "--densities=0.22")
    # The dense network has further metrics.
    for level, count in ((0, 14), (2, 9)):
        own = {"setting": "calib=none", "kind": "interval", "seed": "1", "level": str(level)}
        found = rows_of(tmp_path / "a.csv", **own)
        labels, logits = some_predictions(1)[level]
        expected = metrics.metric_intervals(labels, logits)
        scaled = metrics.metric_intervals(labels, logits / 1.25)
        values = {row["metric"]: [float(row[n]) for n in ("value", "low", "high")] for row in found}
        assert len(values) == count
        for name, one in values.items():
            plain = name.removeprefix("test_").removesuffix("_scaled")
            estimate = (scaled if name.endswith("_scaled") else expected)[plain]
            assert one == pytest.approx([estimate.value, estimate.low, estimate.high])


def test_unfinished_and_failed_runs_are_listed_only(call, sweep, tmp_path):
    call(sweep, "-o", tmp_path / "a.html", f"--csv={tmp_path}/a.csv")
    text = text_of(tmp_path / "a.html")
    assert "8 runs: 6 finished, 1 failed, 1 unfinished." in text
    assert "5 of 10" in text and "failed: out of memory" in text
    assert {row["seed"] for row in rows_of(tmp_path / "a.csv", kind="run")} == {"0", "1", "2"}
    alone = write_run(tmp_path / "alone", levels=7)
    (write_run(tmp_path / "begun", 1, levels=7) / "metrics.csv").unlink()
    assert call(alone, tmp_path / "begun", "-o", tmp_path / "b.html").code == 0
    text = text_of(tmp_path / "b.html")
    assert "No run is finished" in text and "0 of 8" in text and "5 of 8" in text


def test_damaged_runs_and_tickets_are_named_and_left_out(call, sweep, tmp_path):
    (sweep / "none 0" / "metrics.csv").write_text("level\n0,1,2\n\0")
    ticket = sweep / "vwcc 1" / "tickets" / "level_00" / "predictions.safetensors"
    ticket.write_bytes(ticket.read_bytes()[:-1] + b"?")
    (sweep / "vwcc 2" / "experiment.json").write_text("{")
    done = call(sweep, "-o", tmp_path / "a.html", f"--csv={tmp_path}/a.csv")
    assert done.code == 0 and len(done.err) == 3
    for line, name in zip(done.err, ("none 0/metrics.csv", "vwcc 2", str(ticket)), strict=True):
        assert line.startswith("report: ") and "left out" in line and name in line
        assert line.removeprefix("report: ") in text_of(tmp_path / "a.html")
    of = functools.partial(rows_of, tmp_path / "a.csv", metric="test_accuracy", level="0")
    assert {row["seed"] for row in of(setting="calib=none", kind="run")} == {"1", "2"}
    assert {row["seed"] for row in of(setting="calib=vwcc", kind="run")} == {"0", "1"}
    assert {row["seed"] for row in of(setting="calib=vwcc", kind="interval")} == {"0"}


def test_runs_that_cannot_be_compared_have_a_chapter_each(call, sweep, tmp_path):
    write_run(sweep / "longer", 0, epochs=20)
    write_run(sweep / "other", 0, dataset="other")
    assert call(sweep, "-o", tmp_path / "a.html", "--rank=val_ece").code == 0
    page = (tmp_path / "a.html").read_text()
    titles = re.findall(r"<h2 [^>]*>(.*?)</h2>", page)
    assert titles == ["Ranking by val_ece", "tiny, lenet_5, epochs=10", "other, lenet_5, epochs=10",
                      "tiny, lenet_5, epochs=20"]  # fmt: skip
    # Runs on the same data are ranked together.
    text = text_of(tmp_path / "a.html")
    assert "calib=none (tiny, lenet_5, epochs=20)" in text


def test_one_seed_has_no_interval(call, tmp_path):
    runs = [write_run(tmp_path / calib, calib=calib) for calib in ("none", "vwcc")]
    assert call(*runs, "-o", tmp_path / "a.html", f"--csv={tmp_path}/a.csv").code == 0
    assert "One seed has no interval" in text_of(tmp_path / "a.html")
    for row in rows_of(tmp_path / "a.csv", kind="difference from none"):
        assert (row["n"], row["sd"], row["low"], row["high"]) == ("1", "", "", "")


# Label noise


@pytest.mark.full
def test_runs_under_label_noise_have_their_descent(call, tmp_path):
    runs = [
        write_run(tmp_path / f"{model} {seed}", seed, model=model, label_noise=0.2)
        for model in ("lenet_5", "lenet_9")
        for seed in (0, 1)
    ]
    for seed, run in enumerate(runs):
        write_tickets(run, some_predictions(seed))
    done = call(
        *runs, "-o", tmp_path / "a.html", f"--csv={tmp_path}/a.csv", f"--figures={tmp_path}/f"
    )
    assert done.code == 0, done.err
    text = text_of(tmp_path / "a.html")
    assert text.count(": double descent") == 4
    assert "4 runs of tiny, 20% symmetric label noise" in text
    assert (
        "Spread of best sizes over 2 starting sizes of lenet_W (max/min): 1.00 of the means" in text
    )
    best = rows_of(tmp_path / "a.csv", kind="descent", metric="best_weights")
    assert [float(row["value"]) for row in best] == [6000] * 4
    drawn = {path.stem for path in (tmp_path / "f").iterdir()}
    assert {f"group_1_{n}" for n in ("descent", "best_size", "truth", "confidence")} <= drawn


def test_test_metrics_are_not_used_for_selection(call, tmp_path):
    run = write_run(tmp_path / "run", label_noise=0.2)
    found = []
    for name in ("before", "after"):
        call(run, "-o", tmp_path / "a.html", f"--csv={tmp_path}/{name}.csv", "--rank=val_nll")
        rows = rows_of(tmp_path / f"{name}.csv")
        kinds = ("descent", "rank")
        found.append([row for row in rows if row["kind"] in kinds])
        table = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
        for place, column in enumerate(table[0]):
            for number, row in enumerate(table[1:]):
                row[place] = str(0.9 - number / 10) if column.startswith("test_") else row[place]
        (run / "metrics.csv").write_text("\n".join(",".join(row) for row in table))
    assert found[0] and found[0] == found[1]


# Requests


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["{run}"], "no output is named: give out "),
        (["{run}", "--densities=1"], "no output is named: give out "),
        (["-o", "{out}"], "no run is given"),
        (["{run}", "absent", "-o", "{out}"], "absent: no such directory"),
        (["{run}/metrics.csv", "-o", "{out}"], "metrics.csv: no such directory"),
        (["{run}", "-o", "{run}"], "--out={run}: is not a file"),
        (["{run}", "-o", "{run}/a.pdf"], "--out={run}/a.pdf: the page is HTML"),
        (["{run}", "-o", "{run}/metrics.csv/x"], "--out={run}/metrics.csv/x: "),
        (["{run}", "-o", "{out}", "--csv={out}"], "--csv={out}: is the path of out, too"),
        (["{run}", "-o", "{out}", "--figures={run}/metrics.csv"], "--figures={run}/metrics.csv: "),
        (["{run}", "-o", "{out}", "--rank=test_nll"], "--rank=test_nll: choose one of val_nll"),
        (["{run}", "-o", "{out}", "--densities=1.5"], "--densities=1.5: must be different shares"),
        (["{run}", "-o"], "o"),
        (["{run}", "-o", "{out}", "--epochs=3"], "'epochs'"),
        (["{run}/..", "{empty}", "-o", "{out}"], "empty is not a run directory"),
        (["{broken}", "-o", "{out}"], "no run can be read; {broken}/experiment.json"),
    ],
)
def test_a_wrong_request_is_reported_in_one_line_and_writes_nothing(call, tmp_path, argv, words):
    places = {"run": write_run(tmp_path / "run_0"), "out": tmp_path / "new" / "out.html"}
    places |= {name: tmp_path / name for name in ("empty", "broken")}
    places["empty"].mkdir()
    (write_run(places["broken"]) / "experiment.json").write_text("{")
    done = call(*(word.format(**places) for word in argv))
    assert (done.code, done.out) == (2, "")
    (line,) = done.err
    assert line.startswith("report: ")
    assert words.format(**places) in line
    assert not (tmp_path / "new").exists()


def test_a_write_that_fails_leaves_the_report_before_it(call, sweep, tmp_path, monkeypatch):
    out = tmp_path / "a.html"
    call(sweep, "-o", out)
    before = out.read_bytes()

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fails)
    done = call(sweep / "none 0", "-o", out)
    assert done.code == 1
    (line,) = done.err
    assert line.startswith(f"report: {out}") and "bytes; free some space" in line
    assert out.read_bytes() == before


def test_a_ranking_is_printed_without_a_page(call, sweep, tmp_path):
    with_page = call(sweep, "-o", tmp_path / "page.html", "--rank=val_nll")
    alone = call(sweep, "--rank=val_nll")
    assert (alone.code, alone.err) == (0, with_page.err)
    assert "| calib=vwcc" in alone.out and with_page.out.startswith(alone.out)
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["page.html"]


def test_a_group_without_the_densities_of_a_ranking_is_left_out(call, sweep):
    done = call(sweep, "--rank=val_nll", "--densities=0.02")
    assert (done.code, "| calib=" in done.out) == (0, False)
    assert "No finished run has the column" in done.out


def test_other_files_are_the_same_without_a_page(call, sweep, tmp_path):
    files = {name: tmp_path / f"{name}.txt" for name in ("csv", "markdown", "latex")}
    flags = [f"--{name}={path}" for name, path in files.items()]
    assert call(sweep, "-o", tmp_path / "page.html", *flags).code == 0
    before = {name: path.read_text() for name, path in files.items()}
    assert call(sweep, *flags).code == 0
    assert {name: path.read_text() for name, path in files.items()} == before


def test_the_library_does_the_same(sweep, tmp_path):
    (sweep / "none 0" / "experiment.json").write_text("{")
    found = lotcal_tf.write_report(sweep, tmp_path / "a.html", rank="val_nll", densities=[1, 0.22])
    assert found.files == (tmp_path / "a.html",)
    assert len(found.problems) == 1 and "| calib=vwcc" in found.ranking
    again = lotcal_tf.write_report([str(sweep)], str(tmp_path / "b.html"))
    assert again.files == (tmp_path / "b.html",) and again.ranking == ""


@pytest.mark.parametrize(("argv", "code"), [(["--help"], 0), (["absent", "-o", "x"], 2)])
def test_answers_in_a_second_and_without_tensorflow(at_once, argv, code):
    done = at_once("lotcal_tf.report", *argv)
    assert (done.code, len(done.err)) == (code, code == 2)
    assert ("usage: python -m lotcal_tf.report RUN_OR_SWEEP… [--flag" in done.out) == (code == 0)


WITHOUT_TENSORFLOW = (
    "import sys; from lotcal_tf import report\n"
    "try: report.run(sys.argv[1:])\n"
    "finally: assert not {'tensorflow', 'tf_keras', 'sklearn'} & set(sys.modules)\n"
)


@pytest.mark.full
def test_a_report_on_a_mixture_needs_no_tensorflow(tmp_path):
    for start in (200_000, 300_000):
        written(tmp_path / "runs" / str(start), start=start)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, f"{tmp_path}/runs", f"--out={tmp_path}/a.html",
         f"--figures={tmp_path}/f"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    names = {path.stem.removeprefix("group_1_") for path in (tmp_path / "f").glob("*.svg")}
    assert {"calibration", "confidence", "conditional", "ece", "descent", "best_size"} <= names


def test_a_report_on_a_real_run_needs_no_tensorflow(digits_run, tmp_path):
    out = [f"--out={tmp_path}/a.html", f"--csv={tmp_path}/a.csv"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, str(digits_run.directory), *out],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    recorded = digits_run.records[digits_run.selected.level]
    of_level = {"seed": "5", "level": str(recorded["level"])}
    for name in ("accuracy", "ece", "nll", "brier", "nll_scaled", "ece_scaled"):
        (one,) = rows_of(tmp_path / "a.csv", kind="interval", metric=f"test_{name}", **of_level)
        assert float(one["value"]) == pytest.approx(recorded[f"test_{name}"], abs=1e-6), name


# The page


def test_the_page_works_in_a_browser(sweep, tmp_path):
    for place, name in enumerate(["<b>&\"'", "javascript:alert(1)", "100% ü #?"]):
        fields = {"dataset": "<script>alert(1)</script>", "label_noise": 0.2}
        run = write_run(tmp_path / "sweep" / name, place, **fields)
        write_tickets(run, some_predictions(place))
    out = tmp_path / "pages" / "report.html"
    lotcal_tf.write_report(sweep, out, rank="val_nll")
    with browser.opened(out.as_uri()) as page:
        assert page.errors == []
        assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
        sizes = page.evaluate(
            "[...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth, i.clientHeight])"
        )
        assert len(sizes) == 3 + 3 + 6
        assert all(done and min(size) > 100 for done, *size in sizes)
        assert page.evaluate("document.documentElement.scrollWidth") == 900
        links = page.evaluate("[...document.links].map(a => [a.getAttribute('href'), a.href])")
        ids = set(page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)"))
        inside = [given for given, _ in links if given.startswith("#")]
        assert len(inside) > 10 and {given[1:] for given in inside} <= ids
        runs = [whole for given, whole in links if not given.startswith("#")]
        assert len(runs) == 11
        for url in runs:
            place = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
            assert (place / "experiment.json").is_file()
        assert page.locator("script").count() == 0


@pytest.mark.full
def test_a_report_on_a_hundred_runs_of_twenty_levels_is_fast_and_small(tmp_path):
    """The processor's time, which other work on the machine does not stretch."""
    draw = np.random.default_rng(0)
    labels, logits = draw.integers(0, 10, 10_000), draw.normal(size=(10_000, 10)).astype("float32")
    content = safetensors.numpy.save({"test/labels": labels, "test/logits": logits})
    pool = tmp_path / "predictions"
    pool.write_bytes(content)
    header = {"sha256": {"predictions": sha256_of(pool)}, "record": {}, "history": []}
    header |= {"architecture": {"config": {}}}
    for number in range(100):
        rate, seed = divmod(number, 5)
        calib = {"calib": "vwcc", "settings": {"dropout_rate": 0.01 * rate}} if rate else {}
        run = write_run(tmp_path / "sweep" / str(number), seed, levels=19, **calib)
        rows = list(csv.DictReader((run / "metrics.csv").open()))
        rows = [rows[n % 5] | {"level": n, "density": 0.8**n} for n in range(20)]
        (run / "metrics.csv").write_bytes(as_csv(rows))
        for level in range(20):
            ticket = run / "tickets" / f"level_{level:02d}"
            ticket.mkdir(parents=True)
            (ticket / "predictions.safetensors").hardlink_to(pool)
            (ticket / "ticket.json").write_bytes(sealed.seal(header | {"level": level}))
    out = tmp_path / "a.html"
    code = "import sys, time; from lotcal_tf import report\ntry: report.run(sys.argv[1:])\n"
    code += "finally: print('seconds', time.process_time())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "sweep"), f"--out={out}"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout.split()[-1]) < 20
    assert out.stat().st_size < 5e6
    shutil.rmtree(tmp_path / "sweep")
