"""Measures that are charted over chunks and against cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lurefs.reporting.charts.curves import Level
from lurefs.reporting.series import Past, Value, n_chunks, n_images_seen
from lurefs.runs.outcomes import FewShotScore, cumulative_error_rate


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A figure of every chunk, and its chart.

    Attributes:
        name: Name of the chart's file.
        title: Title of the chart.
        y_label: Label of y, with the unit.
        caption: Caption of the chart.
        value: Returns its value; None if a chunk has none.
        interval: Returns the half width of the value's own interval, or None.
        levels: Accuracies of controls, drawn as dashed lines.
    """

    name: str
    title: str
    y_label: str
    caption: str
    value: Value
    interval: Value | None = None
    levels: Sequence[Level] = ()


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The x axis of a chart of a measure.

    Attributes:
        label: Label of x, with the unit.
        value: Returns the position of a chunk.
        is_whole: Whether x is counted in steps.
        name: Suffix of the measure's name.
        title: Suffix of the measure's title.
        caption: Suffix of the measure's caption.
    """

    label: str
    value: Value
    is_whole: bool
    name: str = ""
    title: str = ""
    caption: str = ""


CHUNKS = Axis(label="chunk", value=n_chunks, is_whole=True)
COSTS = (
    Axis(
        name="-by-images",
        title=" against images seen",
        label="images seen so far",
        caption="An image counts as often as it was trained on.",
        value=n_images_seen,
        is_whole=False,
    ),
)

ACCURACY = Measure(
    name="learning-base",
    title="Base accuracy",
    y_label="accuracy, %",
    caption="Held-out images of the base classes, after each chunk.",
    value=lambda past: 100 * past[-1].test_accuracy,
)
ERROR_RATE = Measure(
    name="learning-error-rate",
    title="Cumulative error rate",
    y_label="errors so far, %",
    caption="Wrong answers on the held-out base images so far, as a share of all answers so far; lower is better.",
    value=lambda past: 100 * cumulative_error_rate(past),
)
GAP = Measure(
    name="learning-gap",
    title="Generalisation gap",
    y_label="gap, points",
    caption="Accuracy on training images minus accuracy on held-out images; lower is better.",
    value=lambda past: 100 * past[-1].generalisation_gap,
)
ECE = Measure(
    name="learning-ece",
    title="Calibration error",
    y_label="ECE, %",
    caption="Expected calibration error on the held-out base images; lower is better.",
    value=lambda past: 100 * past[-1].test_ece,
)
NLL = Measure(
    name="learning-nll",
    title="Negative log-likelihood",
    y_label="NLL, nats",
    caption="Mean over the held-out base images; lower is better.",
    value=lambda past: past[-1].test_nll,
)
CHANGE = Measure(
    name="learning-change",
    title="Change of accuracy",
    y_label="change, points",
    caption="Base accuracy minus that after the previous chunk: what was gained minus what was forgotten.",
    value=lambda past: 100 * (past[-1].test_accuracy - past[-2].test_accuracy) if len(past) > 1 else None,
)
FORGOTTEN = Measure(
    name="learning-forgotten",
    title="Forgotten",
    y_label="of held-out images, %",
    caption="Held-out base images that were classified correctly after the previous chunk and wrongly after this one.",
    value=lambda past: 100 * past[-1].n_forgotten / past[-1].n_test if len(past) > 1 else None,
)
GAINED = Measure(
    name="learning-gained",
    title="Gained",
    y_label="of held-out images, %",
    caption="Held-out base images that were classified wrongly after the previous chunk and correctly after this one.",
    value=lambda past: 100 * past[-1].n_gained / past[-1].n_test if len(past) > 1 else None,
)
CORRUPTED = Measure(
    name="robustness-chunks",
    title="Corrupted images",
    y_label="accuracy, %",
    caption="Mean over corruptions and severities, after each chunk.",
    value=lambda past: _corruption_percent(past),
)


FIXED = (
    "The curves are at the probe's fixed settings, the tables at those chosen on validation classes, so the last "
    "points differ from the tables."
)
"""What the caption of few-shot accuracy adds where the probe chooses settings."""


def few_shot(benchmark: str, levels: Sequence[Level] = (), *, is_chosen: bool = False) -> Measure:
    """Return the measure of few-shot accuracy on one benchmark, percent.

    With `is_chosen`, the tables are at settings that the probe chose, and the caption says that the curves are not.
    """

    def score(past: Past) -> FewShotScore | None:
        return past[-1].few_shot.get(benchmark)

    def accuracy(past: Past) -> float | None:
        return 100 * found.accuracy if (found := score(past)) else None

    def interval(past: Past) -> float | None:
        return 100 * found.ci95_episodes if (found := score(past)) else None

    return Measure(
        name=f"chunks-{benchmark}",
        title=benchmark,
        y_label="accuracy, %",
        caption="Few-shot accuracy after each chunk; bars: 95\u00a0% intervals over episodes of this pool."
        + (f" {FIXED}" if is_chosen else ""),
        value=accuracy,
        interval=interval,
        levels=levels,
    )


def _corruption_percent(past: Past) -> float | None:
    scores = past[-1].robustness
    accuracy = scores.corruption_accuracy if scores else None
    return None if accuracy is None else 100 * accuracy
