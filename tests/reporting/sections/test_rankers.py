from __future__ import annotations

import re
from pathlib import Path

import pytest

from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import groups_of
from lurefs.comparing.verdicts import judge_all
from lurefs.reporting.charts.page_figures import PageFigures
from lurefs.reporting.page import write_page
from lurefs.reporting.sections.rankers import section
from lurefs.runs.summary import TransferabilitySummary
from made_up_runs import benchmark, probe, run_in_memory

MEANS = (0.5, 0.6, 0.7, 0.8, 0.9)


def make_runs(means: tuple[float, ...] = MEANS) -> list[Run]:
    """Backbones that LogME puts in the order of their accuracies."""
    return [
        run_in_memory(
            {"name": f"run-{place}", "benchmarks": {"novel": {"n_shot": 1}}, "probes": {"p": {"name": "ridge"}}},
            {
                "novel": benchmark(
                    {"p": probe(mean)},
                    transferability=TransferabilitySummary(logme=mean, h_score=1 - mean, nearest_centroid=mean),
                )
            },
            cost={"n_parameters": 1_000_000 * (place + 1)},
        )
        for place, mean in enumerate(means)
    ]


def test_five_backbones_have_tables_and_a_chart_and_four_have_none(tmp_path: Path) -> None:
    runs = make_runs()
    [shown] = section(groups_of(runs), judge_all(runs), PageFigures(tmp_path))
    of_rankers, of_scores = shown["tables"]
    rows = {row[0]: row for row in of_rankers.rows}
    assert rows["LogME"][1] == rows["parameters"][1] == "run-4"
    assert (rows["H-score"][1], rows["H-score"][3]) == ("run-0", "40.00")
    assert of_scores.rows[0] == ("run-4", "90.00", "0.900", "0.100", "90.00", "5")
    [chart] = shown["charts"]
    assert all(f"run-{place}" in chart["svg"] for place in range(5))
    few = make_runs(MEANS[:4])
    assert section(groups_of(few), judge_all(few), PageFigures(tmp_path)) == []


@pytest.mark.parametrize(("n_runs", "is_there"), [(5, True), (4, False)])
def test_the_page_has_the_section_from_five_backbones_on(tmp_path: Path, n_runs: int, is_there: bool) -> None:
    page = write_page(make_runs(MEANS[:n_runs]), tmp_path).read_text(encoding="utf-8")
    assert ("Which backbone, without episodes?" in page) == is_there
    assert bool(re.search(r"use the labels of all images of a\s+benchmark, so they are no few-shot", page)) == is_there
