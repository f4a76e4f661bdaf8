"""Finished runs side by side: what they share, where their settings differ, and their differences on the same episodes.

Numbers only. `lurefs.wording` says them in words and `lurefs.report` puts them on a page.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from episodes.accuracies import Accuracies
from episodes.comparison import (
    PairedDifference,
    compare_tables,
    manifest_difference,
    n_shared_episodes,
    paired_differences,
    tie_groups,
)
from episodes.manifest import Manifest
from episodes.summary import Summary
from lurefs.config import RunConfig
from lurefs.errors import UserError
from lurefs.outcomes import ChunkOutcome
from lurefs.records import to_mapping
from lurefs.results import RunDirectory, damaged

REFERENCE_STRATEGY = "nothing"
NOT_COMPARED = ("name", "device", "num_threads", "controls", "trackers")
MIN_RANKED = 3
FLIP_SEED = 0
"""The p-values of a page are drawn, and equal files must give an equal page."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished run.

    Attributes:
        label: Its name, made unique among the runs it stands beside.
        directory: Where its files are.
        config: Its configuration.
        summary: Its `summary.json`.
        outcomes: One a chunk; empty if it was not pre-trained here.
        identity: Its `identity.json`; empty if there is none.
        cost: Its `cost.json`; empty if there is none.
        is_reference: Whether it was chosen as what the others are compared with.
        first: On how many first episodes of a benchmark it is judged; on all that it met where nothing is said. The
            summary is then that of these episodes, and names their manifest.
    """

    label: str
    directory: RunDirectory
    config: RunConfig
    summary: Mapping[str, Any]
    outcomes: Sequence[ChunkOutcome]
    identity: Mapping[str, Any]
    cost: Mapping[str, Any] = field(default_factory=dict)
    is_reference: bool = False
    first: Mapping[str, int] = field(default_factory=dict)

    def result(self, benchmark: str, probe: str) -> Mapping[str, Any] | None:
        """Return the figures of one probe on one benchmark, or None if it was not measured."""
        found: Mapping[str, Any] | None = self.benchmark(benchmark).get("probes", {}).get(probe)
        return found

    def benchmark(self, name: str) -> Mapping[str, Any]:
        """Return the summary of one benchmark, empty if it was not measured."""
        found: Mapping[str, Any] = self.summary.get("benchmarks", {}).get(name, {})
        return found

    def accuracy(self, benchmark: str, probe: str) -> Summary | None:
        """Return the accuracy of one probe on one benchmark, or None if it was not measured."""
        result = self.result(benchmark, probe)
        return None if result is None else summary_of(result.get("accuracy"))

    def accuracies(self, benchmark: str, probe: str) -> Accuracies:
        """Return the accuracy of every episode, read once.

        Raises:
            UserError: They are not there, or the file is damaged.
        """
        key = (benchmark, probe)
        if key not in self._accuracies:
            found = self.directory.read_accuracies(benchmark, probe)
            if benchmark in self.first:
                found = found.first(self.first[benchmark], manifest=self.benchmark(benchmark)["manifest"])
            self._accuracies[key] = found
        return self._accuracies[key]

    def manifest(self, benchmark: str) -> Manifest:
        """Return the episodes of a benchmark, read once.

        Raises:
            UserError: They are not there, or the file is damaged.
        """
        if benchmark not in self._manifests:
            self._manifests[benchmark] = self.directory.read_manifest(benchmark)
        return self._manifests[benchmark]

    @cached_property
    def _accuracies(self) -> dict[tuple[str, str], Accuracies]:
        return {}

    @cached_property
    def _manifests(self) -> dict[str, Manifest]:
        return {}

    def class_name(self, benchmark: str, label: int) -> str:
        """Return the name of a class by its index in the feature bank; the index itself if the bank is gone."""
        try:
            return self.directory.read_bank(benchmark).class_names[label]
        except (UserError, IndexError):
            return f"class {label}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One run against the reference, on one benchmark, by one probe.

    Attributes:
        benchmark: The benchmark's name.
        probe: The probe's name.
        run: The run.
        reference: What it is compared with.
        paired: Accuracy of the run less that of the reference, fraction; None if they cannot be paired.
        not_paired: Why they cannot; None if they can.
    """

    benchmark: str
    probe: str
    run: Run
    reference: Run
    paired: PairedDifference | None
    not_paired: str | None

    @property
    def is_cut(self) -> bool:
        """Whether one of the two met episodes that they were not paired on."""
        met = [run.accuracy(self.benchmark, self.probe) for run in (self.run, self.reference)]
        n_met = [accuracy.n for accuracy in met if accuracy is not None]
        return self.paired is not None and self.paired.difference.n < max(n_met, default=0)

    @property
    def on_what(self) -> str:
        """Say which episodes the two were paired on."""
        if self.paired is None or not self.is_cut:
            return "on the same episodes"
        return f"on the first {self.paired.difference.n:,} episodes, which both met"


