"""Map of the features of some classes (t-SNE): each image is a point."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from episodes.bank import FeatureBank
from episodes.projection import PERPLEXITY, project
from lurefs.comparing.finished_runs import Run
from lurefs.errors import UserError
from lurefs.reporting.charts.episode_sheets import spread
from lurefs.reporting.charts.names import fitted, n_cells
from lurefs.reporting.charts.page_figures import PageFigures
from lurefs.reporting.charts.style import INK, PAPER, chart_context, drawn, look_of, new_chart, to_svg

MAX_CLASSES, MAX_IMAGES = 12, 50
MIN_POINTS = 10
SEED = 0
LETTER, LINE = 0.016, 0.048
"""Width of a letter and height of a name, as shares of the chart."""


def charts(run: Run, benchmark: str, kept: PageFigures) -> list[dict[str, Any]]:
    """Return a list with the map of a benchmark's features by one run.

    Raises:
        UserError: The features are missing or damaged, or too few.
    """
    bank = run.directory.read_bank(benchmark)
    rows = rows_to_map(bank)
    if len(rows) < MIN_POINTS:
        raise UserError(f"{benchmark} has {len(rows)} images", f"at least {MIN_POINTS}", "a benchmark of more images")
    labels = bank.labels[rows]
    shown = np.unique(labels)
    places = project(np.asarray(bank.features[rows], dtype=np.float32), seed=SEED)
    name = f"map-{benchmark}"
    svg = scatter_classes(places, labels, [bank.class_names[label] for label in shown], name=name)
    n_classes = len(np.unique(bank.labels))
    caption = (
        f"Features of {len(rows)} images of {len(shown)} of the {n_classes} classes of {benchmark}, spread evenly over "
        f"all, by {run.label}: t-SNE with perplexity {PERPLEXITY:g} of features of length one, started from their "
        "principal components. Images that are close together here have similar features; the distance between two "
        "groups, their sizes and their positions mean nothing."
    )
    said = f"Classes: {', '.join(bank.class_names[label] for label in shown)}."
    return [kept.chart(name, svg, caption=caption, title="Map of the features", said=said)]


def rows_to_map(bank: FeatureBank) -> IntArray:
    """Return the rows of up to `MAX_IMAGES` images of up to `MAX_CLASSES` classes, both spread evenly over all."""
    classes = spread(np.unique(bank.labels), MAX_CLASSES)
    return np.concatenate([spread(np.flatnonzero(bank.labels == label), MAX_IMAGES) for label in classes])


@drawn
def scatter_classes(places: NDArray[np.float64], labels: IntArray, names: Sequence[str], *, name: str) -> str:
    """Draw a scatter plot of images, one marker and colour per class, with the class names.

    Args:
        places: (n, 2) positions of the images.
        labels: (n,) their classes.
        names: Names of the classes, in ascending order of their labels.
        name: Salt of the file's ids.
    """
    groups = [places[labels == label] for label in np.unique(labels)]
    span = np.ptp(places, axis=0)
    with chart_context(name):
        figure, axes = new_chart(height_inches=4.4)
        for style, group in enumerate(groups):
            look = {**look_of(style), "linestyle": "none", "markersize": 4.5, "alpha": 0.75, "markeredgewidth": 0}
            axes.plot(*group.T, **look)
        shown = fitted(names, 18)
        above = np.array([_above(group) for group in groups])
        for style, (x, y) in enumerate(_apart(above / span, shown) * span):
            frame = {"edgecolor": look_of(style)["color"], "facecolor": PAPER, "alpha": 0.85, "lw": 0.8, "pad": 1.5}
            axes.text(x, y, shown[style], ha="center", va="bottom", fontsize=9, color=INK, bbox=frame)
        axes.set_xlim(places[:, 0].min() - 0.06 * span[0], places[:, 0].max() + 0.06 * span[0])
        axes.set_ylim(places[:, 1].min() - 0.06 * span[1], places[:, 1].max() + 0.1 * span[1])
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        return _rounded(to_svg(figure, name))


def _above(group: NDArray[np.float64]) -> tuple[float, float]:
    """Return the position of a class name: above the third of the class's points nearest to their medoid."""
    distances = np.linalg.norm(group[:, None] - group, axis=2)
    nearest = distances[distances.sum(axis=1).argmin()].argsort(kind="stable")
    core = group[nearest[: max(1, len(group) // 3)]]
    return float(np.median(core[:, 0])), float(core[:, 1].max())


def _apart(places: NDArray[np.float64], names: Sequence[str]) -> NDArray[np.float64]:
    """Move names down where they overlap, and return their (n, 2) places in shares of the chart."""
    apart = places.copy()
    widths = np.array([LETTER * (n_cells(text) + 2) for text in names])
    placed: list[int] = []
    for index in np.argsort(-places[:, 1], kind="stable"):
        for other in placed:  # from top to bottom, so that none of those before is met again
            is_beside = abs(apart[index, 0] - apart[other, 0]) >= (widths[index] + widths[other]) / 2
            if not is_beside and apart[index, 1] > apart[other, 1] - LINE:
                apart[index, 1] = apart[other, 1] - LINE
        placed = sorted([*placed, int(index)], key=lambda place: -apart[place, 1])
    return apart


def _rounded(svg: str) -> str:
    """Return an SVG with its positions rounded to a tenth of a point."""
    return re.sub(r'(\b[xy]="-?\d+\.\d)\d+', r"\1", svg)
