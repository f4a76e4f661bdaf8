"""Benchmarks of one form on several data sets: means over sets with intervals over sets, and paired differences."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lurefs.comparing.across_sets import over_sets
from lurefs.comparing.estimates import Estimate
from lurefs.comparing.exports import to_csv, to_latex, to_markdown
from lurefs.comparing.finished_runs import read_runs
from lurefs.comparing.standings import Standings, standings
from lurefs.comparing.text_tables import across_table, legend, text_tables
from lurefs.config.schema import CorruptConfig
from lurefs.reporting.page import write_page
from lurefs.runs.directory import RunDirectory
from made_up_runs import write_run

MakeRun = Callable[..., RunDirectory]
SETS: dict[str, dict[str, Any]] = {
    "icons-1": {},
    "digits-1": {"dataset": {"name": "digits"}, "classes": "all"},
    "birds-1": {"dataset": {"name": "folder", "params": {"path": "data/birds", "image_size": 32}}, "classes": "all"},
}
GAINS = {"icons-1": 0.9, "digits-1": 0.6, "birds-1": 0.5}


@pytest.fixture
def make_sets(make_run: MakeRun) -> MakeRun:
    """Write a run that was measured on several data sets; `gains` are those of `make_run` by benchmark."""

    def make(name: str, gains: dict[str, float], *, seed: int = 0, **more: dict[str, Any]) -> RunDirectory:
        made = {
            benchmark: make_run(name, gain=gain, seed=seed, benchmarks=[benchmark], folder=f"{name}-{benchmark}")
            for benchmark, gain in gains.items()
        }
        (first, *_) = made.values()
        config = first.read_config()
        form = {"n_way": 3, "n_shot": 1, "n_query": 4, "n_episodes": 40}
        settings = {benchmark: {**form, **(SETS | more)[benchmark]} for benchmark in gains}
        return write_run(
            first.path.parent / name,
            {"name": name, "seed": seed, "unlearn": {"name": "nothing" if name == "warm" else "by_saliency"}}
            | {"benchmarks": settings, "probes": {"centroid": {"name": config.probes["centroid"].name}}},
            {benchmark: {"centroid": run.read_episodes(benchmark, "centroid")} for benchmark, run in made.items()},
            {benchmark: run.read_manifest(benchmark) for benchmark, run in made.items()},
        )

    return make


def found(*directories: RunDirectory) -> Standings:
    return standings(read_runs(directories))


def test_the_interval_over_sets_is_students(make_sets: MakeRun) -> None:
    values = [0.5, 0.6, 0.85]
    over = over_sets(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert over.mean == pytest.approx((low + high) / 2) and over.ci95_sets == pytest.approx((high - low) / 2)
    assert over.p_sets == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert over_sets(values[:2]).ci95_sets is None and over_sets(values[:2]).mean == pytest.approx(0.55)


def test_means_and_paired_differences_are_those_of_the_sets(make_sets: MakeRun) -> None:
    runs = found(make_sets("lure", GAINS), make_sets("warm", dict.fromkeys(GAINS, 0.0)))
    (across,) = runs.across
    assert (across.sets, across.reference) == (("icons", "digits", "birds"), "warm")
    lure, warm = across.rows
    of_sets = [row for row in runs.groups if row.name == "lure"]
    assert [accuracy and accuracy.mean for accuracy in lure.accuracies] == [row.mean for row in of_sets]
    assert [less and less.mean for less in lure.differences] == [row.difference for row in of_sets]
    differences = [row.difference for row in of_sets if row.difference is not None]
    assert lure.difference.mean == pytest.approx(np.mean(differences))
    assert lure.difference.p_sets == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert lure.mean.mean is not None and warm.mean.mean is not None
    assert lure.mean.mean - warm.mean.mean == pytest.approx(lure.difference.mean)
    assert warm.difference.mean is None


def test_two_sets_have_a_mean_without_an_interval_and_the_reason(make_sets: MakeRun) -> None:
    gains = {"icons-1": 0.9, "digits-1": 0.6}
    runs = found(make_sets("lure", gains), make_sets("warm", dict.fromkeys(gains, 0.0)))
    table = across_table(runs.across[0])
    assert "no interval over 2 data sets: it needs at least 3" in table.notes
    assert "± sets" not in table.columns and "p sets" not in table.columns
    assert not any("± sets" in line for line in legend(runs))
    assert [row[1] for row in table.rows[:3]] == ["mean of 2", "icons", "digits"]


def test_one_data_set_twice_is_one_set(make_sets: MakeRun) -> None:
    again = {"digits-2": {**SETS["digits-1"], "seed": 4, "dataset": {"name": "digits", "params": {"image_size": 16}}}}
    run = make_sets("lure", {"icons-1": 0.9, "digits-1": 0.5, "digits-2": 0.1}, **again)
    assert found(run).across[0].benchmarks == ("icons-1", "digits-1")
    assert found(make_sets("single", {"digits-1": 0.5, "digits-2": 0.1}, **again)).across == ()


def test_a_run_that_was_not_measured_on_a_set_has_no_mean_and_the_reason(make_sets: MakeRun) -> None:
    part = {"icons-1": 0.0, "digits-1": 0.0}
    (across,) = found(make_sets("lure", GAINS), make_sets("warm", part)).across
    by_name = {row.name: row for row in across.rows}
    assert by_name["warm"].mean.mean is None and by_name["lure"].mean.mean is not None
    assert by_name["warm"].note == "no mean over data sets: not measured on birds"
    assert by_name["lure"].difference.mean is None and across.pairs == {}


def test_seeds_are_pooled_before_sets(make_sets: MakeRun) -> None:
    runs = [
        make_sets(f"{name}-seed{seed}", gains, seed=seed)
        for name, gains in (("lure", GAINS), ("other", dict.fromkeys(GAINS, 0.1)))
        for seed in range(3)
    ]
    (across,) = found(*runs[:3]).across
    (row,) = across.rows
    assert row.name == "lure (3 seeds)" and across.reference is None
    assert all(isinstance(one, Estimate) and set(one.half_widths) == {"seeds"} for one in row.accuracies)
    assert row.mean.mean == pytest.approx(np.mean([one.mean for one in row.accuracies if one is not None]))


def test_files_and_page_have_the_table(make_sets: MakeRun, tmp_path: Any) -> None:
    directories = make_sets("lure", GAINS), make_sets("warm", dict.fromkeys(GAINS, 0.0))
    runs = found(*directories)
    (across,) = runs.to_mapping()["across_sets"]
    assert across["benchmarks"] == {"icons": "icons-1", "digits": "digits-1", "birds": "birds-1"}
    assert {(pair["group"], pair["less"]) for pair in across["pairs"]} == {("lure", "warm")}
    rows = [row for row in csv.DictReader(io.StringIO(to_csv(runs))) if row["kind"] == "mean over sets"]
    assert [(row["name"], row["n_sets"]) for row in rows] == [("lure", "3"), ("warm", "3")]
    assert float(rows[0]["ci95_sets"]) == across["means"][0]["ci95_sets"]
    tables = text_tables(runs)
    for text in (to_markdown(tables, legend(runs)), to_latex(tables, legend(runs))):
        assert "Across 3 data sets, 3-way 1-shot" in text and "mean of 3" in text and "sets" in text
    page = write_page(read_runs(directories), tmp_path / "page").read_text()
    assert "Across data sets" in page and "mean of 3" in page


def test_other_forms_and_corrupted_images_do_not_belong_together(make_sets: MakeRun) -> None:
    (run,) = read_runs([make_sets("lure", {"icons-1": 0.9, "digits-1": 0.5})])
    assert len(standings([run]).across) == 1
    fog = CorruptConfig(corruption="fog")
    for changes in ({"form": "5-way 1-shot"}, {"corrupt": fog}):
        benchmarks = {**run.summary.benchmarks, "digits-1": replace(run.summary.benchmarks["digits-1"], **changes)}
        assert standings([replace(run, summary=replace(run.summary, benchmarks=benchmarks))]).across == ()
