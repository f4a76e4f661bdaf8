"""Standings as tables of texts, for the terminal, Markdown and LaTeX alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from lurefs.comparing.across_sets import AcrossSets, SetsRow
from lurefs.comparing.calibration_words import calibration_notes
from lurefs.comparing.choices import choice_notes
from lurefs.comparing.data_words import data_notes
from lurefs.comparing.estimates import Estimate, Scope
from lurefs.comparing.fine_tuning import (
    FINE_TUNED_LEGEND,
    GIVE_WAY,
    fine_tuned_differences,
    fine_tuned_texts,
    is_fine_tuned,
)
from lurefs.comparing.groups import Group
from lurefs.comparing.more_seeds import missing_seeds
from lurefs.comparing.ranker_tables import (
    COLUMNS,
    ranker_legend,
    ranker_notes,
    ranker_texts,
    ranker_title,
    score_columns,
    score_texts,
)
from lurefs.comparing.rankers import Ranking
from lurefs.comparing.standing_rows import Standing
from lurefs.comparing.standings import Standings
from lurefs.comparing.texts import (
    MISSING,
    PERFECT,
    count,
    counted,
    duration,
    half_width,
    number,
    p_value,
    percent,
    points,
)
from lurefs.comparing.verdict_words import (
    UNCORRECTED,
    as_sentence,
    control_note,
    correction_words,
    idle_resets,
    not_above_controls,
    other_settings,
    single_trainings,
)
from lurefs.comparing.verdicts import Verdicts

ONE_POOL = (
    "The images of the pool are fixed, too: with other images of the same classes a mean moves by more than ± pool "
    "(lurefs compare --over images)."
)


MAX_SHOWN = 60
"""Rows of a table on the terminal; files have all."""


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table whose cells are texts, formatted for readers.

    Attributes:
        title: Its title.
        columns: Column headers; the first is that of the rows' names.
        rows: One text per column.
        notes: Remarks on single rows.
        optional: Indices of the columns to drop if the terminal is too narrow, in this order.
        is_explained: Whether it needs `legend`.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    optional: tuple[int, ...] = ()
    is_explained: bool = False


def text_tables(standings: Standings) -> list[TextTable]:
    """Return one table of results per benchmark and probe, best group first and controls last, and one of costs.

    A fine-tuned probe has a second table, against probes on fixed features. Benchmarks of one form on several data sets
    have one across these. From five backbones on there are tables of scores without episodes.
    """
    found = [
        table
        for verdicts in standings.verdicts.values()
        for table in (_results(standings, verdicts), *_fine_tuning(verdicts))
    ]
    rankers = [table for ranking in standings.rankings for table in ranker_tables(ranking)]
    return [*found, *map(across_table, standings.across), *rankers, _costs(standings)]


def short_tables(standings: Standings) -> list[TextTable]:
    """Return `text_tables` for the terminal: of many rows the first ones, the reference and the controls."""
    kept = {standings.reference, *(row.name for row in standings.controls)}
    return [_shortened(table, kept) for table in text_tables(standings)]


def _shortened(table: TextTable, kept: Collection[str | None]) -> TextTable:
    if len(table.rows) <= MAX_SHOWN:
        return table
    rows = tuple(row for place, row in enumerate(table.rows) if place < MAX_SHOWN or row[0] in kept)
    notes = [note for note in table.notes if not any(note.startswith(f"{row[0]}: ") for row in table.rows[MAX_SHOWN:])]
    n_left_out = len(table.rows) - len(rows)
    notes.append(f"{counted(n_left_out, 'row')} of {count(len(table.rows))} left out; comparison.csv has all")
    return replace(table, rows=rows, notes=tuple(notes))


def legend(standings: Standings) -> list[str]:
    """Explain the columns of the results that these standings have."""
    groups = _groups(standings)
    models = "these trained models" if any(group.is_trained for group in groups) else "these models"
    scopes = {
        "ci95_episodes": f"{models} on this pool of classes and images, over episodes (± pool)",
        "ci95_classes": f"{models} on average over new classes of this kind (± new)",
        "ci95_seeds": "on average over new training seeds, on this pool of classes and images (± seeds)",
        "ci95_images": f"{models} with other images of the same classes (± images)",
    }
    has = {name: any(getattr(row, name) is not None for row in standings.groups) for name in scopes}
    said = (
        [f"95 % intervals: {'; '.join(words for name, words in scopes.items() if has[name])}."]
        if any(has.values())
        else []
    )
    if any(has.values()) and not has["ci95_images"]:
        said.append(ONE_POOL)
    said += missing_seeds(groups)
    if any(row.mean == 1 for row in (*standings.groups, *standings.controls)):
        said.append(f"−: {PERFECT}.")
    if any(pair.difference is not None for pair in standings.pairs):
        has_all_pairs = all(verdicts.has_all_pairs for verdicts in standings.verdicts.values())
        which = "pairs of a table" if has_all_pairs else "differences of a table from the reference"
        said += [
            UNCORRECTED,
            f"p: p-value of no difference, corrected for all {which}: the best may be picked afterwards.",
        ]
        if has_all_pairs or any(verdicts.letters for verdicts in standings.verdicts.values()):
            said.append(
                "Ties: runs that share a letter are not told apart, their corrected p is 0.05 or more"
                + (" (on this pool / on new classes)." if has["ci95_episodes"] else ".")
            )
    if any(is_fine_tuned(verdicts.groups, *cell) for cell, verdicts in standings.verdicts.items()):
        said.append(FINE_TUNED_LEGEND)
    if any(not across.no_interval for across in standings.across):
        said.append(
            "± sets: 95 % interval of the mean over data sets, on other data sets of this kind (Student's t over the "
            "means of the sets); p sets: p-value of no difference, corrected for all pairs."
        )
    if standings.rankings:
        said += ranker_legend()
    if standings.controls:
        said.append(
            "Controls: the same backbone untrained, with other initial weights; statistics of the images, without a "
            "network. They have no rank and no test."
        )
    return said


def _groups(standings: Standings) -> list[Group]:
    return list({group.label: group for found in standings.verdicts.values() for group in found.groups}.values())


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column of the results.

    Attributes:
        head: Its header.
        text: Returns the text of a row.
        gives_way: Place in the order of dropped columns, from 1; 0 if it is never dropped.
        is_needed: Whether it is shown even if no group has a value for it.
    """

    head: str
    text: Callable[[Standing], str]
    gives_way: int = 0
    is_needed: bool = False


