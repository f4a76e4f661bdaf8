"""The notebook of the documentation runs, and prints what is stored in it."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def test_the_notebook_prints_its_stored_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another processor may turn a few of the 150,000 answers, which is a hundredth of a point."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    notebook = importlib.import_module("notebook")
    content = json.loads((ROOT / "docs" / "first_evaluation.ipynb").read_text(encoding="utf-8"))
    stored, printed = notebook.stored(content), list(notebook.printed(content))
    assert [NUMBER.sub("N", text) for text in printed] == [NUMBER.sub("N", text) for text in stored]
    assert numbers(printed) == pytest.approx(numbers(stored), rel=0.005, abs=0.05)
    assert len(numbers(stored)) > 30


def numbers(texts: list[str]) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall("\n".join(texts))]
