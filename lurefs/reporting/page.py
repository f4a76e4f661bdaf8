"""Report page: finished runs -> `report.html` and its figures. Nothing is measured here.

The page is one file that needs no network: charts are inline SVG, images are data URIs. It depends only on the files of
the runs, so equal files give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from episodes.comparison import N_FLIPS
from episodes.files import write_text
from episodes.metrics import Reliability
from lurefs.comparing.across_sets import across_sets
from lurefs.comparing.choices import choice_notes, choice_table, choices_of
from lurefs.comparing.finished_runs import Run, benchmarks_of, differing_settings, read_runs, reference_run
from lurefs.comparing.groups import MAX_RANKED, Group, best_first, groups_of
from lurefs.comparing.pairs import manifests_of
from lurefs.comparing.ranker_tables import ranker_legend
from lurefs.comparing.text_tables import across_table
from lurefs.comparing.texts import count
from lurefs.comparing.verdict_words import (
    UNCORRECTED,
    as_sentence,
    control_label,
    correction_words,
    other_settings,
    single_trainings,
)
from lurefs.comparing.verdicts import Cell, Verdicts, judge_all
from lurefs.config.load import to_yaml
from lurefs.errors import UserError, unwritable
from lurefs.reporting import series
from lurefs.reporting.charts import curves, heat_map, pareto
from lurefs.reporting.charts.group_styles import SEEDS, styled, styles_of
from lurefs.reporting.charts.page_figures import PageFigures
from lurefs.reporting.currency import is_current, made_from, with_origin
from lurefs.reporting.sections import (
    calibration,
    classes,
    episode_pictures,
    headline,
    interval_rows,
    leaderboard,
    learning,
    missing_files,
    narrative,
    planning,
    rankers,
    reliability,
    shots,
    tables,
    transfer,
)
from lurefs.runs.directory import RunDirectory

N_HEADLINES = 2


def write_report(directories: Sequence[RunDirectory], destination: Path | str) -> Path:
    """Write `report.html` and `figures/` about finished runs.

    Args:
        directories: The runs; those that met the same episodes are compared in pairs.
        destination: The folder for both.

    Returns:
        The path of the page.

    Raises:
        UserError: There is no run, a directory is not a finished run, one of its files is damaged, or the page cannot
            be written.
    """
    if not directories:
        raise UserError("there is no run to report on", "at least one run directory", "name one")
    return write_page(read_runs(directories), destination)


def write_page(runs: Sequence[Run], destination: Path | str, *, judged: Mapping[Cell, Verdicts] | None = None) -> Path:
    """Write the page about runs that were read, unless it is up to date; see `write_report`.

    Args:
        runs: At least one.
        destination: The folder for page and figures.
        judged: Verdicts on these runs, if known; missing ones are computed.

    Raises:
        UserError: A file of a run is damaged, or the page cannot be written.
    """
    path, origin = Path(destination) / "report.html", made_from(runs)
    if is_current(path, origin):
        return path
    groups = styled(groups_of(runs), best_first(runs))
    benchmarks = benchmarks_of(runs)
    judged = _judged(runs, benchmarks, judged or {})
    first = [judged[name, probes[0]] for name, probes in benchmarks.items() if probes]
    kept = PageFigures(path.parent / "figures")
    context = {
        "title": narrative.title(runs, groups),
        "names": [run.label for run in runs],
        "styles": styles_of(groups) | {group.label: group.style for group in groups},
        "lead": narrative.lead(runs, headline.warnings(first)),
        "facts": narrative.facts(runs),
        "doubts": [*missing_files.sentences(runs), *([f"{words}."] if (words := other_settings(runs)) else [])],
        "settings": _settings(runs),
        "headlines": [card for verdicts in first[:N_HEADLINES] if (card := headline.headline(verdicts)) is not None],
        "has_all_pairs": all(verdicts.has_all_pairs for verdicts in judged.values()),
        "has_pairs": any(verdicts.pairs for verdicts in judged.values()),
        "has_seeds": any(group.is_pooled for group in groups),
        "of_one_seed": any(group.is_of_one_seed for group in groups),
        "one_training": _one_training(groups, judged),
        "uncorrected": UNCORRECTED,
        "across": [across_table(across) for across in across_sets(runs, judged)],
        "board": _board(runs, groups, judged, kept),
        "benchmarks": _benchmarks(runs, groups, judged, kept),
        "forms": shots.section(runs, groups, kept),
        "needs": planning.section(groups, judged, kept),
        "rankers": rankers.section(groups, judged, kept),
        "ranker_legend": ranker_legend(),
        "transfers": [_transfer(runs, groups, name, kept) for name in transfer.transfers_of(runs)],
        "learning": learning.section(runs, groups, judged, kept),
        "pictures": episode_pictures.samples(runs[0].config, kept),
        "episodes": episode_pictures.section(runs, kept),
        "pools": classes.section(runs, kept),
        "cost": [tables.cost_row(run) for run in runs],
        "provenance": [_provenance(run, with_config=len(runs) <= MAX_RANKED) for run in runs],
        "n_flips": count(N_FLIPS),
        "has_calibration": any(run.config.calibrate is not None for run in runs),
    }
    page = with_origin(_render(context), origin if kept.is_whole else "0", kept.names)  # made again if not
    try:
        kept.write()
        write_text(path, page)
    except OSError as error:
        raise unwritable(path.parent, error) from error
    return path


def _settings(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the table of settings that differ, one row per setting, or per run if there are many; empty if none."""
    found, labels = differing_settings(runs), [run.label for run in runs]
    if not found:
        return {}
    if len(runs) <= narrative.MAX_LISTED:
        return {"columns": ["Setting", *labels], "rows": list(found.items()), "is_by_run": False}
    rows = list(zip(labels, zip(*found.values(), strict=True), strict=True))
    return {"columns": ["Run", *found], "rows": rows, "is_by_run": True}