def _results(standings: Standings, verdicts: Verdicts) -> TextTable:
    key = (verdicts.benchmark, verdicts.probe)
    groups, controls = (
        [row for row in rows if (row.benchmark, row.probe) == key] for rows in (standings.groups, standings.controls)
    )
    rows = [*sorted(groups, key=_best_first), *controls]
    columns = [column for column in _COLUMNS if column.is_needed or any(column.text(row) != MISSING for row in groups)]
    optional = sorted((column.gives_way, place) for place, column in enumerate(columns) if column.gives_way)
    return TextTable(
        title=_title(standings, verdicts, groups),
        columns=tuple(column.head for column in columns),
        rows=tuple(tuple(column.text(row) for column in columns) for row in rows),
        notes=(*_notes(verdicts), *(f"{row.name}: {note}" for row in groups if (note := row.note or _cut_note(row)))),
        optional=tuple(place for _, place in optional),
        is_explained=True,
    )


def _title(standings: Standings, verdicts: Verdicts, groups: Sequence[Standing]) -> str:
    episodes = _episodes([row.n_episodes for row in groups if row.n_episodes is not None])
    if verdicts.benchmark in standings.cut:
        episodes = f"the first {episodes}, which all runs met"
    title = f"{verdicts.benchmark}, {verdicts.probe}, {episodes}"
    return f"{title}; difference from {standings.reference}, points" if standings.reference is not None else title


def _notes(verdicts: Verdicts) -> list[str]:
    """Return remarks on a table: groups that do not beat controls, resets without effect, tests, single trainings."""
    said = [as_sentence(text) for text in not_above_controls(verdicts)]
    said += idle_resets(verdicts.groups)
    said += [note for control in verdicts.controls if (note := control_note(control))]
    said += choice_notes(verdicts.groups, verdicts.benchmark, verdicts.probe)
    said += calibration_notes(verdicts.groups, verdicts.benchmark, verdicts.probe)
    said += data_notes(verdicts.groups, verdicts.benchmark)
    if words := correction_words(verdicts):
        said.append(f"p: {words}")
    if words := single_trainings(verdicts.groups):
        said.append(words)
    if words := other_settings([run for group in verdicts.groups for run in group.runs]):
        said.append(words)
    return said


