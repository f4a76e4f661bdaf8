"""What a backbone must beat: the levels of the controls, and which runs are above them on the same episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from episodes.comparison import n_shared_episodes
from episodes.summary import MIN_SEEDS, Summary, half_width
from lurefs.comparing.estimates import Estimate, of_training, over_seeds
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.errors import UserError
from lurefs.runs.summary import ProbeSummary, known


@dataclass(frozen=True, kw_only=True)
class Control:
    """The figures of a control by one probe on one benchmark.

    Attributes:
        name: `untrained_twin` or `image_statistics`.
        runs: The runs that it was measured for; those with the same figures share one entry.
        accuracy: Its accuracy.
        result: All its figures.
    """

    name: str
    runs: tuple[Run, ...]
    accuracy: Summary
    result: ProbeSummary


@dataclass(frozen=True, kw_only=True)
class ControlLevel:
    """What a control reaches, all runs together.

    Attributes:
        name: `untrained_twin` or `image_statistics`.
        by_run: Its mean accuracy by the label of the run that it was measured for, fraction.
        accuracy: Its accuracy, with intervals where all runs share it; otherwise the mean over the runs' own, without.
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
    """Return the controls of a benchmark by one probe; runs whose control has the same figures share it."""
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
    """Return one level a control, the highest first."""
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
    """Return whether a group beats each control that all its measured runs have; what is not known is left out.

    A run beats a control if its mean is higher, and the 95 % interval of their difference over the same episodes
    excludes zero. A group of at least `MIN_SEEDS` seeds beats it by the interval over seeds of each run less its own
    control; one of fewer only if each of its runs does.
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
            difference = over_seeds([mean for mean, _ in known])
            found[name] = difference.mean > difference.half_widths["seeds"]
        elif any(width is None and mean > 0 for mean, width in known):
            continue
        else:
            found[name] = all(width is not None and mean > width for mean, width in known)
    return found


def _less_control(run: Run, name: str, benchmark: str, probe: str) -> tuple[float, float | None] | None:
    """Return the mean of a run's accuracy less that of its control, and its half width over episodes.

    None where the run has no such control. Without the control's episodes the means of both are all that is known,
    and the half width is None.
    """
    own = run.accuracy(benchmark, probe)
    control = next((control for control in controls_of([run], benchmark, probe) if control.name == name), None)
    if own is None or control is None:
        return None
    try:
        one, other = run.accuracies(benchmark, probe), run.control_accuracies(benchmark, name, probe)
        n_common = n_shared_episodes(one, other)
    except (UserError, ValueError):
        return own.mean - control.accuracy.mean, None
    differences = one.accuracy[:n_common] - other.accuracy[:n_common]
    return float(differences.mean()), half_width(float(differences.std(ddof=1)), n_common)