def _one_training(groups: Sequence[Group], judged: Mapping[Cell, Verdicts]) -> str:
    """Say which measured groups are single trainings; "" if none is."""
    measured = {label for verdicts in judged.values() for label in verdicts.accuracies}
    return as_sentence(single_trainings([group for group in groups if group.label in measured]))


def _judged(
    runs: Sequence[Run], benchmarks: Mapping[str, Sequence[str]], known: Mapping[Cell, Verdicts]
) -> dict[Cell, Verdicts]:
    """Return the verdicts on all benchmarks by all probes, and compute those not yet known."""
    cells = [(name, probe) for name, probes in benchmarks.items() for probe in probes]
    found = judge_all(runs, [cell for cell in cells if cell not in known])
    return {cell: known[cell] if cell in known else found[cell] for cell in cells}


def _board(
    runs: Sequence[Run], groups: Sequence[Group], judged: Mapping[Cell, Verdicts], kept: PageFigures
) -> dict[str, Any]:
    """Return the leaderboard with its charts; empty for a single run, or without measurements."""
    benchmarks = {name: probes for name, probes in benchmarks_of(runs).items() if probes}
    if len(runs) == 1 or not benchmarks:
        return {}
    reference = reference_run(runs)
    rows = leaderboard.rows(groups, reference, benchmarks, judged)
    cells = [cell for of_probe in rows.values() for row in of_probe if not row["is_control"] for cell in row["cells"]]
    ties = _scopes(cells, lambda cell: cell["ties"])
    return {
        "benchmarks": list(benchmarks),
        "rows": rows,
        "is_ranked": bool(ties),
        "has_places": any("–" in text for cell in cells for text, _ in cell["ties"]),
        "ties": ties,
        "intervals": _scopes(cells, lambda cell: cell["accuracy"].intervals),
        "tests": _scopes(cells, lambda cell: cell["difference"].tests),
        "corrections": list(dict.fromkeys(words for found in judged.values() if (words := correction_words(found)))),
        "reference": next(group.label for group in groups if reference in group.runs),
        "charts": [*_cost_charts(groups, benchmarks, kept), *_heat_map(groups, benchmarks, judged, kept)],
    }


def _scopes(cells: Sequence[Mapping[str, Any]], entries_of: Callable[[Mapping[str, Any]], Any]) -> str:
    """Return the scopes in the cells of the leaderboard, in their order, as words."""
    scopes = dict.fromkeys(tuple(scope for _, scope in entries_of(cell)) for cell in cells)
    return ", or ".join(", then ".join(names) for names in scopes if names)


