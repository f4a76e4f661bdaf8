"""Section on the choice of a backbone without episodes: rankers, their scores, and accuracy against LogME."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.comparing.rankers import RANKERS, Ranking, rankings
from lurefs.comparing.text_tables import ranker_tables
from lurefs.comparing.verdicts import Cell, Verdicts
from lurefs.reporting import series
from lurefs.reporting.charts import pareto
from lurefs.reporting.charts.page_figures import PageFigures

DRAWN = "LogME"


def section(groups: Sequence[Group], judged: Mapping[Cell, Verdicts], kept: PageFigures) -> list[dict[str, Any]]:
    """Return the tables and the chart of each benchmark; nothing for few backbones."""
    return [
        {"name": ranking.benchmark, "tables": ranker_tables(ranking), "charts": _charts(groups, ranking, kept)}
        for ranking in rankings(judged)
    ]


def _charts(groups: Sequence[Group], ranking: Ranking, kept: PageFigures) -> list[dict[str, Any]]:
    """Return the chart of accuracy against a score, a point per backbone."""
    benchmark, probe = ranking.benchmark, ranking.probe

    def score(run: Run) -> float | None:
        return RANKERS[DRAWN](run, benchmark)

    points = {
        group.name: point
        for group in groups
        if group.label in ranking.accuracies
        and (point := series.cost_point(group, score, benchmark, probe)) is not None
    }
    lines = list(points.values())
    name = f"ranker-{benchmark}"
    labels = {"x_label": DRAWN, "y_label": "accuracy, %"}
    svg = pareto.scatter(lines, name=name, names=list(points), has_front=False, **labels)
    caption = (
        f"Accuracy on {benchmark}, by {probe}, against {DRAWN} of the same features. Bars: 95\u00a0% on this pool of "
        "classes, or over seeds."
    )
    return [kept.chart(name, svg, title=f"Accuracy against {DRAWN}", caption=caption, said=series.in_words(lines))]
