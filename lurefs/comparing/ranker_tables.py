"""Rankers and scores without episodes as texts, for the terminal, files and the page."""

from __future__ import annotations

from collections.abc import Sequence

from lurefs.comparing.rankers import RANKERS, RankerRow, Ranking
from lurefs.comparing.texts import MISSING, joined, number, p_value, percent

COLUMNS = ("ranker", "points to", "accuracy %", "regret", "95 % regret", "tau", "95 % tau", "p tau")
_OVER = {"classes": "new classes", "pool": "this pool", "seeds": "new seeds"}
_MOST_NAMED = 2


def ranker_title(ranking: Ranking) -> str:
    """Return the title of the table of rankers of a benchmark."""
    return f"Which of {len(ranking.groups)} backbones, without episodes? {ranking.benchmark}, {ranking.probe}"


def ranker_texts(ranking: Ranking) -> list[tuple[str, ...]]:
    """Return the texts of `COLUMNS` of each ranker, smallest regret first; a choice at random comes last."""
    *rankers, at_random = ranking.rows
    return [_texts(row) for row in (*sorted(rankers, key=lambda row: row.regret), at_random)]


def ranker_notes(ranking: Ranking) -> list[str]:
    """Return remarks on the table: scopes, rankers without scores, backbones without scores."""
    row = ranking.rows[0]
    notes = [f"Regret: over {_OVER[row.regret_scope]}. Tau: over {_OVER[row.tau_scope]}."]
    if missing := [ranker for ranker in RANKERS if ranker not in ranking.scores]:
        notes.append(f"Rankers without a score of some backbone are left out: {joined(missing)}.")
    if ranking.left_out:
        notes.append(
            f"Without scores, and left out: {joined(ranking.left_out)}. 'lurefs evaluate' with the run's --config and "
            "--run-dir adds them."
        )
    return notes


def score_columns(ranking: Ranking) -> tuple[str, ...]:
    """Return the columns of the table of scores."""
    heads = {"nearest centroid": "nearest centroid %", "parameters": "weights, M"}
    return ("run", "accuracy %", *(heads.get(ranker, ranker) for ranker in ranking.scores))


def score_texts(ranking: Ranking) -> list[tuple[str, ...]]:
    """Return the texts of `score_columns` of each backbone, highest accuracy first."""
    labels = sorted(ranking.accuracies, key=lambda label: -ranking.accuracies[label])
    return [
        (
            label,
            percent(ranking.accuracies[label]),
            *(_score(ranker, of_group[label]) for ranker, of_group in ranking.scores.items()),
        )
        for label in labels
    ]


def ranker_legend() -> list[str]:
    """Explain scores, regret and tau."""
    return [
        "Without episodes: LogME, H-score and the leave-one-out nearest centroid use the labels of all images of a "
        "benchmark, so they are no few-shot measurement; parameters are the number to beat.",
        "Regret: accuracy of the best backbone on these episodes minus that of the one that a ranker points to, in "
        "points. The best is picked by the same episodes, so the figure is on average a little too high; the interval "
        "allows for that. It holds the choice fixed.",
        "Tau: Kendall's tau-b with the accuracies; its interval is the range that the tests of all pairs leave open. "
        "p tau: of no relation, with these backbones as the sample. Several seeds of one backbone are one, by their "
        "means.",
    ]


def _texts(row: RankerRow) -> tuple[str, ...]:
    chosen = joined(row.chosen) if len(row.chosen) <= _MOST_NAMED else f"any of {len(row.chosen)}"
    return (
        row.ranker,
        chosen,
        percent(row.accuracy),
        percent(row.regret),
        f"{percent(row.regret_low)} to {percent(row.regret_high)}",
        *_tau(row),
    )


def _tau(row: RankerRow) -> Sequence[str]:
    if row.tau is None or row.tau_low is None or row.tau_high is None:
        return (MISSING,) * 3
    return _signed(row.tau), f"{_signed(row.tau_low)} to {_signed(row.tau_high)}", p_value(row.p)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _score(ranker: str, value: float) -> str:
    if ranker == "nearest centroid":
        return percent(value)
    return f"{value / 1e6:.3g}" if ranker == "parameters" else number(value, 3)
