"""Saved workspace and report at W&B for some runs; they replace earlier ones.

They use only keys that the mirror writes. wandb-workspaces is an optional dependency: only the command `lurefs views`
imports this file.
"""

from __future__ import annotations

import json
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces.workspaces import internal

from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory
from lurefs.tracking import records
from lurefs.tracking.client import environment, one_line
from lurefs.tracking.comparison_record import ACCURACY_CHART, DIFFERENCE_CHART, INTERVAL_COLUMNS
from lurefs.tracking.records import Record

REPORT = "lurefs: which backbone or strategy is better, by how much, at what cost"
WORKSPACE_NAME = "nw-lurefs-v"
"""The workspace's name in addresses."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """Content of the views.

    Attributes:
        project: The project at W&B.
        entity: The user or team; None for the key's default.
        cells: Benchmark -> its probes.
        curves: Keys of the curves of base and few-shot accuracy over chunks.
    """

    project: str
    entity: str | None
    cells: Mapping[str, Sequence[str]]
    curves: Sequence[str]


def read_content(directories: Sequence[RunDirectory]) -> Content:
    """Return the content of the views of these runs; project and entity are those of the first."""
    found = [
        record
        for directory in directories
        for record in records.records_of(directory.read_config(), directory)
        if record.step_metric in ("episode", "chunk_index")
    ]
    settings = directories[0].read_config().trackers.wandb
    cells: dict[str, dict[str, None]] = {}
    for record in found:
        if record.step_metric == "episode":
            cells.setdefault(record.card.config["benchmark"], {})[record.card.config["probe"]] = None
    return Content(
        project=settings.project,
        entity=settings.entity,
        cells={benchmark: list(probes) for benchmark, probes in cells.items()},
        curves=["test_accuracy", *_few_shot_keys(found)],
    )


def specifications(content: Content, entity: str) -> dict[str, Any]:
    """Return workspace and report as JSON, as W&B stores them."""
    views = {"workspace": workspace(content, entity), "report": report(content, entity)}
    return {
        name: json.loads(view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
        for name, view in views.items()
    }


def save(content: Content) -> dict[str, str]:
    """Save workspace and report, replacing earlier ones, and return their addresses.

    Raises:
        UserError: W&B rejects them.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="lurefs-views-") as scratch, environment(Path(scratch)):
            try:
                return _save(content, wandb.Api())
            finally:
                wandb.teardown()
    except Exception as error:  # the packages raise a dozen kinds of errors
        raise UserError(
            f"W&B did not take the views: {one_line(error)}",
            "a server that answers, a key that may write to the project, and runs in it",
            "send the runs first with 'lurefs push', and check trackers.wandb.entity",
        ) from error


def _save(content: Content, api: Any) -> dict[str, str]:
    entity = content.entity or str(api.default_entity)
    space, page = workspace(content, entity), report(content, entity)
    space._internal_name = WORKSPACE_NAME
    with suppress(ValueError):  # there is none yet
        url_name = internal._internal_name_to_url_query_str(WORKSPACE_NAME)
        space._internal_id = internal.get_view_dict(entity, content.project, url_name)["id"]
    earlier = [found for found in api.reports(f"{entity}/{content.project}") if found.display_name == REPORT]
    page.id = earlier[0].id if earlier else ""
    return {"workspace": space.save().url, "report": page.save().url}


def workspace(content: Content, entity: str) -> Any:
    """Return the saved workspace with accuracy, cost, learning and settings.

    It shows only cells of the first benchmark and probe, since a mean over several would mix different measurements;
    change its filter to see others.
    """
    benchmark = next(iter(content.cells), None)
    named = f"lurefs: {benchmark}, {content.cells[benchmark][0]}" if benchmark else "lurefs"
    others = 'JobType = "pretrain" or JobType = "compare"'
    few = {"is_open": True, "layout_settings": ws.SectionLayoutSettings(columns=2, rows=1)}
    return ws.Workspace(
        entity=entity,
        project=content.project,
        name=_plain(named),
        sections=[
            ws.Section(name="Accuracy with intervals", panels=_interval_charts(entity), **few),
            ws.Section(name="Accuracy by backbone", panels=_bars(), **few),
            ws.Section(name="Accuracy against cost", panels=_scatters(), **few),
            ws.Section(name="Learning, by strategy", panels=_curves(content), **few),
            ws.Section(name="Settings and results", panels=[_parallel(), wr.RunComparer(diff_only="split")], **few),
        ],
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=f"({_of_cell(benchmark, content.cells[benchmark][0])}) or {others}" if benchmark else others,
            pinned_columns=[
                "run:displayName",
                *(f"config:{key}.value" for key in ("backbone", "strategy", "benchmark", "probe", "seed")),
                *(f"summary:{key}" for key in ("accuracy", "accuracy_ci95_episodes", "accuracy_ci95_classes")),
                *(f"summary:control_{control}" for control in ("untrained_twin", "image_statistics")),
            ],
        ),
    )


