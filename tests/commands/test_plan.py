"""`lurefs plan` as a person uses it: from runs or assumptions to tables or JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from episodes.components import Components
from episodes.manifest import make_manifest
from episodes.metrics import empty_reliability
from episodes.planning import Design, smallest_difference
from episodes.sampler import EpisodeSpec
from episodes.table import EpisodeTable
from lurefs.cli import main
from lurefs.runs.directory import RunDirectory
from made_up_runs import write_run

LABELS = np.repeat(np.arange(12), 10).astype(np.int64)
ASSUMED = ["--assume", "class=3,pair=5,episode=5", "--classes", "20", "--episodes", "2000"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def make_run(name: str, unlearn: str, seed: int = 0, gain: float = 0.0) -> None:
    spec = EpisodeSpec(n_way=3, n_shot=1, n_query=4, n_episodes=60)
    manifest = make_manifest(LABELS, spec, seed=0, images_digest="abc")
    hits = np.random.default_rng([seed, len(name)]).random((60, 12)) < 0.6 + gain
    predicted = np.where(hits, np.repeat(np.arange(3), 4), (np.repeat(np.arange(3), 4) + 1) % 3).astype(np.int16)
    nothing = np.full(60, np.nan)
    table = EpisodeTable(
        index=np.arange(60),
        classes=manifest.classes,
        accuracy=hits.mean(axis=1),
        nll=nothing,
        brier=nothing,
        converged=np.ones(60, dtype=bool),
        seconds=np.ones(60),
        reliability=empty_reliability(),
        predicted=predicted,
        identity={"manifest": manifest.hash},
    )
    form = {"n_way": 3, "n_shot": 1, "n_query": 4, "n_episodes": 60, "seed": 0}
    config = {"name": name, "seed": seed, "unlearn": {"name": unlearn}, "benchmarks": {"novel": form}}
    config["probes"] = {"centroid": {"name": "nearest_centroid"}}
    write_run(Path("runs", f"{name}-{seed}"), config, {"novel": {"centroid": table}}, {"novel": manifest})


def planned(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    main(["plan", *arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_two_runs_are_planned_on_this_pool_and_on_new_classes(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure", "by_saliency", gain=0.1)
    make_run("warm_start", "nothing")
    found = planned(["runs"], capsys)
    assert [plan["scope"] for plan in found["plans"]] == ["classes", "pool"]
    assert found["spreads"][0]["name"] == "lure − warm_start"
    assert found["spreads"][0]["design"] == {"n_classes": 12, "n_episodes": 60, "n_seeds": 1, "n_images": None}
    pool = found["plans"][1]
    assert pool["smallest"] > pool["with_endless_episodes"] > 0
    classes = found["plans"][0]
    least, most = classes["smallest_between"]
    assert least < classes["smallest"] < most and pool["smallest_between"] is pool["classes_between"] is None
    assert found["spreads"][0]["pilot"]["n_classes"] == 12
    assert pool["needed"]["n_episodes"] > 60
    more = planned(["--episodes", "6000", "runs"], capsys)["plans"][1]
    assert more["smallest"] == pytest.approx(pool["smallest"] / 10, rel=0.05)
    assert 0.8 < more["power"] <= 1


def test_a_plan_says_how_sure_the_number_of_classes_is(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure", "by_saliency", gain=0.1)
    make_run("warm_start", "nothing")
    wanted = ["runs", "--difference", "9", "--episodes", "6000", "--classes", "100"]
    found = planned(wanted, capsys)
    least, most = found["plans"][0]["classes_between"]
    assert least <= found["plans"][0]["needed"]["n_classes"] < most
    assert found["spreads"][0]["design"]["n_classes"] == 100 and found["spreads"][0]["pilot"]["n_classes"] == 12
    main(["plan", *wanted])
    said = " ".join(capsys.readouterr().out.split())
    assert f"judged from 12 classes, {least} to {most} classes are needed (95 % interval)" in said
    assert planned(ASSUMED, capsys)["plans"][0]["classes_between"] is None


def test_seeds_are_planned_from_two_of_them_on(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        make_run("lure", "by_saliency", seed)
        make_run("warm_start", "nothing", seed)
    found = planned(["runs"], capsys)
    over_seeds = next(plan for plan in found["plans"] if plan["scope"] == "seeds")
    assert over_seeds["smallest"] is None and "needs 3 seeds" in over_seeds["why_not"]
    assert planned(["runs", "--seeds", "5"], capsys)["plans"][1]["smallest"] > 0


def test_one_run_is_planned_by_its_accuracy_and_tables_fit_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure", "by_saliency")
    main(["plan", "runs/lure-0"])
    text = capsys.readouterr().out
    assert "What accuracies vary by" in text and "lure: new classes" in text
    assert max(map(len, map(str.rstrip, text.splitlines()))) <= 80


def test_compare_says_in_a_line_what_could_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure", "by_saliency")
    make_run("warm_start", "nothing")
    smallest = {plan["scope"]: 100 * plan["smallest"] for plan in planned(["runs"], capsys)["plans"]}
    main(["compare", "runs", "--output", "out"])
    said = " ".join(capsys.readouterr().out.split())
    words = f"80 %: {smallest['classes']:.1f} on new classes, {smallest['pool']:.1f} on this pool (points)"
    assert f"novel, centroid: differences that would be shown with a chance of {words}" in said


def test_assumed_spreads_are_those_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(ASSUMED, capsys)
    spread = Components(n_way=5, of_class=0.03, of_pair=0.05, of_episode=0.05)
    design = Design(n_classes=20, n_episodes=2000)
    assert found["plans"][0]["smallest"] == smallest_difference(spread, design, scope="classes")
    assert found["plans"][0]["needed"]["n_episodes"] is None
    main(["plan", *ASSUMED])
    said = capsys.readouterr().out
    assert "none" in said and "skewness" not in said


def test_assumed_skewness_is_planned_with_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    skewed = ["--assume", f"{ASSUMED[1]},skewness=-2", *ASSUMED[2:]]
    found = planned(skewed, capsys)["plans"][0]
    spread = Components(n_way=5, of_class=0.03, of_pair=0.05, of_episode=0.05, skewness=-2.0)
    assert found["smallest"] == smallest_difference(spread, Design(n_classes=20, n_episodes=2000), scope="classes")
    assert found["smallest"] > planned(ASSUMED, capsys)["plans"][0]["smallest"]
    main(["plan", *skewed])
    said = capsys.readouterr().out
    assert "skewness" in said and "−2.0" in said
    assert max(map(len, map(str.rstrip, said.splitlines()))) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "neither runs nor --assume"),
        (["runs", *ASSUMED], "both runs and --assume"),
        ([*ASSUMED, "--difference", "0"], "--difference is 0"),
        ([*ASSUMED, "--difference", "nan"], "--difference is nan"),
        ([*ASSUMED, "--difference", "-2"], "--difference is -2"),
        ([*ASSUMED, "--difference", "100.5"], "--difference is 100.5"),
        ([*ASSUMED, "--power", "0"], "--power is 0"),
        ([*ASSUMED, "--power", "1"], "--power is 1"),
        ([*ASSUMED, "--classes", "2"], "--classes is 2"),
        ([*ASSUMED, "--episodes", "1"], "--episodes is 1"),
        ([*ASSUMED, "--seeds", "0"], "--seeds is 0"),
        ([*ASSUMED, "--seeds", "5"], "one seed does not show"),
        ([*ASSUMED, "--images", "5"], "effect of images is unknown"),
        ([*ASSUMED, "--probe", "ridge"], "--probe chooses among runs"),
        (["--assume", "class=3,episode=5", "--classes", "20"], "--episodes is missing"),
        (["--assume", "class=3", *ASSUMED[2:]], "does not say episode"),
        (["--assume", "class=3,episode=5,seed=1", *ASSUMED[2:]], "only one of seed and rest"),
        (["--assume", "clas=3", *ASSUMED[2:]], "did you mean 'class'"),
        (["--assume", "class=x,episode=5", *ASSUMED[2:]], "class is 'x'"),
        (["--assume", "class=-1,episode=5", *ASSUMED[2:]], "class is '-1'"),
        (["--assume", "class=3,episode=5", "--classes", "5", "--episodes", "90"], "--classes is 5"),
        (["--assume", "class=3,episode=5,class=4", *ASSUMED[2:]], "names class twice"),
        (["--assume", "class=3,episode=5,way=2.5", *ASSUMED[2:]], "way is '2.5'"),
        (["--assume", "class=3,episode=5,skewness=nan", *ASSUMED[2:]], "skewness is 'nan'"),
        (["--assume", "class=3,episode=5,skewness=-3", *ASSUMED[2:]], "skewness is '-3'"),
        (["plan.json"], "plan.json is no directory"),
        (["nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("runs").mkdir()
    Path("plan.json").write_text('{"version": 1, "plans": []}')
    with pytest.raises(SystemExit) as caught:
        main(["plan", *arguments])
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert words in error and "expected:" in error and "to fix:" in error


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_damaged_run_is_named_and_nothing_is_planned(
    seeds: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in seeds:
        make_run("lure", "by_saliency", seed)
        make_run("warm_start", "nothing", seed)
    damaged = RunDirectory(Path("runs", f"warm_start-{seeds[-1]}")).episodes_path("novel", "centroid")
    damaged.write_bytes(damaged.read_bytes()[:400])
    for runs in ("runs", str(Path("runs", f"warm_start-{seeds[-1]}"))):
        with pytest.raises(SystemExit) as caught:
            main(["plan", runs])
        said = capsys.readouterr()
        assert caught.value.code == 2 and said.out == ""
        assert str(damaged) in said.err and "to fix:" in said.err


def test_a_single_run_that_is_not_finished_is_told_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("lure", "by_saliency")
    Path("runs/lure-0/summary.json").unlink()
    with pytest.raises(SystemExit):
        main(["plan", "runs/lure-0"])
    assert "the run is not finished, it has no summary.json: runs/lure-0" in capsys.readouterr().err


def test_a_plan_imports_neither_torch_nor_timm() -> None:
    make_run("lure", "by_saliency")
    make_run("warm_start", "nothing")
    code = (
        "import sys; from lurefs.cli import main; main(['plan', 'runs']); "
        "sys.exit(bool({'torch', 'timm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