def _best_first(row: Standing) -> float:
    return 1.0 if row.mean is None else -row.mean


def _cut_note(row: Standing) -> str:
    if row.n_paired is None or row.n_paired == row.n_episodes:
        return ""
    return f"difference on the first {count(row.n_paired)} episodes, which both met"


def _episodes(numbers: Sequence[int]) -> str:
    if not numbers:
        return "no episodes"
    fewest, most = min(numbers), max(numbers)
    return f"{count(most)} episodes" if fewest == most else f"{count(fewest)} to {count(most)} episodes"


def _letters(row: Standing) -> str:
    if row.ties_seeds:
        return row.ties_seeds
    letters = [row.ties_pool or MISSING, row.ties_classes or MISSING] if row.ties_pool or row.ties_classes else []
    return "/".join(letters) or MISSING


_COLUMNS = (
    _Column(head="run", text=lambda row: row.name, is_needed=True),
    _Column(
        head="seeds",
        text=lambda row: count(row.n_runs) if row.kind == "group" and row.n_runs > 1 else MISSING,
        gives_way=1,
    ),
    _Column(head="accuracy %", text=lambda row: percent(row.mean), is_needed=True),
    _Column(head="± pool", text=lambda row: half_width(row.mean, row.ci95_episodes), gives_way=6),
    _Column(head="± new", text=lambda row: half_width(row.mean, row.ci95_classes), gives_way=5),
    _Column(head="± seeds", text=lambda row: half_width(row.mean, row.ci95_seeds)),
    _Column(head="± images", text=lambda row: half_width(row.mean, row.ci95_images)),
    _Column(head="ties", text=_letters),
    _Column(head="diff.", text=lambda row: MISSING if row.difference is None else points(row.difference)),
    _Column(head="± pool", text=lambda row: percent(row.difference_ci95_episodes)),
    _Column(head="± new", text=lambda row: percent(row.difference_ci95_classes)),
    _Column(head="± seeds", text=lambda row: percent(row.difference_ci95_seeds)),
    _Column(head="± images", text=lambda row: percent(row.difference_ci95_images)),
    _Column(head="p pool", text=lambda row: p_value(row.p_episodes)),
    _Column(head="p new", text=lambda row: p_value(row.p_classes)),
    _Column(head="p seeds", text=lambda row: p_value(row.p_seeds)),
    _Column(
        head="win/tie/loss",
        text=lambda row: MISSING if row.n_wins is None else f"{row.n_wins}/{row.n_ties}/{row.n_losses}",
        gives_way=2,
    ),
    _Column(head="ECE %", text=lambda row: percent(row.ece, 1), gives_way=4),
    _Column(head="base test %", text=lambda row: percent(row.base_test_accuracy, 1), gives_way=3),
)


def _fine_tuning(verdicts: Verdicts) -> list[TextTable]:
    """Return the table of a fine-tuned probe against probes on fixed features; none for other probes."""
    found = fine_tuned_differences(verdicts.groups, verdicts.benchmark, verdicts.probe)
    if not found:
        return []
    rows = [fine_tuned_texts(difference) for difference in found]
    columns = [name for name in rows[0] if any(row[name] != MISSING for row in rows)]
    return [
        TextTable(
            title=f"{verdicts.benchmark}, {verdicts.probe} minus probes on fixed features of the same run, points",
            columns=tuple(columns),
            rows=tuple(tuple(row[name] for name in columns) for row in rows),
            optional=tuple(columns.index(name) for name in GIVE_WAY if name in columns),
            is_explained=True,
        )
    ]


def ranker_tables(ranking: Ranking) -> list[TextTable]:
    """Return the tables of rankers and of their scores on a benchmark."""
    title = f"Scores without episodes, {ranking.benchmark}"
    return [
        TextTable(
            title=ranker_title(ranking),
            columns=COLUMNS,
            rows=tuple(ranker_texts(ranking)),
            notes=tuple(ranker_notes(ranking)),
            optional=tuple(COLUMNS.index(name) for name in ("p tau", "accuracy %", "95 % tau")),
            is_explained=True,
        ),
        TextTable(title=title, columns=score_columns(ranking), rows=tuple(score_texts(ranking))),
    ]


