"""Style of all charts: colours, markers, dashes, legends, and their export as SVG.

Lines differ by colour, marker and dash, so that nobody needs the colours. There are 36 styles; no two of the first 18
share more than one of the three.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from html import escape, unescape
from typing import TYPE_CHECKING, Any, ParamSpec

from lurefs import console
from lurefs.errors import first_line, of_the_machine
from lurefs.reporting.charts.names import fitted, n_cells

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, for any form of colour vision; yellow is too light for lines.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚")
"""The markers as characters."""
DASH_DOT_DOT = (0, (5, 1.5, 1.5, 1.5, 1.5, 1.5))
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (11, 2.5)), DASH_DOT_DOT)
INK, MUTED, RULE, PAPER = "#20242b", "#5b6472", "#d9dde3", "#fffffe"
WIDTH_INCHES = 4.6
HEIGHT_INCHES = 3.1
UNDRAWN = "This figure could not be drawn"
P = ParamSpec("P")
MAX_NAMED = 10
"""If there are more curves, those with a higher style are thin, grey and without a name in the legend."""


def drawn(draw: Callable[P, str]) -> Callable[P, str]:
    """Let a drawing that fails be an SVG that says so, so that the rest of its page is made."""

    @wraps(draw)
    def draw_or_tell(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return draw(*args, **kwargs)
        except Exception as error:
            if of_the_machine(error) is not None:
                raise
            return _undrawn(kwargs.get("name"), error)

    return draw_or_tell


def _undrawn(name: object, error: Exception) -> str:
    """Say on stderr that a figure is missing; return an SVG that says it."""
    words = f"{UNDRAWN}: {type(error).__name__}: {first_line(error)}"
    console.note(f"{name}: {words}")
    text = f'<text x="4" y="24" font-size="11" style="fill: {INK}">{escape(words[:110])}</text>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 40">{text}</svg>'


@contextmanager
def chart_context(name: str) -> Iterator[None]:
    """Let charts look alike, and their files depend on nothing but their content: not on a user's style or backend.

    Import matplotlib only within it.
    """
    _load_matplotlib()
    import matplotlib

    settings: Any = {
        "svg.hashsalt": name,
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "axes.edgecolor": RULE,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": RULE,
        "grid.linewidth": 0.7,
        "figure.facecolor": PAPER,
        "axes.facecolor": "none",
        "legend.frameon": False,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def _load_matplotlib() -> None:
    """Import matplotlib, which must not fail for want of a backend: charts here need none.

    A notebook names its own in `MPLBACKEND`, also for the processes that it starts, which may not have it. Where there
    is such a backend, the user's own charts keep it.
    """
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib

        if backend:
            with suppress(ValueError):
                matplotlib.rcParams["backend"] = backend
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def new_chart(*, height_inches: float = HEIGHT_INCHES) -> tuple[Figure, Axes]:
    """Return an empty figure and its axes."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def look_of(index: int) -> dict[str, Any]:
    """Return matplotlib's settings for the line of a style."""
    turn = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + turn) % len(MARKERS)],
        "linestyle": DASHES[(index + 2 * turn) % len(DASHES)],
        "markersize": 5.5,
        "linewidth": 1.8,
    }


def glyph_of(index: int) -> str:
    """Return the marker of a style as a character."""
    return GLYPHS[MARKERS.index(look_of(index)["marker"])]


def name_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Label x and y."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


CELLS_PER_INCH = 12.5
"""Small letters of a legend that fit into an inch, see `n_cells`; its lines and gaps take ten a column."""
NAME_LINES = 4
"""The most lines of a name in a legend."""


def add_legend(axes: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Add a legend above the chart, over its full width, if there are several curves; the chart grows with it."""
    if len(labels) < 2:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    room = CELLS_PER_INCH * figure.get_figwidth()
    shown = fitted(labels, room - 10, n_lines=NAME_LINES)
    n_columns = max(1, min(len(shown), int(room // (max(map(n_cells, shown)) + 10))))
    n_lines = -(-len(shown) // n_columns) if n_columns > 1 else sum(1 + text.count("\n") for text in shown)
    figure.set_figheight(figure.get_figheight() + 0.21 * max(0, n_lines - 2))
    figure.legend(handles, shown, loc="outside upper left", ncols=n_columns, handlelength=2.8, fontsize=10)


def mark(artist: Artist, style: int, texts: Sequence[str]) -> None:
    """Attach hover texts to an artist; `to_svg` turns them into `<title>` elements.

    Args:
        artist: A patch, or a line with one marker per text.
        style: Style of its runs, which the page highlights together.
        texts: One for the whole, or one per marker.
    """
    artist.set_gid("mark " + json.dumps([style, *texts]))


def to_svg(figure: Figure, name: str) -> str:
    """Return a figure as SVG, with the texts of its marks."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Texts stay texts: the browser's fonts have the glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "lurefs", "Title": name})
    return _with_titles(buffer.getvalue())


def _with_titles(svg: str) -> str:
    """Replace the ids from `mark` by groups with titles."""
    parts = re.split(r"""<g id=(["'])mark (\[.*?\])\1>""", svg)
    titled = [parts[0]]
    for encoded, body in zip(parts[2::3], parts[3::3], strict=True):
        style, *texts = json.loads(unescape(encoded))
        opened = [f'<g class="mark" data-group="{style}"><title>{escape(text)}</title>' for text in texts]
        if len(texts) == 1:
            titled += [opened[0], body]
        else:
            before, *markers = re.split(r"(?=<use )", body, maxsplit=len(texts))
            titled += [f'<g data-group="{style}">', before]
            titled += [
                opening + marker.replace("/>", "/></g>", 1) for opening, marker in zip(opened, markers, strict=True)
            ]
    return "".join(titled)


def inline(svg: str, *, name: str, label: str) -> str:
    """Return an SVG file as an element for a page: ids have the prefix `name`, screen readers say `label`."""
    view_box = re.search(r'viewBox="([^"]*)"', svg)
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    for index, colour in enumerate(COLOURS):
        body = body.replace(colour, f"var(--series-{index})")
    for colour, variable in ((INK, "ink"), (MUTED, "muted"), (RULE, "rule"), (PAPER, "paper")):
        body = body.replace(colour, f"var(--{variable})")
    assert view_box is not None
    return f'<svg class="chart" viewBox="{view_box[1]}" role="img" aria-label="{escape(label)}">{body}</svg>'
