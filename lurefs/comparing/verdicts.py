"""Verdicts: which training procedures are told apart on a benchmark by a probe. All tables and sentences use them.

Runs that differ only by their seed are one group, and groups are compared in pairs. Two single trainings are compared
by episode, two groups that share at least three seeds by seed; any other pair has a reason why not. The p-values of all
pairs are corrected together, so that the best may be picked after they were measured. More than `MAX_RANKED` groups are
compared with the reference only: these p-values are corrected together, and there are no letters of ties.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Literal

from episodes.comparison import PairedDifference, correct_pairs, tie_groups
from lurefs.comparing.controls import ControlLevel, beats_controls, control_levels
from lurefs.comparing.estimates import Estimate, Scope, of_training
from lurefs.comparing.finished_runs import Run, benchmarks_of, reference_run
from lurefs.comparing.groups import MAX_RANKED, Group, groups_of
from lurefs.comparing.over_seeds import difference_over_seeds
from lurefs.comparing.pairs import compare_pairs

Correction = Literal["Shaffer", "Holm"]
Cell = tuple[str, str]
"""A benchmark and a probe."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Difference of two groups.

    Attributes:
        group: Label of the first group.
        less: Label of the second group.
        difference: The first minus the second, fraction, by episode for two single trainings, otherwise by seed; None
            if they cannot be compared.
        why_not: Why they cannot be compared; "" if they can.
        paired: More about the difference of two single trainings; None for others.
        p: Two-sided p of no difference by scope, corrected for all pairs of the benchmark and probe.
        is_cut: Whether one of the two met more episodes than those of the comparison.
    """

    group: str
    less: str
    difference: Estimate | None = None
    why_not: str = ""
    paired: PairedDifference | None = None
    p: Mapping[Scope, float] = field(default_factory=dict)
    is_cut: bool = False

    def turned(self) -> Verdict:
        """Return the second group minus the first."""
        paired = self.paired
        if paired is not None:
            summary = replace(paired.difference, mean=-paired.difference.mean)
            paired = replace(paired, difference=summary, n_wins=paired.n_losses, n_losses=paired.n_wins)
        difference = None if self.difference is None else self.difference.turned()
        return replace(self, group=self.less, less=self.group, difference=difference, paired=paired)


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """All groups on one benchmark by one probe.

    Attributes:
        benchmark: The benchmark's name.
        probe: The probe's name.
        groups: The measured groups, highest mean first.
        accuracies: Group -> accuracy.
        reference: Label of the group that the others are compared with; None if it was not measured.
        pairs: Each pair of groups once; of more than `MAX_RANKED` groups only those with the reference.
        letters: Scope -> group -> letters: two groups share one unless they are told apart. A scope is missing if a
            pair has no test of it.
        correction: How the p-values were corrected for their number.
        controls: The controls' accuracies, highest first.
        beats: Group -> control -> whether the group beats it, if known.
    """

    benchmark: str
    probe: str
    groups: tuple[Group, ...]
    accuracies: Mapping[str, Estimate]
    reference: str | None
    pairs: tuple[Verdict, ...]
    letters: Mapping[Scope, Mapping[str, str]]
    correction: Correction
    controls: tuple[ControlLevel, ...]
    beats: Mapping[str, Mapping[str, bool]]

    def between(self, group: str, less: str) -> Verdict:
        """Return the verdict on one group minus another, by their labels."""
        if (group, less) in self._by_labels:
            return self._by_labels[group, less]
        if (less, group) in self._by_labels:
            return self._by_labels[less, group].turned()
        raise KeyError(f"{group!r} and {less!r} were not compared on {self.benchmark!r} by {self.probe!r}")

    @cached_property
    def _by_labels(self) -> dict[tuple[str, str], Verdict]:
        return {(pair.group, pair.less): pair for pair in self.pairs}

    def against_reference(self, group: str) -> Verdict | None:
        """Return the verdict on a group minus the reference; None for the reference, or if one was not measured."""
        if self.reference is None or group == self.reference or group not in self.accuracies:
            return None
        return self.between(group, self.reference)

    def n_tested(self, scope: Scope) -> int:
        """Return the number of pairs for which the p-values of a scope are corrected."""
        family = _FAMILIES[scope]
        return sum(any(of_pair in family for of_pair in pair.p) for pair in self.pairs)

    @property
    def has_all_pairs(self) -> bool:
        """Whether all pairs of groups were compared, rather than each group with the reference."""
        return len(self.groups) <= MAX_RANKED

    @property
    def means(self) -> dict[str, float]:
        """Group -> mean accuracy, fraction."""
        return {label: accuracy.mean for label, accuracy in self.accuracies.items()}

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Group -> place by its mean; equal means share a place."""
        ordered = sorted(self.means.values(), reverse=True)
        return {label: 1 + ordered.index(mean) for label, mean in self.means.items()}

    @property
    def has_single_trainings(self) -> bool:
        """Whether any of several groups has one seed only, with which its place may change."""
        return len(self.groups) > 1 and any(group.is_of_one_seed for group in self.groups)

    def not_above(self, control: ControlLevel) -> list[Group]:
        """Return the groups that do not beat a control."""
        return [group for group in self.groups if self.beats[group.label].get(control.name) is False]


_FAMILIES: dict[Scope, tuple[Scope, ...]] = {
    "pool": ("pool", "seeds"),
    "seeds": ("pool", "seeds"),
    "classes": ("classes",),
}
"""Scope -> scopes whose p-values are corrected together: a pair is tested over episodes or over seeds, never both."""


