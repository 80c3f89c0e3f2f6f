"""Puts a report together: reads runs, groups them, and makes the chapters."""

from collections.abc import Sequence
from pathlib import Path

from lotcal_tf.analysis import claims_section, figures
from lotcal_tf.analysis.comparison import Row
from lotcal_tf.analysis.document import Chapter, Document, Text
from lotcal_tf.analysis.groups import Group, group
from lotcal_tf.analysis.runs import read_runs
from lotcal_tf.analysis.sections import GroupChapter, ranking, relative_link
from lotcal_tf.config.arguments import ReportArguments
from lotcal_tf.config.run_directory import find_runs


def assemble(
    places: Sequence[Path], given: ReportArguments
) -> tuple[Document, list[Row], list[str]]:
    """The document of a report, its numbers, and a line for everything that is left out.

    Args:
      places: directories of runs or sweeps.
      given: the checked arguments of `write_report`.

    Raises:
      UsageError: there is no run, or none can be read.
    """
    runs, problems = read_runs(find_runs(places))
    groups = group(runs)
    densities = given.densities or None
    chapters: list[Chapter] = []
    rows: list[Row] = []
    if given.rank:
        chapter, rows = ranking(groups, given.rank, densities)
        chapters.append(chapter)
    link = relative_link(Path(given.out or given.markdown or "report.html"))
    with figures.styled():
        for number, one in enumerate(groups, start=1):
            made = GroupChapter(one, number, densities, link, problems)
            chapters.append(made.chapter())
            rows += made.rows
        claims, numbers = claims_section.chapter(groups)
        chapters += [claims] if claims else []
        rows += numbers
    title = f"Report: {groups[0].title}" if len(groups) == 1 else f"Report on {len(runs)} runs"
    return Document(title, _about(groups, problems), chapters), rows, problems


def _about(groups: Sequence[Group], problems: Sequence[str]) -> list[Text]:
    """What the report covers, and what it leaves out."""
    runs = [run for one in groups for run in one.runs]
    counts = {
        "finished": sum(run.is_finished for run in runs),
        "failed": sum(bool(run.failed) for run in runs),
    }
    counts["unfinished"] = len(runs) - sum(counts.values())
    words = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    found = [Text([f"{len(runs)} run{'s' * (len(runs) != 1)}: {words}."])]
    if len(groups) > 1:
        found.append(
            Text(
                [
                    f"They are in {len(groups)} groups, since runs with other data, network or training cannot be "
                    "compared. Titles name the fields in which groups differ."
                ]
            )
        )
    if problems:
        found.append(Text([f"{line}." for line in problems], warns=True))
    return found