def _cost_charts(
    groups: Sequence[Group], benchmarks: Mapping[str, Sequence[str]], kept: PageFigures
) -> list[dict[str, Any]]:
    """Return charts of accuracy on the first benchmark against each cost in which the runs differ.

    Costs proportional to an earlier one would give the same picture, and are left out.
    """
    name, probe = next((name, probes[0]) for name, probes in benchmarks.items())
    charts: list[dict[str, Any]] = []
    pictures: list[dict[str, float]] = []
    for cost in leaderboard.COSTS:
        found = {group.label: series.cost_point(group, cost.value, name, probe) for group in groups}
        drawn = {group: line for group, line in found.items() if line is not None}
        lines = list(drawn.values())
        picture = _shares({group: float(np.mean(np.asarray(line.x))) for group, line in drawn.items()})
        if len(set(picture.values())) < 2 or picture in pictures:
            continue
        pictures.append(picture)
        svg = pareto.scatter(
            lines,
            name=f"cost-{cost.name}",
            x_label=cost.label,
            y_label="accuracy, %",
            names=[group.name for group in groups if group.label in drawn],
        )
        caption = (
            f"Accuracy on {name}, by {probe}. Further up and to the left is better. The line joins the runs in bold: "
            "no other run beats them in both. Bars: 95\u00a0% on this pool of classes, or over seeds."
        )
        title = f"Accuracy against {cost.title}"
        charts.append(kept.chart(f"cost-{cost.name}", svg, title=title, caption=caption, said=series.in_words(lines)))
    return charts


def _shares(costs: Mapping[str, float]) -> dict[str, float]:
    """Return each cost as a share of the largest, to six digits; equal shares give the same picture."""
    return {group: round(cost / max(costs.values()), 6) for group, cost in costs.items() if any(costs.values())}


def _heat_map(
    groups: Sequence[Group],
    benchmarks: Mapping[str, Sequence[str]],
    judged: Mapping[Cell, Verdicts],
    kept: PageFigures,
) -> list[dict[str, Any]]:
    """Return the heat map of all runs, controls and benchmarks; nothing for one benchmark or two runs."""
    if len(benchmarks) < 2 or len(groups) < 3:
        return []
    columns = [judged[name, probes[0]] for name, probes in benchmarks.items()]
    means = {group.label: [verdicts.means.get(group.label) for verdicts in columns] for group in groups}
    ranked = sorted(groups, key=lambda group: _mean_of(means[group.label]), reverse=True)
    controls: dict[str, list[float | None]] = {}
    for place, verdicts in enumerate(columns):
        for control in verdicts.controls:
            controls.setdefault(control_label(control), [None] * len(columns))[place] = control.accuracy.mean
    values = [*(means[group.label] for group in ranked), *controls.values()]
    svg = heat_map.heat_map(
        [*(group.label for group in ranked), *controls],
        [*(group.style for group in ranked), *[-1] * len(controls)],
        list(benchmarks),
        [[None if value is None else 100 * value for value in row] for row in values],
        name="benchmarks",
        n_controls=len(controls),
    )
    caption = "Accuracy in %, highest mean first; within a column, deeper colours are higher."
    return [kept.chart("benchmarks", svg, title="All benchmarks", caption=caption)]


def _mean_of(values: Sequence[float | None]) -> float:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else 0.0


def _benchmarks(
    runs: Sequence[Run], groups: Sequence[Group], judged: Mapping[Cell, Verdicts], kept: PageFigures
) -> list[dict[str, Any]]:
    return [
        _benchmark(runs, groups, name, [judged[name, probe] for probe in probes], kept)
        for name, probes in benchmarks_of(runs).items()
    ]


def _benchmark(
    runs: Sequence[Run], groups: Sequence[Group], name: str, judged: Sequence[Verdicts], kept: PageFigures
) -> dict[str, Any]:
    reference = reference_run(runs)
    probes = [verdicts.probe for verdicts in judged]
    counts = reliability.measured(runs, name, probes[0]) if probes else {}
    scaled = calibration.scaled(runs, name, probes[0]) if probes else {}
    return {
        "name": name,
        "form": narrative.form(runs, name),
        "manifests": manifests_of(runs, name),
        "results": {probe: tables.results(runs, name, probe) for probe in probes},
        "reference": next(group.label for group in groups if reference in group.runs),
        "seeds": tables.seed_rows(judged),
        "reliability": {"said": reliability.sentences(counts), **reliability.table(counts)},
        "calibrated": calibration.section(runs, name, probes),
        "corrupted": tables.corrupted(runs, name, probes),
        "fine_tuned": tables.fine_tuned(judged),
        "differences": tables.differences(judged),
        "cut": narrative.cut_pairs(judged),
        "notes": narrative.notes(runs, name, judged),
        "choices": [
            {"said": choice_notes(groups, name, probe), "probe": probe, **choice_table(groups, name, probe)}
            for probe in probes
            if choices_of(groups, name, probe)
        ],
        "charts": [
            *_difference_chart(groups, judged, kept),
            *_reliability_chart(counts, groups, name, probes, kept),
            *_reliability_chart(scaled, groups, name, probes, kept, is_scaled=True),
        ],
        "accuracies": _accuracy_chart(groups, judged, kept),
    }


