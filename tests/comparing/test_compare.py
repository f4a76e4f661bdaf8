"""`lurefs compare` as a person uses it: from run directories to tables, files and a page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from episodes.comparison import paired_difference
from lurefs.cli import main
from lurefs.comparing.pairs import FLIP_SEED
from lurefs.config.schema import RunConfig
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def compared(arguments: list[str], capsys: pytest.CaptureFixture[str], output: str = "out") -> tuple[str, Any]:
    """Return what a comparison prints, and its JSON."""
    main(["compare", *arguments, "--output", output])
    return capsys.readouterr().out, json.loads(Path(output, "comparison.json").read_text())


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["compare", *arguments])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "expected:" in error and "to fix:" in error
    return error


def test_of_trained_runs_equals_what_their_files_say(
    make_config: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    values = to_mapping(make_config(name="two", chunks={"n_chunks": 2}))
    values["variants"] = {"lure": {}, "warm_start": {"unlearn": {"name": "nothing"}}}
    Path("two.yaml").write_text(yaml.safe_dump(values))
    for stage in ("pretrain", "extract", "evaluate"):
        main([stage, "--config", "two.yaml"])
    capsys.readouterr()
    text, found = compared(["two"], capsys)
    lure, warm = (RunDirectory(Path("runs/two", name)) for name in ("lure", "warm_start"))
    a, b = (run.read_accuracies("novel-3way-1shot", "logistic_regression") for run in (lure, warm))
    paired = paired_difference(a.accuracy, b.accuracy, a.classes, rng=np.random.default_rng(FLIP_SEED))
    row = next(row for row in found["rows"] if row["name"] == "lure")
    assert found["reference"] == "warm_start"
    assert row["mean"] == a.accuracy.mean()
    assert (row["difference"], row["p_episodes"]) == (paired.difference.mean, paired.p_episodes)
    assert row["n_macs"] == lure.read_cost()["n_macs"] > 0
    assert row["images_per_second"] == lure.read_cost()["images_per_second"]
    assert f"{100 * row['mean']:.2f}" in text
    assert "difference from warm_start, points" in text
    assert all(Path("out", name).is_file() for name in ("report.html", "comparison.csv", "comparison.md"))


def test_fits_a_terminal_of_100_columns(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure", gain=0.9)
    make_run("warm_start", unlearn="nothing")
    text, _ = compared(["lure", "warm_start"], capsys)
    tables = [line for line in text[: text.index("JSON")].splitlines() if not line.startswith("for seed in")]
    assert max(len(line.rstrip()) for line in tables) <= 100


def test_of_one_run_is_a_table_without_differences(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure")
    text, found = compared(["lure"], capsys)
    assert (found["reference"], found["rows"][0]["difference"]) == (None, None)
    assert "diff" not in text
    assert found["one_training_each"] is False


def test_takes_the_reference_that_is_named(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure")
    make_run("warm", unlearn="nothing")
    _, found = compared(["runs", "--reference", "lure"], capsys)
    assert found["reference"] == "lure"
    page = Path("out/report.html").read_text()
    assert "Accuracy minus that of lure" in page
    assert "did you mean 'lure'" in refused(["runs", "--reference", "lurre"], capsys)


def test_keeps_to_one_benchmark_and_one_probe(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure", benchmarks=("novel", "more"), probes=("centroid", "second"))
    _, found = compared(["lure", "--benchmark", "more", "--probe", "second"], capsys)
    assert [(row["benchmark"], row["probe"]) for row in found["rows"]] == [("more", "second")]


def test_of_different_episodes_is_refused_or_kept_to_the_common_ones(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("lure")
    make_run("warm", n_episodes=25, unlearn="nothing")
    assert "n_episodes is 40 and 25" in refused(["runs"], capsys)
    text, found = compared(["runs", "--common-episodes"], capsys)
    assert found["cut"] == {"novel": 25}
    assert "the first 25 episodes, which all runs met" in text


def test_names_the_runs_that_are_not_finished(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure")
    make_run("warm").summary_path.unlink()
    error = refused(["runs"], capsys)
    assert "1 of 2 runs is not finished, it has no summary.json: runs/warm" in error
    assert "lurefs run --run-dir runs/warm; or add --skip-unfinished" in error
    main(["compare", "runs", "--skip-unfinished", "--output", "out"])
    assert "left out, not finished: runs/warm" in capsys.readouterr().err
    assert [run["run"] for run in json.loads(Path("out/comparison.json").read_text())["runs"]] == ["lure"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("summary.json", "{", "summary.json is damaged: "),
        ("summary.json", "{}", "summary.json is damaged: run is missing"),
        ("summary.json", '{"version": 2}', "summary.json has the version 2"),
        ("chunks.jsonl", "", "chunks.jsonl is damaged: it is empty"),
    ],
)
def test_says_which_file_of_a_run_is_damaged(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], name: str, content: str, problem: str
) -> None:
    (make_run("lure").path / name).write_text(content)
    assert f"runs/lure/{problem}" in refused(["runs"], capsys)


def test_tells_of_results_that_are_missing(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure").episodes_path("novel", "centroid").unlink()
    make_run("warm", unlearn="nothing")
    text, found = compared(["runs"], capsys)
    assert "there is no runs/lure/episodes/novel--centroid.parquet" in found["rows"][0]["note"]
    assert "lure: not compared with warm: there is no" in text


def test_goes_to_a_folder_that_names_the_runs(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure")
    make_run("warm", unlearn="nothing")
    main(["compare", "runs"])
    (folder,) = Path("comparisons").iterdir()
    assert folder.name.startswith("lure--warm-")
    assert f"report     {folder / 'report.html'}" in capsys.readouterr().out
    main(["compare", "runs/*"])
    assert list(Path("comparisons").iterdir()) == [folder]


def test_refuses_a_place_that_cannot_be_written(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure")
    Path("file").touch()
    assert "file/out cannot be written" in refused(["lure", "--output", "file/out"], capsys)


def test_is_not_written_into_a_run(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("lure")
    assert "the folder of a run" in refused([str(run.path), "--output", str(run.path)], capsys)
    assert not (run.path / "comparison.json").exists()


def test_numbers_need_no_torch(make_run: MakeRun) -> None:
    make_run("lure")
    make_run("warm", unlearn="nothing")
    program = (
        "import sys\nfrom lurefs.runs.find import find_runs\nfrom lurefs.runs.directory import RunDirectory\n"
        "from lurefs.comparing.finished_runs import read_runs\nfrom lurefs.comparing.standings import standings\n"
        "found = standings(read_runs([RunDirectory(path) for path in find_runs(['runs'])]))\n"
        "assert found.rows[0].difference is not None\n"
        "heavy = [name for name in ('torch', 'timm', 'learn2learn', 'sklearn', 'matplotlib') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
