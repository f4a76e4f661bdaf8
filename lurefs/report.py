"""The page for people: finished runs -> `report.html` and its figures. Composition only, nothing is measured here.

The page is one file that needs no network: charts are inline SVG, images are data URIs. It says nothing that the files
of the runs do not say, so equal files give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from episodes.comparison import N_FLIPS
from episodes.files import write_text
from lurefs.config import to_yaml
from lurefs.data.splits import split_classes
from lurefs.errors import UserError
from lurefs.reporting import (
    chart_style,
    classes,
    drawing,
    episode_pictures,
    figures,
    learning,
    narrative,
    over_seeds,
    reliability,
    series,
    sheets,
    shots,
    tables,
    transfer_figure,
)
from lurefs.reporting.comparison import (
    Run,
    benchmarks_of,
    compare,
    differing_settings,
    manifests_of,
    read_runs,
    reference_run,
)
from lurefs.reporting.episode_pictures import build_dataset, reason_of
from lurefs.reporting.page_figures import PageFigures
from lurefs.reporting.seeds import SEEDS, Group, groups_of, styles_of
from lurefs.reporting.wording import count
from lurefs.results import RunDirectory

N_HEADLINES = 2


def write_report(directories: Sequence[RunDirectory], destination: Path) -> Path:
    """Write `report.html` and `figures/` about one or several finished runs.

    Args:
        directories: The runs; of several, those that met the same episodes are compared in pairs.
        destination: The folder of the two.

    Returns:
        The path of the page.

    Raises:
        UserError: There is no run, a directory is no finished run, or one of its files is damaged.
    """
    if not directories:
        raise UserError("a report of no runs was asked for", "at least one run directory", "name one")
    return write_page(read_runs(directories), destination)


def write_page(runs: Sequence[Run], destination: Path) -> Path:
    """Write `report.html` and `figures/` about runs that were read; see `write_report`.

    Raises:
        UserError: A file of a run is damaged.
    """
    groups = groups_of(runs)
    kept = PageFigures(destination / "figures")
    context = {
        "title": runs[0].label if len(runs) == 1 else f"{len(runs)} runs compared",
        "names": [run.label for run in runs],
        "lead": narrative.lead(runs),
        "facts": narrative.facts(runs),
        "settings": differing_settings(runs),
        "headlines": _headlines(runs),
        "has_seeds": any(group.is_pooled for group in groups),
        "benchmarks": _benchmarks(runs, groups, kept),
        "forms": shots.section(runs, groups, kept),
        "transfers": [_transfer(runs, groups, name, kept) for name in transfer_figure.transfers_of(runs)],
        "learning": learning.section(runs, groups, kept),
        "pictures": _pictures(runs, kept),
        "episodes": episode_pictures.section(runs, kept),
        "pools": classes.section(runs, kept),
        "cost": _cost(runs, groups, kept),
        "provenance": [_provenance(run) for run in runs],
        "n_flips": count(N_FLIPS),
    }
    page = _render(context)
    kept.write()
    path = destination / "report.html"
    write_text(path, page)
    return path


def _headlines(runs: Sequence[Run]) -> list[narrative.Headline]:
    benchmarks = list(benchmarks_of(runs).items())[:N_HEADLINES]
    cards = [narrative.headline(runs, name, probes[0]) for name, probes in benchmarks if probes]
    return [card for card in cards if card is not None]


def _benchmarks(runs: Sequence[Run], groups: Sequence[Group], kept: PageFigures) -> list[dict[str, Any]]:
    styles = styles_of(groups)
    return [_benchmark(runs, groups, styles, name, probes, kept) for name, probes in benchmarks_of(runs).items()]


def _benchmark(
    runs: Sequence[Run],
    groups: Sequence[Group],
    styles: Mapping[str, int],
    name: str,
    probes: list[str],
    kept: PageFigures,
) -> dict[str, Any]:
    reference = reference_run(runs)
    comparisons = [compare(run, reference, name, probe) for probe in probes for run in runs if run is not reference]
    comparisons = [entry for entry in comparisons if tables.both_measured(entry)]
    charts = []
    rows = series.accuracy_intervals(runs, styles, name, probes)
    scopes = "Thick bar: 95\u00a0% interval on this pool of classes; thin bar: on new classes of this kind"
    if len(rows) > 1:
        svg = figures.intervals(rows, name=f"accuracy-{name}", x_label="accuracy, %")
        charts.append(kept.chart(f"accuracy-{name}", svg, caption=f"Accuracy on {name}. {scopes}."))
    rows = series.difference_intervals(styles, comparisons, probes[0]) if probes else []
    if rows:
        label = f"accuracy less that of {chart_style.short(reference.label)}, points"
        svg = figures.intervals(rows, name=f"difference-{name}", x_label=label, zero_line=True)
        caption = f"Paired differences on {name}, by {probes[0]}. {scopes}."
        charts.append(kept.chart(f"difference-{name}", svg, caption=caption))
    calibration = reliability.measured(runs, name, probes[0]) if probes else {}
    if calibration:
        lines = reliability.curves(calibration, styles)
        svg = figures.reliability(lines, name=f"reliability-{name}")
        caption = (
            f"How often answers of a confidence are right on {name}, by {probes[0]}, all queries pooled; on the "
            "straight line confidence and accuracy are equal, above it a probe is less sure than it should be."
        )
        chart = kept.chart(
            f"reliability-{name}", svg, caption=caption, title="Reliability", said=series.in_words(lines)
        )
        charts.append(chart)
    seeds = {probe: over_seeds.rows(groups, reference, name, probe) for probe in probes}
    results = {probe: tables.results(runs, name, probe) for probe in probes}
    return {
        "name": name,
        "form": narrative.form(runs, name),
        "manifests": manifests_of(runs, name),
        "results": results,
        "reference_group": next(group.label for group in groups if reference in group.runs),
        "seeds": {probe: rows for probe, rows in seeds.items() if rows},
        "is_ranked": any(row["ties_pool"] for rows in results.values() for row in rows),
        "reliability": {"said": reliability.sentences(calibration), **reliability.table(calibration)},
        "corrupted": tables.corrupted(runs, name, probes),
        "differences": tables.differences(comparisons),
        "cut": narrative.cut_pairs(comparisons),
        "reference": reference.label,
        "notes": narrative.notes(runs, name, probes),
        "charts": charts,
    }


def _transfer(runs: Sequence[Run], groups: Sequence[Group], name: str, kept: PageFigures) -> dict[str, Any]:
    svg = transfer_figure.label_efficiency(groups, name)
    pooled = f" {SEEDS}" if any(group.is_pooled for group in groups) else ""
    caption = transfer_figure.CAPTION.format(name=name) + pooled
    return {
        "name": name,
        "form": transfer_figure.form(runs, name),
        "reference": reference_run(runs).label if len(runs) > 1 else None,
        "rows": transfer_figure.rows(runs, name),
        "charts": [kept.chart(f"transfer-{name}", svg, caption=caption)] if svg else [],
    }


def _cost(runs: Sequence[Run], groups: Sequence[Group], kept: PageFigures) -> dict[str, Any]:
    charts = []
    for name, probes in list(benchmarks_of(runs).items())[:1]:
        lines = [line for group in groups if probes and (line := series.cost_points(group, name, probes[0]))]
        if sum(len(group.runs) for group in groups) > 1 and lines:
            svg = figures.scatter(lines, name="cost", x_label="training and unlearning, seconds", y_label="accuracy, %")
            caption = (
                f"Accuracy on {name}, by {probes[0]}, against training time; bars: 95\u00a0% on this pool of classes."
            )
            charts.append(kept.chart("cost", svg, caption=caption, said=series.in_words(lines)))
    return {"rows": [tables.cost_row(run) for run in runs], "charts": charts}


def _pictures(runs: Sequence[Run], kept: PageFigures) -> dict[str, Any]:
    """Return samples of the classes; where the images cannot be read, the reason takes their place."""
    pictures: dict[str, Any] = {"samples": [], "missing": []}
    config = runs[0].config
    try:
        dataset = build_dataset(config.dataset)
        groups = split_classes(dataset, config.class_split)
        for title, group in (("Base classes", groups.base), ("Novel classes", groups.novel)):
            strips = sheets.sample_strips(dataset, group)
            if strips:
                kept.sheet(f"samples-{title.split()[0].lower()}", drawing.samples_sheet(strips))
                shown = [{"name": strip.class_name, "images": drawing.data_uris(strip.images)} for strip in strips]
                pictures["samples"].append(
                    {"title": title, "n_classes": len(group), "strips": shown, "ink": strips[0].is_ink}
                )
    except (UserError, OSError) as error:
        pictures["missing"].append(reason_of(error))
    return pictures


def _provenance(run: Run) -> dict[str, Any]:
    manifests = {name: run.benchmark(name).get("manifest") for name in benchmarks_of([run])}
    return {
        "label": run.label,
        "rows": tables.provenance_rows(run),
        "manifests": manifests,
        "config": to_yaml(run.config),
    }


def _render(context: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "reporting" / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(context)
