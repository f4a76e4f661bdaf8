"""How much finished runs can show, and how much it takes to show more: `episodes.planning` for pairs of groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from episodes.arrays import FloatArray, IntArray
from episodes.comparison import LEVEL
from episodes.components import Components, components_over_seeds, deviation_of_images, variance_components
from episodes.over_classes import EPISODES_PER_CLASS
from episodes.planning import LIMITS, Design, Quantity, Scope, needed, plausible, power, smallest_difference
from lurefs.comparing.answers import read_answers
from lurefs.comparing.finished_runs import Run, reference_run
from lurefs.comparing.groups import MAX_RANKED, Group, groups_of, n_compared
from lurefs.comparing.over_seeds import differences_by_seed
from lurefs.comparing.pairs import differences_by_episode, manifests_of, rows_of_equal_length
from lurefs.errors import UserError

POWER = 0.8
DIFFERENCE = 0.02
MAX_PLANNED = 20
"""Of more than `MAX_RANKED` groups, the number of highest ones whose differences are examined."""
QUANTITIES: tuple[Quantity, ...] = ("n_classes", "n_episodes", "n_seeds", "n_images")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What the values of one comparison vary by, and how much was measured.

    Attributes:
        name: What is compared: `a − b`, or one group against a fixed level.
        benchmark: The benchmark's name; "" for assumed components.
        probe: The probe's name; "" for assumed components.
        components: Of the difference; None if they cannot be had.
        accuracy: Of the accuracies of the first of the two; None if unknown.
        design: What is at hand; None without components.
        pilot: How much was measured; None for assumed components.
        scopes: What lurefs tests the difference over: new classes, and this pool or new seeds.
        n_pairs: For how many pairs its p-value is corrected.
        n_left_out: Number of differences that are left out: of many groups, only those of the highest are examined.
        style: Index of the first group's look in charts.
        why_not: Why there are no components; "" if there are.
    """

    name: str
    benchmark: str = ""
    probe: str = ""
    components: Components | None = None
    accuracy: Components | None = None
    design: Design | None = None
    pilot: Design | None = None
    scopes: tuple[Scope, ...] = ()
    n_pairs: int = 1
    n_left_out: int = 0
    style: int = 0
    why_not: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a design can show over one scope, and what it takes to show a difference.

    Attributes:
        name: What is compared.
        benchmark: The benchmark's name, or "".
        probe: The probe's name, or "".
        scope: Over what.
        design: How much is measured.
        level: Level of the test: 0.05 by the number of pairs, the worst that their correction does.
        smallest: The smallest difference, fraction, that is shown with the wanted power; None if there is no test yet.
        with_endless_episodes: The same if episodes cost nothing: no number of them can show less.
        power: Chance to show the wanted difference; None if there is no test yet.
        needed: Quantity -> least number that shows the wanted difference, all others being those of the design; None if
            no number does. Quantities that the scope does not depend on, or whose spread is unknown, are left out.
        smallest_between: 95 % interval of the smallest difference. It allows for the effect of classes alone, estimated
            from those measured; None for assumed components and over other scopes.
        classes_between: The same for the number of classes that shows the wanted difference; None in it if no number
            does.
        why_not: Why there is no test yet; "" if there is one.
    """

    name: str
    benchmark: str
    probe: str
    scope: Scope
    design: Design
    level: float
    smallest: float | None
    with_endless_episodes: float | None
    power: float | None
    needed: dict[Quantity, int | None]
    smallest_between: tuple[float, float] | None = None
    classes_between: tuple[int | None, int | None] | None = None
    why_not: str = ""

    def to_mapping(self) -> dict[str, Any]:
        """Return all fields for JSON."""
        return asdict(self)


def spreads(
    groups: Sequence[Group], reference: Run, benchmark: str, probe: str, *, with_images: bool = True
) -> list[Spread]:
    """Return what the differences of all groups from the reference vary by, or the accuracy of a single group.

    Without `with_images` the stored answers are not read, and the effect of images stays unknown.
    """
    measured = [group for group in groups if any(run.result(benchmark, probe) for run in group.runs)]
    of_reference = next((group for group in measured if reference in group.runs), None)
    if of_reference is None or len(measured) == 1:
        return [_spread(group, None, benchmark, probe, n_pairs=1, with_images=with_images) for group in measured]
    n_pairs = n_compared(len(measured))
    others = [group for group in measured if group is not of_reference]
    chosen = others
    if len(measured) > MAX_RANKED:
        chosen = sorted(others, key=lambda group: _mean(group, benchmark, probe), reverse=True)[:MAX_PLANNED]
    found = [
        _spread(group, of_reference, benchmark, probe, n_pairs=n_pairs, with_images=with_images) for group in chosen
    ]
    return [replace(spread, n_left_out=len(others) - len(chosen)) for spread in found]


def spreads_of(runs: Sequence[Run], cells: Iterable[tuple[str, str]]) -> list[Spread]:
    """Return the spreads of all comparisons with the reference on some benchmarks by some probes."""
    groups, reference = groups_of(runs), reference_run(runs)
    return [found for benchmark, probe in cells for found in spreads(groups, reference, benchmark, probe)]


def plans(
    spread: Spread, *, difference: float = DIFFERENCE, at_power: float = POWER, is_short: bool = False
) -> list[Plan]:
    """Return one plan per scope; none if the spread is unknown. With `is_short`, numbers needed are left out."""
    if spread.components is None or spread.design is None:
        return []
    return [_plan(spread, scope, difference, at_power, is_short=is_short) for scope in spread.scopes]


def smallest_of(
    runs: Sequence[Run], cells: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], list[tuple[Spread, list[Plan]]]]:
    """Return benchmark and probe -> what each difference from the reference can show, without numbers needed.

    Empty for runs of a single group.
    """
    groups, reference = groups_of(runs), reference_run(runs)
    if len(groups) < 2:
        return {}
    return {
        (benchmark, probe): [
            (spread, plans(spread, is_short=True))
            for spread in spreads(groups, reference, benchmark, probe, with_images=False)
        ]
        for benchmark, probe in cells
    }


def smallest_by_classes(spread: Spread, *, at_power: float = POWER) -> tuple[IntArray, FloatArray] | None:
    """Return numbers of classes, and the smallest difference on new classes that each shows with all else at hand.

    None if the spread is unknown, or the episodes suffice for too few classes.
    """
    if spread.components is None or spread.design is None:
        return None
    least = max(3, int(spread.components.n_way) + 1)
    most = min(int(spread.design.n_episodes / EPISODES_PER_CLASS), 4 * spread.design.n_classes)
    if most <= least:
        return None
    numbers = np.unique(np.geomspace(least, most, 12).round().astype(np.int64))
    found = [
        smallest_difference(
            spread.components,
            replace(spread.design, n_classes=int(number)),
            scope="classes",
            at_power=at_power,
            level=LEVEL / spread.n_pairs,
        )
        for number in numbers
    ]
    return numbers, np.array(found)


def _plan(spread: Spread, scope: Scope, difference: float, at_power: float, *, is_short: bool) -> Plan:
    components, design, level = spread.components, spread.design, LEVEL / spread.n_pairs
    assert components is not None and design is not None
    found: dict[str, Any] = {"smallest": None, "with_endless_episodes": None, "power": None}
    why_not = ""
    try:
        endless = replace(design, n_episodes=LIMITS["n_episodes"])
        found["smallest"] = smallest_difference(components, design, scope=scope, at_power=at_power, level=level)
        found["with_endless_episodes"] = smallest_difference(
            components, endless, scope=scope, at_power=at_power, level=level
        )
        found["power"] = power(components, design, difference, scope=scope, level=level)
    except ValueError as error:
        why_not = str(error)
    if scope == "classes" and spread.pilot is not None and found["smallest"] is not None:
        ends = plausible(components, spread.pilot)
        found["smallest_between"] = tuple(
            smallest_difference(end, design, scope=scope, at_power=at_power, level=level) for end in ends
        )
        if not is_short:
            found["classes_between"] = tuple(
                needed("n_classes", end, design, difference, scope=scope, at_power=at_power, level=level)
                for end in ends
            )
    numbers: dict[Quantity, int | None] = {}
    for quantity in () if is_short else _quantities(components, scope):
        try:
            numbers[quantity] = needed(
                quantity, components, design, difference, scope=scope, at_power=at_power, level=level
            )
        except ValueError:
            numbers[quantity] = None
    return Plan(
        name=spread.name,
        benchmark=spread.benchmark,
        probe=spread.probe,
        scope=scope,
        design=design,
        level=level,
        needed=numbers,
        why_not=why_not,
        **found,
    )


def _quantities(components: Components, scope: Scope) -> list[Quantity]:
    """Return the quantities that a scope's error depends on, as far as their spread is known."""
    has_images = components.of_image is not None and components.n_images is not None
    fits: dict[Quantity, bool] = {
        "n_classes": scope == "classes",
        "n_episodes": True,
        "n_seeds": scope == "seeds",
        "n_images": scope == "classes" and has_images,
    }
    return [quantity for quantity in QUANTITIES if fits[quantity]]


