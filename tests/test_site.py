"""The documentation: its links work in the repository, its site builds without a warning."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lotcal_tf

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]*))?\)")


def text_of(path):
    """The Markdown of a page, without its code."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_are_found():
    found = LINK.findall("[a](b.md#c-d), [e](#f), [g](https://h.org/i.md), `[j](k)`")
    assert found == [("b.md", "c-d"), ("", "f"), ("k", "")]
    assert ("docs/evaluation.md", "") in LINK.findall(text_of(ROOT / "README.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_work_in_the_repository(page):
    for name, anchor in LINK.findall(text_of(page)):
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), f"{name}#{anchor}"


def test_the_api_pages_have_every_public_name():
    text = "".join(path.read_text("utf-8") for path in (DOCS / "api").glob("*.md"))
    headings = set(re.findall(r"lotcal_tf\.(\w+)$", text, re.MULTILINE))
    assert headings >= set(lotcal_tf.__all__) - {"__version__"}


@pytest.mark.full
def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--config-file", str(DOCS / "site" / "mkdocs.yml")],
        cwd=ROOT,  # where the package is found, whatever is installed
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING -" not in done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert {"index.html", "tour.html", "changelog.html"} <= {page.name for page in pages}
    for page in pages:
        html = page.read_text("utf-8")
        assert not re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*", html)
    assert "find_tickets" in (tmp_path / "api" / "functions.html").read_text("utf-8")
    assert "prune_rate" in (tmp_path / "api" / "fields.html").read_text("utf-8")
