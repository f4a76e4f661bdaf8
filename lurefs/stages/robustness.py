"""Robustness of a backbone with its head: accuracy on corrupted and attacked test images of the base classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from episodes.arrays import IntArray
from lurefs import console
from lurefs.config.identity import digest
from lurefs.config.schema import CORRUPTIONS, RobustnessConfig
from lurefs.data.corruptions import corrupt
from lurefs.data.dataset import ImageArray
from lurefs.learning import checkpoints
from lurefs.learning.backbones import Backbone
from lurefs.learning.images import at_once, to_tensor
from lurefs.records import to_mapping
from lurefs.runs.outcomes import ChunkOutcome, RobustnessScores
from lurefs.stages import attacks
from lurefs.stages.features import viewed
from lurefs.stages.plan import Plan
from lurefs.stages.stage import Stage

BATCH_SIZE = 128
"""Images that are changed and classified at once; fixed, so that no memory setting changes an attack's numbers."""

Change = Callable[[slice], Tensor]
"""Rows of the images -> raw pixels (n, n_channels, height, width) in [0, 255], on the backbone's device."""


def measure(
    backbone: Backbone,
    images: ImageArray,
    image_ids: Sequence[str],
    labels: IntArray,
    config: RobustnessConfig,
    *,
    description: str = "robustness",
) -> RobustnessScores:
    """Measure accuracy on the images: unchanged, after every corruption, and after every attack.

    Args:
        backbone: The classifier; put into evaluation mode.
        images: (n, height, width, n_channels) uint8.
        image_ids: One stable name per image.
        labels: (n,) int64 in 0..n_classes-1.
        config: The corruptions and attacks.
        description: Text of the progress bar.
    """
    backbone.model.eval()
    device = next(backbone.model.parameters()).device
    targets = torch.tensor(labels, device=device)
    corruptions: dict[str, dict[str, float]] = {name: {} for name in corruption_names(config)}
    attacked: dict[str, dict[str, float]] = {name: {} for name in config.attacks}

    def corrupted(name: str, severity: int, rows: slice) -> Tensor:
        return to_tensor(corrupt(images[rows], image_ids[rows], corruption=name, severity=severity)).to(device)

    def adversarial(name: str, epsilon: float, rows: slice) -> Tensor:
        pixels, steps, size = to_tensor(images[rows]).to(device), config.pgd_steps, config.pgd_step_size
        return 255 * attacks.attack(
            backbone, pixels, targets[rows], name=name, epsilon=epsilon, n_steps=steps, step_size=size
        )

    changes: list[tuple[dict[str, float], str, Change]] = [
        *(
            (corruptions[name], str(severity), partial(corrupted, name, severity))
            for name in corruptions
            for severity in config.severities
        ),
        *(
            (attacked[name], f"{epsilon:g}", partial(adversarial, name, epsilon))
            for name, epsilons in config.attacks.items()
            for epsilon in epsilons
        ),
    ]
    clean = _accuracy(backbone, lambda rows: to_tensor(images[rows]).to(device), targets)
    for scores, level, change in console.track(changes, len(changes), description):
        scores[level] = _accuracy(backbone, change, targets)
    return RobustnessScores(
        n_images=len(images), clean_accuracy=clean, corruptions=corruptions, attacks=attacked, protocol=protocol(config)
    )


def with_robustness(stage: Stage, outcome: ChunkOutcome, backbone: Backbone) -> ChunkOutcome:
    """Measure robustness of the current weights and add it to the outcome, if the run asks for it."""
    plan, config = stage.plan, stage.plan.config
    if config.robustness is None or not _is_due(plan, outcome.chunk_index):
        return outcome
    test = plan.images.test
    n_images = min(config.robustness.n_images, len(test))
    rows = test[np.linspace(0, len(test) - 1, n_images).round().astype(np.int64)]
    scores = measure(
        backbone,
        viewed(plan.dataset, backbone).read(rows),
        [plan.dataset.image_ids[row] for row in rows],
        np.searchsorted(plan.classes.base, plan.dataset.labels[rows]).astype(np.int64),
        config.robustness,
        description=f"{config.name}: robustness after chunk {outcome.chunk_index + 1}",
    )
    return replace(outcome, robustness=scores)


def complete_robustness(stage: Stage, outcomes: list[ChunkOutcome], backbone: Backbone) -> list[ChunkOutcome]:
    """Measure robustness from kept checkpoints if it is missing or of other settings."""
    plan, config = stage.plan, stage.plan.config.robustness
    if config is None:
        return outcomes
    completed = []
    for outcome in outcomes:
        if outcome.robustness is None or outcome.robustness.protocol != protocol(config):
            outcome = replace(outcome, robustness=None)  # one curve must not mix two protocols
            path = stage.directory.checkpoint_path(outcome.chunk_index)
            if _is_due(plan, outcome.chunk_index) and path.exists():
                checkpoints.load_checkpoint(path, backbone.model)
                outcome = with_robustness(stage, outcome, backbone)
        completed.append(outcome)
    if completed != outcomes:
        stage.directory.write_outcomes(completed)
    return completed


def corruption_names(config: RobustnessConfig) -> list[str]:
    """Return the corruptions that a configuration asks for."""
    return list(CORRUPTIONS) if config.corruptions == "all" else config.corruptions


def protocol(config: RobustnessConfig) -> str:
    """Return the digest of the settings that the figures depend on."""
    return digest({name: value for name, value in to_mapping(config).items() if name != "after"})


def _is_due(plan: Plan, chunk_index: int) -> bool:
    config = plan.config.robustness
    return config is not None and (config.after == "every_chunk" or chunk_index == len(plan.chunks) - 1)


def _accuracy(backbone: Backbone, change: Change, targets: Tensor) -> float:
    n_correct = 0
    for start in range(0, len(targets), BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        pixels = change(rows)
        with torch.inference_mode():
            parts = pixels.split(at_once(backbone.image_size, pixels.device))
            found = torch.cat([backbone.logits(part).argmax(1) for part in parts])
            n_correct += int((found == targets[rows]).sum())
    return n_correct / len(targets)
