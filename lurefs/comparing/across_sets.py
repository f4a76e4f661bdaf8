"""Groups across several data sets: the mean over sets, whose interval is over sets, and paired differences.

Benchmarks of one form on different data sets belong together. The data sets are the random factor: the interval says
where the mean lies on other data sets of this kind, so that it is Student's over the means of the sets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from episodes.comparison import correct_pairs
from episodes.intervals import half_width, student_p
from lurefs.comparing.estimates import Estimate
from lurefs.comparing.finished_runs import Run, unique_labels
from lurefs.comparing.standing_rows import Standing
from lurefs.comparing.texts import joined
from lurefs.comparing.verdict_words import control_label
from lurefs.comparing.verdicts import Cell, Verdicts
from lurefs.config.fields import PluginConfig

MIN_SETS = 3
_OF_VIEW = ("image_size", "n_channels")
"""Parameters of data sets that make no other data set."""


@dataclass(frozen=True, kw_only=True)
class OverSets:
    """A mean over data sets.

    Attributes:
        mean: The mean of the sets' means, fraction; None if one is missing.
        ci95_sets: Half width of its 95 % interval over data sets; None with fewer than `MIN_SETS`.
        p_sets: Two-sided p of a mean of zero; None likewise.
    """

    mean: float | None = None
    ci95_sets: float | None = None
    p_sets: float | None = None


@dataclass(frozen=True, kw_only=True)
class SetsRow:
    """One group or control on all data sets.

    Attributes:
        name: The label of the group, or the name of a control's row.
        is_control: Whether it is a control.
        accuracies: Its accuracy on each data set; None where it was not measured.
        differences: Its difference from the reference on each, paired on the same episodes; None where it has none.
        mean: The mean of the accuracies, if all are there.
        difference: The mean of the differences, with corrected p, if all are there.
        note: Why the mean is missing; "" if it is not.
    """

    name: str
    is_control: bool
    accuracies: tuple[Estimate | None, ...]
    differences: tuple[Estimate | None, ...]
    mean: OverSets
    difference: OverSets = OverSets()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class AcrossSets:
    """All groups on the benchmarks of one form, by one probe.

    Attributes:
        form: The form of the episodes in words.
        probe: The probe's name.
        sets: Names of the data sets.
        benchmarks: The benchmark on each.
        reference: Label of the group that the others are compared with; None for a single one.
        rows: Groups by their mean, highest first, then controls.
        pairs: Labels of each pair of groups -> the first minus the second, if both were compared on all sets.
    """

    form: str
    probe: str
    sets: tuple[str, ...]
    benchmarks: tuple[str, ...]
    reference: str | None
    rows: tuple[SetsRow, ...]
    pairs: Mapping[tuple[str, str], OverSets]

    @property
    def no_interval(self) -> str:
        """Why there is no interval over data sets; "" if there is one."""
        n_sets = len(self.sets)
        return "" if n_sets >= MIN_SETS else f"no interval over {n_sets} data sets: it needs at least {MIN_SETS}"

    def to_mapping(self) -> dict[str, Any]:
        """Return the part of `comparison.json`: means and differences; figures of single sets are in its rows."""
        return {
            "form": self.form,
            "probe": self.probe,
            "benchmarks": dict(zip(self.sets, self.benchmarks, strict=True)),
            "no_interval": self.no_interval,
            "means": [
                {"name": row.name, "is_control": row.is_control, **_figures(row.mean), "note": row.note}
                for row in self.rows
            ],
            "pairs": [{"group": group, "less": less, **asdict(over)} for (group, less), over in self.pairs.items()],
        }

    def standings(self) -> list[Standing]:
        """Return one row per group and control, its mean over the data sets."""
        return [
            Standing(
                kind="mean over sets",
                name=row.name,
                benchmark=" + ".join(self.benchmarks),
                probe=self.probe,
                n_sets=len(self.sets),
                mean=row.mean.mean,
                ci95_sets=row.mean.ci95_sets,
                difference=row.difference.mean,
                difference_ci95_sets=row.difference.ci95_sets,
                p_sets=row.difference.p_sets,
                note="; ".join(filter(None, [row.note, self.no_interval])),
            )
            for row in self.rows
        ]


def over_sets(values: Sequence[float]) -> OverSets:
    """Return the mean of one value per data set, with Student's interval from `MIN_SETS` values on."""
    mean, n_sets = float(np.mean(values)), len(values)
    if n_sets < MIN_SETS:
        return OverSets(mean=mean)
    std = float(np.std(values, ddof=1))
    return OverSets(
        mean=mean, ci95_sets=half_width(std, n_sets), p_sets=student_p(mean, std / math.sqrt(n_sets), n_sets - 1)
    )


