"""Finished runs of this and of earlier versions, kept as files: every command reads them as it did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lurefs.cli import main
from lurefs.runs.directory import RunDirectory
from lurefs.runs.summary import VERSION

KEPT = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name for path in KEPT.glob("version-*"))


@pytest.fixture(params=VERSIONS)
def kept(request: pytest.FixtureRequest) -> Path:
    return KEPT / request.param


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    """Return a copy of the run that commands may write into."""
    shutil.copytree(kept / "golden", tmp_path / "golden")
    return tmp_path / "golden"


def results(folder: Path) -> dict[str, bytes]:
    names = ("*.parquet", "*.npy", "*.safetensors", "summary.json", "chunks.jsonl", "bank.json")
    return {str(path.relative_to(folder)): path.read_bytes() for name in names for path in folder.rglob(name)}


def rows(comparison: Path) -> list[dict[str, Any]]:
    found = json.loads((comparison / "comparison.json").read_text(encoding="utf-8"))["rows"]
    return [{name: value for name, value in row.items() if value not in (None, "")} for row in found]


def test_this_version_is_among_them() -> None:
    assert f"version-{VERSION}" in VERSIONS


def test_compare_finds_the_same_numbers(run: Path, kept: Path, tmp_path: Path) -> None:
    main(["compare", str(run), "--output", str(tmp_path / "out")])
    stored = json.loads((kept / "rows.json").read_text(encoding="utf-8"))
    for row, expected in zip(rows(tmp_path / "out"), stored, strict=True):
        close = {name: pytest.approx(value, rel=1e-9) for name, value in expected.items() if isinstance(value, float)}
        assert row == expected | close


def test_report_makes_a_page_of_it(run: Path, kept: Path, tmp_path: Path) -> None:
    main(["report", str(run), "--output", str(tmp_path / "page")])
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    for row in json.loads((kept / "rows.json").read_text(encoding="utf-8")):
        assert row["benchmark"] in page and f"{100 * row['mean']:.2f}" in page
    assert "camera" in page and "Images are not shown" not in page


def test_plan_reads_its_spreads(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", str(run), "--json"])
    found = json.loads(capsys.readouterr().out)
    [plan] = [plan for plan in found["plans"] if plan["benchmark"] == "novel-2way-5shot" and plan["scope"] == "pool"]
    assert (plan["design"]["n_classes"], plan["design"]["n_episodes"]) == (3, 60)


def test_push_says_what_it_would_send(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["push", str(run), "--dry-run"])
    said = capsys.readouterr()
    assert "novel-3way-1shot" in said.out + said.err


def test_run_computes_nothing_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = results(run)
    main(["run", "--config", str(KEPT / "recipe.yaml"), "--run-dir", str(run)])
    assert results(run) == before
    assert "novel-2way-5shot" in capsys.readouterr().out


def test_run_resumes_after_a_lost_result(run: Path) -> None:
    before = results(run)
    lost = RunDirectory(run).episodes_path("novel-3way-1shot", "logistic_regression")
    lost.unlink()
    main(["run", "--config", str(KEPT / "recipe.yaml"), "--run-dir", str(run)])
    after = results(run)
    assert lost.is_file()
    assert {name: content for name, content in after.items() if name.endswith((".safetensors", ".npy"))} == {
        name: content for name, content in before.items() if name.endswith((".safetensors", ".npy"))
    }
    one, other = (json.loads(found["summary.json"])["benchmarks"]["novel-3way-1shot"] for found in (before, after))
    accuracy = [figures["probes"]["logistic_regression"]["accuracy"]["mean"] for figures in (one, other)]
    assert accuracy[1] == pytest.approx(accuracy[0], abs=1e-9)
