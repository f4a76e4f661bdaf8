"""Labels of W&B runs: ids, names, groups, tags, and flat settings to sort and filter by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lurefs import plugins
from lurefs.config.fields import PluginConfig
from lurefs.config.identity import digest, run_identity
from lurefs.config.learning_schema import LearnerConfig
from lurefs.config.schema import RunConfig
from lurefs.records import Row, to_mapping
from lurefs.runs.outcomes import ChunkOutcome
from lurefs.runs.summary import RunSummary

_REGIME = ("replay", "schedule", "class_order", "images_per_class", "label_noise")
MAX_NAME = 128
"""Most characters of a name or a group at W&B."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Labels of one W&B run.

    Attributes:
        id: Derived from the configuration, so that a rerun finds its earlier records.
        name: Its name for people.
        group: Digest of the protocol and name of the benchmark; runs of one group are comparable.
        job_type: The kind of its content.
        tags: Short words to filter by.
        config: Flat settings to filter by, without those that are still unknown.
    """

    id: str
    name: str
    group: str
    job_type: Literal["pretrain", "evaluate", "report", "compare"]
    tags: tuple[str, ...] = ()
    config: Row


@dataclass(frozen=True, kw_only=True)
class About:
    """Facts from which the labels of a run are made.

    Attributes:
        config: Its configuration.
        identity: The content of `identity.json`; empty before it is written.
        cost: The content of `cost.json`; empty before the features are extracted.
    """

    config: RunConfig
    identity: Mapping[str, Any]
    cost: Mapping[str, Any]


def pretrain_card(about: About, outcomes: Sequence[ChunkOutcome]) -> Card:
    """Label the pre-training of a run; its protocol is the images, their splits and their chunks."""
    config = about.config
    images = about.identity.get("dataset", config.dataset)
    protocol = digest([images, config.class_split, config.image_split, config.chunks])
    n_chunks = config.chunks.n_chunks if config.chunks.n_chunks is not None else len(outcomes)
    return Card(
        id=run_id(config, "pretrain"),
        name=f"{_label(config)} | pretrain",
        group=f"{protocol}-pretrain",
        job_type="pretrain",
        tags=tags(config),
        config={**_flat_config(about), "protocol": protocol, "n_chunks": n_chunks},
    )


def cell_card(about: About, summary: RunSummary, benchmark: str, probe: str) -> Card:
    """Label one probe on one benchmark; its protocol is the manifest, so a group has the same episodes."""
    described = summary.benchmarks[benchmark]
    accuracy, corrupt = described.probes[probe].accuracy, described.corrupt
    protocol = described.manifest[:12]
    cell = {
        "protocol": protocol,
        "n_chunks": _n_chunks(summary),
        "benchmark": benchmark,
        "probe": probe,
        **{name: getattr(described, name) for name in ("n_way", "n_shot", "n_query")},
        "n_episodes": None if accuracy is None else accuracy.n,
        **({f"corrupt_{name}": value for name, value in to_mapping(corrupt).items()} if corrupt else {}),
    }
    return Card(
        id=cell_id(about.config, benchmark, probe),
        name=f"{_label(about.config)} | {benchmark} | {probe}",
        group=f"{protocol}-{benchmark}",
        job_type="evaluate",
        tags=tags(about.config),
        config={**_flat_config(about), **without_none(cell)},
    )


def transfer_card(about: About, summary: RunSummary, name: str, images: str) -> Card:
    """Label one transfer.

    Args:
        about: The run.
        summary: Its figures.
        name: The transfer's key in the config.
        images: Digest of its images and their split: its protocol.
    """
    described = summary.transfer[name]
    return Card(
        id=run_id(about.config, f"transfer-{name}"),
        name=f"{_label(about.config)} | {name}",
        group=f"{images}-{name}",
        job_type="evaluate",
        tags=tags(about.config),
        config={
            **_flat_config(about),
            "protocol": images,
            "n_chunks": _n_chunks(summary),
            "benchmark": name,
            "probe": described.probe,
            "n_classes": described.n_classes,
        },
    )


def _n_chunks(summary: RunSummary) -> int:
    return 0 if summary.pretrain is None else summary.pretrain.n_chunks


def report_card(about: About) -> Card:
    """Label the report page of a run."""
    return Card(
        id=run_id(about.config, "report"),
        name=f"{_label(about.config)} | report",
        group="reports",
        job_type="report",
        tags=tags(about.config),
        config=_flat_config(about),
    )


def comparison_card(numbers: Mapping[str, Any]) -> Card:
    """Label a comparison by the content of its `comparison.json`; other numbers make another W&B run."""
    labels = [run["run"] for run in numbers["runs"]]
    named = ", ".join(labels) if len(labels) <= 4 else f"{labels[0]} and {len(labels) - 1} more"
    return Card(
        id=f"compare-{digest({name: numbers[name] for name in ('reference', 'groups', 'rows', 'pairs')})}",
        name=f"compare {named}",
        group="comparisons",
        job_type="compare",
        tags=_short(run["backbone"] for run in numbers["runs"])[:16],
        config=without_none(
            {
                "n_runs": len(labels),
                "reference": numbers["reference"],
                "run_digests": [run["digest"] for run in numbers["runs"]],
                "version_lurefs": numbers["lurefs"],
            }
        ),
    )


def cell_id(config: RunConfig, benchmark: str, probe: str) -> str:
    """Return the id of one cell."""
    return run_id(config, f"{benchmark}--{probe}")


def run_id(config: RunConfig, part: str) -> str:
    """Return a readable id of at most 64 characters that W&B accepts.

    If characters are replaced or cut off, a digest keeps different ids different.
    """
    wanted = f"{digest(run_identity(config))}-{part}"
    readable = re.sub(r"[^A-Za-z0-9_.-]", "_", wanted)
    return wanted if readable == wanted and len(wanted) <= 64 else f"{readable[:51]}-{digest(wanted)}"


def tags(config: RunConfig) -> tuple[str, ...]:
    """Return the run's tags, at most 64 characters each, as W&B requires."""
    return _short([config.backbone.name, config.unlearn.name, config.dataset.name, *config.trackers.wandb.tags])


