"""The analysis of a study: what is told of each cell, means over seeds, and differences paired by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from study_cells import Key, Study

from episodes.comparison import holm, p_over_seeds
from episodes.summary import MIN_SEEDS, summarise_seeds
from lurefs.records import Row

LEVEL = 0.05
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A figure of a cell.

    Attributes:
        key: Its place in the row, with dots for what lies deeper.
        title: What people read.
        unit: Its unit.
        better: `higher`, `lower`, or nothing where neither is.
        scale: What the row's figure is multiplied by.
        n_digits: How many decimals are shown.
    """

    key: str
    title: str
    unit: str = "%"
    better: str = "lower"
    scale: float = 100.0
    n_digits: int = 2

    @property
    def unit_of_differences(self) -> str:
        """Points where the unit is percent."""
        return "points" if self.unit == "%" else self.unit

    def of(self, row: Row) -> float | None:
        """Return the figure of one cell in this unit; None if it was not measured."""
        value: object = row
        for name in self.key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return self.scale * float(value) if isinstance(value, int | float) else None


ACCURACY = Measure(key="accuracy", title="final accuracy", better="higher")
SECONDS = Measure(key="cpu_seconds", title="learning", unit="CPU s", scale=1)
OUTCOMES = (
    ACCURACY,
    Measure(key="cumulative_error_rate", title="cumulative errors"),
    Measure(key="ece", title="ECE"),
    Measure(key="nll", title="NLL", unit="nats", scale=1, n_digits=3),
    Measure(key="generalisation_gap", title="generalisation gap"),
    Measure(key="corruption_accuracy", title="corrupted images", better="higher"),
)
COSTS = (
    SECONDS,
    Measure(key="seconds", title="by the clock", unit="s", scale=1, n_digits=1),
    Measure(key="unlearn_seconds", title="of which unlearning", unit="s", scale=1),
    Measure(key="n_images_seen", title="images seen", unit="thousands", scale=1e-3, n_digits=1),
    Measure(key="reset_drop", title="drop at the reset", unit="points", better=""),
    Measure(key="n_epochs_to_recover", title="to recover", unit="epochs", better="", scale=1, n_digits=1),
    Measure(key="n_forgotten", title="forgotten", unit="images", better="", scale=1, n_digits=1),
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One strategy less a reference in one regime, over the seeds that both have.

    Attributes:
        mean: Mean difference, in the measure's unit.
        n_seeds: How many seeds.
        ci95_seeds: Half width of its 95 % interval over seeds; None with fewer than three.
        p: Two-sided p of no difference, likewise.
        p_holm: The same, corrected for the strategies that are compared with this reference in this regime.
    """

    mean: float
    n_seeds: int
    ci95_seeds: float | None = None
    p: float | None = None
    p_holm: float | None = None

    @property
    def is_told_apart(self) -> bool:
        """Whether the difference is unlikely to be chance, after the correction."""
        return self.p_holm is not None and self.p_holm < LEVEL


@dataclass(frozen=True, kw_only=True)
class Results:
    """A study and the rows that it has so far."""

    study: Study
    rows: Mapping[Key, Row]

    @property
    def n_seeds(self) -> int:
        """Return how many seeds a whole study has."""
        return len(self.study.seeds)

    @property
    def regimes(self) -> list[str]:
        """Those that have rows, in the order of the study."""
        return [name for name in self.study.regimes if any(key[0] == name for key in self.rows)]

    @property
    def few_shot(self) -> list[Measure]:
        """One measure a benchmark."""
        names = dict.fromkeys(name for row in self.rows.values() for name in row["few_shot"])
        return [Measure(key=f"few_shot.{name}", title=name, better="higher") for name in names]

    @property
    def paired_measures(self) -> list[Measure]:
        """Those whose differences are told."""
        told = [measure for measure in OUTCOMES if measure.key not in ("nll", "generalisation_gap")]
        return self.measured([*told, *self.few_shot, SECONDS])

    def measured(self, measures: Sequence[Measure]) -> list[Measure]:
        """Leave out what no cell has."""
        return [measure for measure in measures if any(measure.of(row) is not None for row in self.rows.values())]

    def by_seed(self, regime: str, strategy: str, get: Callable[[Row], T | None]) -> dict[int, T]:
        """Return something of a strategy's rows in a regime by seed, of the seeds that have it."""
        found = {key[2]: get(row) for key, row in self.rows.items() if key[:2] == (regime, strategy)}
        return {seed: value for seed, value in found.items() if value is not None}

    def strategies(self, regime: str) -> list[str]:
        """Return those that have rows in a regime, in the order of the study."""
        return [name for name in self.study.strategies if self.by_seed(regime, name, ACCURACY.of)]

    def differences(self, regime: str, reference: str, measure: Measure) -> dict[str, Difference]:
        """Compare all strategies of a regime with one of them, seed by seed; one family for Holm's correction."""
        found = {}
        base = self.by_seed(regime, reference, measure.of)
        for strategy in self.strategies(regime):
            values = self.by_seed(regime, strategy, measure.of)
            shared = sorted(base.keys() & values.keys())
            if strategy != reference and shared:
                found[strategy] = difference([values[seed] for seed in shared], [base[seed] for seed in shared])
        tested = {strategy: entry.p for strategy, entry in found.items() if entry.p is not None}
        for strategy, p_holm in zip(tested, holm(list(tested.values())), strict=True):
            found[strategy] = replace(found[strategy], p_holm=p_holm)
        return found


def difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Summarise the differences a - b of two strategies, seed by seed."""
    if len(a) < MIN_SEEDS:
        return Difference(mean=sum(x - y for x, y in zip(a, b, strict=True)) / len(a), n_seeds=len(a))
    summary = summarise_seeds({place: x - y for place, (x, y) in enumerate(zip(a, b, strict=True))})
    return Difference(
        mean=summary.mean, n_seeds=summary.n_seeds, ci95_seeds=summary.ci95_seeds, p=p_over_seeds(summary)
    )


def mean_and_interval(values: Mapping[int, float]) -> tuple[float | None, float | None]:
    """Return the mean over seeds and half of its interval, as far as there are seeds enough."""
    if len(values) < MIN_SEEDS:
        return (sum(values.values()) / len(values) if values else None), None
    summary = summarise_seeds(values)
    return summary.mean, summary.ci95_seeds
