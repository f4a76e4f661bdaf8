"""Scoring of fine-tuned probes: the first episodes of each benchmark, one after another, in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.bank import FeatureBank
from episodes.fitting import proper_scores
from episodes.manifest import Manifest
from episodes.metrics import reliability
from episodes.probes import Classifier, converged, fit_quietly, logistic_regression
from episodes.sampler import Episode
from episodes.table import EpisodeTable, collect
from episodes.transforms import FeatureTransform, fit_transform
from lurefs import console
from lurefs.config.fine_tuning import FineTuningConfig, fine_tunings
from lurefs.config.identity import digest, probe_card
from lurefs.errors import UserError, first_line
from lurefs.learning import checkpoints
from lurefs.learning.backbones import Backbone
from lurefs.learning.fine_tuning import LinearHead, fine_tune, trained_names
from lurefs.learning.images import to_tensor
from lurefs.records import through_json, to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.seeding import seed_stream
from lurefs.stages.features import as_needed, match_channels
from lurefs.stages.places import last_checkpoint
from lurefs.stages.plan import Benchmark, ImageSet
from lurefs.stages.stage import Stage, plan_backbone, read_or_draw_manifest

EPISODES_AT_ONCE = 10
"""Episodes between two writes of unfinished results: a killed run loses fewer than these."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One fine-tuned probe on one benchmark.

    Attributes:
        name: The probe's name.
        settings: Its settings.
        transform: The transform of the features before the head.
        benchmark: The benchmark.
        manifest: Its episodes; the first ones are scored.
        identity: Everything that the results depend on.
    """

    name: str
    settings: FineTuningConfig
    transform: str
    benchmark: Benchmark
    manifest: Manifest
    identity: dict[str, Any]

    @property
    def n_episodes(self) -> int:
        return min(self.settings.n_episodes, len(self.manifest))


def score_fine_tuned(stage: Stage) -> None:
    """Score every fine-tuned probe on the first episodes of every benchmark; valid stored results are kept.

    Raises:
        UserError: A benchmark's features were not extracted, or fine-tuning diverges.
    """
    directory = stage.directory
    tasks = [task for task in _tasks(stage) if not _is_done(directory, task)]
    if not tasks:
        return
    backbone = plan_backbone(stage.plan)
    if not stage.plan.config.frozen:
        checkpoints.load_checkpoint(last_checkpoint(stage.plan, directory), backbone.model)
    backbone.model.to(stage.device)
    for task in tasks:
        path = directory.unfinished_path(task.benchmark.name, task.name)
        done = _unfinished(directory, task)
        tables = [] if done is None else [done]
        n_done = 0 if done is None else len(done)
        scored = _score(stage, backbone, task, range(n_done, task.n_episodes))
        words = f"{task.benchmark.name}, {task.name}"
        for number, row in enumerate(console.track_blocks(scored, task.n_episodes - n_done, words), start=1):
            tables.append(row)
            if number % EPISODES_AT_ONCE == 0:
                tables = [collect(tables, task.identity)]
                tables[0].save(path)
        collect(tables, task.identity).save(directory.episodes_path(task.benchmark.name, task.name))
        path.unlink(missing_ok=True)


def _tasks(stage: Stage) -> Iterator[_Task]:
    plan = stage.plan
    for name, settings in fine_tunings(plan.config).items():
        config = plan.config.probes[name]
        for benchmark in plan.benchmarks.values():
            manifest = read_or_draw_manifest(stage, benchmark)
            support, query = (
                digest(dict(stage.directory.read_bank(images.name).identity)) for images in benchmark.sides
            )
            identity = {
                "manifest": manifest.hash,
                "probe": {**probe_card(config), "params": to_mapping(settings)},
                "bank": support,
                **({} if query == support else {"query_bank": query}),
                "seed": plan.config.seed,
            }
            yield _Task(
                name=name,
                settings=settings,
                transform=config.transform,
                benchmark=benchmark,
                manifest=manifest,
                identity=through_json(identity),
            )


def _is_done(directory: RunDirectory, task: _Task) -> bool:
    path = directory.episodes_path(task.benchmark.name, task.name)
    return path.exists() and directory.read_episodes(task.benchmark.name, task.name).identity == task.identity


def _unfinished(directory: RunDirectory, task: _Task) -> EpisodeTable | None:
    """Return the stored results of the first episodes; None without any, or if they are damaged or of another task."""
    try:
        stored = EpisodeTable.load(directory.unfinished_path(task.benchmark.name, task.name))
    except Exception:  # a damaged file raises errors of many kinds
        return None
    return stored if stored.identity == task.identity else None


def _score(stage: Stage, backbone: Backbone, task: _Task, chosen: range) -> Iterator[EpisodeTable]:
    """Yield the results of some episodes one by one."""
    trained = trained_names(backbone.model, task.settings.train)
    banks = [stage.directory.read_bank(images.name) for images in task.benchmark.sides]
    sides = [as_needed(images, backbone) for images in task.benchmark.sides]
    transform = fit_transform(task.transform)
    for index in chosen:
        began, episode = time.perf_counter(), task.manifest[index]
        start = _fit_start(banks[0], episode, task, transform)
        starting = np.asarray(start.predict(transform(banks[1].features[episode.query])))
        seed = seed_stream(stage.plan.config.seed, "fine_tuning", task.benchmark.name, index)
        tuned = fine_tune(
            backbone,
            trained,
            _linear_head(start, task.transform, stage.device),
            _read(sides[0], episode.support, backbone, stage.device),
            torch.from_numpy(np.array(episode.support_labels)).to(stage.device),
            _read(sides[1], episode.query, backbone, stage.device),
            task.settings,
            torch.Generator().manual_seed(seed),
        )
        logits = tuned.logits.double().cpu()
        if not bool(torch.isfinite(logits).all()):
            raise UserError(
                f"fine-tuning with probe {task.name!r} diverges on episode {index} of {task.benchmark.name!r}",
                "a learning rate at which the logits stay finite",
                f"lower probes.{task.name}.params.lr, now {task.settings.lr:g}; finished work is kept",
            )
        yield _row(episode, logits, starting, tuned.weights_moved, task.settings.steps, began)


def _row(
    episode: Episode, logits: Tensor, starting: NDArray[Any], moved: float, n_steps: int, began: float
) -> EpisodeTable:
    """Return the results of one episode as a table of one row."""
    probabilities, labels = logits.softmax(1).numpy(), episode.query_labels
    predicted = probabilities.argmax(1).astype(np.int16)
    nll, brier = proper_scores(probabilities[None], labels, 1)
    n_backward = n_steps * len(episode.support)
    extra = {
        "start_accuracy": (starting == labels).mean(),
        "changed_predictions": (starting != predicted).mean(),
        "weights_moved": moved,
        "forward_passes": n_backward + len(episode.query),
        "backward_passes": n_backward,
    }
    return EpisodeTable(
        index=np.array([episode.index]),
        classes=np.asarray(episode.classes)[None],
        accuracy=np.array([(predicted == labels).mean()]),
        nll=nll,
        brier=brier,
        converged=np.array([True]),
        seconds=np.array([time.perf_counter() - began]),
        reliability=reliability(probabilities, labels),
        predicted=predicted[None],
        n_by_solver={"fine-tuning": 1},
        extra={name: np.array([value], dtype=np.float64) for name, value in extra.items()},
    )


def _fit_start(bank: FeatureBank, episode: Episode, task: _Task, transform: FeatureTransform) -> Classifier:
    """Fit the logistic regression that the head starts from, as `episodes.scoring.score` fits it as a probe."""
    from threadpoolctl import threadpool_limits

    classifier = logistic_regression(C=task.settings.C)
    if task.manifest.spec.is_uniform:  # the batched solver gives the converged solution
        classifier = converged(classifier)
    try:
        with threadpool_limits(limits=1):
            fit_quietly(classifier, transform(bank.features[episode.support]), episode.support_labels)
    except ValueError as error:
        raise UserError(
            f"probe {task.name!r} on benchmark {task.benchmark.name!r}: the head that fine-tuning starts from cannot "
            f"be fitted on episode {episode.index}: {first_line(error)}",
            "finite features",
            "check the backbone's weights",
        ) from error
    return classifier


def _linear_head(classifier: Any, transform: str, device: torch.device) -> LinearHead:
    """Return the fitted logistic regression as a head; with two classes scikit-learn keeps only their difference."""
    weight, bias = classifier.coef_, classifier.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight, bias = (torch.from_numpy(np.asarray(each, dtype=np.float32)).to(device) for each in (weight, bias))
    return LinearHead(weight=weight, bias=bias, on_unit_length=transform == "l2")


def _read(images: ImageSet, rows: NDArray[np.int64], backbone: Backbone, device: torch.device) -> Tensor:
    """Return images as the backbone takes them, (n, n_channels, height, width) uint8."""
    pixels = images.dataset.read(images.rows[rows])
    return match_channels(to_tensor(pixels), backbone.n_channels).to(device)