def _spread(group: Group, less: Group | None, benchmark: str, probe: str, *, n_pairs: int, with_images: bool) -> Spread:
    name = group.label if less is None else f"{group.label} − {less.label}"
    spread = Spread(name=name, benchmark=benchmark, probe=probe, n_pairs=n_pairs, style=group.style)
    try:
        pairs = _pairs(group, less, benchmark, probe)
        if isinstance(pairs, str):
            return replace(spread, why_not=pairs)
        values = rows_of_equal_length([found for _, _, found in pairs])
        run, other, _ = pairs[0]
        classes = run.accuracies(benchmark, probe).classes[: values.shape[1]]
        own = run.accuracies(benchmark, probe).accuracy[: values.shape[1]]
        components = (
            components_over_seeds(values, classes) if len(pairs) > 1 else variance_components(values[0], classes)
        )
        accuracy = variance_components(own, classes)
        n_classes = len(np.unique(classes[classes >= 0]))
        measured = Design(n_classes=n_classes, n_episodes=values.shape[1], n_seeds=len(pairs))
    except UserError as error:
        return replace(spread, why_not=error.problem)
    except ValueError as error:
        return replace(spread, why_not=str(error))
    return replace(
        spread,
        components=_with_images(components, run, other, benchmark, probe) if with_images else components,
        accuracy=accuracy,
        design=measured,
        pilot=measured,
        scopes=("classes", "seeds" if len(pairs) > 1 else "pool"),
    )


