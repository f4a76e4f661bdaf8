"""A map of the features of some classes: each image a point, neighbours near one another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.bank import FeatureBank
from episodes.projection import PERPLEXITY, project
from lurefs.errors import UserError
from lurefs.reporting.chart_style import INK, PAPER, chart_context, look_of, new_chart, short, to_svg
from lurefs.reporting.comparison import Run
from lurefs.reporting.page_figures import PageFigures
from lurefs.reporting.sheets import spread

MAX_CLASSES, MAX_IMAGES = 12, 50
MIN_POINTS = 10
SEED = 0
IntArray = NDArray[np.int64]


def charts(run: Run, benchmark: str, kept: PageFigures) -> list[dict[str, Any]]:
    """Return the map of a benchmark's features by one run, as the one chart of a list.

    Raises:
        UserError: The features are gone or damaged, or too few.
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
        f"all, by {run.label}: t-SNE at perplexity {PERPLEXITY:g} of features of length one, begun at their principal "
        "components. Images that are near one another here have like features; how far apart two groups are, how "
        "large they are, and where they lie mean nothing."
    )
    said = f"Classes: {', '.join(bank.class_names[label] for label in shown)}."
    return [kept.chart(name, svg, caption=caption, title="Map of the features", said=said)]


def rows_to_map(bank: FeatureBank) -> IntArray:
    """Return rows of up to `MAX_IMAGES` images of up to `MAX_CLASSES` classes, both spread evenly over all."""
    classes = spread(np.unique(bank.labels), MAX_CLASSES)
    return np.concatenate([spread(np.flatnonzero(bank.labels == label), MAX_IMAGES) for label in classes])


def scatter_classes(places: NDArray[np.float64], labels: IntArray, names: Sequence[str], *, name: str) -> str:
    """Draw (n, 2) places, those of a class by one marker and colour, its name above most of them.

    Args:
        places: Where the images lie.
        labels: (n,) their classes.
        names: Of the classes, in ascending order of their labels.
        name: Salt of the file's ids.
    """
    with chart_context(name):
        figure, axes = new_chart(height_inches=4.4)
        for style, label in enumerate(np.unique(labels)):
            look = {**look_of(style), "linestyle": "none", "markersize": 4.2, "alpha": 0.75, "markeredgewidth": 0}
            axes.plot(*places[labels == label].T, **look)
        for style, label in enumerate(np.unique(labels)):
            middle = np.median(places[labels == label], axis=0)
            box = {
                "facecolor": PAPER,
                "edgecolor": look_of(style)["color"],
                "linewidth": 0.8,
                "alpha": 0.85,
                "pad": 1.5,
            }
            axes.text(*middle, short(names[style], 18), ha="center", va="center", fontsize=9, color=INK, bbox=box)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        return _rounded(to_svg(figure, name))


def _rounded(svg: str) -> str:
    """Return a drawing whose places have one decimal: a tenth of a point, which nobody sees."""
    return re.sub(r'(\b[xy]="-?\d+\.\d)\d+', r"\1", svg)
