"""Rows of standings as numbers: groups, runs, controls and pairs on one benchmark by one probe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lurefs.comparing.choices import choice_of, chosen_words
from lurefs.comparing.controls import ControlLevel
from lurefs.comparing.estimates import Estimate, Scope
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.comparing.verdict_words import control_label, not_compared
from lurefs.comparing.verdicts import Verdict, Verdicts
from lurefs.runs.outcomes import mean_changed_predictions, train_seconds
from lurefs.runs.summary import CalibrationSummary


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Figures of a run, group or control on one benchmark by one probe; None if not applicable or not measured.

    Attributes:
        kind: `run` for one training, `group` for all runs that differ only by their seed, or `control`; `mean over
            sets` for a group or control across data sets.
        name: The label of the run or group; `control: ` and the name of a control.
        benchmark: The benchmark's name.
        probe: The probe's name.
        n_runs: Number of measured runs; the figures of several are means over them.
        n_episodes: Number of episodes; of several runs the fewest.
        mean: Mean accuracy, fraction.
        ci95_episodes: Half width of its 95 % interval on this pool of classes, fraction.
        ci95_classes: Half width of its 95 % interval on new classes of this kind, fraction.
        ci95_seeds: Half width of its 95 % interval on new seeds, fraction; of a group with at least `MIN_SEEDS` seeds.
        ci95_images: Half width of its 95 % interval on other images of the same classes, with `--over images`.
        lowest: Lowest mean of its runs, fraction.
        highest: Highest mean of its runs, fraction.
        n_paired: Number of episodes of the comparison with the reference: the first ones, which both met.
        difference: Its accuracy minus that of the reference on the same episodes, fraction; paired by episode for two
            single trainings, otherwise by seed.
        difference_ci95_episodes: Half width of its 95 % interval on this pool of classes, fraction.
        difference_ci95_classes: Half width of its 95 % interval on new classes of this kind, fraction.
        difference_ci95_seeds: Half width of its 95 % interval on new seeds, fraction.
        difference_ci95_images: Half width of its 95 % interval on other images of the same classes, fraction.
        p_episodes: Two-sided p of no difference on this pool of classes, by sign flips over episodes, corrected for
            all pairs of groups.
        p_classes: Likewise on new classes of this kind.
        p_seeds: Likewise on new seeds.
        n_wins: Episodes in which it is better than the reference.
        n_ties: Episodes in which they are equal.
        n_losses: Episodes in which the reference is better.
        correlation: Correlation of its accuracy with that of the reference over episodes.
        ties_pool: Letters on this pool: groups that share one are not told apart by the corrected p-values (5 %); the
            best has `a`.
        ties_classes: Likewise on new classes of this kind.
        ties_seeds: Likewise on new seeds.
        beats_image_statistics: Whether it beats image statistics: it is higher, and the paired 95 % interval excludes
            zero, over episodes, or over seeds if there are enough.
        beats_untrained_twin: Likewise its own untrained twin.
        ece: Expected calibration error over all queries, fraction.
        temperature: Temperature of its probabilities, fitted on validation classes.
        scaled_ece: Expected calibration error after scaling by it, fraction.
        coverage: Share of queries whose prediction set, from validation classes, has their class, fraction.
        set_size: Mean number of classes in a set.
        answered: Share of queries whose set has one class, fraction.
        answered_accuracy: Accuracy on these, fraction.
        base_test_accuracy: Accuracy on held-out images of the base classes after the last chunk, fraction.
        changed_predictions: Share of predictions that a reset changed, mean over resets, fraction.
        logme: Score of its features without episodes, from the labels of all images; see `TransferabilitySummary`.
        h_score: Likewise.
        nearest_centroid: Likewise.
        n_parameters: Parameters of its backbone, head included.
        n_macs: Multiply-adds of embedding one image.
        images_per_second: Images embedded per second, on the run's own device.
        ms_per_episode: Milliseconds of fit and prediction per episode.
        train_seconds: Seconds of all its training epochs, without unlearning.
        n_sets: Number of data sets of a mean over sets.
        ci95_sets: Half width of its 95 % interval on other data sets, fraction; of a mean over at least three.
        difference_ci95_sets: Likewise that of the difference.
        p_sets: Two-sided p of no difference on other data sets, corrected for all pairs of groups.
        chosen: Settings of its probe that were chosen on validation classes; of several runs all different ones.
        note: Why figures or the difference are missing, which seeds are left out, or why the difference is not due to
            the features alone; mostly "".
    """

    kind: Literal["run", "group", "control", "mean over sets"]
    name: str
    benchmark: str
    probe: str
    n_runs: int = 1
    n_episodes: int | None = None
    mean: float | None = None
    ci95_episodes: float | None = None
    ci95_classes: float | None = None
    ci95_seeds: float | None = None
    ci95_images: float | None = None
    lowest: float | None = None
    highest: float | None = None
    n_paired: int | None = None
    difference: float | None = None
    difference_ci95_episodes: float | None = None
    difference_ci95_classes: float | None = None
    difference_ci95_seeds: float | None = None
    difference_ci95_images: float | None = None
    p_episodes: float | None = None
    p_classes: float | None = None
    p_seeds: float | None = None
    n_wins: int | None = None
    n_ties: int | None = None
    n_losses: int | None = None
    correlation: float | None = None
    ties_pool: str = ""
    ties_classes: str = ""
    ties_seeds: str = ""
    beats_image_statistics: bool | None = None
    beats_untrained_twin: bool | None = None
    ece: float | None = None
    temperature: float | None = None
    scaled_ece: float | None = None
    coverage: float | None = None
    set_size: float | None = None
    answered: float | None = None
    answered_accuracy: float | None = None
    base_test_accuracy: float | None = None
    changed_predictions: float | None = None
    logme: float | None = None
    h_score: float | None = None
    nearest_centroid: float | None = None
    n_parameters: int | None = None
    n_macs: int | None = None
    images_per_second: float | None = None
    ms_per_episode: float | None = None
    train_seconds: float | None = None
    n_sets: int | None = None
    ci95_sets: float | None = None
    difference_ci95_sets: float | None = None
    p_sets: float | None = None
    chosen: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Difference of two groups on one benchmark by one probe.

    Attributes:
        benchmark: The benchmark's name.
        probe: The probe's name.
        group: Label of the first group.
        less: Label of the second group.
        difference: Mean of the first minus the second, fraction; None if they cannot be compared.
        ci95_episodes: Half width of its 95 % interval on this pool of classes, not widened for the number of pairs.
        ci95_classes: Likewise on new classes of this kind.
        ci95_seeds: Likewise on new seeds.
        p_episodes: See `Standing`; the p-values of all pairs of a benchmark and probe are corrected together.
        p_classes: Likewise.
        p_seeds: Likewise.
        correction: `Shaffer` if all pairs were tested, otherwise `Holm`.
        no_difference: Why they cannot be compared; "" if they can.
    """

    benchmark: str
    probe: str
    group: str
    less: str
    difference: float | None
    ci95_episodes: float | None
    ci95_classes: float | None
    ci95_seeds: float | None
    p_episodes: float | None
    p_classes: float | None
    p_seeds: float | None
    correction: str
    no_difference: str


def group_row(group: Group, found: Verdicts, reference: Run) -> Standing:
    """Return the row of a group."""
    benchmark, probe = found.benchmark, found.probe
    verdict, accuracy = found.against_reference(group.label), group.accuracy(benchmark, probe)
    beats = found.beats.get(group.label, {})
    costs = [_cost(run, benchmark, probe) for run in group.runs]
    names = dict.fromkeys(name for cost in costs for name in cost)
    means_of_costs: dict[str, Any] = {name: _mean_of(cost.get(name) for cost in costs) for name in names}
    return Standing(
        kind="group",
        name=group.label,
        benchmark=benchmark,
        probe=probe,
        **_accuracy(accuracy),
        **({} if verdict is None else _difference(verdict)),
        **_letters(found, group.label),
        beats_image_statistics=beats.get("image_statistics"),
        beats_untrained_twin=beats.get("untrained_twin"),
        **means_of_costs,
        chosen=_chosen(group.runs, benchmark, probe),
        note=_note(group, accuracy, reference, found),
    )


def run_row(run: Run, group: Group, of_group: Standing) -> Standing:
    """Return the row of a run: that of its group if it is alone, otherwise its own figures without a difference.

    Only the group of several seeds has a difference, a test and letters: one of its trainings does not stand for it.
    """
    if not group.is_pooled:
        return replace(of_group, kind="run", name=run.label)
    benchmark, probe = of_group.benchmark, of_group.probe
    accuracy = replace(group, runs=(run,)).accuracy(benchmark, probe)
    return Standing(
        kind="run",
        name=run.label,
        benchmark=benchmark,
        probe=probe,
        **(_accuracy(accuracy) | {"n_runs": 1, "lowest": None, "highest": None}),
        **_cost(run, benchmark, probe),
        chosen=_chosen([run], benchmark, probe),
        note=accuracy if isinstance(accuracy, str) else "",
    )


def control_row(control: ControlLevel, found: Verdicts) -> Standing:
    """Return the row of a control; it has intervals only if all runs share the control."""
    runs = [run for group in found.groups for run in group.runs]
    return Standing(
        kind="control",
        name=control_label(control),
        benchmark=found.benchmark,
        probe=found.probe,
        **(_accuracy(control.accuracy) | ({} if control.is_shared else {"n_episodes": None})),
        chosen=_chosen(runs, found.benchmark, found.probe, control.name),
    )


def pair_row(pair: Verdict, found: Verdicts) -> Pair:
    """Return the row of a pair."""
    widths = pair.difference.half_widths if pair.difference else {}
    return Pair(
        benchmark=found.benchmark,
        probe=found.probe,
        group=pair.group,
        less=pair.less,
        difference=pair.difference.mean if pair.difference else None,
        ci95_episodes=widths.get("pool"),
        ci95_classes=widths.get("classes"),
        ci95_seeds=widths.get("seeds"),
        p_episodes=pair.p.get("pool"),
        p_classes=pair.p.get("classes"),
        p_seeds=pair.p.get("seeds"),
        correction=found.correction,
        no_difference=pair.why_not,
    )


def _letters(found: Verdicts, label: str) -> dict[str, Any]:
    return {f"ties_{scope}": letters.get(label, "") for scope, letters in found.letters.items()}


def _accuracy(accuracy: Estimate | str) -> dict[str, Any]:
    if isinstance(accuracy, str):
        return {"n_runs": 0}
    return {
        "n_runs": len(accuracy.values),
        "n_episodes": accuracy.n_episodes,
        "mean": accuracy.mean,
        **_half_widths(accuracy, ""),
        "lowest": min(accuracy.values),
        "highest": max(accuracy.values),
    }


def _half_widths(estimate: Estimate, prefix: str) -> dict[str, float | None]:
    names: dict[str, Scope] = {"episodes": "pool", "classes": "classes", "seeds": "seeds"}
    return {f"{prefix}ci95_{name}": estimate.half_widths.get(scope) for name, scope in names.items()}


def _difference(verdict: Verdict) -> dict[str, Any]:
    if verdict.difference is None:
        return {}
    figures: dict[str, Any] = {
        "difference": verdict.difference.mean,
        **_half_widths(verdict.difference, "difference_"),
        "p_episodes": verdict.p.get("pool"),
        "p_classes": verdict.p.get("classes"),
        "p_seeds": verdict.p.get("seeds"),
    }
    if (paired := verdict.paired) is None:
        return figures
    return figures | {
        "n_paired": paired.difference.n,
        "n_wins": paired.n_wins,
        "n_ties": paired.n_ties,
        "n_losses": paired.n_losses,
        "correlation": None if math.isnan(paired.correlation) else paired.correlation,
    }


def _mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of the known values; equal values are not averaged."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return known[0] if len(set(known)) == 1 else sum(known) / len(known)


def n_parameters(run: Run) -> int | None:
    """Return the number of parameters of a run's backbone, head included; None if unknown."""
    known: int | None = run.cost.get("n_parameters", run.identity.get("backbone", {}).get("n_parameters"))
    return known