def without_none(row: Row) -> Row:
    """Return a row without None, which W&B would show as a value."""
    return {key: value for key, value in row.items() if value is not None}


def fitting(name: str) -> str:
    """Return a name or group of at most 128 characters, as W&B requires; a digest keeps shortened ones different."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 14]}… {digest(name)}"


def _short(wanted: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag[:64] for tag in wanted if tag))


def _label(config: RunConfig) -> str:
    return f"{config.name} | {config.backbone.name} | {config.unlearn.name} | seed {config.seed}"


def _flat_config(about: About) -> Row:
    config, cost = about.config, about.cost
    backbone = about.identity.get("backbone", {})
    n_parameters, n_macs = backbone.get("n_parameters"), cost.get("n_macs")
    flat = {
        "run_name": config.name,
        "run_digest": digest(run_identity(config)),
        "backbone": config.backbone.name,
        "backbone_params_m": None if n_parameters is None else n_parameters / 1e6,
        "backbone_gmacs": None if n_macs is None else n_macs / 1e9,
        "n_features": backbone.get("n_features"),
        "image_size": backbone.get("image_size"),
        "pretrained": config.backbone.pretrained,
        "stem": config.backbone.stem,
        "strategy": config.unlearn.name,
        "keep_ratio": _keep_ratio(config.unlearn),
        **_learning(config.learner),
        "n_chunks": config.chunks.n_chunks,
        **{name: getattr(config.chunks, name) for name in _REGIME},
        "dataset": config.dataset.name,
        "seed": config.seed,
        "device": cost.get("device", config.device),
        "n_threads": cost.get("n_threads"),
        **{f"version_{name}": version for name, version in about.identity.get("versions", {}).items()},
    }
    return without_none(flat)


def _learning(learner: LearnerConfig) -> Row:
    """Return the learner's settings; its `schedule` is `lr_schedule` here, since chunks have a `schedule` too."""
    params = learner.optimizer.params
    return {
        "optimizer": learner.optimizer.name,
        "learning_rate": params.get("lr"),
        "weight_decay": params.get("weight_decay", 0.0),
        "lr_schedule": learner.schedule,
        "batch_size": learner.batch_size,
        "epochs": learner.epochs,
        "relearn_epochs": learner.epochs if learner.relearn_epochs is None else learner.relearn_epochs,
        "match_images_seen": learner.match_images_seen,
        "l2_init": learner.l2_init,
    }


def _keep_ratio(unlearn: PluginConfig) -> float | None:
    """Return a strategy's keep ratio, set or default; None if it has none, or only in the code of a plug-in."""
    known = plugins.own_parameters("unlearn", unlearn.name)
    default = known["keep_ratio"].default if "keep_ratio" in known else None
    found: float | None = unlearn.params.get("keep_ratio", default)
    return found
