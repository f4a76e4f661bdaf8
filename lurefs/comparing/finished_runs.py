"""Finished runs read from their directories: settings, figures, episodes, and the settings that differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from episodes.accuracies import Accuracies
from episodes.manifest import Manifest
from episodes.summary import Summary
from lurefs.config.identity import digest, run_identity
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import ChunkOutcome
from lurefs.runs.summary import BenchmarkSummary, ProbeSummary, RunSummary, known

REFERENCE_STRATEGY = "nothing"
NOT_COMPARED = ("name", "device", "num_threads", "controls", "trackers")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished run.

    Attributes:
        label: Its name, made unique among the runs of a comparison.
        directory: Where its files are.
        config: Its configuration.
        summary: Its `summary.json`.
        outcomes: One per chunk; empty if it was not pre-trained here.
        identity: Its `identity.json`; empty if there is none.
        cost: Its `cost.json`; empty if there is none.
        is_reference: Whether the user chose it as the reference of the others.
        first: Benchmark -> number of first episodes to which it is cut, if it is; the summary then is that of these
            episodes and has the hash of their manifest.
    """

    label: str
    directory: RunDirectory
    config: RunConfig
    summary: RunSummary
    outcomes: Sequence[ChunkOutcome]
    identity: Mapping[str, Any]
    cost: Mapping[str, Any] = field(default_factory=dict)
    is_reference: bool = False
    first: Mapping[str, int] = field(default_factory=dict)

    def result(self, benchmark: str, probe: str) -> ProbeSummary | None:
        """Return the figures of one probe on one benchmark, or None if it was not measured."""
        found = self.benchmark(benchmark)
        return None if found is None else found.probes.get(probe)

    def benchmark(self, name: str) -> BenchmarkSummary | None:
        """Return the figures of one benchmark, or None if it was not measured."""
        return self.summary.benchmarks.get(name)

    def manifest_hash(self, benchmark: str) -> str | None:
        """Return the hash of the episodes of a benchmark, or None if it was not measured."""
        found = self.benchmark(benchmark)
        return None if found is None else found.manifest

    def is_corrupted(self, benchmark: str) -> bool:
        """Return whether a benchmark was measured and has its images corrupted."""
        found = self.benchmark(benchmark)
        return found is not None and found.corrupt is not None

    def accuracy(self, benchmark: str, probe: str) -> Summary | None:
        """Return the accuracy of one probe on one benchmark, or None if it was not measured."""
        result = self.result(benchmark, probe)
        return None if result is None else known(result.accuracy)

    def accuracies(self, benchmark: str, probe: str) -> Accuracies:
        """Return the accuracy of every episode, read once.

        Raises:
            UserError: They are missing, or the file is damaged.
        """
        key = (benchmark, probe)
        if key not in self._accuracies:
            self._accuracies[key] = self._cut(benchmark, self.directory.read_accuracies(benchmark, probe))
        return self._accuracies[key]

    def control_accuracies(self, benchmark: str, control: str, probe: str) -> Accuracies:
        """Return the accuracy of a control on every episode.

        Raises:
            UserError: They are missing, or the file is damaged.
        """
        return self._cut(benchmark, self.directory.read_control_accuracies(benchmark, control, probe))

    def _cut(self, benchmark: str, found: Accuracies) -> Accuracies:
        """Return the accuracies cut to the episodes in `first`."""
        if benchmark not in self.first:
            return found
        return found.first(self.first[benchmark], manifest=self.summary.benchmarks[benchmark].manifest)

    def manifest(self, benchmark: str) -> Manifest:
        """Return the episodes of a benchmark, read once.

        Raises:
            UserError: They are missing, or the file is damaged.
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

    @cached_property
    def has_other_settings(self) -> bool:
        """Whether its configuration is not the one by which its results were measured."""
        return digest(run_identity(self.config)) != self.summary.run.digest

    @cached_property
    def settings_but_seed(self) -> Hashable:
        """All that its numbers depend on but the seed, and whether it was pre-trained: equal for runs of one group."""
        settings = {key: value for key, value in run_identity(self.config).items() if key != "seed"}
        return bool(self.outcomes), _hashable(settings)

    def class_name(self, benchmark: str, label: int) -> str:
        """Return the name of a class by its index in the feature bank, or the index if the bank is missing."""
        try:
            return self.directory.read_bank(benchmark).class_names[label]
        except (UserError, IndexError):
            return f"class {label}"

    def n_classes(self, benchmark: str) -> int | None:
        """Return the number of classes in a benchmark's pool, or None if its feature bank is missing."""
        try:
            return len(self.directory.read_bank(benchmark).class_names)
        except UserError:
            return None


