"""Records of a run directory for W&B: one W&B run for pre-training, one per cell or transfer, one for the page.

They are read from the directory alone, without wandb.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lurefs.config.identity import digest
from lurefs.config.schema import RunConfig
from lurefs.records import Row
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import ChunkOutcome
from lurefs.tracking import labels
from lurefs.tracking.labels import About, Card
from lurefs.tracking.rows import (
    CHOICE_COLUMNS,
    EPISODE_COLUMNS,
    FIT_COLUMNS,
    ROBUSTNESS_COLUMNS,
    cell_summary,
    choice_rows,
    chunk_rows,
    episode_rows,
    fit_rows,
    pretrain_summary,
    robustness_rows,
    running_accuracy,
    transfer_rows,
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of plain values."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A checkpoint to keep as a model artifact.

    Attributes:
        path: The safetensors file.
        alias: Its alias at W&B.
        metadata: Facts about it.
    """

    path: Path
    alias: str
    metadata: Row


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A Vega-Lite chart of a table.

    Attributes:
        name: Its name at W&B.
        title: Its title.
        table: Its data.
        spec: The Vega-Lite specification, whose fields are `${field:COLUMN}`.
    """

    name: str
    title: str
    table: Table
    spec: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Record:
    """Content of one W&B run.

    Attributes:
        card: Its labels.
        step_metric: Key of x of its curves; None without curves.
        rows: Points of its curves, in order.
        summary: Flat figures.
        tables: Tables by key.
        pages: HTML by key.
        images: Image files by key.
        charts: Charts by key.
        weights: Checkpoints, earliest first.
        is_complete: Whether nothing will follow.
    """

    card: Card
    step_metric: str | None = None
    rows: Sequence[Row] = ()
    summary: Row = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    charts: Mapping[str, Chart] = field(default_factory=dict)
    weights: Sequence[Weights] = ()
    is_complete: bool = True

    @property
    def digest(self) -> str:
        """Digest of the content; files count only by name."""
        files = [*map(str, self.images.values()), *(weights.metadata for weights in self.weights)]
        return digest([self.rows, self.summary, self.tables, self.pages, self.charts, files, self.is_complete])


def records_of(config: RunConfig, directory: RunDirectory) -> Iterator[Record]:
    """Yield the records of a run directory, finished or not.

    Raises:
        UserError: A file is damaged, or one that the summary names is missing.
    """
    if directory.read_outcomes():
        yield pretrain_record(config, directory)
    if directory.summary_path.is_file():
        summary = directory.read_summary()
        for benchmark, described in summary.benchmarks.items():
            for probe in described.probes:
                yield cell_record(config, directory, benchmark, probe)
        for name in summary.transfer:
            yield transfer_record(config, directory, name)
    if directory.report_path.is_file():
        yield report_record(config, directory, directory.report_path)


def pretrain_record(config: RunConfig, directory: RunDirectory) -> Record:
    """Return the record of the finished chunks, with the figures over all chunks once all are finished."""
    outcomes = directory.read_outcomes()
    is_complete = bool(outcomes) and len(outcomes) == (config.chunks.n_chunks or len(outcomes))
    robustness = robustness_rows(outcomes)
    return Record(
        card=labels.pretrain_card(_about(config, directory), outcomes),
        step_metric="chunk_index",
        rows=chunk_rows(outcomes),
        summary=pretrain_summary(outcomes) if is_complete else {},
        tables={"robustness_levels": Table(columns=ROBUSTNESS_COLUMNS, rows=robustness)} if robustness else {},
        weights=_weights(config, directory, outcomes) if is_complete else (),
        is_complete=is_complete,
    )


def cell_record(config: RunConfig, directory: RunDirectory, benchmark: str, probe: str) -> Record:
    """Return the record of one cell: its figures, the running accuracy, the result of every episode."""
    about, summary = _about(config, directory), directory.read_summary()
    table = directory.read_episodes(benchmark, probe)
    choice = summary.benchmarks[benchmark].probes[probe].choice
    return Record(
        card=labels.cell_card(about, summary, benchmark, probe),
        step_metric="episode",
        rows=running_accuracy(table),
        summary=cell_summary(summary, benchmark, probe, directory.read_outcomes(), about.cost),
        tables={
            "episodes": Table(columns=EPISODE_COLUMNS, rows=episode_rows(table)),
            **({} if choice is None else {"choice": Table(columns=CHOICE_COLUMNS, rows=choice_rows(choice))}),
        },
    )


def transfer_record(config: RunConfig, directory: RunDirectory, name: str) -> Record:
    """Return the record of one transfer: its figures by size, those of the largest size, every fit."""
    summary, table = directory.read_summary(), directory.read_transfer(name)
    images = digest([table.identity.get("images"), table.identity.get("split")])
    rows = transfer_rows(summary.transfer[name])
    return Record(
        card=labels.transfer_card(_about(config, directory), summary, name, images),
        step_metric="images_per_class",
        rows=rows,
        summary=rows[-1] if rows else {},
        tables={"fits": Table(columns=FIT_COLUMNS, rows=fit_rows(table))},
    )


def report_record(config: RunConfig, directory: RunDirectory, path: Path) -> Record:
    """Return the record of a report page and its image sheets."""
    return Record(
        card=labels.report_card(_about(config, directory)),
        pages={"report": path.read_text(encoding="utf-8")},
        images={sheet.stem.replace("-", "_"): sheet for sheet in sorted((path.parent / "figures").glob("*.png"))},
    )


def _about(config: RunConfig, directory: RunDirectory) -> About:
    return About(config=config, identity=directory.read_identity(), cost=directory.read_cost())


def _weights(config: RunConfig, directory: RunDirectory, outcomes: Sequence[ChunkOutcome]) -> list[Weights]:
    """Return the checkpoints to send by the config, as far as their files exist."""
    wanted = config.trackers.wandb.checkpoints
    if wanted == "none":
        return []
    from lurefs.learning.checkpoints import read_identity  # needs torch, unlike the rest

    found = []
    for outcome in outcomes if wanted == "all" else outcomes[-1:]:
        path = directory.checkpoint_path(outcome.chunk_index)
        if path.is_file():
            about = {
                "sha256": read_identity(path)["sha256"],
                "backbone": config.backbone.name,
                "chunk_index": outcome.chunk_index,
                "test_accuracy": outcome.test_accuracy,
            }
            found.append(Weights(path=path, alias=f"chunk-{outcome.chunk_index:03d}", metadata=about))
    return found
