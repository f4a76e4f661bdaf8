"""How runs stand changed images: curves against the strength of the change, and a table by what the change is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lurefs.comparing.groups import Group
from lurefs.comparing.texts import count
from lurefs.records import Row
from lurefs.reporting.charts.curves import Line
from lurefs.reporting.sections.tables import percent_over_seeds
from lurefs.reporting.series import Point, pooled
from lurefs.runs.outcomes import ChunkOutcome, RobustnessScores

PIXEL_LEVELS = 255


def last_measured(outcomes: Sequence[ChunkOutcome]) -> tuple[ChunkOutcome, RobustnessScores] | None:
    """Return the last chunk after which robustness was measured, and what was found; None if it never was."""
    found = [(outcome, outcome.robustness) for outcome in outcomes if outcome.robustness is not None]
    return found[-1] if found else None


def severity_curve(group: Group) -> Line | None:
    """Return the mean accuracy over corruptions against severity, at the last chunk; None if it was not measured."""
    return _profile(group, _accuracy_by_severity)


def attack_curve(group: Group, attack: str) -> Line | None:
    """Return the accuracy under an attack against its epsilon in 1/255, at the last chunk; None if not measured."""
    return _profile(
        group,
        lambda scores: {
            PIXEL_LEVELS * float(epsilon): accuracy for epsilon, accuracy in scores.attacks.get(attack, {}).items()
        },
    )


def measured(groups: Sequence[Group]) -> list[Group]:
    """Return the groups of which a run's robustness was measured."""
    return [group for group in groups if any(last_measured(run.outcomes) for run in group.runs)]


def attacks_of(groups: Sequence[Group]) -> list[str]:
    """Return the attacks that any run met at its last measured chunk."""
    return list(dict.fromkeys(attack for scores in _scores(groups) for attack in scores.attacks))


def table(groups: Sequence[Group]) -> dict[str, Any]:
    """Return the accuracies at the last measured chunk: a column a group, a row a corruption or an attack's epsilon.

    A corruption's accuracy is the mean over its severities.
    """
    kinds = list(dict.fromkeys(kind for scores in _scores(groups) for kind in scores.corruptions))
    strengths = list(
        dict.fromkeys(
            (attack, epsilon)
            for scores in _scores(groups)
            for attack in scores.attacks
            for epsilon in scores.attacks[attack]
        )
    )
    rows = [_row("All corruptions", groups, lambda scores: scores.corruption_accuracy)] if kinds else []
    rows += [_row(_spaced(kind), groups, partial(_corrupted, kind=kind)) for kind in kinds]
    for attack, epsilon in sorted(strengths, key=lambda strength: (strength[0], float(strength[1]))):
        name = f"{_spaced(attack)}, {round(PIXEL_LEVELS * float(epsilon), 1):g}/{PIXEL_LEVELS}"
        rows.append(_row(name, groups, partial(_attacked, attack=attack, epsilon=epsilon)))
    return {"columns": [group.label for group in groups], "rows": rows}


def n_images(groups: Sequence[Group]) -> str:
    """Return how many images were changed, `800` or `400 to 800`."""
    counts = {scores.n_images for scores in _scores(groups)}
    return count(max(counts)) if len(counts) == 1 else f"{count(min(counts))} to {count(max(counts))}"


def _scores(groups: Sequence[Group]) -> list[RobustnessScores]:
    found = [last_measured(run.outcomes) for group in groups for run in group.runs]
    return [last[1] for last in found if last]


def _profile(group: Group, get: Callable[[RobustnessScores], Mapping[float, float]]) -> Line | None:
    return pooled(group, [_strengths(last_measured(run.outcomes), get) for run in group.runs])


def _strengths(
    last: tuple[ChunkOutcome, RobustnessScores] | None, get: Callable[[RobustnessScores], Mapping[float, float]]
) -> dict[float, Point]:
    """Return accuracy by strength; at strength 0 stands the accuracy on unchanged images, where they are the same."""
    if last is None:
        return {}
    outcome, scores = last
    found = dict(get(scores))
    if found and scores.n_images == outcome.n_test:
        found.setdefault(0.0, outcome.test_accuracy)
    return {strength: Point(x=strength, y=100 * found[strength]) for strength in sorted(found)}


def _accuracy_by_severity(scores: RobustnessScores) -> dict[float, float]:
    severities = dict.fromkeys(severity for kind in scores.corruptions.values() for severity in kind)
    return {
        float(severity): float(np.mean([kind[severity] for kind in scores.corruptions.values() if severity in kind]))
        for severity in severities
    }


def _row(name: str, groups: Sequence[Group], get: Callable[[RobustnessScores], float | None]) -> Row:
    return {"name": name, "values": [_cell(group, get) for group in groups]}


def _cell(group: Group, get: Callable[[RobustnessScores], float | None]) -> str:
    found = [get(last[1]) if (last := last_measured(run.outcomes)) else None for run in group.runs]
    return percent_over_seeds(found)


def _corrupted(scores: RobustnessScores, *, kind: str) -> float | None:
    accuracies = list(scores.corruptions.get(kind, {}).values())
    return float(np.mean(accuracies)) if accuracies else None


def _attacked(scores: RobustnessScores, *, attack: str, epsilon: str) -> float | None:
    return scores.attacks.get(attack, {}).get(epsilon)


def _spaced(name: str) -> str:
    return name.replace("_", " ")
