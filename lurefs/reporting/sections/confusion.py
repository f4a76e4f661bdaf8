"""Hard classes and confusions, as tables, a sentence and a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from episodes.arrays import FloatArray
from episodes.confusion import Confusion, count_confusions, order_by_likeness
from lurefs.comparing.answers import Answers
from lurefs.comparing.texts import count, counted, percent
from lurefs.errors import UserError
from lurefs.records import Row
from lurefs.reporting.charts.names import fitted
from lurefs.reporting.charts.page_figures import PageFigures
from lurefs.reporting.charts.style import COLOURS, INK, MUTED, RULE, chart_context, drawn, name_axes, new_chart, to_svg

N_PAIRS, N_CLASSES, N_CELLS = 12, 40, 12
MAX_CLASSES = 1000
"""Pairs are counted in square tables, which take about fifty megabytes at this size."""
MOST_OPAQUE = 0.6
"""Opacity of the darkest cell; its number must be readable on light and dark pages."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The class of some queries, and another class that was predicted for them."""

    asked: int
    taken_for: int


def section(answers: Answers, kept: PageFigures) -> dict[str, Any]:
    """Return the tables, sentence and chart on the classes of one benchmark.

    Raises:
        UserError: There are too many classes, or fewer answers than queries.
    """
    names = answers.images.class_names
    if len(names) > MAX_CLASSES:
        raise UserError(
            f"{answers.benchmark} has {len(names):,} classes",
            f"at most {MAX_CLASSES:,}",
            "a benchmark of fewer classes",
        )
    try:
        found = count_confusions(answers.manifest.block, answers.predicted, len(names))
    except ValueError as error:
        problem = f"the answers on {answers.benchmark} are not those of its episodes: {error}"
        raise UserError(problem, "answers and episodes of one evaluation", "run 'lurefs evaluate' again") from error
    pairs = confused_pairs(found)
    classes = _hardest_first(found)
    return {
        "said": in_words(found, pairs[:1], names),
        "pairs": [_pair_row(found, pair, names) for pair in pairs[:N_PAIRS]],
        "n_pairs": count(len(pairs)),
        "classes": [_class_row(found, label, pairs, names) for label in classes[:N_CLASSES]],
        "of_classes": f"{'all' if len(classes) <= N_CLASSES else f'the {N_CLASSES} hardest of'} {count(len(classes))}",
        "charts": _heat_map_chart(found, pairs, names, answers, kept),
    }


def confused_pairs(found: Confusion) -> list[Pair]:
    """Return the pairs that were confused at least once, highest lower end of their interval first.

    By the rate itself, pairs that met in a single episode would come first.
    """
    low, _ = found.interval
    is_pair = found.n_taken > 0
    np.fill_diagonal(is_pair, False)
    asked, taken_for = np.nonzero(is_pair)
    order = np.argsort(-low[asked, taken_for], kind="stable")
    return [Pair(asked=int(a), taken_for=int(b)) for a, b in zip(asked[order], taken_for[order], strict=True)]


def in_words(found: Confusion, pairs: Sequence[Pair], names: Sequence[str]) -> list[str]:
    """Say how often the one class of each pair was taken for the other, with the counts."""
    rate = found.rate
    return [
        f"When {names[pair.asked]} and {names[pair.taken_for]} met in an episode, {names[pair.asked]} was taken for "
        f"{names[pair.taken_for]} in {percent(rate[pair.asked, pair.taken_for], 1)}\u00a0% of its "
        f"{counted(int(found.n_queries[pair.asked, pair.taken_for]), 'query')}, in "
        f"{counted(int(found.n_episodes[pair.asked, pair.taken_for]), 'episode')}."
        for pair in pairs
    ]


def cells_of(pairs: Sequence[Pair], n_most: int) -> list[int]:
    """Return up to `n_most` classes of the first pairs, each once."""
    seen: dict[int, None] = {}
    for pair in pairs:
        seen.update(dict.fromkeys((pair.asked, pair.taken_for)))
    return list(seen)[:n_most]