def across_table(across: AcrossSets) -> TextTable:
    """Return the table across data sets: for each group or control its mean over them, then each data set."""
    widths = [f"± {name}" for name in (*_WIDTHS.values(), "sets")]
    heads = ("run", "data set", "accuracy %", *widths, "diff.", *widths, "p sets")
    rows = [text for row in across.rows for text in _across_rows(across, row)]
    shown = [place for place in range(len(heads)) if place < 3 or any(text[place] != MISSING for text in rows)]
    pools = [place for place, head in enumerate(heads) if head == widths[0]]
    against = f"; difference from {across.reference}, points" if across.reference is not None else ""
    notes = [across.no_interval, *(row.note and f"{row.name}: {row.note}" for row in across.rows)]
    return TextTable(
        title=f"Across {len(across.sets)} data sets, {across.form}, {across.probe}{against}",
        columns=tuple(heads[place] for place in shown),
        rows=tuple(tuple(text[place] for place in shown) for text in rows),
        notes=tuple(filter(None, notes)),
        optional=tuple(shown.index(place) for place in reversed(pools) if place in shown),
        is_explained=True,
    )


def _across_rows(across: AcrossSets, row: SetsRow) -> list[tuple[str, ...]]:
    nothing = (MISSING,) * len(_WIDTHS)
    mean, difference = row.mean, row.difference
    of_all = (percent(mean.mean), *nothing, percent(mean.ci95_sets))
    of_all += (_signed(difference.mean), *nothing, percent(difference.ci95_sets), p_value(difference.p_sets))
    rows = [(row.name, f"mean of {len(across.sets)}", *of_all)]
    for name, accuracy, less in zip(across.sets, row.accuracies, row.differences, strict=True):
        own = (*_with_widths(accuracy, percent), MISSING, *_with_widths(less, _signed), MISSING, MISSING)
        rows.append((row.name, name, *own))
    return rows


_WIDTHS: Mapping[Scope, str] = MappingProxyType({"pool": "pool", "classes": "new", "seeds": "seeds"})
"""Scopes of the intervals on a single data set, and how columns are called."""


def _with_widths(estimate: Estimate | None, text: Callable[[float | None], str]) -> tuple[str, ...]:
    if estimate is None:
        return (MISSING,) * (1 + len(_WIDTHS))
    return text(estimate.mean), *(percent(estimate.half_widths.get(scope)) for scope in _WIDTHS)


def _signed(difference: float | None) -> str:
    return MISSING if difference is None else points(difference)


def _costs(standings: Standings) -> TextTable:
    devices = {
        (run.device, run.n_threads): f"{run.device}, {counted(run.n_threads or 1, 'thread')}"
        for run in standings.runs
        if run.device is not None
    }
    several = f"Speeds were measured on several machines: {'; '.join(devices.values())}"
    names = dict.fromkeys(row.name for row in standings.groups)
    return TextTable(
        title="What it costs" + (f" ({next(iter(devices.values()))})" if len(devices) == 1 else ""),
        columns=("run", "weights, M", "MACs, M", "images /s", "ms / episode", "training epochs"),
        rows=tuple(_cost([row for row in standings.groups if row.name == name]) for name in names),
        notes=(several,) if len(devices) > 1 else (),
    )


def _cost(rows: Sequence[Standing]) -> tuple[str, ...]:
    row = rows[0]
    spans = sorted((ms, number(ms, 2)) for each in rows if (ms := each.ms_per_episode) is not None)
    return (
        row.name,
        _millions(row.n_parameters),
        _millions(row.n_macs),
        MISSING if row.images_per_second is None else number(row.images_per_second, 0),
        MISSING if not spans else " to ".join(dict.fromkeys((spans[0][1], spans[-1][1]))),
        duration(row.train_seconds),
    )


def _millions(value: int | None) -> str:
    """Return a number in millions with three significant digits."""
    if value is None:
        return MISSING
    return f"{value / 1e6:.3g}" if value < 1e9 else number(value / 1e6, 0)
