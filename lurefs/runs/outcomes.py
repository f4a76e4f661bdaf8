"""What each chunk led to, and the figures over all chunks of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass(frozen=True, kw_only=True)
class UnlearnReport:
    """What an unlearn strategy did at a chunk boundary.

    Attributes:
        strategy: The strategy's name in the config.
        n_kept: Number of weights that it left as they were.
        n_reset: Number of weights that it changed.
        reset_share: By parameter name, the share of the weights that it changed, in [0, 1].
        accuracy_before: Accuracy on the validation images of the chunk that follows, just before, fraction.
        accuracy_after: The same just after.
        accuracy_after_new_statistics: The same just after, once batch norm has the statistics of images seen so far in
            place of those from before; None for models without batch norm.
        seconds: Wall-clock time of the strategy, without measuring what it did.
        n_images: Images seen so far, un-augmented, that the following five are measured on; 0 where they were not.
        changed_predictions: Share of them that the model takes for another class than before, with its running
            statistics as the strategy left them.
        logit_change: Mean absolute change of a logit on them.
        silent_before: Share of the weights that a strategy may reset whose saliency on them is exactly 0, just before.
        silent_after: The same just after.
        structural_zeros: Share of these weights that no image can give a gradient, e.g. taps of a convolution that only
            ever meet padding.
        structural_zeros_reset: Share of the weights that were changed, of those that a strategy may reset, that no
            image can give a gradient.
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
        n_episodes: How many episodes.
        accuracy: Mean over episodes, fraction.
        ci95_episodes: Half width of the 95 % interval over episodes of this pool, fraction.
        corrupt: Which images were corrupted, and how, in words; empty if none were.
    """

    manifest: str
    probe: str
    n_episodes: int
    accuracy: float
    ci95_episodes: float
    corrupt: str = ""


@dataclass(frozen=True, kw_only=True)
class RobustnessScores:
    """Accuracy on held-out base images that were changed, after one chunk.

    Attributes:
        n_images: Test images that were changed and classified.
        clean_accuracy: Accuracy on the same images unchanged, fraction; None where it was not noted down.
        corruptions: By corruption and severity (`"1"` to `"5"`), accuracy, fraction.
        attacks: By attack and epsilon (`"0.0157"`: the largest change of a pixel in [0, 1]), accuracy, fraction.
        protocol: Digest of the settings that it was measured with.
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
    """What training on one chunk led to.

    Attributes:
        chunk_index: From 0.
        phase: `learn` for the first chunk, `relearn` for the later ones.
        n_new: Images that arrived with this chunk, validation images included.
        n_train: Images it trained on: new ones and replayed ones.
        n_images_seen: Images that went through a training step, summed over epochs.
        best_epoch: The epoch (from 0) whose weights were kept.
        train_loss: Mean cross-entropy of that epoch's training batches.
        train_accuracy: Accuracy on those batches (augmented, while learning), fraction.
        fit_accuracy: Accuracy of the kept weights on training images, un-augmented, as many as there are test images
            and drawn evenly, fraction.
        val_accuracy: Accuracy on the validation images after that epoch, fraction.
        n_test_errors: Held-out test images that are classified wrongly.
        n_test: Test images.
        test_ece: Expected calibration error on them: top label, 15 equal-width bins, fraction.
        test_nll: Mean negative log-likelihood on them, nats.
        n_forgotten: Test images classified rightly after the previous chunk and wrongly after this one; 0 for the
            first.
        n_gained: The same the other way round.
        n_epochs_to_recover: Epochs until the accuracy on this chunk's validation images was again what it was before
            unlearning, 0 if it never fell below; None for the first chunk, where nothing is unlearned, and where it
            never was.
        unlearn: What was unlearned before; None for the first chunk.
        few_shot: Few-shot accuracy on novel classes by benchmark name; empty if it was not asked for.
        robustness: Accuracy on changed test images; None if it was not asked for.
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
        """Accuracy on training images less that on test images, fraction."""
        return self.fit_accuracy - self.test_accuracy


def anytime_accuracy(outcomes: Sequence[ChunkOutcome]) -> float:
    """Return the mean over chunks of the accuracy on held-out base images, fraction."""
    return float(np.mean([outcome.test_accuracy for outcome in outcomes]))


def cumulative_errors(outcomes: Sequence[ChunkOutcome]) -> int:
    """Return the wrongly classified test images summed over chunks, a count (Ramkumar et al. 2023, released code)."""
    return sum(outcome.n_test_errors for outcome in outcomes)


def cumulative_error_rate(outcomes: Sequence[ChunkOutcome]) -> float:
    """Return the cumulative errors as a share of all test predictions that were made, fraction."""
    return cumulative_errors(outcomes) / sum(outcome.n_test for outcome in outcomes)


def accuracy_changes(outcomes: Sequence[ChunkOutcome]) -> list[float]:
    """Return by how much each chunk but the first changed the accuracy on held-out base images, fractions."""
    return [float(change) for change in np.diff([outcome.test_accuracy for outcome in outcomes])]


def changed_predictions(outcomes: Sequence[ChunkOutcome]) -> list[float]:
    """Return of each reset the share of predictions that it changed, fractions; only of resets that were measured."""
    shares = [outcome.unlearn.changed_predictions for outcome in outcomes if outcome.unlearn is not None]
    return [share for share in shares if share is not None]


def mean_changed_predictions(outcomes: Sequence[ChunkOutcome]) -> float | None:
    """Return the share of predictions that a reset changed, mean over resets, fraction; None if none was measured."""
    shares = changed_predictions(outcomes)
    return float(np.mean(shares)) if shares else None


def reset_in_words(outcomes: Sequence[ChunkOutcome]) -> str:
    """Say how many resets changed no prediction; empty if each changed some, or none was measured."""
    shares = changed_predictions(outcomes)
    n_idle = shares.count(0.0)
    if not n_idle:
        return ""
    if n_idle == len(shares):
        return "unlearning changed no prediction: this run is a warm start in effect"
    return f"{n_idle} of {len(shares)} resets changed no prediction"


def train_seconds(outcomes: Sequence[ChunkOutcome]) -> float:
    """Return the wall-clock time of all training epochs, without unlearning."""
    return sum(outcome.train_seconds for outcome in outcomes)


def unlearn_seconds(outcome: ChunkOutcome) -> float:
    """Return the wall-clock time that unlearning before a chunk took, 0 where nothing was unlearned."""
    return outcome.unlearn.seconds if outcome.unlearn else 0.0
