"""Fine-tuned probes against probes on fixed features of the same runs, on the same episodes: gain, effect and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from episodes.arrays import FloatArray
from episodes.comparison import holm, paired_difference
from lurefs.comparing.estimates import Estimate, of_training, over_seeds
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.comparing.pairs import FLIP_SEED, manifests_of, rows_of_equal_length
from lurefs.comparing.texts import MISSING, count, number, p_value, percent, points
from lurefs.config.fine_tuning import fixed_probes
from lurefs.runs.summary import FineTuningSummary

START = "its starting head"
"""The logistic regression that fine-tuning starts from, where it is no probe of the run."""
FINE_TUNED_LEGEND = (
    "Fine-tuned minus fixed: both on the same first episodes. Changed: share of predictions that differ from those of "
    "the head that fine-tuning starts from. Moved: distance of the trained weights from their start, over their norm. "
    "Passes: images that go forward and backward through the backbone per episode; probes on fixed features embed each "
    "image of the benchmark once, for all episodes. p is corrected by Holm for the rows of a table."
)
GIVE_WAY = ("passes forward", "passes backward", "ms fixed", "fixed %", "± new", "moved %")
"""Columns that are dropped on a narrow terminal, in this order."""


@dataclass(frozen=True, kw_only=True)
class FineTunedDifference:
    """A group's fine-tuned probe minus a probe on fixed features, on the episodes that both met.

    Attributes:
        group: The group's label.
        against: The other probe's name, or `START`.
        tuned: Mean accuracy of the fine-tuned probe, fraction.
        fixed: Mean accuracy of the other, fraction.
        difference: Their difference, by episode for a single training, otherwise by seed.
        p: Two-sided p of no difference, by sign flips over episodes or by Student's t over seeds, corrected by Holm
            for all rows of a benchmark and probe; None with too few seeds.
        n_episodes: Episodes that both met.
        effect: Effect and cost of fine-tuning, means over seeds.
        ms_tuned: Milliseconds per episode of the fine-tuned probe, mean over seeds.
        ms_fixed: Milliseconds per episode of the other; None for `START`.
    """

    group: str
    against: str
    tuned: float
    fixed: float
    difference: Estimate
    p: float | None
    n_episodes: int
    effect: Mapping[str, float]
    ms_tuned: float
    ms_fixed: float | None


def is_fine_tuned(groups: Sequence[Group], benchmark: str, probe: str) -> bool:
    """Return whether a run of the groups was fine-tuned by the probe."""
    return any(_effect(run, benchmark, probe) is not None for group in groups for run in group.runs)


def fine_tuned_differences(groups: Sequence[Group], benchmark: str, probe: str) -> list[FineTunedDifference]:
    """Return the differences of each group from each of its probes on fixed features; none if it is not fine-tuned."""
    found = [row for group in groups for row in _of_group(group, benchmark, probe)]
    tested = [row.p for row in found if row.p is not None]
    corrected = iter(holm(tested))
    return [row if row.p is None else replace(row, p=float(next(corrected))) for row in found]


def fine_tuned_texts(row: FineTunedDifference) -> dict[str, str]:
    """Return the cells of a difference by the headers of their columns."""
    widths = row.difference.half_widths
    return {
        "run": f"{row.group} minus {row.against}",
        "fine-tuned %": percent(row.tuned),
        "fixed %": percent(row.fixed),
        "diff.": points(row.difference.mean),
        "± pool": percent(widths.get("pool")),
        "± new": percent(widths.get("classes")),
        "± seeds": percent(widths.get("seeds")),
        "p": p_value(row.p),
        "episodes": count(row.n_episodes),
        "changed %": percent(row.effect["changed_predictions"], 1),
        "moved %": percent(row.effect["weights_moved"]),
        "ms fine-tuned": number(row.ms_tuned, 0),
        "ms fixed": MISSING if row.ms_fixed is None else number(row.ms_fixed, 2),
        "passes forward": number(row.effect["forward_passes"], 0),
        "passes backward": number(row.effect["backward_passes"], 0),
    }


def _of_group(group: Group, benchmark: str, probe: str) -> list[FineTunedDifference]:
    effects = {run.label: found for run in group.runs if (found := _effect(run, benchmark, probe)) is not None}
    runs = [run for run in group.runs if run.label in effects]
    if not runs:
        return []
    others = [other for other in fixed_probes(runs[0].config) if all(run.accuracy(benchmark, other) for run in runs)]
    pairs = {against: [_pair(run, benchmark, probe, against) for run in runs] for against in (START, *others)}
    is_known = any(
        all(np.array_equal(a[1], b[1]) for a, b in zip(pairs[START], pairs[other], strict=True)) for other in others
    )
    names = ("changed_predictions", "weights_moved", "forward_passes", "backward_passes")
    means = {name: float(np.mean([getattr(found, name) for found in effects.values()])) for name in names}
    rows = []
    for against in others if is_known else (START, *others):
        difference, p = _difference(runs, benchmark, probe, pairs[against])
        rows.append(
            FineTunedDifference(
                group=group.label,
                against=against,
                tuned=float(np.mean([tuned.mean() for tuned, _ in pairs[against]])),
                fixed=float(np.mean([fixed.mean() for _, fixed in pairs[against]])),
                difference=difference,
                p=p,
                n_episodes=min(len(tuned) for tuned, _ in pairs[against]),
                effect=means,
                ms_tuned=_ms(runs, benchmark, probe) or 0.0,
                ms_fixed=_ms(runs, benchmark, against),
            )
        )
    return rows


def _effect(run: Run, benchmark: str, probe: str) -> FineTuningSummary | None:
    result = run.result(benchmark, probe)
    return None if result is None else result.fine_tuning


def _pair(run: Run, benchmark: str, probe: str, against: str) -> tuple[FloatArray, FloatArray]:
    """Return the accuracies of the fine-tuned probe and of the other on the first episodes, which both met."""
    tuned = run.accuracies(benchmark, probe).accuracy
    if against == START:
        fixed = run.directory.read_episodes(benchmark, probe).extra["start_accuracy"]
    else:
        fixed = run.accuracies(benchmark, against).accuracy
    n_common = min(len(tuned), len(fixed))
    return tuned[:n_common], fixed[:n_common]


def _difference(
    runs: Sequence[Run], benchmark: str, probe: str, pairs: Sequence[tuple[FloatArray, FloatArray]]
) -> tuple[Estimate, float | None]:
    """Return the difference with its uncorrected p: over episodes for one run, otherwise over seeds."""
    if len(runs) == 1:
        tuned, fixed = pairs[0]
        classes = runs[0].accuracies(benchmark, probe).classes[: len(tuned)]
        paired = paired_difference(tuned, fixed, classes, rng=np.random.default_rng(FLIP_SEED))
        return of_training(paired.difference), paired.p_episodes
    differences = [tuned - fixed for tuned, fixed in pairs]
    is_crossed = len(manifests_of(runs, benchmark)) == 1
    found = over_seeds(
        [float(difference.mean()) for difference in differences],
        by_episode=rows_of_equal_length(differences) if is_crossed else None,
    )
    return found, found.p_seeds


def _ms(runs: Sequence[Run], benchmark: str, probe: str) -> float | None:
    found = [result.ms_per_episode for run in runs if (result := run.result(benchmark, probe)) is not None]
    return float(np.mean(found)) if found else None
