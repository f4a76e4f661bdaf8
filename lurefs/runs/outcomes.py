"""Outcome of each chunk, and figures over all chunks of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass(frozen=True, kw_only=True)
class UnlearnReport:
    """Effects of an unlearn strategy at a chunk boundary.

    Attributes:
        strategy: The strategy's name in the config.
        n_kept: Number of weights that it left unchanged.
        n_reset: Number of weights that it changed.
        reset_share: Parameter name -> share of its weights that were changed, in [0, 1].
        accuracy_before: Accuracy on the next chunk's validation images just before, fraction.
        accuracy_after: The same just after.
        accuracy_after_new_statistics: The same just after, with batch norm's statistics recomputed on images seen so
            far; None for models without batch norm.
        seconds: Wall-clock time of the strategy, without the measurements.
        n_images: Number of images seen so far, un-augmented, on which the next five are measured; 0 if they were not.
        changed_predictions: Share of these images whose predicted class changed, with the running statistics as the
            strategy left them.
        logit_change: Mean absolute change of a logit on these images.
        silent_before: Share of resettable weights whose saliency on these images is exactly 0, just before.
        silent_after: The same just after.
        structural_zeros: Share of resettable weights that no image can give a gradient, e.g. convolution taps that
            only meet padding.
        structural_zeros_reset: The same share of the resettable weights that were changed.
    """

    strategy: str
    n_kept: int
    n_reset: int
    reset_share: dict[str, float]
    accuracy_before: float
    accuracy_after: float
    accuracy_after_new_statistics: float | None = None
    seconds: float
    n_images: int = 0
    changed_predictions: float | None = None
    logit_change: float | None = None
    silent_before: float | None = None
    silent_after: float | None = None
    structural_zeros: float | None = None
    structural_zeros_reset: float | None = None


@dataclass(frozen=True, kw_only=True)
class FewShotScore:
    """Few-shot accuracy on one benchmark after one chunk.

    Attributes:
        manifest: Hash of the manifest whose first `n_episodes` were scored.
        probe: The probe's name in the config.
        n_episodes: Number of episodes.
        accuracy: Mean over episodes, fraction.
        ci95_episodes: Half width of the 95 % interval over episodes of this pool, fraction.
        corrupt: Which images were corrupted, and how, in words; empty for none.
        images: Digest of the images of the benchmark.
        settings: Digest of the probe's settings.
    """

    manifest: str
    probe: str
    n_episodes: int
    accuracy: float
    ci95_episodes: float
    corrupt: str = ""
    images: str = ""
    settings: str = ""


@dataclass(frozen=True, kw_only=True)
class RobustnessScores:
    """Accuracy on corrupted and attacked held-out base images after one chunk.

    Attributes:
        n_images: Test images that were changed and classified.
        clean_accuracy: Accuracy on the same images unchanged, fraction; None if not recorded.
        corruptions: Accuracy by corruption and severity (`"1"` to `"5"`), fraction.
        attacks: Accuracy by attack and epsilon (`"0.0157"`: the largest change of a pixel in [0, 1]), fraction.
        protocol: Digest of the settings of the measurement.
    """

    n_images: int
    clean_accuracy: float | None = None
    corruptions: dict[str, dict[str, float]] = field(default_factory=dict)
    attacks: dict[str, dict[str, float]] = field(default_factory=dict)
    protocol: str = ""

    @property
    def corruption_accuracy(self) -> float | None:
        """Mean accuracy over corruptions and severities, fraction; None if none was measured."""
        found = [accuracy for severities in self.corruptions.values() for accuracy in severities.values()]
        return float(np.mean(found)) if found else None


@dataclass(frozen=True, kw_only=True)
class ChunkOutcome:
    """Outcome of training on one chunk.

    Attributes:
        chunk_index: From 0.
        phase: `learn` for the first chunk, `relearn` for the later ones.
        n_new: Images that arrived with this chunk, validation images included.
        n_train: Training images, new and replayed.
        n_images_seen: Images that went through a training step, summed over epochs.
        best_epoch: The epoch (from 0) whose weights were kept.
        train_loss: Mean cross-entropy of that epoch's training batches.
        train_accuracy: Accuracy on those batches (augmented, while learning), fraction.
        fit_accuracy: Accuracy of the kept weights on un-augmented training images, as many as test images and drawn
            evenly, fraction.
        val_accuracy: Accuracy on the validation images after that epoch, fraction.
        n_test_errors: Misclassified test images.
        n_test: Test images, held out.
        test_ece: Expected calibration error on them: top label, 15 equal-width bins, fraction.
        test_nll: Mean negative log-likelihood on them, nats.
        n_forgotten: Test images classified correctly after the previous chunk and wrongly after this one; 0 for the
            first.
        n_gained: Test images classified wrongly after the previous chunk and correctly after this one.
        n_epochs_to_recover: Epochs until the accuracy on this chunk's validation images was back at its value from
            before unlearning; 0 if it never fell; None if it never recovered, and for the first chunk.
        unlearn: Report of the unlearning before the chunk; None for the first.
        few_shot: Few-shot accuracy on novel classes by benchmark name; empty if not measured.
        robustness: Accuracy on changed test images; None if not measured.
        train_seconds: Wall-clock time of the training epochs.
        seconds: Wall-clock time of the chunk: unlearning, training, validation and test.
    """

    chunk_index: int
    phase: Literal["learn", "relearn"]
    n_new: int
    n_train: int
    n_images_seen: int
    best_epoch: int
    train_loss: float
    train_accuracy: float
    fit_accuracy: float
    val_accuracy: float
    n_test_errors: int
    n_test: int
    test_ece: float
    test_nll: float
    n_forgotten: int = 0
    n_gained: int = 0
    n_epochs_to_recover: int | None = None
    unlearn: UnlearnReport | None = None
    few_shot: dict[str, FewShotScore] = field(default_factory=dict)
    robustness: RobustnessScores | None = None
    train_seconds: float
    seconds: float

    @property
    def test_accuracy(self) -> float:
        """Accuracy on the held-out base images, fraction."""
        return 1.0 - self.n_test_errors / self.n_test

    @property
    def generalisation_gap(self) -> float:
        """Accuracy on training images minus accuracy on test images, fraction."""
        return self.fit_accuracy - self.test_accuracy


def anytime_accuracy(outcomes: Sequence[ChunkOutcome]) -> float:
    """Return the accuracy on held-out base images, mean over chunks, fraction."""
    return float(np.mean([outcome.test_accuracy for outcome in outcomes]))


def cumulative_errors(outcomes: Sequence[ChunkOutcome]) -> int:
    """Return the number of misclassified test images, summed over chunks (Ramkumar et al. 2023, released code)."""
    return sum(outcome.n_test_errors for outcome in outcomes)


def cumulative_error_rate(outcomes: Sequence[ChunkOutcome]) -> float:
    """Return the cumulative errors as a share of all test predictions, fraction."""
    return cumulative_errors(outcomes) / sum(outcome.n_test for outcome in outcomes)


def accuracy_changes(outcomes: Sequence[ChunkOutcome]) -> list[float]:
    """Return the change of accuracy on held-out base images by each chunk after the first, fractions."""
    return [float(change) for change in np.diff([outcome.test_accuracy for outcome in outcomes])]


def changed_predictions(outcomes: Sequence[ChunkOutcome]) -> list[float]:
    """Return the share of predictions that each measured reset changed, fractions."""
    shares = [outcome.unlearn.changed_predictions for outcome in outcomes if outcome.unlearn is not None]
    return [share for share in shares if share is not None]


def mean_changed_predictions(outcomes: Sequence[ChunkOutcome]) -> float | None:
    """Return the mean of `changed_predictions` over resets, fraction; None if none was measured."""
    shares = changed_predictions(outcomes)
    return float(np.mean(shares)) if shares else None


def reset_in_words(outcomes: Sequence[ChunkOutcome]) -> str:
    """Say how many resets changed no prediction; empty if all changed some, or none was measured."""
    shares = changed_predictions(outcomes)
    n_idle = shares.count(0.0)
    if not n_idle:
        return ""
    if n_idle == len(shares):
        return "unlearning changed no prediction: this run is a warm start in effect"
    return f"{n_idle} of {len(shares)} resets changed no prediction"


def train_seconds(outcomes: Sequence[ChunkOutcome]) -> float:
    """Return the seconds of all training epochs, without unlearning."""
    return sum(outcome.train_seconds for outcome in outcomes)


def unlearn_seconds(outcome: ChunkOutcome) -> float:
    """Return the seconds of unlearning before a chunk; 0 without unlearning."""
    return outcome.unlearn.seconds if outcome.unlearn else 0.0
