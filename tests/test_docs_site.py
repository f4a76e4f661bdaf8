"""What the pages of the site are made of: links that work in the repository and on the site, and notebooks as text."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/*.ipynb"))
)


@pytest.fixture
def site_pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("site_pages")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_of_the_repository(page: str) -> None:
    targets = re.findall(r"\]\((?!\w+:)([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()] == []


@pytest.mark.parametrize(
    ("place", "in_repository", "on_site"),
    [
        ("index.md", "docs/guide.md#commands", "guide.md#commands"),
        ("index.md", "LICENSE", "LICENSE"),
        ("index.md", "docs/first_evaluation.ipynb", "first_evaluation.md"),
        ("guide.md", "../lurefs/data/assets/NOTICE", "lurefs/data/assets/NOTICE"),
        ("api/runs.md", "../../README.md", "../index.md"),
        ("first_evaluation.md", "library.md", "library.md"),
        ("CONTRIBUTING.md", "docs/architecture.md", "architecture.md"),
    ],
)
def test_a_link_leads_to_the_same_page_on_the_site(
    site_pages: ModuleType, place: str, in_repository: str, on_site: str
) -> None:
    assert site_pages.links_of_site(f"see [it]({in_repository})", place) == f"see [it]({on_site})"


def test_a_link_to_a_part_of_the_page_or_to_another_host_stays(site_pages: ModuleType) -> None:
    text = "[part](#part) and [timm](https://example.org/timm)"
    assert site_pages.links_of_site(text, "index.md") == text


def test_a_notebook_is_its_text_its_code_and_what_the_code_printed(site_pages: ModuleType) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Words."]},
        {"cell_type": "code", "source": ["print(1)\n", "print(2)"], "outputs": [{"text": ["1\n", "2\n"]}]},
        {"cell_type": "code", "source": ["x = 3"], "outputs": []},
    ]
    page = site_pages.notebook_page(json.dumps({"cells": cells}))
    assert page == (
        "# Title\nWords.\n\n```python\nprint(1)\nprint(2)\n```\n\n```text\n1\n2\n```\n\n```python\nx = 3\n```\n"
    )
