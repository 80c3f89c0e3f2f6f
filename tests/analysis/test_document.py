"""The forms of a document: text stays text in HTML, Markdown and LaTeX."""

import html.parser
import re
import shutil
import subprocess

import pytest

from lotcal_tf.analysis.document import Chapter, Document, Picture, Section, Table, Text

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)> {{ 7*7 }} & 50% _a_ $x$ \\end{x} | ~^#"


def document(text="text", link="a%20b/"):
    table = Table(text, [[text, "value"], [text, "0.5 ± 0.1"], ["b", "1.0 [0.9, 1.1]"]],
                  links=[link, ""], note=text)  # fmt: skip
    picture = Picture("figure", b"<svg xmlns='http://www.w3.org/2000/svg'/>", lambda: b"", text)
    parts = [Text([text]), Text([text, "two"], warns=True), table, picture]
    return Document(text, [Text([text])], [Chapter(text, [Text([text])], [Section(text, parts)])])


class Tags(html.parser.HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_names_are_text_in_the_page():
    plain, hostile = (Tags(document(text).html()) for text in ("text", HOSTILE))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert sum(HOSTILE in " ".join(text.split()) for text in hostile.text) >= 8
    (image,) = (attrs for tag, attrs in hostile.tags if tag == "img")
    assert image["alt"] == HOSTILE and image["src"].startswith("data:image/svg+xml;base64,")
    assert not any(name.startswith("on") for _, attrs in hostile.tags for name in attrs)


def test_links_lead_to_sections_and_runs():
    page = Tags(document().html())
    targets = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    names = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert targets == ["#c1", "#c1-1", "a%20b/"]
    assert {"c1", "c1-1"} <= names


def test_a_deviation_and_an_interval_are_set_smaller():
    page = document().html()
    assert "0.5<small>± 0.1</small>" in page and "1.0<small>[0.9, 1.1]</small>" in page


def test_the_page_asks_for_nothing():
    page = document().html()
    assert not re.search(r"""(src|href)=["'](https?:|//)""", page) and "@import" not in page
    assert "<script" not in page


def test_markdown_by_hand():
    table = Table("A", [["setting", "NLL"], ["a|b<i>", "0.5 ± 0.1"]], note="Note.")
    picture = Picture("p", b"", lambda: b"", "caption")
    sections = [
        Section("Figures", [picture]),
        Section("S", [picture, Text(["one", "two"]), table, table]),
        Section("R", [Text(["x"]), picture]),
    ]
    found = Document("T", [], [Chapter("C", [Text(["about"])], sections)]).markdown()
    rows = "| setting    |       NLL |\n|:-----------|----------:|\n| a\\|b&lt;i> | 0.5 ± 0.1 |"
    block = f"A\n\n{rows}\n\nNote.\n"
    head = "# T\n\n## C\n\nabout\n\n### S\n\n- one\n- two\n\n"
    assert found == f"{head}{block}\n{block}\n### R\n\nx\n"


def test_hostile_names_are_text_in_markdown():
    found = document(HOSTILE).markdown()
    assert "<" not in found.replace("&lt;", "") and found.count("&lt;script>") >= 6


def test_latex_by_hand():
    table = Table("A %", [["setting", "NLL"], ["a_b", "−0.5 ± 0.1"]])
    found = Document("T", [], [Chapter("C", [], [Section("S", [table])])]).latex()
    assert (
        "\\caption{A \\%}\n\\begin{tabular}{lr}\n\\toprule\nsetting & NLL \\\\\n\\midrule\n"
        in found
    )
    assert "\na\\_b & $-$0.5 $\\pm$ 0.1 \\\\\n\\bottomrule\n\\end{tabular}\n\\end{table}\n" in found


def test_signs_of_the_claims_are_mathematics_in_latex():
    found = Document("T", [], [Chapter("C", [Text(["½ Σ |p* − p|"])], [])]).latex()
    table = Table("½ Σ", [["a"], ["b"]])
    found += Document("T", [], [Chapter("C", [], [Section("S", [table])])]).latex()
    assert r"$\frac{1}{2}$ $\Sigma$" in found and not set("½Σ") & set(found)


def test_hostile_names_are_text_in_latex():
    found = document(HOSTILE).latex()
    assert "\\textbackslash{}end\\{x\\}" in found and "50\\%" in found
    assert "\\$x\\$" in found and "\\_a\\_" in found
    comments = [line for line in found.splitlines() if line.startswith("%")]
    assert len(comments) == 3  # a name cannot leave its line


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path):
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "a.tex").write_text(head + document(HOSTILE).latex() + "\\end{document}\n")
    call = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
