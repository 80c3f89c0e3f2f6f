"""Compares runs: writes one page with tables and figures that opens without a network.

Strategies are compared over densities and seeds, with intervals; runs under label noise get their double
descent and best tickets. A directory may be a run, or have runs directly below, e.g. that of a sweep. Runs
that cannot be compared are grouped apart; unfinished, failed and damaged runs are listed.
"""

import sys

from lotcal_tf.analysis.report import write_report
from lotcal_tf.config import fields, flags
from lotcal_tf.config.arguments import RANKED, page
from lotcal_tf.config.process import tolerant
from lotcal_tf.errors import UsageError

FLAGS = (
    flags.Flag("out", "the page, an HTML file", short="o", check=page),
    flags.Flag("figures", "directory for each figure as SVG and PDF", check=fields.path),
    flags.Flag("csv", "file for all numbers, one per row", check=fields.path),
    flags.Flag("markdown", "file for the page without its figures, as Markdown", check=fields.path),
    flags.Flag("latex", "file for the tables as LaTeX, with booktabs", check=fields.path),
    flags.Flag("rank", "rank settings by this validation metric", choices=RANKED),
    flags.Flag(
        "densities",
        "shares of weights kept in tables and ranking; default: 1,0.21,0.135,0.036 where a run has them",
    ),
)
COMMAND = flags.Command("report", __doc__, FLAGS, (), "RUN_OR_SWEEP…")


def main(request: flags.Request) -> None:
    """Writes the report and prints the names of its files.

    Raises:
      LotcalError: the request is invalid, or the report cannot be written.
    """
    own = dict(request.own)
    if not request.operands:
        raise UsageError("no run is given: name run directories, or the directory of a sweep")
    own["densities"] = own["densities"] or ()
    written = write_report(list(request.operands), **own)
    for line in written.problems:
        print(f"{COMMAND.name}: {line}", file=tolerant(sys.stderr))
    if written.ranking:
        print(written.ranking)
    if written.files:
        print("files written:", *map(str, written.files), sep="\n  ")


def run(argv: list[str] | None = None) -> None:
    """Runs the command and exits with its exit code."""
    flags.run(COMMAND, main, argv)


if __name__ == "__main__":
    run()