def _hardest_first(found: Confusion) -> list[int]:
    """Return the classes that have queries, lowest accuracy first."""
    accuracy = np.diagonal(found.rate)
    asked = np.flatnonzero(np.diagonal(found.n_queries) > 0)
    return [int(label) for label in asked[np.argsort(accuracy[asked], kind="stable")]]


def _pair_row(found: Confusion, pair: Pair, names: Sequence[str]) -> Row:
    place = pair.asked, pair.taken_for
    return {
        "asked": names[pair.asked],
        "taken_for": names[pair.taken_for],
        "rate": percent(found.rate[place], 1),
        "interval": _interval(found, place),
        "reverse": percent(found.rate[place[::-1]], 1),
        "queries": count(int(found.n_queries[place])),
        "episodes": count(int(found.n_episodes[place])),
    }


def _class_row(found: Confusion, label: int, pairs: Sequence[Pair], names: Sequence[str]) -> Row:
    worst = next((pair for pair in pairs if pair.asked == label), None)
    return {
        "name": names[label],
        "accuracy": percent(found.rate[label, label], 1),
        "interval": _interval(found, (label, label)),
        "queries": count(int(found.n_queries[label, label])),
        "episodes": count(int(found.n_episodes[label, label])),
        "taken_for": ""
        if worst is None
        else f"{names[worst.taken_for]} {percent(found.rate[label, worst.taken_for], 1)}",
    }


def _interval(found: Confusion, place: tuple[int, int]) -> str:
    low, high = found.interval
    return f"{percent(low[place], 1)} – {percent(high[place], 1)}"


def _heat_map_chart(
    found: Confusion, pairs: Sequence[Pair], names: Sequence[str], answers: Answers, kept: PageFigures
) -> list[dict[str, Any]]:
    shown = np.array(cells_of(pairs, N_CELLS), dtype=np.int64)
    if len(shown) < 3:
        return []
    rate = found.rate[np.ix_(shown, shown)]
    order = order_by_likeness(rate)
    shown, rate = shown[order], rate[np.ix_(order, order)]
    name = f"confusion-{answers.benchmark}"
    svg = heat_map(rate, [names[label] for label in shown], name=name)
    caption = (
        f"The {len(shown)} classes of {answers.benchmark} that are confused most; those that are confused with each "
        "other are side by side. Row: true class; column: predicted class; number: % of the row's queries, in "
        "episodes with both classes. A dot: the two never met."
    )
    said = " ".join(in_words(found, pairs[:3], names))
    return [kept.chart(name, svg, caption=caption, title="Confusions", said=said)]


@drawn
def heat_map(rate: FloatArray, names: Sequence[str], *, name: str) -> str:
    """Draw (n, n) rates as a heat map with percentages; darker is higher."""
    n = len(names)
    off_diagonal = np.where(np.eye(n, dtype=bool), 0, np.nan_to_num(rate))
    highest = float(off_diagonal.max()) or 1.0
    with chart_context(name):
        from matplotlib.patches import Rectangle

        figure, axes = new_chart(height_inches=4.6)
        for row, column in np.ndindex(n, n):
            corner = (column - 0.5, row - 0.5)
            if row == column:
                axes.add_patch(Rectangle(corner, 1, 1, facecolor=RULE, edgecolor="none"))
                continue
            value = rate[row, column]
            if value > 0:
                alpha = round(MOST_OPAQUE * float(value) / highest, 2)
                axes.add_patch(Rectangle(corner, 1, 1, facecolor=COLOURS[0], edgecolor="none", alpha=alpha))
            text, colour = ("·", MUTED) if np.isnan(value) else (f"{100 * value:.0f}", INK if value > 0 else MUTED)
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        axes.set_xlim(-0.5, n - 0.5)
        axes.set_ylim(n - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.grid(visible=False)
        shown = fitted(names, 18)
        axes.set_xticks(range(n), shown, rotation=90, fontsize=9)
        axes.set_yticks(range(n), shown, fontsize=9)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        name_axes(axes, "predicted class", "true class")
        return to_svg(figure, name)
