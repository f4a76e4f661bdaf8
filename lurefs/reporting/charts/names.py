"""Names on charts, fitted to the room that they have and still told apart."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Sequence

from lurefs.comparing.finished_runs import unique_labels

_SHARES = sorted((share / 20 for share in range(21)), key=lambda share: abs(share - 0.5))
"""Shares of a cut name that its beginning may have, a half first."""
_N_SEEDS = re.compile(r"\((\d+) seeds\)")
_RIGHT_TO_LEFT = re.compile(r"([\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]\S*)(?=\s)")


def n_cells(text: str) -> float:
    """Return the width of a text, in widths of a small letter: M takes 1.6, Chinese letters and emoji 2."""
    return sum(
        0.0
        if unicodedata.combining(letter)
        else 2.0
        if unicodedata.east_asian_width(letter) in "WF"
        else 1.6
        if letter in "MWm@%"
        else 1.2
        if letter.isupper() or letter == "w"
        else 1.0
        for letter in text
    )


def fitted(labels: Sequence[str], width: float, *, n_lines: int = 1) -> list[str]:
    """Return labels in lines of a width; those that need more lines lose their middle, where no two become equal.

    Args:
        labels: The names on one chart.
        width: Of a line, see `n_cells`.
        n_lines: The most lines of a label.
    """
    shown: list[str] = []
    for share in _SHARES:
        shown = [_cut(label, width * n_lines, share) for label in labels]
        if len(set(shown)) == len(set(labels)):
            break
    else:
        shown = unique_labels(shown)
    return ["\n".join(_lines(_guarded(label), width, n_lines)) for label in shown]


def _cut(label: str, width: float, share: float) -> str:
    """Replace the middle of a label that is too wide; its beginning gets a share of the rest."""
    if n_cells(label) <= width:
        return label
    n_kept = max(1, int(width * len(label) / n_cells(label)) - 1)
    n_first = round(share * n_kept)
    return f"{label[:n_first].rstrip()}…{label[len(label) - n_kept + n_first :].lstrip()}"


def _lines(label: str, width: float, n_lines: int) -> list[str]:
    """Break a label between words, a difference before the second name, or anywhere if there are too few lines."""
    if n_lines == 1 or n_cells(label) <= width:
        return [label]
    parts = re.split("(?<= \u2212) ", _N_SEEDS.sub("(\\1\u00a0seeds)", label))
    for n_letters in range(max(1, int(width)), 0, -1):
        lines = [line.replace("\u00a0", " ") for part in parts for line in textwrap.wrap(part, n_letters)]
        if len(lines) > n_lines:
            break
        if all(n_cells(line) <= width for line in lines):
            return lines
    n_each = -(-len(label) // n_lines)
    return [label[start : start + n_each] for start in range(0, len(label), n_each)]


def _guarded(label: str) -> str:
    """Return a label that matplotlib does not hide if it starts with `_`, and whose words stay in order.

    After a word that is read from right to left, an invisible mark keeps digits and signs from joining it.
    """
    text = _RIGHT_TO_LEFT.sub("\\1\u200e", label)
    return f"\u200b{text}" if text.startswith("_") else text
