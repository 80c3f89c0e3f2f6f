"""Reads finished runs under label noise together: descent, best tickets, distance to the truth.

Finds peak, sweet spot and best ticket of each chain from training and validation error alone, states
what the chains say together, and draws it. Runs must agree in all but network, seed and difficulty.
Writes study.json, study.md and the figures into the directory of --out.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lotcal_tf.config import flags
from lotcal_tf.config.run_directory import level_path
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.files import write_atomically

if TYPE_CHECKING:
    from lotcal_tf.analysis.runs import Chain

FLAGS = (
    flags.Flag("out", "where the study is written to", short="o"),
    flags.Flag(
        "histograms",
        "also run full networks and best tickets on the test data, for histograms of confidence",
        switch=True,
    ),
    flags.Flag("data_dir", "for --histograms: where TFDS keeps its data; default: as the run"),
)


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
    if own["data_dir"] and not own["histograms"]:
        raise FieldError("data_dir", own["data_dir"], "only means something with --histograms")
    out = Path(own["out"])
    if out.exists() and not out.is_dir():
        raise FieldError("out", out, "is no directory")
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
        chains, files["confidence.png"] = _measured(chains, own["data_dir"])
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


def _measured(chains: "list[Chain]", data_dir: str | None) -> "tuple[list[Chain], bytes]":
    """The chains with what was measured of their full networks and best tickets; the histograms."""
    chosen = [chain for chain in chains if chain.descent.best is not None]
    if not chosen:
        raise UsageError("--histograms: no chain has a best ticket")
    paths = {
        chain.directory: [
            level_path(chain.directory, level) for level in (0, chain.descent.best or 0)
        ]
        for chain in chosen
    }
    for path in (path for pair in paths.values() for path in pair):
        if not path.is_dir():
            raise UsageError(f"--histograms: {path} is missing")
    flags.start_tensorflow()
    from lotcal_tf import measuring
    from lotcal_tf.analysis import figures
    from lotcal_tf.analysis.study import with_predictions

    predicted: dict[str, list[Any]] = {}
    found = []
    for chain in chains:
        if chain.directory in paths:
            full, best = measuring.predictions(paths[chain.directory], data_dir)
            predicted.setdefault(chain.model, []).append((full, best))
            chain = with_predictions(chain, {0: full, chain.descent.best or 0: best})
        found.append(chain)
    return found, figures.confidences(predicted)


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """The command; leaves with its exit code."""
    given = sys.argv[1:] if argv is None else argv
    flags.leave("study", lambda: main(flags.read("study", __doc__, given, FLAGS, (), "RUN…")))


if __name__ == "__main__":
    run()
