"""Figures of a finished run: the records of `summary.json`.

Every accuracy, half width and calibration error is a fraction. Every key is in the file unless its record says
otherwise; null means not measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from episodes.arrays import FloatArray
from episodes.calibration import Temperature
from episodes.conformal import SetSummary
from episodes.summary import Summary, Tails, summarise, tails
from episodes.table import EpisodeTable
from episodes.transfer.table import SizeSummary
from lurefs.config.schema import CorruptConfig
from lurefs.records import to_mapping

VERSION = 1
"""Version of the keys of `summary.json`; it changes with the meaning of a key. Files without one have version 1."""


@dataclass(frozen=True, kw_only=True)
class FineTuningSummary:
    """Effect and cost of a fine-tuned probe, against the head on fixed features that it starts from.

    Attributes:
        gain: Its accuracy minus that of the starting head on the same episodes.
        changed_predictions: Share of queries whose predicted class differs from that of the starting head, fraction.
        weights_moved: Distance that the trained weights moved over their norm, mean over episodes, fraction.
        forward_passes: Images that went through the backbone per episode, support of all steps and queries, mean.
        backward_passes: Images whose gradients were computed per episode, mean.
    """

    gain: Summary
    changed_predictions: float
    weights_moved: float
    forward_passes: float
    backward_passes: float


@dataclass(frozen=True, kw_only=True)
class CalibrationSummary:
    """Calibration of one probe on the episodes of one benchmark.

    Nothing here was fitted on its classes: the temperature and the threshold come from the validation classes, and the
    sets from the support use the labels that the probe has.

    Attributes:
        alpha: Share of queries whose set may miss their class, fraction.
        temperature: The temperature; null if the probe has no probabilities.
        nll: NLL of the scaled probabilities, nats; null likewise.
        brier: Their Brier score; null likewise.
        ece: Their expected calibration error, fraction; null likewise.
        threshold: Highest nonconformity score of a class in a set from validation classes: 1 - p for probabilities p,
            scaled by the temperature of the first half of the validation episodes; null if all sets are full.
        validation_sets: Sets by the scores of queries of validation classes; null if the probe has neither
            probabilities nor decision values.
        support_sets: Sets by the support of each query's own episode, with a guarantee for each class.
        least_alpha: Smallest alpha for which the sets from the support are not full: 1 / (shots + 1), fraction.
    """

    alpha: float
    temperature: Temperature | None
    nll: Summary | None
    brier: Summary | None
    ece: float | None
    threshold: float | None
    validation_sets: SetSummary | None
    support_sets: SetSummary
    least_alpha: float


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """Scores of one combination of settings on the validation episodes.

    Attributes:
        settings: The values by setting.
        accuracy: Mean share of correctly classified queries.
        nll: Mean negative log-likelihood of the queries, nats; null if the classifier has no probabilities.
    """

    settings: dict[str, Any]
    accuracy: float
    nll: float | None


@dataclass(frozen=True, kw_only=True)
class ChoiceSummary:
    """How the settings of a probe were chosen, on episodes of validation classes alone.

    Attributes:
        settings: The chosen values by setting.
        by: What they are the best by: `nll`, or `accuracy`, also if the classifier has no probabilities.
        n_episodes: Number of validation episodes.
        n_classes: Number of validation classes.
        at_edge: The settings whose chosen number is the smallest or largest of several: a better one may lie outside.
        curve: All combinations in the order of the grid.
    """

    settings: dict[str, Any]
    by: Literal["nll", "accuracy"]
    n_episodes: int
    n_classes: int
    at_edge: list[str]
    curve: list[GridPoint]


@dataclass(frozen=True, kw_only=True)
class ProbeSummary:
    """Figures of one probe on the episodes of one benchmark.

    Attributes:
        accuracy: Share of correctly classified queries; null if it is not finite on every episode.
        tails: Accuracy of the worst episodes and of the hardest class.
        nll: Mean negative log-likelihood of the queries, nats; null if the classifier has no probabilities.
        brier: Mean Brier score of the queries; null likewise.
        ece: Expected calibration error over all queries, fraction; null likewise, and for a part of the episodes.
        n_not_converged: Episodes whose fit stopped at its limit of iterations.
        n_by_solver: Number of episodes by solver, see `EpisodeTable`.
        ms_per_episode: Milliseconds of fit and prediction, mean over episodes.
        fine_tuning: Effect and cost of fine-tuning; the key is left out for probes on fixed features.
        calibration: Temperature and prediction sets; the key is left out if they were not asked for.
        choice: How its settings were chosen; the key is left out if they are fixed.
    """

    accuracy: Summary | None
    tails: Tails
    nll: Summary | None
    brier: Summary | None
    ece: float | None
    n_not_converged: int
    n_by_solver: dict[str, int]
    ms_per_episode: float
    fine_tuning: FineTuningSummary | None = None
    calibration: CalibrationSummary | None = None
    choice: ChoiceSummary | None = None


@dataclass(frozen=True, kw_only=True)
class ControlSummary:
    """Figures of one control on the episodes of one benchmark.

    Attributes:
        probes: By the probe's name. Their times are those of the run that scored them, perhaps another.
        feature_spread: How much its features differ between images, see `FeatureBank.spread`; null if unknown.
    """

    probes: dict[str, ProbeSummary]
    feature_spread: float | None


@dataclass(frozen=True, kw_only=True)
class SourceShares:
    """Query images by sources (icon sets, cameras, fonts) that their support or base training has images of.

    Attributes:
        n_sources: Number of sources of the benchmark's images.
        base: Share of query images by a source that base training saw, fraction; null without base training, or if the
            benchmark has a data set of its own.
        support: Share of query images by a source of a support image of their episode, fraction.
    """

    n_sources: int
    base: float | None
    support: float


@dataclass(frozen=True, kw_only=True)
class DuplicateCounts:
    """Images of a benchmark that occur twice.

    Attributes:
        n_images: Number of its images.
        in_base: Those with the pixels of an image that base training saw, for training or validation; null without.
        in_pool: Those with the pixels of another image of the benchmark.
        in_other_class: Of these, those with the pixels of an image of another class.
        distance: Most bits in which the difference hashes of near duplicates differ; null if they were not counted.
        near_in_base: Like `in_base`, with near duplicates; null if they were not counted.
        near_in_pool: Like `in_pool`, with near duplicates; null likewise.
    """

    n_images: int
    in_base: int | None
    in_pool: int
    in_other_class: int
    distance: int | None = None
    near_in_base: int | None = None
    near_in_pool: int | None = None

    @property
    def share(self) -> float:
        """The largest share of exact or near duplicates among the images, fraction."""
        counts = (self.in_base, self.in_pool, self.near_in_base, self.near_in_pool)
        return max(found or 0 for found in counts) / self.n_images


@dataclass(frozen=True, kw_only=True)
class TransferabilitySummary:
    """Scores of a benchmark's features without episodes, from the labels of all its images; higher is better.

    Attributes:
        logme: Log evidence of a linear model per image, see `episodes.transferability.logme`.
        h_score: Share of the scatter between classes, summed over directions, see `episodes.transferability.h_score`.
        nearest_centroid: Leave-one-out accuracy of the nearest centroid on all images and classes, fraction.
    """

    logme: float
    h_score: float
    nearest_centroid: float


@dataclass(frozen=True, kw_only=True)
class BenchmarkSummary:
    """Figures of one benchmark.

    Attributes:
        manifest: Hash of its episodes.
        n_way: Classes per episode; null if it varies between episodes.
        n_shot: Support images per class; null if it varies between episodes or classes.
        n_query: Query images per class; null likewise.
        form: The form of its episodes in words.
        corrupt: Which images are corrupted, and how; null for none.
        n_episodes: Episodes of the manifest; a probe met fewer if `target_ci95` stopped its scoring.
        target_ci95: Half width of the interval over episodes that stops the scoring, fraction; null for none.
        chance: Accuracy of guessing, fraction.
        feature_spread: How much the features differ between images, see `FeatureBank.spread`.
        probes: By the probe's name in the configuration.
        controls: By the control's name, `untrained_twin` or `image_statistics`; empty if none was scored.
        sources: Shares of known sources; the key is left out if the data do not tell sources apart.
        duplicates: Images that occur twice; the key is left out if they were not counted.
        transferability: Scores of the support features without episodes; the key is left out if there are none.
    """

    manifest: str
    n_way: int | None
    n_shot: int | None
    n_query: int | None
    form: str
    corrupt: CorruptConfig | None
    n_episodes: int
    target_ci95: float | None
    chance: float
    feature_spread: float
    probes: dict[str, ProbeSummary]
    controls: dict[str, ControlSummary]
    sources: SourceShares | None = None
    duplicates: DuplicateCounts | None = None
    transferability: TransferabilitySummary | None = None


@dataclass(frozen=True, kw_only=True)
class RobustnessSummary:
    """Accuracy on changed test images of the base classes, after the last chunk.

    Attributes:
        n_images: Test images that were changed and classified.
        clean_accuracy: Accuracy on the same images unchanged, fraction; null if not recorded.
        corruption_accuracy: Mean over corruptions and severities, fraction; null if none was measured.
        attacks: Accuracy by attack and epsilon, fraction.
    """

    n_images: int
    clean_accuracy: float | None
    corruption_accuracy: float | None
    attacks: dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class PretrainSummary:
    """Figures of pre-training on the base classes, over all chunks.

    Attributes:
        strategy: The unlearn strategy's name.
        n_chunks: Number of chunks.
        test_accuracy: Accuracy on held-out images after each chunk, fraction.
        accuracy_changes: Its change by each chunk after the first, fraction.
        anytime_accuracy: Its mean over chunks, fraction.
        cumulative_errors: Misclassified test images summed over chunks, a count.
        cumulative_error_rate: The same as a share of all test predictions, fraction.
        n_forgotten: Test images classified correctly after a chunk and wrongly after the next, summed over chunks.
        test_ece: Expected calibration error on test images after the last chunk, fraction.
        test_nll: Mean negative log-likelihood on them, nats.
        generalisation_gap: Accuracy on training minus test images after the last chunk, fraction.
        robustness: Accuracy on changed images; null if it was not measured.
        changed_predictions: Share of predictions that each measured reset changed, fraction.
        n_images_seen: Images that went through a training step, summed over epochs and chunks.
        train_seconds: Seconds of all training epochs, without unlearning.
        unlearn_seconds: Seconds of all unlearning.
    """

    strategy: str
    n_chunks: int
    test_accuracy: list[float]
    accuracy_changes: list[float]
    anytime_accuracy: float
    cumulative_errors: int
    cumulative_error_rate: float
    n_forgotten: int
    test_ece: float
    test_nll: float
    generalisation_gap: float
    robustness: RobustnessSummary | None
    changed_predictions: list[float]
    n_images_seen: int
    train_seconds: float
    unlearn_seconds: float


@dataclass(frozen=True, kw_only=True)
class TransferSummary:
    """Figures of one transfer.

    Attributes:
        n_classes: Number of classes.
        probe: The probe's name.
        parameter: The setting of the probe that is chosen on validation images; null if none is.
        grid: Its candidate values; null likewise.
        choose_by: The metric of the choice; null likewise.
        sizes: By training images per class: `"1"`, `"2"`, … or `"all"`.
    """

    n_classes: int
    probe: str
    parameter: str | None
    grid: list[float] | None
    choose_by: str | None
    sizes: dict[str, SizeSummary]


@dataclass(frozen=True, kw_only=True)
class RunStatement:
    """The run that the figures belong to.

    Attributes:
        name: Its name.
        digest: Digest of all that its numbers depend on.
        seed: Its seed.
        version: The version of lurefs that measured it.
        seconds: Seconds of its chunks, episodes and transfers.
    """

    name: str
    digest: str
    seed: int
    version: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Figures of a finished run.

    Attributes:
        version: Version of the keys, see `VERSION`.
        run: The run that they belong to.
        pretrain: Figures of its chunks; null if nothing was learned.
        benchmarks: By the benchmark's name in the configuration; empty if it has none.
        transfer: By the transfer's name in the configuration; the key is left out if it has none.
    """

    version: int = VERSION
    run: RunStatement
    pretrain: PretrainSummary | None
    benchmarks: dict[str, BenchmarkSummary]
    transfer: dict[str, TransferSummary] = field(default_factory=dict)