@dataclass(frozen=True, kw_only=True)
class Ties:
    """Letters of the runs that met the same episodes: two of them share one unless a test sets them apart.

    Attributes:
        pool: Run's label -> letters, by the sign-flip tests over episodes of this pool.
        classes: Likewise by the tests over new classes; empty where a pair has none.
    """

    pool: Mapping[str, str]
    classes: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Control:
    """The figures of a control by one probe on one benchmark.

    Attributes:
        name: `untrained_twin` or `image_statistics`.
        runs: The runs that it was measured for; those with the same figures share one entry.
        result: Its figures, with the fields of a probe's.
    """

    name: str
    runs: tuple[Run, ...]
    result: Mapping[str, Any]


_Measured = tuple[Run, str]
"""A run and the benchmark that it was measured on."""


def read_runs(directories: Sequence[RunDirectory]) -> list[Run]:
    """Read what is compared of each run; its episodes are read when two runs are paired.

    Raises:
        UserError: A directory is no finished run, or one of its files is damaged.
    """
    configs = [directory.read_config() for directory in directories]
    labels = unique_labels([config.name for config in configs])
    return [
        Run(
            label=label,
            directory=directory,
            config=config,
            summary=directory.read_summary(),
            outcomes=directory.read_outcomes(),
            identity=_read_identity(directory),
            cost=directory.read_cost(),
        )
        for label, directory, config in zip(labels, directories, configs, strict=True)
    ]


def summary_of(values: Mapping[str, Any] | None) -> Summary | None:
    """Return the mean and intervals of one metric in `summary.json`; None if there is none, or its mean is NaN."""
    if values is None or values.get("mean") is None or values["mean"] != values["mean"]:
        return None
    fields: dict[str, Any] = {name: values.get(name) for name in Summary.__dataclass_fields__}
    return Summary(**fields)


def reference_run(runs: Sequence[Run]) -> Run:
    """Return the run that was chosen, else the first that unlearns nothing, if there is one, else the first."""
    chosen = (run for run in runs if run.is_reference)
    warm = (run for run in runs if run.config.unlearn.name == REFERENCE_STRATEGY)
    return next(chosen, None) or next(warm, runs[0])


