"""Reads finished runs under label noise together: descent, best tickets, distance to the truth.

Finds peak, sweet spot and best ticket of each chain from training and validation error alone, states
what the chains say together, and draws it. Runs must agree in all but network, seed and difficulty.
Writes study.json, study.md and the figures into the directory of --out.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotcal_tf.config import flags
from lotcal_tf.config.run_directory import level_path
from lotcal_tf.errors import DamagedTicket, FieldError, UsageError
from lotcal_tf.files import write_atomically

if TYPE_CHECKING:
    from lotcal_tf.analysis.runs import Chain

FLAGS = (
    flags.Flag("out", "directory that the study is written to", short="o"),
    flags.Flag(
        "histograms",
        "also draw histograms of the confidence of full networks and best tickets on test data",
        switch=True,
    ),
)
COMMAND = flags.Command("study", __doc__, FLAGS, (), "RUN…")


def main(request: flags.Request) -> None:
    """Reads the runs, prints what they say and writes it.

    Raises:
      LotcalError: what went wrong, in one line; nothing is written then.
    """
    own = request.own
    if not own["out"]:
        raise UsageError(
            "--out is missing: name the directory that the study is written to (-o DIR)"
        )
    out = Path(own["out"])
    if out.exists() and not out.is_dir():
        raise FieldError("out", out, "is not a directory")
    if not request.operands:
        raise UsageError("no run is given: name run directories")
    for name in request.operands:
        if not Path(name).is_dir():
            raise UsageError(f"{name}: no such directory")
    # Only now: NumPy, SciPy and matplotlib take a while, wrong requests are told at once.
    from lotcal_tf.analysis import figures
    from lotcal_tf.analysis.page import page
    from lotcal_tf.analysis.runs import read_runs
    from lotcal_tf.analysis.study import Study

    chains = read_runs([Path(name) for name in request.operands])
    files = {}
    if own["histograms"]:
        chains, files["confidence.png"] = _histograms(chains)
    study = Study(chains)
    files |= figures.draw(study)
    text = page(study)
    pictures = "\n".join(f"![{name.removesuffix('.png')}]({name})\n" for name in sorted(files))
    files["study.md"] = f"# Study\n\n{text}\n{pictures}".encode()
    content = json.dumps(study.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    files["study.json"] = content.encode() + b"\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(out / name, data)
    except OSError as error:
        raise FieldError("out", out, f"{error.strerror}; choose another") from error
    print(text)
    print("written:", *(str(out / name) for name in sorted(files)), sep="\n  ")


def _histograms(chains: "list[Chain]") -> "tuple[list[Chain], bytes]":
    """The chains with the predictions of full networks and best tickets, and the histograms."""
    from lotcal_tf.analysis import figures
    from lotcal_tf.analysis.study import with_predictions
    from lotcal_tf.lottery.ticket_files import read_predictions

    if all(chain.descent.best is None for chain in chains):
        raise UsageError("--histograms: no run has a best ticket")
    predicted: dict[str, list[Any]] = {}
    found = []
    for chain in chains:
        best = chain.descent.best
        if best is not None:
            try:
                pair = [read_predictions(level_path(chain.directory, n), "test") for n in (0, best)]
            except DamagedTicket as error:
                # What was asked for cannot be drawn; nothing that ran has failed.
                raise UsageError(str(error)) from error
            predicted.setdefault(chain.model, []).append(pair)
            chain = with_predictions(chain, dict(zip((0, best), pair, strict=True)))
        found.append(chain)
    return found, figures.confidences(predicted)


def run(argv: list[str] | None = None) -> None:
    """The command; leaves with its exit code."""
    flags.run(COMMAND, main, argv)


if __name__ == "__main__":
    run()
