"""Section on the classes of each pool: hard classes, confusions, and a map of the features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lurefs.comparing.answers import read_answers, shown_of
from lurefs.comparing.finished_runs import Run
from lurefs.errors import UserError
from lurefs.reporting.charts.page_figures import PageFigures
from lurefs.reporting.sections import confusion, feature_map
from lurefs.reporting.sections.episode_pictures import reason_of

N_POOLS = 2
Shown = dict[str, Any]


def section(runs: Sequence[Run], kept: PageFigures) -> list[Shown]:
    """Return the section for the first `N_POOLS` pools of classes, each by its best run."""
    return [_pool(run, benchmark, probe, kept) for run, benchmark, probe in shown_of(runs, N_POOLS)]


def _pool(run: Run, benchmark: str, probe: str, kept: PageFigures) -> Shown:
    return {
        "benchmark": benchmark,
        "whose": f"{benchmark}, by {run.label} and {probe}",
        "confusion": _or_reason(lambda: confusion.section(read_answers(run, benchmark, probe), kept)),
        "map": _or_reason(lambda: {"charts": feature_map.charts(run, benchmark, kept)}),
    }


def _or_reason(show: Callable[[], Shown]) -> Shown:
    """Return the content, or why it cannot be shown."""
    try:
        return {"missing": "", **show()}
    except (UserError, OSError) as error:
        return {"missing": reason_of(error), "said": [], "pairs": [], "classes": [], "charts": []}