def benchmarks_of(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return the probes that any run was measured by, by benchmark, in the order of the configurations."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        names = [name for name in (*run.config.benchmarks, *run.summary.get("benchmarks", {})) if run.benchmark(name)]
        for name in names:
            probes = run.benchmark(name).get("probes", {})
            ordered = [*(probe for probe in run.config.probes if probe in probes), *probes]
            found.setdefault(name, {}).update(dict.fromkeys(ordered))
    return {name: list(probes) for name, probes in found.items()}


def manifests_of(runs: Sequence[Run], benchmark: str) -> dict[str, list[Run]]:
    """Return the runs that met the same episodes of a benchmark, by the hash of the first one's manifest.

    A run that met only the first ones of another's episodes is with it.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.benchmark(benchmark):
            own = str(run.benchmark(benchmark).get("manifest"))
            known = next(
                (hash for hash, members in groups.items() if _begin_alike((run, benchmark), (members[0], benchmark))),
                own,
            )
            groups.setdefault(known, []).append(run)
    return groups


def best_run(runs: Sequence[Run], benchmark: str, probe: str) -> Run | None:
    """Return the run of the highest mean accuracy, the first of equals; None if none was measured."""
    measured = [(accuracy.mean, run) for run in runs if (accuracy := run.accuracy(benchmark, probe)) is not None]
    return max(measured, key=lambda pair: pair[0])[1] if measured else None


def compare(run: Run, reference: Run, benchmark: str, probe: str) -> Comparison:
    """Pair the accuracies of two runs episode by episode, or say why that cannot be done.

    Where one of them met more episodes than the other, they are paired on those that both met.
    """
    return compare_pairs([(run, reference)], benchmark, probe)[0]


def compare_pairs(pairs: Sequence[tuple[Run, Run]], benchmark: str, probe: str) -> list[Comparison]:
    """Do for many pairs, run and reference, what `compare` does for one, in a time that grows with the runs.

    Returns:
        One comparison a pair, in their order.
    """
    reasons = [_why_not_paired(*pair, benchmark, probe) for pair in pairs]
    chosen = [pair for pair, reason in zip(pairs, reasons, strict=True) if reason is None]
    runs = list({id(run): run for pair in chosen for run in pair}.values())
    place = {id(run): number for number, run in enumerate(runs)}
    read = [run.accuracies(benchmark, probe) for run in runs]
    paired = paired_differences(
        [table.accuracy for table in read],
        [table.classes for table in read],
        [(place[id(run)], place[id(reference)]) for run, reference in chosen],
        rng=np.random.default_rng(FLIP_SEED),
    )
    return [
        Comparison(
            benchmark=benchmark,
            probe=probe,
            run=run,
            reference=reference,
            paired=None if reason else paired[place[id(run)], place[id(reference)]],
            not_paired=reason,
        )
        for (run, reference), reason in zip(pairs, reasons, strict=True)
    ]


def loss_by_corruption(run: Run, corrupted: str, clean: str, probe: str) -> PairedDifference | None:
    """Pair a run on a benchmark's corrupted images with itself on the clean ones; None if that cannot be done."""
    try:
        return _pair((run, corrupted), (run, clean), probe)
    except (UserError, ValueError):
        return None


def clean_benchmark(run: Run, corrupted: str) -> str | None:
    """Return the benchmark whose images are clean and whose episodes are those of a corrupted one; None if none is."""
    for name in run.summary.get("benchmarks", {}):
        if not run.benchmark(name).get("corrupt") and _begin_alike((run, corrupted), (run, name)):
            return str(name)
    return None


def ties(runs: Sequence[Run], benchmark: str, probe: str) -> Ties | None:
    """Rank the runs that met the same episodes; None if there are fewer than three, or a pair cannot be compared."""
    measured = [run for run in runs if run.accuracy(benchmark, probe) is not None]
    if len(measured) < MIN_RANKED or len(manifests_of(measured, benchmark)) > 1:
        return None
    return rank(measured, compare_pairs(list(combinations(measured, 2)), benchmark, probe))


def rank(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> Ties | None:
    """Return the letters of runs from their comparisons, one for each combination of two, in the order of the runs.

    None if a pair could not be compared.
    """
    means, p_pool, p_classes = [], {}, {}
    for run in runs:
        accuracy = run.accuracy(comparisons[0].benchmark, comparisons[0].probe)
        means.append(accuracy.mean if accuracy else 0.0)
    for pair, comparison in zip(combinations(range(len(runs)), 2), comparisons, strict=True):
        if comparison.paired is None:
            return None
        p_pool[pair] = comparison.paired.p_episodes
        if comparison.paired.p_classes is not None:
            p_classes[pair] = comparison.paired.p_classes
    labels = [run.label for run in runs]
    return Ties(
        pool=dict(zip(labels, tie_groups(means, p_pool), strict=True)),
        classes=dict(zip(labels, tie_groups(means, p_classes), strict=True)) if len(p_classes) == len(p_pool) else {},
    )


def controls_of(runs: Sequence[Run], benchmark: str, probe: str) -> list[Control]:
    """Return the controls of a benchmark by one probe; runs whose control has the same figures share it."""
    found: dict[tuple[str, str], Control] = {}
    for run in runs:
        for name, figures in run.benchmark(benchmark).get("controls", {}).items():
            result = figures.get("probes", {}).get(probe)
            if result is None or summary_of(result.get("accuracy")) is None:
                continue
            key = (name, json.dumps(result["accuracy"], sort_keys=True))
            shared = found[key].runs if key in found else ()
            found[key] = Control(name=name, runs=(*shared, run), result=result)
    return sorted(found.values(), key=lambda control: control.name, reverse=True)


def differing_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return the settings in which the runs differ: dotted path -> one text a run, `–` where it has no such setting."""
    flat = [_flatten(to_mapping(run.config)) for run in runs]
    paths = dict.fromkeys(path for values in flat for path in values)
    rows = {path: [values.get(path, "–") for values in flat] for path in paths}
    return {
        path: values
        for path, values in rows.items()
        if len(set(values)) > 1 and path.partition(".")[0] not in NOT_COMPARED
    }


def train_seconds(run: Run) -> float:
    """Return the seconds of all training epochs."""
    return sum(outcome.train_seconds for outcome in run.outcomes)


def _pair(a: _Measured, b: _Measured, probe: str) -> PairedDifference:
    one, other = (run.accuracies(benchmark, probe) for run, benchmark in (a, b))
    return compare_tables(one, other, rng=np.random.default_rng(FLIP_SEED), manifests=_different_manifests(a, b))


def _why_not_paired(run: Run, reference: Run, benchmark: str, probe: str) -> str | None:
    """Return why the two did not meet the same episodes, None if they did."""
    try:
        one, other = (side.accuracies(benchmark, probe) for side in (run, reference))
        n_shared_episodes(one, other, manifests=_different_manifests((run, benchmark), (reference, benchmark)))
    except UserError as error:
        return error.problem
    except ValueError as error:
        return str(error)
    return None


def _different_manifests(a: _Measured, b: _Measured) -> tuple[Manifest, Manifest] | None:
    """Return the episodes of two runs on a benchmark each, or None if they are known to be the same.

    Raises:
        UserError: They are not the same, and a file of them is missing or damaged.
    """
    (run, benchmark), (other, its_benchmark) = a, b
    if run.benchmark(benchmark).get("manifest") == other.benchmark(its_benchmark).get("manifest"):
        return None
    return run.manifest(benchmark), other.manifest(its_benchmark)


def _begin_alike(a: _Measured, b: _Measured) -> bool:
    """Return whether the episodes of the one are the first ones of the other."""
    try:
        manifests = _different_manifests(a, b)
    except UserError:
        return False
    if manifests is None:
        return True
    n_common = min(map(len, manifests))
    return not manifest_difference(*(manifest.prefix(n_common) for manifest in manifests))


def _flatten(values: Any, path: str = "") -> dict[str, str]:
    if isinstance(values, Mapping) and values:
        flat: dict[str, str] = {}
        for key, value in values.items():
            flat.update(_flatten(value, f"{path}.{key}" if path else str(key)))
        return flat
    return {} if values == {} else {path: values if isinstance(values, str) else json.dumps(values)}


def unique_labels(names: Sequence[str]) -> list[str]:
    """Return the names, those that occur several times with their number among equals."""
    counts, seen, labels = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        labels.append(f"{name} ({seen[name]})" if counts[name] > 1 else name)
    return labels


def _read_identity(directory: RunDirectory) -> Mapping[str, Any]:
    if not directory.identity_path.is_file():
        return {}
    try:
        identity = json.loads(directory.identity_path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise damaged(directory.identity_path, str(error)) from error
    return identity if isinstance(identity, dict) else {}
