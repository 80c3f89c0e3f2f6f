"""Writes the report on runs: one page, and on request figures, tables and numbers as files.

This module needs neither NumPy nor TensorFlow before the arguments are checked.
"""

import csv as csv_format
import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lotcal_tf.config.arguments import ReportArguments, for_report, path_of
from lotcal_tf.errors import UsageError
from lotcal_tf.files import usable_out, write_atomically

if TYPE_CHECKING:
    from lotcal_tf.analysis.comparison import Row
    from lotcal_tf.analysis.document import Document


@dataclasses.dataclass(frozen=True)
class Report:
    """What `write_report` has written.

    Attributes:
      files: the page first, if there is one.
      problems: a line for everything that was left out, e.g. damaged runs.
      ranking: the ranking as Markdown tables; empty without `rank`.
    """

    files: tuple[Path, ...]
    problems: tuple[str, ...]
    ranking: str = ""


def write_report(
    directories: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    figures: str | Path | None = None,
    csv: str | Path | None = None,
    markdown: str | Path | None = None,
    latex: str | Path | None = None,
    rank: str | None = None,
    densities: Sequence[float] = (),
) -> Report:
    """Compares runs: writes one page that opens without a network, with tables and figures.

    Only the files that are named are written. Runs of one setting that differ in their seed are summarised;
    strategies are compared with `none`. Runs that cannot be compared are grouped apart. Unfinished, failed and
    damaged runs are listed only.

    Args:
      directories: run directories, or directories with run directories directly below, e.g. of a sweep.
      out: the page, an HTML file.
      figures: a directory for each figure as SVG and PDF.
      csv: a file for all numbers, one per row.
      markdown: a file for the page without its figures.
      latex: a file for the tables, which need the package booktabs.
      rank: a validation metric such as `val_nll`, by which settings are ranked at `densities`.
      densities: of the tables, in (0, 1]; the nearest level within 10 % stands for each. Default: 1, 0.21,
        0.135 and 0.036, where a run has them.

    Raises:
      FieldError: an argument is not valid.
      UsageError: there is no run, none can be read, or nothing is asked for. Nothing is written.
      DiskFull: there is no space.
    """
    paths = [directories] if isinstance(directories, str | os.PathLike) else directories
    if not isinstance(paths, Sequence) or isinstance(paths, bytes) or not paths:
        raise UsageError("directories must be the path of a run or of a sweep, or a list of paths")
    places = [path_of("directories", path) for path in paths]
    given = for_report(
        out=out, figures=figures, csv=csv, markdown=markdown, latex=latex, rank=rank,
        densities=densities,
    )  # fmt: skip
    for place in places:
        if not place.is_dir():
            raise UsageError(f"{place}: no such directory")
    # Imported late: NumPy, SciPy and matplotlib take a while, and usage errors should not wait.
    from lotcal_tf.analysis.assembly import assemble

    document, rows, problems = assemble(places, given)
    files = _files(document, rows, given)
    for path, content in files.items():
        with usable_out(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
    ranking = document.markdown_of(document.chapters[0]) if given.rank else ""
    return Report(tuple(files), tuple(problems), ranking)


def _files(
    document: "Document", rows: Sequence["Row"], given: ReportArguments
) -> dict[Path, bytes]:
    """The content of the requested files by path; the page is first."""
    files = {Path(given.out): document.html().encode()} if given.out else {}
    for one in document.pictures() if given.figures else ():
        stem = Path(given.figures or "") / one.name
        files |= {stem.with_suffix(".svg"): one.svg, stem.with_suffix(".pdf"): one.draw_pdf()}
    if given.csv:
        files[Path(given.csv)] = _csv(rows)
    if given.markdown:
        files[Path(given.markdown)] = document.markdown().encode()
    if given.latex:
        files[Path(given.latex)] = document.latex().encode()
    return files


def _csv(rows: Sequence["Row"]) -> bytes:
    """Rows as CSV; the names of their attributes are the header."""
    text = io.StringIO()
    writer = csv_format.writer(text, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(rows[0])] if rows else []
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    return text.getvalue().encode()