def _scores(run: Run, benchmark: str) -> dict[str, Any]:
    found = run.benchmark(benchmark)
    return {} if found is None or found.transferability is None else vars(found.transferability)


def _cost(run: Run, benchmark: str, probe: str) -> dict[str, Any]:
    result = run.result(benchmark, probe)
    ece = result.ece if result else None
    return {
        "ece": None if ece is None or math.isnan(ece) else ece,
        **_calibration(result.calibration if result else None),
        "base_test_accuracy": run.outcomes[-1].test_accuracy if run.outcomes else None,
        "changed_predictions": mean_changed_predictions(run.outcomes),
        **_scores(run, benchmark),
        "n_parameters": n_parameters(run),
        "n_macs": run.cost.get("n_macs"),
        "images_per_second": run.cost.get("images_per_second"),
        "ms_per_episode": result.ms_per_episode if result else None,
        "train_seconds": train_seconds(run.outcomes) if run.outcomes else None,
    }


def _calibration(found: CalibrationSummary | None) -> dict[str, Any]:
    sets = found.validation_sets if found else None
    return {
        "temperature": found.temperature.value if found and found.temperature else None,
        "scaled_ece": found.ece if found else None,
        "coverage": sets.coverage.mean if sets else None,
        "set_size": sets.mean_size if sets else None,
        "answered": sets.answered if sets else None,
        "answered_accuracy": sets.accuracy if sets else None,
    }


def _chosen(runs: Sequence[Run], benchmark: str, probe: str, control: str = "") -> str:
    return chosen_words(filter(None, (choice_of(run, benchmark, probe, control) for run in runs)))


def _note(group: Group, accuracy: Estimate | str, reference: Run, found: Verdicts) -> str:
    """Return the note of a group's row, see `Standing`."""
    if isinstance(accuracy, str):
        return accuracy
    verdict = found.against_reference(group.label)
    if verdict is not None:
        of_difference = not_compared(verdict) if verdict.difference is None else verdict.difference.note
    else:
        of_difference = "" if found.reference else f"not compared: the reference {reference.label} was not measured"
    settings = [side.config.probes.get(found.probe) for side in (group.runs[0], reference)]
    of_probe = "" if settings[0] == settings[1] else f"its probe has other settings than that of {reference.label}"
    return "; ".join(filter(None, [accuracy.note, of_difference or of_probe]))
