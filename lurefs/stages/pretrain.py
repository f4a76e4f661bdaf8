"""The first stage: learning of the chunks, with few-shot accuracy and robustness after each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from episodes.manifest import Manifest
from lurefs import console, plugins
from lurefs.config.identity import digest, pretrain_identity
from lurefs.errors import UserError
from lurefs.learning import checkpoints
from lurefs.learning.backbones import Backbone
from lurefs.learning.images import open_images
from lurefs.learning.learner import EpochRecord, Learner, learn_online, make_learner
from lurefs.learning.progress import Progress, load_progress, save_progress
from lurefs.ranks import Ranks
from lurefs.runs.outcomes import ChunkOutcome
from lurefs.stages.checks import smallest_batch
from lurefs.stages.features import viewed
from lurefs.stages.few_shot import complete_few_shot, with_few_shot
from lurefs.stages.needed import refuse_changed_files
from lurefs.stages.plan import Plan
from lurefs.stages.robustness import complete_robustness, with_robustness
from lurefs.stages.stage import Stage, plan_backbone, read_or_draw_manifest


def pretrain(stage: Stage) -> list[ChunkOutcome]:
    """Learn the unfinished chunks, and store a checkpoint and an outcome after each.

    With several processes only the first one writes, and measures few-shot accuracy and robustness.

    Raises:
        UserError: A checkpoint is damaged, training diverged, the strategy changed nothing, or there are too many
            processes for a batch.
    """
    plan, directory, config, ranks = stage.plan, stage.directory, stage.plan.config, stage.ranks
    _check_ranks(plan, ranks)
    outcomes = directory.read_outcomes()
    backbone = plan_backbone(plan)
    backbone.model.to(stage.device)
    learner = make_learner(backbone, config.backbone, config.learner, ranks)  # while the weights are initial
    manifests = {}
    if ranks.is_first:
        manifests = {name: read_or_draw_manifest(stage, benchmark) for name, benchmark in plan.benchmarks.items()}
        outcomes = _complete(stage, outcomes, backbone, manifests)
    if len(outcomes) < len(plan.chunks):
        progress = _restore(stage, learner, outcomes)
        for outcome in _learn(stage, learner, first=len(outcomes), progress=progress):
            if ranks.is_first:
                outcome = _measure_and_store(stage, learner, outcome, outcomes, manifests)
                stage.tracker.log_chunk(outcome)
            outcomes = [*outcomes, outcome]
    stage.tracker.finish_pretrain()
    ranks.wait()
    return outcomes


def _complete(
    stage: Stage, outcomes: list[ChunkOutcome], backbone: Backbone, manifests: Mapping[str, Manifest]
) -> list[ChunkOutcome]:
    """Check the checkpoints of the finished chunks, and use them to fill in missing measurements."""
    for outcome in outcomes:
        path = stage.directory.checkpoint_path(outcome.chunk_index)
        if path.exists() or outcome is outcomes[-1]:
            checkpoints.read_identity(path)
    outcomes = complete_few_shot(stage, outcomes, backbone, manifests)
    outcomes = complete_robustness(stage, outcomes, backbone)
    _remove_weights(stage, outcomes)
    return outcomes


def _restore(stage: Stage, learner: Learner, outcomes: Sequence[ChunkOutcome]) -> Progress | None:
    """Restore the last finished chunk, or the unfinished one if its progress was saved; return that progress."""
    directory, model = stage.directory, learner.backbone.model
    if outcomes:
        newest = directory.checkpoint_path(outcomes[-1].chunk_index)
        checkpoints.load_checkpoint(newest, model)
        checkpoints.load_optimizer(newest, learner.optimizer)
    return load_progress(directory.progress_path, len(outcomes), model, learner.optimizer, _run_digest(stage))


def _measure_and_store(
    stage: Stage,
    learner: Learner,
    outcome: ChunkOutcome,
    earlier: Sequence[ChunkOutcome],
    manifests: Mapping[str, Manifest],
) -> ChunkOutcome:
    """Store a chunk's checkpoint and outcome, then add few-shot accuracy and robustness.

    The weights are stored before they are measured: if measuring fails, the next start measures the checkpoint.
    """
    directory, backbone = stage.directory, learner.backbone
    path = directory.checkpoint_path(outcome.chunk_index)
    refuse_changed_files(stage, backbone, "pretrain")
    checkpoints.save_checkpoint(path, backbone.model, learner.optimizer, _checkpoint_card(stage, backbone, outcome))
    directory.write_outcomes([*earlier, outcome])
    directory.progress_path.unlink(missing_ok=True)
    checkpoints.remove_older_optimizers(path)
    outcome = with_few_shot(stage, outcome, backbone, manifests)
    outcome = with_robustness(stage, outcome, backbone)
    directory.write_outcomes([*earlier, outcome])
    _remove_weights(stage, [*earlier, outcome])
    return outcome


def _check_ranks(plan: Plan, ranks: Ranks) -> None:
    smallest = smallest_batch(plan)
    if ranks.world_size > 1 and smallest < 2 * ranks.world_size:
        raise UserError(
            f"the smallest training batch has {smallest} images for {ranks.world_size} processes",
            "at least 2 images per process",
            "start fewer processes, or raise learner.batch_size, or make chunks larger",
        )


def _learn(stage: Stage, learner: Learner, *, first: int, progress: Progress | None) -> Iterator[ChunkOutcome]:
    """Learn the chunks from index `first` on, and yield their outcomes."""
    plan, config = stage.plan, stage.plan.config
    rows = np.concatenate([plan.images.train, plan.images.val, plan.images.test])
    dataset = viewed(plan.dataset, learner.backbone)
    images = open_images(dataset, rows, plan.classes.base, stage.device, config.learner, labels=plan.given_labels)
    events = learn_online(
        learner,
        images,
        plan.chunks,
        plan.images.test,
        config.learner,
        plugins.build("unlearn", config.unlearn.name, config.unlearn.params),
        strategy_name=config.unlearn.name,
        seed=config.seed,
        first=first,
        progress=progress,
    )
    return console.track_learning(_with_progress(stage, learner, events), len(plan.chunks), first, config.name)


def _with_progress(
    stage: Stage, learner: Learner, events: Iterator[EpochRecord | ChunkOutcome]
) -> Iterator[EpochRecord | ChunkOutcome]:
    """Yield the events, and save the progress after epochs, at most as often as the config says."""
    every_seconds = stage.plan.config.checkpoints.every_seconds
    stored = time.monotonic()
    for event in events:
        is_due = every_seconds is not None and time.monotonic() - stored >= every_seconds
        if isinstance(event, EpochRecord) and is_due and stage.ranks.is_first:
            path = stage.directory.progress_path
            save_progress(path, event.progress, learner.backbone.model, learner.optimizer, _run_digest(stage))
            stored = time.monotonic()
        yield event


def _run_digest(stage: Stage) -> str:
    return str(stage.directory.read_identity()["digest"])  # `claim` has checked it


def _remove_weights(stage: Stage, outcomes: Sequence[ChunkOutcome]) -> None:
    """Remove the weights that `checkpoints.keep` does not keep; the last ones always stay."""
    keep = stage.plan.config.checkpoints.keep
    best = max(outcomes, key=lambda outcome: outcome.val_accuracy, default=None)
    for outcome in outcomes[:-1] if keep != "all" else []:
        if keep == "last" or outcome is not best:
            checkpoints.remove_checkpoint(stage.directory.checkpoint_path(outcome.chunk_index))


def _checkpoint_card(stage: Stage, backbone: Backbone, outcome: ChunkOutcome) -> dict[str, Any]:
    config = stage.plan.config
    return {
        "run": config.name,
        "chunk_index": outcome.chunk_index,
        "pretrain": digest(pretrain_identity(config)),
        "timm_model": config.backbone.name,
        **asdict(backbone.view),
        "class_names": [stage.plan.dataset.class_names[label] for label in stage.plan.classes.base],
        "test_accuracy": outcome.test_accuracy,
    }
