"""Section on how much is needed: the smallest differences that runs show, and these over the number of classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lurefs.comparing.finished_runs import reference_run
from lurefs.comparing.groups import Group
from lurefs.comparing.plan_tables import WHERE, at_hand, left_out, needs_texts
from lurefs.comparing.planning import Spread, plans, smallest_by_classes, spreads
from lurefs.comparing.texts import percent
from lurefs.comparing.verdicts import Cell
from lurefs.reporting.charts import curves
from lurefs.reporting.charts.page_figures import PageFigures

MAX_LINES = 6


def section(groups: Sequence[Group], cells: Iterable[Cell], kept: PageFigures) -> list[dict[str, Any]]:
    """Return a table and a chart per benchmark, by its first probe; nothing for a single group."""
    if len(groups) < 2:
        return []
    reference = reference_run([run for group in groups for run in group.runs])
    first: Mapping[str, str] = {name: probe for name, probe in reversed(list(cells))}
    made = []
    for name, probe in reversed(list(first.items())):
        found = spreads(groups, reference, name, probe, with_images=False)
        rows = [
            {
                "name": plan.name,
                "where": WHERE[plan.scope],
                "at_hand": at_hand(plan.design),
                "texts": needs_texts(plan),
                "between": " to ".join(percent(end) for end in plan.smallest_between or ()),
            }
            for spread in found
            for plan in plans(spread, is_short=True)
        ]
        if rows:
            which = f"by {probe}" + (f" ({words})" if (words := left_out(found)) else "")
            made.append({"name": name, "which": which, "rows": rows, "charts": _charts(name, found, kept)})
    return made


def _charts(name: str, found: Sequence[Spread], kept: PageFigures) -> list[dict[str, Any]]:
    lines = []
    for spread in found[:MAX_LINES]:
        if (curve := smallest_by_classes(spread)) is not None:
            lines.append(curves.Line(label=spread.name, x=curve[0], y=100 * curve[1], style=spread.style))
    if not lines:
        return []
    svg = curves.curves(
        lines, name=f"plan-{name}", x_label="classes", y_label="smallest difference, points", x_is_whole=False
    )
    caption = (
        f"The smallest true difference on {name} that is shown with a chance of 80\u00a0% on new classes, over the "
        "number of classes, with the episodes at hand."
    )
    return [kept.chart(f"plan-{name}", svg, title="More classes", caption=caption)]
