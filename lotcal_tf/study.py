"""Compares finished runs under label noise: double descent, best tickets, distance to the truth.

Finds the peak, the sweet spot and the best ticket of each run from its training and validation errors.
Then prints tables and claims over all runs, and writes them with figures to the directory --out, as
study.md and study.json. Runs may differ in network, seed and difficulty (nu) only.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotcal_tf.config import fields, flags
from lotcal_tf.config.run_directory import level_path
from lotcal_tf.errors import DamagedTicket, FieldError, UsageError
from lotcal_tf.files import creation_problem, usable_out, write_atomically

if TYPE_CHECKING:
    from lotcal_tf.analysis.runs import RecordedRun

FLAGS = (
    flags.Flag("out", "directory to write the study to", short="o", check=fields.path),
    flags.Flag(
        "histograms",
        "also draw histograms of the confidence of full networks and best tickets on test data",
        switch=True,
    ),
)
COMMAND = flags.Command("study", __doc__, FLAGS, (), "RUN…")


def main(request: flags.Request) -> None:
    """Reads the runs, prints the study and writes it.

    Raises:
      LotcalError: the request is invalid, or the study cannot be written.
    """
    own = request.own
    if not own["out"]:
        raise UsageError("--out is missing: name the directory to write the study to (-o DIR)")
    out = Path(own["out"])
    if problem := creation_problem(out):
        raise FieldError("out", out, problem)
    if not request.operands:
        raise UsageError("no run is given: name at least one run directory")
    for name in request.operands:
        if not Path(name).is_dir():
            raise UsageError(f"{name}: no such directory")
    # Imported late: NumPy, SciPy and matplotlib take a while, and usage errors should not wait.
    from lotcal_tf.analysis import figures
    from lotcal_tf.analysis.page import page
    from lotcal_tf.analysis.runs import read_runs
    from lotcal_tf.analysis.study import Study

    runs = read_runs([Path(name) for name in request.operands])
    files = {}
    if own["histograms"]:
        runs, files["confidence.png"] = _histograms(runs)
    study = Study(runs)
    files |= figures.draw(study)
    text = page(study)
    pictures = "\n".join(f"![{name.removesuffix('.png')}]({name})\n" for name in sorted(files))
    files["study.md"] = f"# Study\n\n{text}\n{pictures}".encode()
    content = json.dumps(study.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    files["study.json"] = content.encode() + b"\n"
    with usable_out(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(out / name, data)
    print(text)
    print("files written:", *(str(out / name) for name in sorted(files)), sep="\n  ")


def _histograms(runs: "list[RecordedRun]") -> "tuple[list[RecordedRun], bytes]":
    """Histograms of confidence from stored predictions; returns the runs with them filled in."""
    from lotcal_tf.analysis import figures
    from lotcal_tf.analysis.study import with_predictions
    from lotcal_tf.lottery.ticket_files import read_predictions

    if all(run.descent.best is None for run in runs):
        raise UsageError("--histograms: no run has a best ticket")
    predicted: dict[str, list[Any]] = {}
    found = []
    for run in runs:
        best = run.descent.best
        if best is not None:
            try:
                pair = [read_predictions(level_path(run.directory, n), "test") for n in (0, best)]
            except DamagedTicket as error:
                # For a user who asks for it, a damaged ticket is a wrong argument.
                raise UsageError(str(error)) from error
            predicted.setdefault(run.model, []).append(pair)
            run = with_predictions(run, dict(zip((0, best), pair, strict=True)))
        found.append(run)
    return found, figures.confidences(predicted)


def run(argv: list[str] | None = None) -> None:
    """Runs the command and exits with its exit code."""
    flags.run(COMMAND, main, argv)


if __name__ == "__main__":
    run()
