"""Files of a finished run that are gone: the page says so, whatever it was that they held."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lurefs.comparing.finished_runs import read_runs
from lurefs.reporting.page import write_report
from lurefs.reporting.sections import missing_files
from lurefs.runs.directory import RunDirectory

FINISHED = Path(__file__).parents[2] / "golden" / "version-1" / "golden"
NOT_SHOWN = ("chunks.jsonl", "config.yaml", "summary.json")
"""Said elsewhere, or refused."""
ON_THE_PAGE = [
    name
    for name in (str(path.relative_to(FINISHED)) for path in FINISHED.rglob("*") if path.is_file())
    if not name.startswith((*NOT_SHOWN, "checkpoints", "controls", "duplicates", "figures"))
    and not name.endswith("transferability.json")
]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(shutil.copytree(FINISHED, tmp_path / "golden"))


def said(*directories: RunDirectory) -> list[str]:
    return missing_files.sentences(read_runs(directories))


@pytest.mark.parametrize("name", ON_THE_PAGE)
def test_a_file_that_is_gone_is_named(run: RunDirectory, name: str) -> None:
    assert said(run) == []
    (run.path / name).unlink()
    assert said(run) == [f"Not all of golden is shown: there is no {name}."]


def test_a_page_says_which_runs_lack_what(run: RunDirectory, tmp_path: Path) -> None:
    whole = RunDirectory(shutil.copytree(run.path, tmp_path / "whole"))
    run.identity_path.unlink()
    shutil.rmtree(run.features_dir("novel-2way-5shot"))
    (sentence,) = said(whole, run)
    assert "is shown: there is no identity.json and no features/novel-2way-5shot." in sentence
    page = write_report([whole, run], tmp_path / "page").read_text(encoding="utf-8")
    assert sentence in page
    many = [RunDirectory(shutil.copytree(run.path, tmp_path / f"copy {number}")) for number in range(4)]
    assert said(whole, *many)[0].startswith("Not all of 4 of 5 runs is shown: ")