def across_sets(runs: Sequence[Run], verdicts: Mapping[Cell, Verdicts]) -> list[AcrossSets]:
    """Return the benchmarks of each form and probe that were measured on several data sets, in their order.

    Of several benchmarks of one form on a data set, the first is taken: they are no other data set.
    """
    found: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    for benchmark, probe in verdicts:
        run = next(run for run in runs if run.benchmark(benchmark) is not None)
        measured, config = run.summary.benchmarks[benchmark], run.config.benchmarks.get(benchmark)
        if config is None or measured.corrupt is not None:
            continue
        dataset = config.dataset or run.config.dataset
        found.setdefault((measured.form, probe), {}).setdefault(_key(dataset), (_name(dataset), benchmark))
    return [
        _across(form, probe, unique_labels(names), benchmarks, verdicts)
        for (form, probe), sets in found.items()
        if len(sets) > 1
        for names, benchmarks in [zip(*sets.values(), strict=True)]
    ]


def _key(dataset: PluginConfig) -> str:
    params = {key: value for key, value in dataset.params.items() if key not in _OF_VIEW}
    return json.dumps([dataset.name, params], sort_keys=True, default=str)


def _name(dataset: PluginConfig) -> str:
    """Return what a reader calls a data set: the last part of its path or name."""
    where = (
        dataset.params.get("path") if dataset.name in ("folder", "archive", "table", "npz", "arrow", "idx") else None
    )
    return Path(str(where or dataset.params.get("name") or dataset.name)).name


def _across(
    form: str, probe: str, sets: Sequence[str], benchmarks: Sequence[str], verdicts: Mapping[Cell, Verdicts]
) -> AcrossSets:
    of_sets = [verdicts[benchmark, probe] for benchmark in benchmarks]
    labels = list(dict.fromkeys(group.label for found in of_sets for group in found.groups))
    reference = next((found.reference for found in of_sets if found.reference is not None), None)
    pairs = _pairs(labels, of_sets)
    rows = [_row(label, sets, of_sets, reference, pairs) for label in labels]
    controls = dict.fromkeys(control_label(control) for found in of_sets for control in found.controls)
    means = sorted(rows, key=lambda row: math.inf if row.mean.mean is None else -row.mean.mean)
    return AcrossSets(
        form=form,
        probe=probe,
        sets=tuple(sets),
        benchmarks=tuple(benchmarks),
        reference=reference if len(labels) > 1 else None,
        rows=(*means, *(_control_row(name, sets, of_sets) for name in controls)),
        pairs=pairs,
    )


def _row(
    label: str,
    sets: Sequence[str],
    of_sets: Sequence[Verdicts],
    reference: str | None,
    pairs: Mapping[tuple[str, str], OverSets],
) -> SetsRow:
    against = [found.against_reference(label) for found in of_sets]
    row = _with_mean(label, [found.accuracies.get(label) for found in of_sets], sets, is_control=False)
    differences = tuple(verdict.difference if verdict is not None else None for verdict in against)
    return replace(row, differences=differences, difference=_between(pairs, label, reference))


def _control_row(name: str, sets: Sequence[str], of_sets: Sequence[Verdicts]) -> SetsRow:
    levels = [{control_label(control): control.accuracy for control in found.controls} for found in of_sets]
    return _with_mean(name, [level.get(name) for level in levels], sets, is_control=True)


def _with_mean(name: str, accuracies: Sequence[Estimate | None], sets: Sequence[str], *, is_control: bool) -> SetsRow:
    missing = [of_set for of_set, accuracy in zip(sets, accuracies, strict=True) if accuracy is None]
    return SetsRow(
        name=name,
        is_control=is_control,
        accuracies=tuple(accuracies),
        differences=(None,) * len(sets),
        mean=OverSets() if missing else over_sets([accuracy.mean for accuracy in accuracies if accuracy is not None]),
        note=f"no mean over data sets: not measured on {joined(missing)}" if missing else "",
    )


def _pairs(labels: Sequence[str], of_sets: Sequence[Verdicts]) -> dict[tuple[str, str], OverSets]:
    """Return each pair that was compared on all sets; p is corrected for all of these pairs."""
    found: dict[tuple[int, int], OverSets] = {}
    for i, j in combinations(range(len(labels)), 2):
        differences = [_difference(verdicts, labels[i], labels[j]) for verdicts in of_sets]
        if all(difference is not None for difference in differences):
            found[i, j] = over_sets([difference for difference in differences if difference is not None])
    raw = {pair: over.p_sets for pair, over in found.items() if over.p_sets is not None}
    corrected = correct_pairs(raw, len(labels)) if raw else {}
    return {(labels[i], labels[j]): replace(over, p_sets=corrected.get((i, j))) for (i, j), over in found.items()}


def _between(pairs: Mapping[tuple[str, str], OverSets], group: str, less: str | None) -> OverSets:
    """Return the mean difference of two groups, in whichever direction it is known."""
    if less is None:
        return OverSets()
    turned = pairs.get((less, group), OverSets())
    return pairs.get((group, less), replace(turned, mean=None if turned.mean is None else -turned.mean))


def _difference(verdicts: Verdicts, group: str, less: str) -> float | None:
    if not {group, less} <= verdicts.accuracies.keys():
        return None
    difference = verdicts.between(group, less).difference
    return None if difference is None else difference.mean


def _figures(over: OverSets) -> dict[str, float | None]:
    return {"mean": over.mean, "ci95_sets": over.ci95_sets}  # a test of a zero accuracy means nothing
