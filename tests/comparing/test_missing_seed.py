"""Seeds of which one has no result for a probe: page, terminal, files and W&B say the same of them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from episodes.arrays import FloatArray
from episodes.over_seeds import summarise_seeds
from lurefs.cli import main
from lurefs.comparing.texts import percent, points
from lurefs.runs.directory import RunDirectory
from lurefs.tracking.comparison_record import comparison_record
from made_up_runs import change_benchmark

MakeRun = Callable[..., RunDirectory]
MEAN_NOTE = "mean of {} of {} seeds, since seed {} has no result"


def accuracies_of(runs: list[RunDirectory]) -> list[FloatArray]:
    return [run.read_episodes("novel", "centroid").accuracy for run in runs]


def lose(run: RunDirectory) -> None:
    """Take the result of the first probe out of a run's summary."""
    probes = run.read_summary().benchmarks["novel"].probes
    change_benchmark(run, "novel", probes={"second": probes["second"]})


class Outputs:
    """What `lurefs compare` says of the first probe, output by output."""

    def __init__(self, folder: Path, terminal: str) -> None:
        self.terminal = " ".join(terminal.split())
        page = (folder / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ").replace("&nbsp;", " ")
        words = " ".join(re.sub(r"<[^>]+>", " ", page[page.index("<body>") :]).split())
        headline, _, rest = words.partition(" Leaderboard ")
        self.headline, (self.board, _, self.benchmark) = headline, rest.partition(" Few-shot accuracy ")
        self.markdown, self.latex = ((folder / f"comparison.{suffix}").read_text() for suffix in ("md", "tex"))
        with (folder / "comparison.csv").open() as file:
            self.csv = {row["name"]: row for row in csv.DictReader(file) if row["probe"] == "centroid"}
        self.json = {
            row["name"]: row
            for row in json.loads((folder / "comparison.json").read_text())["groups"]
            if row["probe"] == "centroid"
        }
        board = comparison_record(folder).tables["leaderboard"]
        rows = [dict(zip(board.columns, row, strict=True)) for row in board.rows]
        self.mirror = {row["name"]: row for row in rows if row["probe"] == "centroid"}

    @property
    def texts(self) -> dict[str, str]:
        return {name: vars(self)[name] for name in ("terminal", "headline", "board", "benchmark", "markdown", "latex")}

    @property
    def rows(self) -> list[dict[str, dict[str, object]]]:
        return [self.csv, self.json, self.mirror]


@pytest.fixture
def compare(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[int, int], tuple[Outputs, FloatArray, FloatArray]]:
    """Compare so many seeds of two procedures, of which the first lacks the first probe's result for one seed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def compared(n_seeds: int, lost: int) -> tuple[Outputs, FloatArray, FloatArray]:
        both = {"probes": ("centroid", "second")}
        lure = [make_run(f"lure-s{seed}", seed=seed, gain=0.3 + 0.2 * seed, **both) for seed in range(n_seeds)]
        warm = [make_run(f"warm-s{seed}", seed=seed, unlearn="nothing", **both) for seed in range(n_seeds)]
        lose(lure[lost])
        main(["compare", "runs", "--output", "out"])
        kept = [seed for seed in range(n_seeds) if seed != lost]
        found = [np.stack([accuracies_of(side)[seed] for seed in kept]) for side in (lure, warm)]
        return Outputs(tmp_path / "out", capsys.readouterr().out), found[0], found[1]

    return compared


@pytest.mark.parametrize("lost", [0, 2])
def test_of_three_the_mean_is_that_of_two_everywhere_and_it_is_said_why_there_is_no_more(
    compare: Callable[[int, int], tuple[Outputs, FloatArray, FloatArray]], lost: int
) -> None:
    outputs, lure, _ = compare(3, lost)
    mean, name = float(np.mean(lure)), "lure (3 seeds)"
    reason = (
        "not compared with warm (3 seeds): both have 2 of the 3 seeds that a difference over seeds needs, "
        f"since seed {lost} has a result in one of the two only"
    )
    for output, text in outputs.texts.items():
        assert percent(mean) in text, output
        assert MEAN_NOTE.format(2, 3, lost) in text, output
        assert reason in text.replace("Not compared", "not compared"), output
        assert "no difference" not in text.replace("of no difference", ""), output
    for rows in outputs.rows:
        assert float(rows[name]["mean"]) == pytest.approx(mean)
        assert int(rows[name]["n_runs"]) == 2
        assert not rows[name]["ci95_seeds"] and not rows[name]["difference"]
        assert rows[name]["note"] == f"{MEAN_NOTE.format(2, 3, lost)}; {reason}"


def test_of_four_the_difference_is_that_of_the_three_that_both_have(
    compare: Callable[[int, int], tuple[Outputs, FloatArray, FloatArray]],
) -> None:
    outputs, lure, warm = compare(4, 2)
    mean = summarise_seeds(lure)
    difference = summarise_seeds(lure - warm)
    note = "difference over 3 of 4 seeds, since seed 2 has a result in one of the two only"
    for output, text in outputs.texts.items():
        for said in (percent(mean.mean), points(difference.mean), MEAN_NOTE.format(3, 4, 2), note):
            sign = said.replace("−", "$-$") if output == "latex" else said
            assert sign in text, (output, said)
    for rows in outputs.rows:
        row = rows["lure (4 seeds)"]
        found = [float(row[key]) for key in ("mean", "ci95_seeds", "difference", "difference_ci95_seeds")]
        assert found == pytest.approx([mean.mean, mean.ci95_seeds, difference.mean, difference.ci95_seeds])
        assert row["note"] == f"{MEAN_NOTE.format(3, 4, 2)}; {note}"
