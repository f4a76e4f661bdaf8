"""Controls that a backbone must beat: their accuracies, and which groups beat them on the same episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from episodes.arrays import FloatArray
from episodes.comparison import n_shared_episodes
from episodes.intervals import half_width
from episodes.over_seeds import MIN_SEEDS
from episodes.summary import Summary
from lurefs.comparing.estimates import Estimate, of_training, over_seeds
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.comparing.pairs import manifests_of, rows_of_equal_length
from lurefs.errors import UserError
from lurefs.runs.summary import ProbeSummary, known


@dataclass(frozen=True, kw_only=True)
class Control:
    """Figures of a control by one probe on one benchmark.

    Attributes:
        name: `untrained_twin` or `image_statistics`.
        runs: The runs for which it was measured; runs with equal figures share one entry.
        accuracy: Its accuracy.
        result: All its figures.
    """

    name: str
    runs: tuple[Run, ...]
    accuracy: Summary
    result: ProbeSummary


@dataclass(frozen=True, kw_only=True)
class ControlLevel:
    """Accuracy of a control over all runs.

    Attributes:
        name: `untrained_twin` or `image_statistics`.
        by_run: Label of a run -> mean accuracy of its control, fraction.
        accuracy: Its accuracy with intervals if all runs share it; otherwise the mean over runs without intervals.
        is_shared: Whether all runs share it.
    """

    name: str
    by_run: Mapping[str, float]
    accuracy: Estimate
    is_shared: bool

    @property
    def words(self) -> str:
        """Its name as people read it."""
        return self.name.replace("_", " ")


def controls_of(runs: Sequence[Run], benchmark: str, probe: str) -> list[Control]:
    """Return the controls of a benchmark by one probe; runs with equal figures share one."""
    found: dict[tuple[str, Summary], Control] = {}
    for run in runs:
        measured = run.benchmark(benchmark)
        for name, control in measured.controls.items() if measured is not None else ():
            result = control.probes.get(probe)
            if result is None or (accuracy := known(result.accuracy)) is None:
                continue
            shared = found[name, accuracy].runs if (name, accuracy) in found else ()
            found[name, accuracy] = Control(name=name, runs=(*shared, run), accuracy=accuracy, result=result)
    return sorted(found.values(), key=lambda control: control.name, reverse=True)


def control_levels(runs: Sequence[Run], benchmark: str, probe: str) -> list[ControlLevel]:
    """Return one level per control, highest first."""
    by_name: dict[str, list[Control]] = {}
    for control in controls_of(runs, benchmark, probe):
        by_name.setdefault(control.name, []).append(control)
    levels = [_level(name, controls) for name, controls in by_name.items()]
    return sorted(levels, key=lambda level: -level.accuracy.mean)


def _level(name: str, controls: Sequence[Control]) -> ControlLevel:
    by_run = {run.label: control.accuracy.mean for control in controls for run in control.runs}
    n_episodes, means = min(control.accuracy.n for control in controls), tuple(by_run.values())
    own = Estimate(mean=float(np.mean(means)), values=means, n_episodes=n_episodes)
    is_shared = len(controls) == 1
    accuracy = replace(of_training(controls[0].accuracy), values=means) if is_shared else own
    return ControlLevel(name=name, by_run=by_run, accuracy=accuracy, is_shared=is_shared)


def beats_controls(group: Group, benchmark: str, probe: str) -> dict[str, bool]:
    """Return control -> whether a group beats it; controls that a measured run lacks are left out.

    A run beats a control if its mean is higher and the 95 % interval of their difference on the same episodes
    excludes zero. From `MIN_SEEDS` seeds on the interval is over seeds, of each run minus its own control. With fewer
    seeds every run must beat it.
    """
    runs = [run for run in group.runs if run.accuracy(benchmark, probe) is not None]
    names = dict.fromkeys(control.name for control in controls_of(runs, benchmark, probe))
    found = {}
    for name in names:
        differences = [_less_control(run, name, benchmark, probe) for run in runs]
        known = [difference for difference in differences if difference is not None]
        if len(known) < len(runs):
            continue
        if len(runs) >= MIN_SEEDS:
            found[name] = _is_above(known, runs, benchmark)
        elif any(isinstance(difference, float) and difference > 0 for difference in known):
            continue
        else:
            found[name] = all(not isinstance(difference, float) and _is_above_zero(difference) for difference in known)
    return found


def _is_above(differences: Sequence[FloatArray | float], runs: Sequence[Run], benchmark: str) -> bool:
    """Return whether the mean difference of several seeds is above zero by its interval over seeds."""
    rows = [difference for difference in differences if not isinstance(difference, float)]
    is_crossed = len(rows) == len(runs) and len(manifests_of(runs, benchmark)) == 1
    mean = over_seeds(
        [float(np.mean(difference)) for difference in differences],
        by_episode=rows_of_equal_length(rows) if is_crossed else None,
    )
    return mean.mean > mean.half_widths["seeds"]


def _is_above_zero(differences: FloatArray) -> bool:
    return float(differences.mean()) > half_width(float(differences.std(ddof=1)), len(differences))


def _less_control(run: Run, name: str, benchmark: str, probe: str) -> FloatArray | float | None:
    """Return a run minus its control by episode; None without such a control.

    If the control's episodes are missing, it is the difference of the stored means.
    """
    own = run.accuracy(benchmark, probe)
    control = next((control for control in controls_of([run], benchmark, probe) if control.name == name), None)
    if own is None or control is None:
        return None
    try:
        one, other = run.accuracies(benchmark, probe), run.control_accuracies(benchmark, name, probe)
        n_common = n_shared_episodes(one, other)
    except (UserError, ValueError):
        return own.mean - control.accuracy.mean
    return one.accuracy[:n_common] - other.accuracy[:n_common]