def judge(groups: Sequence[Group], reference: Run, benchmark: str, probe: str) -> Verdicts:
    """Compare all groups, measured or not, on a benchmark by a probe; `reference` is a run of the reference group."""
    found = {group.label: group.accuracy(benchmark, probe) for group in groups}
    accuracies = {label: accuracy for label, accuracy in found.items() if isinstance(accuracy, Estimate)}
    means = {label: accuracy.mean for label, accuracy in accuracies.items()}
    measured = sorted((group for group in groups if group.label in means), key=lambda group: -means[group.label])
    of_reference = next(group.label for group in groups if reference in group.runs)
    # With the reference last, its pairs are each group minus the reference.
    ordered = sorted(measured, key=lambda group: group.label == of_reference)
    is_measured = of_reference in means
    if len(ordered) <= MAX_RANKED:
        chosen = list(combinations(ordered, 2))
    else:
        chosen = [(group, ordered[-1]) for group in ordered[:-1]] if is_measured else []
    pairs = _corrected(_differences(chosen, benchmark, probe), [group.label for group in ordered])
    is_ranked = len(ordered) <= MAX_RANKED and all(pair.p for pair in pairs)
    return Verdicts(
        benchmark=benchmark,
        probe=probe,
        groups=tuple(measured),
        accuracies={group.label: accuracies[group.label] for group in measured},
        reference=of_reference if is_measured else None,
        pairs=tuple(pairs),
        letters=_letters(pairs, [group.label for group in ordered], means),
        correction="Shaffer" if is_ranked else "Holm",
        controls=tuple(control_levels([run for group in measured for run in group.runs], benchmark, probe)),
        beats={group.label: beats_controls(group, benchmark, probe) for group in measured},
    )


def judge_all(runs: Sequence[Run], cells: Iterable[Cell] | None = None) -> dict[Cell, Verdicts]:
    """Return the verdicts on each benchmark by each probe, or only on some of them."""
    if cells is None:
        cells = [(benchmark, probe) for benchmark, probes in benchmarks_of(runs).items() for probe in probes]
    groups, reference = groups_of(runs), reference_run(runs)
    return {(benchmark, probe): judge(groups, reference, benchmark, probe) for benchmark, probe in cells}


def _differences(pairs: Sequence[tuple[Group, Group]], benchmark: str, probe: str) -> list[Verdict]:
    """Return each pair's difference with uncorrected p-values, or why it has none."""
    chosen = [pair for pair in pairs if not any(group.is_pooled for group in pair)]
    comparisons = compare_pairs([(a.runs[0], b.runs[0]) for a, b in chosen], benchmark, probe)
    singles = {(a.label, b.label): found for (a, b), found in zip(chosen, comparisons, strict=True)}
    verdicts = []
    for a, b in pairs:
        verdict = Verdict(group=a.label, less=b.label)
        if (a.label, b.label) in singles:
            single = singles[a.label, b.label]
            verdicts.append(
                replace(verdict, why_not=single.not_paired or "")
                if single.paired is None
                else _of_singles(verdict, single.paired, a.runs[0], b.runs[0], (benchmark, probe))
            )
            continue
        found = difference_over_seeds(a, b, benchmark, probe)
        if isinstance(found, str):
            verdicts.append(replace(verdict, why_not=found))
        else:
            p: dict[Scope, float] = {} if found.p_seeds is None else {"seeds": found.p_seeds}
            verdicts.append(replace(verdict, difference=found, p=p))
    return verdicts


def _of_singles(verdict: Verdict, paired: PairedDifference, a: Run, b: Run, cell: Cell) -> Verdict:
    p: dict[Scope, float] = {"pool": paired.p_episodes}
    if paired.p_classes is not None:
        p["classes"] = paired.p_classes
    n_met = [accuracy.n for run in (a, b) if (accuracy := run.accuracy(*cell)) is not None]
    difference = of_training(paired.difference)
    return replace(
        verdict, difference=difference, paired=paired, p=p, is_cut=paired.difference.n < max(n_met, default=0)
    )


def _corrected(verdicts: Sequence[Verdict], labels: Sequence[str]) -> list[Verdict]:
    """Return the pairs with p-values corrected for all pairs of their family."""
    place = {label: number for number, label in enumerate(labels)}
    corrected: list[dict[Scope, float]] = [{} for _ in verdicts]
    for family in dict.fromkeys(_FAMILIES.values()):
        raw, scope_of = {}, {}
        for number, verdict in enumerate(verdicts):
            for scope in family:
                if scope in verdict.p:
                    pair = (place[verdict.group], place[verdict.less])
                    raw[pair], scope_of[pair] = verdict.p[scope], (number, scope)
        for pair, p in correct_pairs(raw, len(labels)).items():
            number, scope = scope_of[pair]
            corrected[number][scope] = p
    return [replace(verdict, p=p) for verdict, p in zip(verdicts, corrected, strict=True)]


def _letters(
    verdicts: Sequence[Verdict], labels: Sequence[str], means: Mapping[str, float]
) -> dict[Scope, dict[str, str]]:
    place = {label: number for number, label in enumerate(labels)}
    letters: dict[Scope, dict[str, str]] = {}
    for scope in _FAMILIES:
        p_values = {
            (place[verdict.group], place[verdict.less]): verdict.p[scope] for verdict in verdicts if scope in verdict.p
        }
        if p_values and len(p_values) == len(labels) * (len(labels) - 1) // 2:
            found = tie_groups([means[label] for label in labels], p_values)
            letters[scope] = dict(zip(labels, found, strict=True))
    return letters
