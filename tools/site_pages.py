"""A hook of mkdocs: files of the repository that lie outside `docs/`, and notebooks, as pages of the site.

Pages link to each other as they lie in the repository, so that links work where its files are read. For the site, each
link is turned to the place that its target has there; `mkdocs build --strict` names the ones that lead nowhere.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PLACES = {"README.md": "index.md", "docs/first_evaluation.ipynb": "first_evaluation.md"}
"""Files that have another name on the site."""
OUTSIDE = (
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "SECURITY.md",
    "lurefs/data/assets/ICONS.md",
    "lurefs/data/assets/NOTICE",
)
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what lies outside `docs/`, and put notebooks in the place of their JSON."""
    for path in OUTSIDE:
        content = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, path, content=content))
    for path, place in PLACES.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=notebook_page(text) if path.endswith(".ipynb") else text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page from places in the repository to places on the site."""
    return links_of_site(markdown, page.file.src_uri)


def links_of_site(markdown: str, place: str) -> str:
    """Return the text of the page at `place` on the site, with links to places on the site."""
    source = repository_path(place)

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        return posixpath.relpath(PLACES.get(target, target.removeprefix("docs/")), posixpath.dirname(place) or ".")

    return LINK.sub(turned, markdown)


def repository_path(place: str) -> str:
    """Return where a page of the site lies in the repository."""
    for path, other in PLACES.items():
        if other == place:
            return path
    return place if place in OUTSIDE else f"docs/{place}"


def notebook_page(notebook: str) -> str:
    """Return a notebook's JSON as Markdown: text as it is, code in blocks, and what each block printed below it."""
    parts = []
    for cell in json.loads(notebook)["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        printed = "".join(line for output in cell.get("outputs", []) for line in output["text"])
        if printed:
            parts.append(f"```text\n{printed}```")
    return "\n\n".join(parts) + "\n"
