from __future__ import annotations

from pathlib import Path
from typing import Any

from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import groups_of
from lurefs.comparing.verdicts import judge_all
from lurefs.reporting.charts.page_figures import PageFigures
from lurefs.reporting.sections.learning import section
from lurefs.runs.outcomes import FewShotScore
from made_up_runs import benchmark, control, outcome, probe, run_in_memory


def make_run(name: str, **of_probe: Any) -> Run:
    """A run of two chunks, with an untrained twin, measured by a probe after each chunk and at the end."""
    values = {"name": name, "benchmarks": {"novel": {}}, "probes": {"p": {"name": "ridge", **of_probe}}}
    score = FewShotScore(manifest="0" * 64, probe="p", n_episodes=10, accuracy=0.5, ci95_episodes=0.02)
    twin = {"untrained_twin": control({"p": probe(0.3125)})}
    measured = {"novel": benchmark({"p": probe(0.625)}, controls=twin)}
    return run_in_memory(values, measured, outcomes=[outcome(index, few_shot={"novel": score}) for index in (0, 1)])


def charts_of(runs: list[Run], folder: Path) -> list[dict[str, Any]]:
    """The charts of few-shot accuracy over chunks and against cost."""
    shown = section(runs, groups_of(runs), judge_all(runs), PageFigures(folder))
    return [chart for chart in (*shown["main"], *shown["cost"]) if chart["title"].startswith("novel")]


def test_accuracy_after_each_chunk_stands_beside_the_controls(tmp_path: Path) -> None:
    over_chunks, *against_cost = charts_of([make_run("lure")], tmp_path)
    assert against_cost
    for chart in (over_chunks, *against_cost):
        assert "untrained twin: 31.25" in str(chart)
        assert "Dashed: the controls" in chart["caption"]
        assert "fixed settings" not in chart["caption"]


def test_controls_at_chosen_settings_are_not_drawn_beside_curves_at_fixed_ones(tmp_path: Path) -> None:
    chooses = make_run("chooses", choose={"alpha": [0.1, 1.0]})
    for runs in ([chooses], [make_run("lure"), chooses], [chooses, make_run("lure")]):
        over_chunks, *against_cost = charts_of(runs, tmp_path)
        assert against_cost
        for chart in (over_chunks, *against_cost):
            assert "untrained twin" not in str(chart)
            assert "Dashed" not in chart["caption"]
            assert "at the probe's fixed settings" in chart["caption"]