def read_runs(directories: Sequence[RunDirectory]) -> list[Run]:
    """Read the configuration, figures and outcomes of runs; their episodes are read when needed.

    Raises:
        UserError: A directory is not a finished run, or one of its files is damaged.
    """
    configs = [directory.read_config() for directory in directories]
    labels = _labels([config.name for config in configs], [directory.path for directory in directories])
    return [
        Run(
            label=label,
            directory=directory,
            config=config,
            summary=directory.read_summary(),
            outcomes=directory.read_outcomes(),
            identity=directory.read_identity(),
            cost=directory.read_cost(),
        )
        for label, directory, config in zip(labels, directories, configs, strict=True)
    ]


def reference_run(runs: Sequence[Run]) -> Run:
    """Return the chosen run, otherwise the first that unlearns nothing, otherwise the first."""
    chosen = (run for run in runs if run.is_reference)
    warm = (run for run in runs if run.config.unlearn.name == REFERENCE_STRATEGY)
    return next(chosen, None) or next(warm, runs[0])


def benchmarks_of(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return benchmark -> probes by which any run was measured, in the order of the configurations."""
    names = dict.fromkeys(name for run in runs for name in (*run.config.benchmarks, *run.summary.benchmarks))
    found = {}
    for name in names:
        measured = [stated for run in runs if (stated := run.benchmark(name)) is not None]
        probes = dict.fromkeys(probe for stated in measured for probe in stated.probes)
        ordered = dict.fromkeys(probe for run in runs for probe in run.config.probes if probe in probes)
        if measured:
            found[name] = list(ordered | probes)
    return found


def best_run(runs: Sequence[Run], benchmark: str, probe: str) -> Run | None:
    """Return the run with the highest mean accuracy, of equals the first; None if none was measured."""
    measured = [(accuracy.mean, run) for run in runs if (accuracy := run.accuracy(benchmark, probe)) is not None]
    return max(measured, key=lambda pair: pair[0])[1] if measured else None


def differing_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return the settings that differ: dotted path -> one text per run, `–` if it has no such setting."""
    flat = [_flatten(to_mapping(run.config)) for run in runs]
    paths = dict.fromkeys(path for values in flat for path in values)
    rows = {path: [values.get(path, "–") for values in flat] for path in paths}
    return {
        path: values
        for path, values in rows.items()
        if len(set(values)) > 1 and path.partition(".")[0] not in NOT_COMPARED
    }


def _flatten(values: Any, path: str = "") -> dict[str, str]:
    if isinstance(values, Mapping) and values:
        flat: dict[str, str] = {}
        for key, value in values.items():
            flat.update(_flatten(value, f"{path}.{key}" if path else str(key)))
        return flat
    return {} if values == {} else {path: values if isinstance(values, str) else json.dumps(values)}


def _hashable(values: Any) -> Hashable:
    """Return plain values as one that can be hashed; equal values stay equal."""
    if isinstance(values, Mapping):
        return frozenset((key, _hashable(value)) for key, value in values.items())
    return tuple(map(_hashable, values)) if isinstance(values, list) else values


def _labels(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Return the names of runs; those that share a name have their folders' names, or the parents' before the name."""
    counts = Counter(names)
    folders = [_printable(path.resolve().name) for path in paths]
    labels = [folder if counts[name] > 1 else name for name, folder in zip(names, folders, strict=True)]
    return labels if len(set(labels)) == len(labels) else in_folders(names, paths)


def _printable(folder: str) -> str:
    """Return a folder's name without line breaks, codes of terminals and changes of direction."""
    return "".join(character if character.isprintable() else "\ufffd" for character in folder)


def in_folders(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Return the names; repeated ones come after the name of their folder, or are numbered if these are equal, too."""
    counts = Counter(names)
    return unique_labels(
        [
            f"{_printable(path.resolve().parent.name)}/{name}" if counts[name] > 1 else name
            for name, path in zip(names, paths, strict=True)
        ]
    )


def unique_labels(names: Sequence[str]) -> list[str]:
    """Return the names; repeated ones are numbered."""
    counts, seen, labels = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        labels.append(f"{name} ({seen[name]})" if counts[name] > 1 else name)
    return labels
