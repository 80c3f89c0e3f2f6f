"""A report as a document of chapters, and its output formats: an HTML page, Markdown and LaTeX.

All content is plain text. Each format escapes it in its own way.
"""

import base64
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import jinja2

from lotcal_tf.tables import markdown as markdown_table

_TEMPLATE = "report.html.j2"
# Characters that are special in LaTeX, and those that its fonts may lack.
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{"<": "$<$", ">": "$>$", "|": "$|$", "±": r"$\pm$", "−": "$-$", "×": r"$\times$"},
    **{"≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\to$", "‖": r"$\Vert$", "·": r"$\cdot$"},
    **{"Σ": r"$\Sigma$", "½": r"$\frac{1}{2}$"},
    **{"–": "--", "…": r"\dots{}", "\u00a0": "~"},
}


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; several lines are a list.

    Attributes:
      lines: one paragraph, or the items of a list.
      warns: whether it is shown as a warning.
    """

    lines: Sequence[str]
    warns: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts. The first column and those in `words` are aligned left, the others right.

    Attributes:
      title: above it.
      rows: the cells; the first row is the header. All rows have the same length.
      words: headers of other columns that are aligned left.
      links: the target of the first cell of each row after the header; empty: no links.
      note: below it.
    """

    title: str
    rows: Sequence[Sequence[str]]
    words: Collection[str] = ()
    links: Sequence[str] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
      name: of its files, without suffix.
      svg: its content.
      draw_pdf: draws the same figure as PDF.
      caption: below it.
    """

    name: str
    svg: bytes
    draw_pdf: Callable[[], bytes]
    caption: str

    @property
    def uri(self) -> str:
        """The figure as a `data:` URI, in which a browser runs no script."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


@dataclasses.dataclass(frozen=True)
class Section:
    """A titled part of a chapter."""

    title: str
    parts: Sequence[Text | Table | Picture]


@dataclasses.dataclass(frozen=True)
class Chapter:
    """A titled sequence of sections, e.g. of one group of runs.

    Attributes:
      title: of the chapter.
      about: paragraphs below it.
      sections: may be empty.
    """

    title: str
    about: Sequence[Text] = ()
    sections: Sequence[Section] = ()


@dataclasses.dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    about: Sequence[Text]
    chapters: Sequence[Chapter]

    def pictures(self) -> list[Picture]:
        """All figures."""
        sections = [section for chapter in self.chapters for section in chapter.sections]
        return [part for one in sections for part in one.parts if isinstance(part, Picture)]

    def html(self) -> str:
        """The document as one page that needs no other file and no network."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.tests |= {
            "table": lambda part: isinstance(part, Table),
            "picture": lambda part: isinstance(part, Picture),
        }
        environment.filters["split_cell"] = _split_cell
        return environment.get_template(_TEMPLATE).render(document=self)

    def markdown(self) -> str:
        """Headings, text and tables as Markdown, without sections that have figures only."""
        return f"# {_line(self.title)}\n\n" + self._markdown(self.chapters)

    def markdown_of(self, chapter: Chapter) -> str:
        """The headings, text and tables of one chapter."""
        return self._markdown([chapter])

    def _markdown(self, chapters: Sequence[Chapter]) -> str:
        lines = []
        for headings, part in _parts(chapters):
            lines += [f"{'#' * depth} {_line(title)}" for depth, title in headings]
            if isinstance(part, Table):
                texts = [part.title, markdown_table(part.rows, part.words), part.note]
                lines += [text if text is texts[1] else _line(text) for text in texts if text]
            else:
                sign = "- " if len(part.lines) > 1 else ""
                lines.append("\n".join(f"{sign}{_line(line)}" for line in part.lines))
        return "\n\n".join(lines) + "\n"

    def latex(self) -> str:
        r"""Tables as LaTeX, with the rules of the package booktabs, for `\input`."""
        lines = ["% Tables of lotcal_tf.report; they need \\usepackage{booktabs}."]
        for headings, part in _parts(self.chapters):
            lines += [f"% {' '.join(title.split())}" for _, title in headings]
            lines += [_latex_table(part)] if isinstance(part, Table) else []
        return "\n\n".join(lines) + "\n"


def _parts(chapters: Sequence[Chapter]) -> Iterator[tuple[list[tuple[int, str]], Text | Table]]:
    """Texts and tables, each with the headings directly above it: their depths and texts."""
    for chapter in chapters:
        above = [(2, chapter.title)]
        for text in chapter.about:
            yield above, text
            above = []
        for section in chapter.sections:
            own = [(3, section.title)]
            for part in section.parts:
                if not isinstance(part, Picture):
                    yield [*above, *own], part
                    above, own = [], []


def _line(text: str) -> str:
    """A text in one line, in which `<` is escaped."""
    return " ".join(text.split()).replace("<", "&lt;")


def _split_cell(cell: str) -> tuple[str, str]:
    """A value, and its deviation or interval, which is set in smaller type."""
    for sign in (" ±", " ["):
        value, found, rest = cell.partition(sign)
        if found:
            return value, (found + rest).strip()
    return cell, ""


def _latex_table(table: Table) -> str:
    head, *rows = [" & ".join(map(_latex, row)) + r" \\" for row in table.rows]
    left = [not place or name in table.words for place, name in enumerate(table.rows[0])]
    columns = "".join("l" if one else "r" for one in left)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))
