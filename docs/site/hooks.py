"""Hooks of MkDocs: pages made from files outside docs/ or not in Markdown, and links to all of them.

README.md is the home page, CHANGELOG.md a page, and each notebook in docs/ a page with its stored
outputs. Links in the repository name files; here they are changed to the pages made from them.
"""

import base64
import dataclasses
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from lotcal_tf.config import fields, registry
from lotcal_tf.config.experiment import FIELDS, setting_fields

ROOT = Path(__file__).resolve().parents[2]
# Files outside docs/ and their places on the site.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.txt",
    "CITATION.cff": "citation.txt",
}
# The target of a Markdown link or image, unless it is a URL or an anchor of the same page.
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")

# Code with an escaped pipe in it.
CODE_IN_TABLE = re.compile(r"`[^`\n]*\\\|[^`\n]*`")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the files outside docs/, and a page for each notebook."""
    for name, place in OUTSIDE.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text("utf-8")))
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        pages = notebook(file.src_uri, json.loads(file.content_string))
        for place, content in pages.items():
            files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Changes links to files of the repository into links to their pages; fills in the fields."""
    if page.file.src_uri.startswith("results/"):
        page.meta["hide"] = ["toc"]  # their tables need the width
    place = page.file.src_uri
    made_from = {made: name for name, made in OUTSIDE.items()}
    source = made_from.get(place, f"docs/{place}")

    def link(found: re.Match[str]) -> str:
        named = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        target = place_of(named)
        if target is None:
            return found[0]  # The strict build reports it.
        return f"]({posixpath.relpath(target, posixpath.dirname(place) or '.')}{found[2] or ''})"

    if place == "api/fields.md":
        markdown += field_tables()
    # GitHub wants a pipe escaped in the code of a table; here the backslash would be shown.
    markdown = CODE_IN_TABLE.sub(lambda code: code[0].replace(r"\|", "|"), markdown)
    return LINK.sub(link, markdown)


def place_of(name: str) -> str | None:
    """The place on the site of a file of the repository; None if it has none."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    if not name.startswith("docs/"):
        return None
    place = name.removeprefix("docs/")
    return f"{place.removesuffix('.ipynb')}.md" if place.endswith(".ipynb") else place


def notebook(name: str, content: dict[str, Any]) -> dict[str, str | bytes]:
    """A notebook as a Markdown page and its images, by their places."""
    stem = name.removesuffix(".ipynb")
    pages: dict[str, str | bytes] = {}
    parts: list[str] = []
    for number, cell in enumerate(content["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", [])})
            if "image/png" in data:
                image = f"{stem}_{number}.png"
                pages[image] = base64.b64decode("".join(data["image/png"]))
                alt = cell["metadata"].get("alt", "Output of the cell above")
                parts.append(f"![{alt}]({posixpath.basename(image)})")
            elif output.get("name") != "stderr":
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    pages[f"{stem}.md"] = "\n\n".join(parts) + "\n"
    return pages


def field_tables() -> str:
    """The fields of an experiment by section, and the hyperparameters, as Markdown tables."""
    rows: dict[str, list[str]] = {section: [] for section in fields.SECTIONS}
    for field in FIELDS.values():
        rows[field.metadata["section"]].append(_row(field, shown(field.default)))
    for field in setting_fields().values():
        rows[field.metadata["section"]].append(_row(field, _defaults(field.name)))
    lines = ["", "| field | default | meaning |", "|---|---|---|"]
    return "".join(
        "\n".join(["", f"## {section}", *lines, *found, ""]) for section, found in rows.items()
    )


def _row(field: "dataclasses.Field[Any]", default: str) -> str:
    meaning = field.metadata["help"]
    if choices := field.metadata["choices"]:
        meaning += "; one of " + ", ".join(f"`{choice}`" for choice in choices)
    return f"| `{field.name}` | {default} | {meaning.replace('|', '&#124;')} |"


def _defaults(name: str) -> str:
    """The default of a hyperparameter for each method that has it."""
    methods = {**registry.STRATEGIES, **registry.CRITERIA}
    kinds = {method: fields.fields_of(row.hyperparameters) for method, row in methods.items()}
    found = [
        f"{method}: {shown(own[name].default)}" for method, own in kinds.items() if name in own
    ]
    return "<br>".join(found)


def shown(value: Any) -> str:
    """A default as a flag takes it; a dash if there is none."""
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return "–" if value is None or not text else f"`{text}`"
