"""Groups of runs that differ only by their seed."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from lurefs.comparing.estimates import Estimate, of_training, over_seeds
from lurefs.comparing.finished_runs import (
    Run,
    benchmarks_of,
    differing_settings,
    in_folders,
    reference_run,
    unique_labels,
)
from lurefs.comparing.pairs import by_episode
from lurefs.comparing.texts import seeds_in_words

MAX_RANKED = 100
"""Of more groups each is compared with the reference alone: their pairs would be too many to test and to rank."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs with the same settings and different seeds.

    Attributes:
        label: The label of a single run; otherwise the shared part of the names and the number of seeds.
        style: Index of the colour, marker and dash in every chart of the page.
        runs: At least one.
    """

    label: str
    style: int
    runs: tuple[Run, ...]

    @property
    def is_pooled(self) -> bool:
        """Whether there are several seeds."""
        return len(self.runs) > 1

    @property
    def is_of_one_seed(self) -> bool:
        """Whether it is alone although another seed gives other weights, which it does not if all are loaded."""
        return not self.is_pooled and not self.runs[0].config.is_as_loaded

    @property
    def is_trained(self) -> bool:
        """Whether its runs learned something."""
        return not self.runs[0].config.frozen

    @property
    def name(self) -> str:
        """The label without the number of seeds."""
        return self.label.removesuffix(_n_seeds(len(self.runs)))

    def accuracy(self, benchmark: str, probe: str) -> Estimate | str:
        """Return the accuracy of a single run or the mean over seeds, or why no run was measured."""
        accuracies = {run.config.seed: run.accuracy(benchmark, probe) for run in self.runs}
        found = [accuracy for accuracy in accuracies.values() if accuracy is not None]
        if not found:
            is_measured = any(run.benchmark(benchmark) is not None for run in self.runs)
            return f"not measured {'by this probe' if is_measured else 'on this benchmark'}"
        if not self.is_pooled:
            return of_training(found[0])
        missing = [seed for seed, accuracy in accuracies.items() if accuracy is None]
        share = f"mean of {len(found)} of {len(self.runs)} seeds"
        return over_seeds(
            [accuracy.mean for accuracy in found],
            by_episode=by_episode([run for run in self.runs if run.accuracy(benchmark, probe)], benchmark, probe),
            n_episodes=min(accuracy.n for accuracy in found),
            note=f"{share}, since {seeds_in_words(missing)} no result" if missing else "",
        )


def groups_of(runs: Sequence[Run]) -> list[Group]:
    """Return the groups in the order of their first runs; a second run with the same seed starts a new group."""
    members: list[list[Run]] = []
    by_settings: dict[Hashable, list[list[Run]]] = {}
    for run in runs:
        alike = by_settings.setdefault(run.settings_but_seed, [])
        group = next((group for group in alike if run.config.seed not in {other.config.seed for other in group}), None)
        if group is None:
            members.append([run])
            alike.append(members[-1])
        else:
            group.append(run)
    labels = unique_labels(_labels(members))
    return [
        Group(label=label, style=style, runs=tuple(group))
        for style, (label, group) in enumerate(zip(labels, members, strict=True))
    ]


def n_compared(n_groups: int) -> int:
    """Return the number of pairs that are compared: all pairs, or each of many groups with the reference."""
    return n_groups * (n_groups - 1) // 2 if n_groups <= MAX_RANKED else n_groups - 1


def best_first(runs: Sequence[Run]) -> list[Run]:
    """Return the reference, then the other runs by accuracy on the first benchmark and probe, highest first."""
    reference = reference_run(runs)
    place = next(((name, probes[0]) for name, probes in benchmarks_of(runs).items() if probes), None)

    def accuracy(run: Run) -> float:
        found = run.accuracy(*place) if place else None
        return found.mean if found else 0.0

    return sorted(runs, key=lambda run: (run is not reference, -accuracy(run)))


def _labels(members: Sequence[Sequence[Run]]) -> list[str]:
    """Return one label per group: the shared part of the names without the seed, otherwise the settings."""
    names_of_groups = []
    for group in members:
        if len(group) == 1:
            names_of_groups.append(group[0].label)
            continue
        names = {without_seed(run.config.name, run.config.seed) for run in group}
        shared = names.pop() if len(names) == 1 else ""
        names_of_groups.append(shared or _settings(group[0], [other[0] for other in members]))
    labels = []
    for name, group in zip(in_folders(names_of_groups, [g[0].directory.path for g in members]), members, strict=True):
        labels.append(name + _n_seeds(len(group)) if len(group) > 1 else name)
    return labels


def _n_seeds(n_seeds: int) -> str:
    return f" ({n_seeds} seeds)"


def without_seed(name: str, seed: int) -> str:
    """Return a name without `-seed3`, `_s3` or `3` at its end or `seed3-` at its start."""
    at_end = rf"(?:^|[\W_]+)(?:seed|s)[\W_]*{seed}$|[\W_]*(?<!\d){seed}$"
    at_start = rf"^(?:seed|s)[\W_]*{seed}[\W_]+"
    return re.sub(at_start, "", re.sub(at_end, "", name))


def _settings(run: Run, others: Sequence[Run]) -> str:
    """Return the values of a run's settings in which the groups differ."""
    place = [other.label for other in others].index(run.label)
    rows = {path: values[place] for path, values in differing_settings(others).items() if path != "seed"}
    words = [
        value if path.endswith(".name") else f"{path.rpartition('.')[2]} {value}"
        for path, value in rows.items()
        if value != "–"
    ]
    return ", ".join(words) or run.config.unlearn.name