def _mean(group: Group, benchmark: str, probe: str) -> float:
    found = [accuracy.mean for run in group.runs if (accuracy := run.accuracy(benchmark, probe)) is not None]
    return sum(found) / len(found) if found else 0.0


def _pairs(
    group: Group, less: Group | None, benchmark: str, probe: str
) -> list[tuple[Run, Run | None, FloatArray]] | str:
    """Return per seed a run, the one that it is compared with, and their values by episode; or why there are none."""
    if less is None:
        runs = [run for run in group.runs if run.result(benchmark, probe)]
        if len(manifests_of(runs, benchmark)) > 1:
            return "its seeds met different episodes"
        return [(run, None, run.accuracies(benchmark, probe).accuracy) for run in runs]
    if not group.is_pooled and not less.is_pooled:
        found = differences_by_episode(group.runs[0], less.runs[0], benchmark, probe)
        return found if isinstance(found, str) else [(group.runs[0], less.runs[0], found)]
    by_seed, reasons = differences_by_seed(group, less, benchmark, probe)
    if not by_seed:
        return "; ".join(reasons) or "they share no seed"
    own, others = ({run.config.seed: run for run in side.runs} for side in (group, less))
    if len(manifests_of([own[seed] for seed in by_seed], benchmark)) > 1:
        return "their seeds met different episodes"
    return [(own[seed], others[seed], values) for seed, values in by_seed.items()]


def _with_images(components: Components, run: Run, other: Run | None, benchmark: str, probe: str) -> Components:
    """Add the effect of images, as support and as query, if the answers to all queries are stored."""
    try:
        answers = [read_answers(one, benchmark, probe) for one in (run, other) if one is not None]
    except (UserError, OSError):
        return components
    manifest = answers[0].manifest
    n_episodes = min(len(found.predicted) for found in answers)
    if not manifest.spec.is_uniform or any(found.predicted.shape[1] != manifest.query.shape[1] for found in answers):
        return components
    labels = np.asarray(answers[0].images.labels)
    query, support = manifest.query[:n_episodes], manifest.support[:n_episodes]
    n_way, n_shot = manifest.spec.n_way, support.shape[1] // manifest.classes.shape[1]
    answer = np.repeat(np.arange(n_way), query.shape[1] // n_way)
    is_right = [(found.predicted[:n_episodes] == answer).astype(np.float64) for found in answers]
    values = is_right[0] - is_right[1] if len(is_right) > 1 else is_right[0]
    as_query = deviation_of_images(values.ravel(), query.ravel(), labels[query.ravel()])
    of_support = np.repeat(values.mean(axis=1) * n_way * n_shot, support.shape[1])
    as_support = deviation_of_images(of_support, support.ravel(), labels[support.ravel()])
    used = np.unique(np.concatenate([query.ravel(), support.ravel()]))
    return replace(
        components,
        of_image=float(np.hypot(as_query, as_support)),
        n_images=len(used) / len(np.unique(labels[used])),
        least_images=n_shot + query.shape[1] // n_way,
    )