def as_mapping(summary: RunSummary) -> dict[str, Any]:
    """Return the content of `summary.json`."""
    values: dict[str, Any] = to_mapping(summary)
    for benchmark in values["benchmarks"].values():
        for name in ("sources", "duplicates", "transferability"):
            if benchmark[name] is None:
                del benchmark[name]
        for measured in (benchmark, *benchmark["controls"].values()):
            for probe in measured["probes"].values():
                for name in ("fine_tuning", "calibration", "choice"):
                    if probe[name] is None:
                        del probe[name]
    return values if summary.transfer else {key: value for key, value in values.items() if key != "transfer"}


def summarise_table(table: EpisodeTable) -> ProbeSummary:
    """Return the figures of one probe on one benchmark from its per-episode table."""

    def figures(values: FloatArray) -> Summary | None:
        return summarise(values, table.classes) if np.isfinite(values).all() else None

    ece = table.reliability.ece
    return ProbeSummary(
        accuracy=figures(table.accuracy),
        tails=tails(table.accuracy, table.classes),
        nll=figures(table.nll),
        brier=figures(table.brier),
        ece=None if math.isnan(ece) else ece,
        n_not_converged=int((~table.converged).sum()),
        n_by_solver=table.n_by_solver,
        ms_per_episode=float(table.seconds.mean() * 1000),
        fine_tuning=_summarise_fine_tuning(table) if table.extra else None,
    )


def _summarise_fine_tuning(table: EpisodeTable) -> FineTuningSummary:
    names = ("changed_predictions", "weights_moved", "forward_passes", "backward_passes")
    return FineTuningSummary(
        gain=summarise(table.accuracy - table.extra["start_accuracy"], table.classes),
        **{name: float(table.extra[name].mean()) for name in names},
    )


def known(summary: Summary | None) -> Summary | None:
    """Return the summary, or None if its mean is NaN or it is missing."""
    return None if summary is None or math.isnan(summary.mean) else summary
