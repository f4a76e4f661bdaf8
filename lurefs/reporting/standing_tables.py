"""Standings as tables of texts: one form for the terminal, for Markdown and for LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lurefs.reporting.over_seeds import OverSeeds
from lurefs.reporting.standings import Standing, Standings
from lurefs.reporting.wording import MISSING, count, counted, duration, number, p_value, percent, points

LEGEND = (
    "± pool: 95 % interval on this pool of classes, over episodes; ± new: on new classes of this kind, over classes.",
    "p: no difference on this pool, sign flips over episodes, corrected for the number of runs (Holm).",
    "Ties: runs that share a letter are not told apart, on this pool / on new classes (all pairs, Holm, 5 %).",
)


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table as people read it.

    Attributes:
        title: What it shows, and over what its intervals are.
        columns: Heads of the columns; the first is that of the rows' names.
        rows: One text a column.
        notes: What a reader must know of single rows.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def text_tables(standings: Standings) -> list[TextTable]:
    """Return a table of results for each benchmark and probe, one over seeds where there are groups, and the costs.

    The best run stands first in the results; the costs are in the order of the runs.
    """
    found = [_results(standings, rows) for rows in standings.cells().values()]
    if standings.over_seeds:
        found.append(_over_seeds(standings.over_seeds))
    return [*found, _costs(standings)]


def _results(standings: Standings, rows: Sequence[Standing]) -> TextTable:
    is_compared = standings.reference is not None
    columns = ["run", "accuracy %", "± pool", "± new"]
    if is_compared:
        columns += ["ties", "difference", "± pool", "± new", "p", "win/tie/loss"]
    episodes = _episodes([row.n_episodes for row in rows if row.n_episodes is not None])
    if rows[0].benchmark in standings.cut:
        episodes = f"the first {episodes}, which all runs met"
    title = f"{rows[0].benchmark}, {rows[0].probe}, {episodes}"
    return TextTable(
        title=f"{title}; difference from {standings.reference}, points" if is_compared else title,
        columns=tuple(columns),
        rows=tuple(_result(row, is_compared=is_compared) for row in sorted(rows, key=_best_first)),
        notes=tuple(f"{row.run}: {note}" for row in rows if (note := row.note or _cut_note(row))),
    )


def _best_first(row: Standing) -> float:
    return 1.0 if row.mean is None else -row.mean


def _result(row: Standing, *, is_compared: bool) -> tuple[str, ...]:
    texts = (row.run, percent(row.mean), percent(row.ci95_episodes), percent(row.ci95_classes))
    if not is_compared:
        return texts
    letters = [row.ties_pool or MISSING, row.ties_classes or MISSING] if row.ties_pool or row.ties_classes else []
    return (
        *texts,
        " / ".join(letters) or MISSING,
        MISSING if row.difference is None else points(row.difference),
        percent(row.difference_ci95_episodes),
        percent(row.difference_ci95_classes),
        p_value(row.p_episodes),
        MISSING if row.n_wins is None else f"{row.n_wins}/{row.n_ties}/{row.n_losses}",
    )


def _cut_note(row: Standing) -> str:
    if row.n_paired is None or row.n_paired == row.n_episodes:
        return ""
    return f"difference on the first {count(row.n_paired)} episodes, which both met"


def _episodes(numbers: Sequence[int]) -> str:
    if not numbers:
        return "no episodes"
    fewest, most = min(numbers), max(numbers)
    return f"{count(most)} episodes" if fewest == most else f"{count(fewest)} to {count(most)} episodes"


def _over_seeds(rows: Sequence[OverSeeds]) -> TextTable:
    cells = list(dict.fromkeys((row.benchmark, row.probe) for row in rows))
    return TextTable(
        title="Over seeds: means of runs that differ only by their seed, 95 % intervals over seeds on this pool",
        columns=("runs", "benchmark", "probe", "seeds", "accuracy %", "± seeds", "difference", "± seeds", "p"),
        rows=tuple(
            (
                row.group,
                row.benchmark,
                row.probe,
                count(row.n_seeds),
                percent(row.mean),
                percent(row.ci95_seeds),
                MISSING if row.difference is None else points(row.difference),
                percent(row.difference_ci95_seeds),
                p_value(row.p_seeds),
            )
            for row in sorted(rows, key=lambda row: (cells.index((row.benchmark, row.probe)), -row.mean))
        ),
        notes=tuple(dict.fromkeys(f"{row.group}: {row.no_difference}" for row in rows if row.no_difference)),
    )


def _costs(standings: Standings) -> TextTable:
    devices = {
        (run.device, run.n_threads): f"{run.device}, {counted(run.n_threads or 1, 'thread')}"
        for run in standings.runs
        if run.device is not None
    }
    several = f"Speeds were measured on several machines: {'; '.join(devices.values())}"
    return TextTable(
        title="What it costs" + (f" ({next(iter(devices.values()))})" if len(devices) == 1 else ""),
        columns=("run", "parameters, M", "multiply-adds, M", "images a second", "ms an episode", "training"),
        rows=tuple(_cost([row for row in standings.rows if row.run == run.run]) for run in standings.runs),
        notes=(several,) if len(devices) > 1 else (),
    )


def _cost(rows: Sequence[Standing]) -> tuple[str, ...]:
    row = rows[0]
    spans = sorted({number(ms, 2): ms for each in rows if (ms := each.ms_per_episode) is not None}.items(), key=_second)
    return (
        row.run,
        _millions(row.n_parameters),
        _millions(row.n_macs),
        MISSING if row.images_per_second is None else number(row.images_per_second, 0),
        MISSING if not spans else " to ".join(dict.fromkeys((spans[0][0], spans[-1][0]))),
        duration(row.train_seconds),
    )


def _second(pair: tuple[str, float]) -> float:
    return pair[1]


def _millions(value: int | None) -> str:
    """Return a number in millions, with three digits that tell something."""
    if value is None:
        return MISSING
    return f"{value / 1e6:.3g}" if value < 1e9 else number(value / 1e6, 0)