def _plain(name: str) -> str:
    """Return a workspace's name without symbols, of which W&B takes none: currencies, mathematics, emoji."""
    return "".join("_" if unicodedata.category(character)[0] == "S" else character for character in name)


def report(content: Content, entity: str) -> Any:
    """Return the report: one section per benchmark and probe, then the curves of learning."""

    def runs(name: str, filters: str) -> list[Any]:
        return [wr.Runset(name=name, filters=filters)]  # of the report's own project

    compared = wr.PanelGrid(runsets=runs("comparisons", 'JobType = "compare"'), panels=_interval_charts(entity))
    blocks: list[Any] = [
        wr.MarkdownBlock(
            text="Thick intervals are for this pool of classes or over seeds, thin ones for new classes of this kind. "
            "Runs that were sent without a comparison have only bars: their whiskers are the range over runs."
        ),
        wr.H2(text="Accuracy with intervals, and paired differences"),
        compared,
    ]
    for benchmark, probes in content.cells.items():
        for probe in probes:
            panels = [*_bars(), *_scatters(), _parallel(), wr.RunComparer(diff_only="split")]
            blocks += [
                wr.H2(text=f"{benchmark}, {probe}"),
                wr.PanelGrid(runsets=runs("cells", _of_cell(benchmark, probe)), panels=panels),
            ]
    blocks += [
        wr.H2(text="Learning, by strategy"),
        wr.PanelGrid(runsets=runs("pre-training", 'JobType = "pretrain"'), panels=_curves(content)),
    ]
    return wr.Report(project=content.project, entity=entity, title=REPORT, blocks=blocks, width="fluid")


def _of_cell(benchmark: str, probe: str) -> str:
    return f'JobType = "evaluate" and Config("benchmark") = "{benchmark}" and Config("probe") = "{probe}"'


def _interval_charts(entity: str) -> list[Any]:
    fields = {column: column for column in INTERVAL_COLUMNS}
    return [
        wr.CustomChart(
            query={"summaryTable": {"tableKey": f"{key}_table"}},
            chart_name=f"{entity}/{chart}",
            chart_fields=fields,
            chart_strings={"title": title},
        )
        for key, chart, title in (
            ("accuracy", ACCURACY_CHART, "Accuracy, %"),
            ("paired_differences", DIFFERENCE_CHART, "Accuracy minus that of the reference, points"),
        )
    ]


def _bars() -> list[Any]:
    return [
        wr.BarPlot(
            title=f"Accuracy by {key}, mean and range over runs",
            metrics=["accuracy"],
            groupby=wr.Config(key),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )
        for key in ("backbone", "strategy")
    ]


def _scatters() -> list[Any]:
    costs: dict[str, Any] = {
        "multiply-adds per image, 10^9": wr.Config("backbone_gmacs"),
        "parameters, 10^6": wr.Config("backbone_params_m"),
        "images seen in training": wr.SummaryMetric("total_images_seen"),
    }
    return [
        wr.ScatterPlot(title=f"Accuracy against {words}", x=cost, y=wr.SummaryMetric("accuracy"), log_x=True)
        for words, cost in costs.items()
    ]


def _curves(content: Content) -> list[Any]:
    return [
        wr.LinePlot(
            title=f"{key} after each chunk, mean and range over runs",
            x="chunk_index",
            y=[key],
            groupby=wr.Config("strategy"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )
        for key in content.curves
    ]


def _parallel() -> Any:
    sorted_by = ("backbone", "strategy", "learning_rate", "epochs", "seed", "backbone_params_m")
    settings = [wr.Config(key) for key in sorted_by]
    figures = [wr.SummaryMetric(key) for key in ("anytime_accuracy", "ms_per_episode", "accuracy")]
    return wr.ParallelCoordinatesPlot(
        title="Settings and results",
        columns=[wr.ParallelCoordinatesPlotColumn(metric=metric) for metric in [*settings, *figures]],
    )


def _few_shot_keys(found: Sequence[Record]) -> list[str]:
    keys = (key for record in found for row in record.rows for key in row if key.startswith("few_shot/"))
    return list(dict.fromkeys(keys))
