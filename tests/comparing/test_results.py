"""What Python and notebooks get of finished runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lurefs
from lurefs import Results, UserError
from lurefs.runs.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]


@pytest.fixture
def results(make_run: MakeRun) -> Results:
    """Two seeds of LURE and two of a warm start."""
    gains = {"by_saliency": 0.4, "nothing": 0.1}
    made = [
        make_run(f"{name}-seed{seed}", unlearn=name, gain=gain, seed=seed, controls={"image_statistics": 0.2})
        for name, gain in gains.items()
        for seed in range(2)
    ]
    return lurefs.compare([directory.path for directory in made])


def test_records_are_those_of_the_files(results: Results, tmp_path: Path) -> None:
    runs, groups, pairs, episodes = (results.records(part) for part in ("runs", "groups", "pairs", "episodes"))
    paths = results.save(str(tmp_path / "out"))
    stored = json.loads(paths["JSON"].read_text())
    assert [row["accuracy"] for row in runs] == [row["mean"] for row in stored["rows"]]
    assert [(row["group"], row["seed"]) for row in runs] == [(run["group"], run["seed"]) for run in stored["runs"]]
    assert pairs == stored["pairs"]
    assert [row["difference_ci95_seeds"] for row in groups[:2]] == [
        row["difference_ci95_seeds"] for row in stored["groups"]
    ]
    assert [(row["kind"], row["seeds"]) for row in groups] == [("group", "0, 1")] * 2 + [("control", "")]
    of_run = [row["accuracy"] for row in episodes if row["run"] == runs[0]["run"]]
    assert len(episodes) == 4 * 40 and sum(of_run) / 40 == pytest.approx(runs[0]["accuracy"])
    assert {row["nll"] for row in episodes} == {None}
    assert results.records("transfers") == []
    assert paths["report"].read_text().startswith("<!doctype html>")
    with pytest.raises(UserError, match="one of episodes, groups, pairs, rankers, runs, transfers"):
        results.records("run")  # type: ignore[arg-type]


def test_a_page_is_made_of_the_tables_that_a_terminal_shows(
    results: Results, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = repr(results)
    assert "novel, centroid, 40 episodes; difference from nothing (2 seeds), points" in said
    html = results._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 2
    row = next(line for line in said.splitlines() if line.startswith("by_saliency (2 seeds)")).split()
    assert "<td>" + "</td><td>".join(["by_saliency (2 seeds)", *row[3:]]) + "</td>" in html
    failed = Results(runs=results.runs, failures={"<b>": "out of memory\nmore"}, folder=tmp_path)
    assert "<p>failed: &lt;b&gt;: out of memory</p>" in failed._repr_html_()
    assert repr(failed).endswith(f"failed: <b>: out of memory\npage: {tmp_path / 'report.html'}")


@pytest.mark.parametrize("installed", [("pandas", "polars"), ("polars",)])
def test_a_frame_is_of_the_first_library_that_is_installed(
    results: Results, installed: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Toys in their places: neither is a dependency, and both take a list of mappings."""
    for name in ("pandas", "polars"):
        library = ModuleType(name)
        library.DataFrame = lambda rows, name=name: (name, rows)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, library if name in installed else None)
    assert results.frame("pairs") == (installed[0], results.records("pairs"))


def test_without_a_library_of_frames_the_records_are_named(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="neither pandas nor polars") as caught:
        results.frame()
    assert "results.records('runs')" in caught.value.fix


def test_runs_are_compared_as_the_command_would(make_run: MakeRun, tmp_path: Path) -> None:
    long, short = make_run("long", n_episodes=40, gain=0.3), make_run("short", n_episodes=20, gain=0.1)
    with pytest.raises(UserError, match="common-episodes"):
        lurefs.compare(tmp_path / "runs")
    cut = lurefs.compare(str(tmp_path / "runs"), common_episodes=True, reference="short", benchmark="novel")
    assert {row["n_episodes"] for row in cut.records()} == {20} and len(cut.records("episodes")) == 40
    assert cut.standings.reference == "short"
    alone: list[Any] = [lurefs.compare(each.path) for each in (short, long)]
    both = lurefs.compare([*alone, long.path], common_episodes=True)
    assert [run.label for run in both.runs] == ["short", "long"]