def _difference_chart(groups: Sequence[Group], judged: Sequence[Verdicts], kept: PageFigures) -> list[dict[str, Any]]:
    """Return the chart of differences from the reference on a benchmark by its first probe, best first."""
    rows = interval_rows.difference_intervals(groups, judged[0]) if judged else []
    if not rows:
        return []
    first = judged[0]
    rows, which = interval_rows.highest(rows)
    name = f"difference-{first.benchmark}"
    noted = "corrected p: " + ", or ".join(
        " / ".join(leaderboard.SCOPES[scope] for scope in scopes) for scopes in interval_rows.tested(first)
    )
    svg = curves.intervals(rows, name=name, x_label="difference, points", zero_line=True, note_label=noted)
    caption = (
        f"Accuracy on {first.benchmark} minus that of {first.reference}, by {first.probe}{which}. {_bars(groups)}."
    )
    if words := correction_words(first):
        caption += f" On the right: p, {words}."
    said = "; ".join(f"{row.label}: {row.value:+.2f}, p {row.note}" for row in rows)
    return [kept.chart(name, svg, title="Paired differences", caption=caption, said=said)]


def _accuracy_chart(groups: Sequence[Group], judged: Sequence[Verdicts], kept: PageFigures) -> list[dict[str, Any]]:
    """Return the chart of accuracies on a benchmark, if there are several."""
    rows = interval_rows.accuracy_intervals(groups, judged) if judged else []
    if len(rows) < 2:
        return []
    name = judged[0].benchmark
    rows, which = interval_rows.highest(rows)
    svg = curves.intervals(rows, name=f"accuracy-{name}", x_label="accuracy, %")
    return [kept.chart(f"accuracy-{name}", svg, caption=f"Accuracy on {name}{which}. {_bars(groups)}.")]


def _bars(groups: Sequence[Group]) -> str:
    """Explain the bars of an interval chart."""
    alone = "Thick bar: 95\u00a0% interval on this pool of classes; thin bar: on new classes of this kind"
    if not any(group.is_pooled for group in groups):
        return alone
    over_seeds = "For several seeds: their mean, with its 95\u00a0% interval over seeds"
    return over_seeds if all(group.is_pooled for group in groups) else f"{alone}. {over_seeds}"


def _reliability_chart(
    counts: Mapping[str, Reliability],
    groups: Sequence[Group],
    name: str,
    probes: Sequence[str],
    kept: PageFigures,
    *,
    is_scaled: bool = False,
) -> list[dict[str, Any]]:
    if not counts:
        return []
    lines = reliability.curves(counts, groups)
    file = f"{'scaled-' if is_scaled else ''}reliability-{name}"
    svg = curves.reliability(lines, name=file)
    caption = (
        f"Accuracy of the answers at each confidence on {name}, by {probes[0]}, all queries pooled. On the straight "
        "line confidence equals accuracy; above it a probe is underconfident, below it overconfident."
    )
    title = "Reliability after scaling" if is_scaled else "Reliability"
    return [kept.chart(file, svg, caption=caption, title=title, said=series.in_words(lines))]


def _transfer(runs: Sequence[Run], groups: Sequence[Group], name: str, kept: PageFigures) -> dict[str, Any]:
    svg = transfer.label_efficiency(groups, name)
    pooled = f" {SEEDS}" if any(group.is_pooled for group in groups) else ""
    caption = transfer.CAPTION.format(name=name) + pooled
    return {
        "name": name,
        "form": transfer.form(runs, name),
        "reference": reference_run(runs).label if len(runs) > 1 else None,
        "rows": transfer.rows(runs, name),
        "charts": [kept.chart(f"transfer-{name}", svg, caption=caption)] if svg else [],
    }


def _provenance(run: Run, *, with_config: bool) -> dict[str, Any]:
    return {
        "label": run.label,
        "rows": tables.provenance_rows(run),
        "manifests": {name: run.manifest_hash(name) for name in benchmarks_of([run])},
        "config": to_yaml(run.config) if with_config else "",
    }


def _render(context: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    templates = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source = (templates / "report.js").read_text(encoding="utf-8")
    # The page may run this one script, and load nothing.
    script_hash = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return environment.get_template("report.html").render(context, script=Markup(source), script_hash=script_hash)
