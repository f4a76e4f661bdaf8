"""How often the 95 % intervals hold the truth, and tests keep a promised power, in simulations and on real features.

    OMP_NUM_THREADS=1 uv run python tools/coverage.py [--repeats N] [TABLE ...]
    OMP_NUM_THREADS=1 uv run python tools/coverage.py [--repeats N] --features BANK BANK
    OMP_NUM_THREADS=1 uv run python tools/coverage.py [--repeats N] --halves BANK

Tables: `classes`, `pairs`, `seeds`, `images`, `stopping` and `regrets` for docs/coverage.md; `power` and `bound` for
docs/planning.md. With two banks of features of the same images (`features/NAME` of a run directory) their classes are
the world, and the tables are `features` and, for docs/planning.md, `plan`. With one bank, disjoint halves of the images
of each class are compared. Each table is printed as Markdown. A coverage is a share of the repeats; of 1,000 it varies
by 0.7 points (one standard error). A width is relative to the best possible, 1.96 true errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from episodes.arrays import FloatArray, IntArray
from episodes.bank import FeatureBank
from episodes.choice import choice_regret
from episodes.comparison import paired_difference
from episodes.components import Components, variance_components
from episodes.intervals import half_width, student_quantile
from episodes.manifest import Manifest, draw_manifest
from episodes.over_classes import ClassError, error_over_classes
from episodes.over_images import ImageError, correct_answers, error_over_images
from episodes.over_seeds import summarise_seeds
from episodes.planning import Design, expectations, expected_width, smallest_difference
from episodes.probes import Probe, nearest_centroid
from episodes.scoring import score
from episodes.specs import EpisodeSpec
from episodes.stopping import until_narrow
from episodes.table import EpisodeTable, collect

N_QUERIES = 75


@dataclass(frozen=True, kw_only=True)
class World:
    """Classes and episodes of one setting: standard deviations of the effects of a class, a pair and an episode.

    Attributes:
        classes: Number of classes that are drawn from the world.
        way: Classes in an episode; with `least_way` the most.
        episodes: Number of episodes.
        of_class: Of a class, on the accuracy of an episode of it alone.
        of_pair: Of a pair of classes, likewise.
        of_episode: Of an episode.
        skewness: Of the effects of classes, of a gamma distribution. At -2, an exponential one, a few classes are much
            harder than the others.
        least_way: The fewest classes in an episode; None for always `way`.
    """

    classes: int
    way: int
    episodes: int
    of_class: float = 0.1
    of_pair: float = 0.1
    of_episode: float = 0.09
    skewness: float = 0.0
    least_way: int | None = None

    @property
    def words(self) -> str:
        """The setting in words."""
        way = self.way if self.least_way is None else f"{self.least_way} to {self.way}"
        skewed = f", skewness {self.skewness:g}" if self.skewness else ""
        effects = f"{self.of_class:g} / {self.of_pair:g} / {self.of_episode:g}{skewed}"
        return f"| {self.classes} | {way} | {self.episodes:,} | {effects} |"

    def draw(self, rng: np.random.Generator) -> tuple[FloatArray, IntArray]:
        """Draw classes and episodes: (n_episodes,) values with mean 0 over the world, and their classes."""
        classes = self.draw_classes(rng)
        return self.draw_values(classes, rng), classes

    def draw_classes(self, rng: np.random.Generator) -> IntArray:
        """Draw the classes of episodes, (n_episodes, way); -1 for no class."""
        order = np.argpartition(rng.random((self.episodes, self.classes)), self.way - 1, axis=1)
        classes = order[:, : self.way].astype(np.int64)
        if self.least_way is not None:
            ways = rng.integers(self.least_way, self.way + 1, self.episodes)
            classes[np.arange(self.way) >= ways[:, np.newaxis]] = -1
        return classes

    def draw_values(self, classes: IntArray, rng: np.random.Generator) -> FloatArray:
        """Draw effects, and return the values of episodes: (n_episodes,) with mean 0 over the world."""
        is_there = classes >= 0
        n_way = is_there.sum(axis=1)
        if self.skewness:
            shape = 4 / self.skewness**2
            ease = np.sign(self.skewness) * (rng.gamma(shape, size=self.classes) - shape) / np.sqrt(shape)
        else:
            ease = rng.standard_normal(self.classes)
        values = (self.of_class * ease[classes] * is_there).sum(axis=1) / n_way
        of_pair = np.triu(rng.normal(0, 1, (self.classes, self.classes)), 1) * self.of_pair
        of_pair += of_pair.T
        for place in range(self.way):
            both = is_there[:, place, np.newaxis] & is_there
            values += (of_pair[classes[:, place, np.newaxis], classes] * both).sum(axis=1) / (n_way * (n_way - 1))
        return np.asarray(values + rng.normal(0, self.of_episode, self.episodes))


WORLDS = (
    World(classes=8, way=5, episodes=600),
    World(classes=12, way=5, episodes=200),
    World(classes=12, way=2, episodes=600),
    World(classes=12, way=5, episodes=600, skewness=-2.0),
    World(classes=20, way=5, episodes=200),
    World(classes=20, way=5, episodes=600),
    World(classes=20, way=5, episodes=10_000),
    World(classes=20, way=5, episodes=600, skewness=-2.0),
    World(classes=20, way=5, episodes=2_000, of_pair=0.0, skewness=-2.0),
    World(classes=20, way=5, episodes=600, of_class=0.02, of_pair=0.3),
    World(classes=20, way=5, episodes=10_000, of_class=0.02, of_pair=0.3),
    World(classes=20, way=10, episodes=600, of_episode=0.05),
    World(classes=40, way=20, episodes=600, of_episode=0.04),
    World(classes=85, way=5, episodes=200),
    World(classes=85, way=5, episodes=2_000),
    World(classes=85, way=5, episodes=600, skewness=-2.0),
    World(classes=85, way=20, episodes=600, of_episode=0.05),
    World(classes=85, way=20, episodes=2_000, least_way=5),
    World(classes=340, way=5, episodes=600),
    World(classes=340, way=5, episodes=2_000),
)
DIFFERENCES = (
    World(classes=20, way=5, episodes=600, of_class=0.03, of_pair=0.05, of_episode=0.05),
    World(classes=20, way=5, episodes=2_000, of_class=0.03, of_pair=0.05, of_episode=0.05),
    World(classes=20, way=5, episodes=2_000, of_class=0.0, of_pair=0.0, of_episode=0.05),
    World(classes=40, way=20, episodes=600, of_class=0.03, of_pair=0.05, of_episode=0.03),
    World(classes=85, way=5, episodes=200, of_class=0.03, of_pair=0.05, of_episode=0.05),
    World(classes=85, way=5, episodes=2_000, of_class=0.03, of_pair=0.05, of_episode=0.05),
    World(classes=85, way=5, episodes=2_000, of_class=0.01, of_pair=0.02, of_episode=0.05),
    World(classes=85, way=5, episodes=2_000, of_class=0.0, of_pair=0.0, of_episode=0.05),
)
SEEDS = tuple(
    (n_seeds, episodes, of_seed)
    for episodes in (200, 2_000)
    for n_seeds in (3, 5, 8)
    for of_seed in (0.0, 0.003, 0.01, 0.02)
)
REGRETS = tuple(
    (n_backbones, step, World(classes=classes, way=5, episodes=600, of_class=0.03, of_pair=0.05, of_episode=0.05))
    for classes in (20, 85)
    for n_backbones, step in ((5, 0.0), (5, 0.01), (10, 0.003))
)
"""Backbones, steps between their true accuracies, and the effects of each backbone on its own."""
IMAGES = (
    (20, 20, 1, 600),
    (20, 20, 5, 600),
    (20, 20, 1, 2_000),
    (20, 200, 1, 2_000),
    (85, 40, 1, 2_000),
    (85, 40, 5, 2_000),
)
"""Classes, images per class, shots and episodes."""
HALVES = ((20, 1, 600), (20, 5, 600), (85, 1, 2_000), (85, 5, 2_000))
"""Classes, shots and episodes."""


def over_classes(worlds: tuple[World, ...], repeats: int, *, is_counted: bool) -> Iterator[str]:
    """Yield a line per world: coverage and width of the interval over classes, and of the plain jackknife.

    With `is_counted`, values are differences of shares of `N_QUERIES` queries, so that many of them are equal.
    """
    yield "| classes | way | episodes | class / pair / episode | covers | width | jackknife covers | its width |"
    yield "|---|---|---|---|---|---|---|---|"
    for world in worlds:
        rng, rows = np.random.default_rng(0), []
        for _ in range(repeats):
            values, classes = world.draw(rng)
            if is_counted:
                values = np.round(values * N_QUERIES) / N_QUERIES
            error = error_over_classes(values, classes)
            assert isinstance(error, ClassError)
            jackknife = student_quantile(error.freedom) * np.sqrt(error.jackknife)
            rows.append((values.mean(), error.half_width, jackknife))
        mean, width, jackknife = np.transpose(rows)
        best = 1.96 * mean.std()
        figures = [((np.abs(mean) < found).mean(), found.mean() / best) for found in (width, jackknife)]
        yield world.words + "".join(f" {covers:.3f} | {ratio:.2f} |" for covers, ratio in figures)


def over_seeds(repeats: int) -> Iterator[str]:
    """Yield a line per setting: coverage and width of the interval over seeds, and of Student's."""
    yield "| seeds | episodes | spread of seeds | covers | width | Student's covers | its width |"
    yield "|---|---|---|---|---|---|---|"
    for n_seeds, episodes, of_seed in SEEDS:
        rng, rows = np.random.default_rng(0), []
        for _ in range(repeats):
            shared, own = rng.normal(0, 0.09, episodes), rng.normal(0, of_seed, (n_seeds, 1))
            values = shared + own + rng.normal(0, 0.05, (n_seeds, episodes))
            student = summarise_seeds(values.mean(axis=1, keepdims=True)).ci95_seeds
            rows.append((values.mean(), summarise_seeds(values).ci95_seeds, student))
        mean, width, student = np.transpose(rows)
        best = 1.96 * np.sqrt(of_seed**2 / n_seeds + (0.09**2 + 0.05**2 / n_seeds) / episodes)
        figures = [((np.abs(mean) < found).mean(), found.mean() / best) for found in (width, student)]
        start = f"| {n_seeds} | {episodes:,} | {of_seed:g} |"
        yield start + "".join(f" {covers:.3f} | {ratio:.2f} |" for covers, ratio in figures)


def over_images(repeats: int) -> Iterator[str]:
    """Yield a line per setting: coverage and width of the interval over images, and of that over episodes.

    Classes are Gaussian clouds in 16 dimensions, and nearest centroids are scored. The truth is the accuracy on 1,500
    images of each class.
    """
    yield "| classes | images per class | shots | episodes | covers | width | over episodes covers | its width |"
    yield "|---|---|---|---|---|---|---|---|"
    for n_classes, n_images, n_shot, n_episodes in IMAGES:
        rng = np.random.default_rng(0)
        middles = rng.normal(0, 0.55, (n_classes, 16))
        n_query = min(15, n_images - n_shot)
        _, world = _answers(_cloud(middles, 1_500, rng), _form(20_000, n_shot, n_query), 0)
        rows = []
        for seed in range(repeats):
            manifest, table = _answers(_cloud(middles, n_images, rng), _form(n_episodes, n_shot, n_query), seed)
            rows.append((table.accuracy.mean(), *_widths(manifest, table)))
        mean, *widths = np.transpose(rows)
        best, truth = 1.96 * mean.std(), world.accuracy.mean()
        figures = [((np.abs(mean - truth) < found).mean(), found.mean() / best) for found in widths]
        start = f"| {n_classes} | {n_images} | {n_shot} | {n_episodes:,} |"
        yield start + "".join(f" {covers:.3f} | {ratio:.2f} |" for covers, ratio in figures)


def halves(folder: Path, repeats: int) -> Iterator[str]:
    """Yield a line per setting: how often two disjoint halves of the images differ by less than their intervals say.

    Each repeat draws classes and divides the images of each. The widths of the two halves are added as squares.
    """
    bank = FeatureBank.load(folder)
    yield "| classes | images per class | shots | episodes | over images | over episodes |"
    yield "|---|---|---|---|---|---|"
    rng = np.random.default_rng(0)
    for n_classes, n_shot, n_episodes in HALVES:
        holds, sizes = [], []
        for seed in track(range(repeats), f"{n_classes} classes, {n_shot} shots", console=Console(stderr=True)):
            chosen = _of_classes(bank, np.sort(rng.choice(len(bank.class_names), n_classes, replace=False)))
            is_first = np.zeros(len(chosen.labels), dtype=bool)
            for label in range(n_classes):
                rows = rng.permutation(np.flatnonzero(chosen.labels == label))
                is_first[rows[: len(rows) // 2]] = True
            found = []
            for half, rows in enumerate((np.flatnonzero(is_first), np.flatnonzero(~is_first))):
                least = int(np.bincount(chosen.labels[rows]).min())
                form = _form(n_episodes, n_shot, min(15, least - n_shot))
                manifest, table = _answers(_rows_of(chosen, rows), form, 2 * seed + half)
                found.append((table.accuracy.mean(), *_widths(manifest, table)))
                sizes.append(len(rows) / n_classes)
            (a, *of_a), (b, *of_b) = found
            holds.append([abs(a - b) < np.hypot(one, other) for one, other in zip(of_a, of_b, strict=True)])
        figures = "".join(f" {share:.3f} |" for share in np.mean(holds, axis=0))
        yield f"| {n_classes} | {np.mean(sizes):.0f} | {n_shot} | {n_episodes:,} |{figures}"


def _cloud(middles: FloatArray, n_images: int, rng: np.random.Generator) -> FeatureBank:
    """Return a bank of Gaussian clouds of standard deviation 1 around the classes' middles."""
    labels = np.repeat(np.arange(len(middles)), n_images)
    return FeatureBank(
        features=(middles[labels] + rng.standard_normal((len(labels), middles.shape[1]))).astype(np.float32),
        labels=labels,
        image_ids=tuple(map(str, range(len(labels)))),
        class_names=tuple(map(str, range(len(middles)))),
    )


def _widths(manifest: Manifest, table: EpisodeTable) -> tuple[float, float]:
    """Return the half widths over images and over episodes."""
    assert table.predicted is not None
    error = error_over_images(correct_answers(table.predicted, manifest), manifest)
    assert isinstance(error, ImageError), error
    return error.half_width, half_width(float(table.accuracy.std(ddof=1)), len(table))


POWER_WORLDS = (
    World(classes=8, way=5, episodes=600, of_class=0.03, of_pair=0.05, of_episode=0.05),
    World(classes=12, way=2, episodes=600, of_class=0.03, of_pair=0.05, of_episode=0.05),
    World(classes=20, way=5, episodes=20, of_class=0.03, of_pair=0.05, of_episode=0.05),
    World(classes=20, way=5, episodes=200, of_class=0.03, of_pair=0.05, of_episode=0.05),
    World(classes=20, way=5, episodes=2_000, of_class=0.03, of_pair=0.05, of_episode=0.05),
    World(classes=20, way=5, episodes=2_000, of_class=0.02, of_pair=0.0, of_episode=0.05),
    World(classes=20, way=5, episodes=2_000, of_class=0.03, of_pair=0.05, of_episode=0.05, skewness=-2.0),
    World(classes=40, way=20, episodes=600, of_class=0.03, of_pair=0.05, of_episode=0.03),
    World(classes=85, way=5, episodes=200, of_class=0.03, of_pair=0.05, of_episode=0.05),
    World(classes=85, way=5, episodes=2_000, of_class=0.03, of_pair=0.05, of_episode=0.05),
    World(classes=85, way=5, episodes=2_000, of_class=0.01, of_pair=0.02, of_episode=0.05),
    World(classes=340, way=5, episodes=600, of_class=0.03, of_pair=0.05, of_episode=0.05),
    World(classes=8, way=2, episodes=600, of_class=0.03, of_pair=0.02, of_episode=0.05, skewness=-1.5),
    World(classes=12, way=5, episodes=600, of_class=0.03, of_pair=0.05, of_episode=0.05, skewness=-1.0),
    World(classes=12, way=2, episodes=600, of_class=0.03, of_pair=0.02, of_episode=0.05, skewness=2.0),
    World(classes=20, way=5, episodes=2_000, of_class=0.03, of_pair=0.0, of_episode=0.05, skewness=-2.0),
    World(classes=20, way=5, episodes=200, of_class=0.03, of_pair=0.02, of_episode=0.05, skewness=1.0),
    World(classes=40, way=20, episodes=600, of_class=0.03, of_pair=0.02, of_episode=0.03, skewness=-2.0),
    World(classes=85, way=5, episodes=600, of_class=0.03, of_pair=0.02, of_episode=0.05, skewness=-2.0),
    World(classes=340, way=5, episodes=2_000, of_class=0.03, of_pair=0.02, of_episode=0.05, skewness=-2.0),
)
POWER_SEEDS = (
    (3, 200, 0.01),
    (4, 600, 0.005),
    (3, 2_000, 0.003),
    (3, 2_000, 0.01),
    (5, 200, 0.003),
    (5, 2_000, 0.003),
    (5, 2_000, 0.01),
    (8, 2_000, 0.01),
    (12, 2_000, 0.003),
)


def kept_power(repeats: int) -> Iterator[str]:
    """Yield a line per setting: the difference that should be found in 80 % of the repeats, and how often it was.

    Skewed effects of classes make one direction of the difference harder to show, which is the one that is planned for.
    New classes are simulated as differences of shares of `N_QUERIES` queries.
    """
    yield "| scope | setting | class / pair / episode, or seed | smallest, points | found in | other direction |"
    yield "|---|---|---|---|---|---|"
    for world in POWER_WORLDS:
        components = Components(
            n_way=world.way,
            of_class=world.of_class,
            of_pair=world.of_pair,
            of_episode=float(np.hypot(world.of_episode, 1 / N_QUERIES / np.sqrt(12))),
            skewness=world.skewness,
        )
        design, rng = Design(n_classes=world.classes, n_episodes=world.episodes), np.random.default_rng(0)
        difference = smallest_difference(components, design, scope="classes")
        harder = difference if world.skewness <= 0 else -difference
        shown = []
        for _ in range(repeats):
            values, classes = world.draw(rng)
            values = np.round(values * N_QUERIES) / N_QUERIES
            error = error_over_classes(values, classes)
            assert isinstance(error, ClassError)
            shown.append([error.p(float(values.mean()) + shift) < 0.05 for shift in (harder, -harder)])
        found, other = np.mean(shown, axis=0)
        effects = world.words.split("|")[4]
        setting = f"{world.classes} classes, {world.way}-way, {world.episodes:,} episodes"
        yield f"| new classes | {setting} |{effects}| {100 * difference:.2f} | {found:.3f} | {other:.3f} |"
    for n_episodes in (20, 200):
        rng = np.random.default_rng(0)
        components, design = Components(n_way=5, of_episode=0.05), Design(n_classes=20, n_episodes=n_episodes)
        difference = smallest_difference(components, design, scope="pool")
        classes = np.zeros((n_episodes, 1), dtype=np.int64)
        zeros = np.zeros(n_episodes)
        found = [
            paired_difference(rng.normal(difference, 0.05, n_episodes), zeros, classes, rng=rng, n_flips=999).p_episodes
            < 0.05
            for _ in range(repeats)
        ]
        setting = f"20 classes, 5-way, {n_episodes:,} episodes"
        yield f"| this pool | {setting} | 0 / 0 / 0.05 | {100 * difference:.2f} | {np.mean(found):.3f} | – |"
    for n_seeds, n_episodes, of_seed in POWER_SEEDS:
        rng = np.random.default_rng(0)
        components = Components(n_way=5, of_episode=float(np.hypot(0.09, 0.05)), of_seed=of_seed, of_rest=0.05)
        design = Design(n_classes=20, n_episodes=n_episodes, n_seeds=n_seeds)
        difference = smallest_difference(components, design, scope="seeds")
        found = []
        for _ in range(repeats):
            shared, own = rng.normal(difference, 0.09, n_episodes), rng.normal(0, of_seed, (n_seeds, 1))
            found.append(summarise_seeds(shared + own + rng.normal(0, 0.05, (n_seeds, n_episodes))).p < 0.05)
        setting = f"{n_seeds} seeds, {n_episodes:,} episodes"
        yield f"| new seeds | {setting} | {of_seed:g} | {100 * difference:.2f} | {np.mean(found):.3f} | – |"


def stopping(repeats: int) -> Iterator[str]:
    """Yield a line per kind of values: coverage of the interval over episodes when scoring stops at a width."""
    kinds: dict[str, tuple[float, Callable[[np.random.Generator, int], FloatArray]]] = {
        "normal, spread 0.09": (0.5, lambda rng, n: rng.normal(0.5, 0.09, n)),
        "98 % at 1, 2 % at 0.7": (0.994, lambda rng, n: np.where(rng.random(n) < 0.02, 0.7, 1.0)),
        "75 queries at 0.99": (0.99, lambda rng, n: rng.binomial(N_QUERIES, 0.99, n) / N_QUERIES),
        "75 queries at 0.6": (0.6, lambda rng, n: rng.binomial(N_QUERIES, 0.6, n) / N_QUERIES),
    }
    yield "| values | stops at ± | covers | episodes |"
    yield "|---|---|---|---|"
    for words, (truth, draw) in kinds.items():
        for target in (0.01, 0.005, 0.003):
            rng, rows = np.random.default_rng(0), []
            for _ in range(repeats):
                blocks = (draw(rng, 100) for _ in range(100))
                values = np.concatenate(list(until_narrow(blocks, lambda block: block, target)))
                rows.append((values.mean(), half_width(float(values.std(ddof=1)), len(values)), len(values)))
            mean, width, n = np.transpose(rows)
            yield f"| {words} | {target:g} | {(np.abs(mean - truth) <= width).mean():.3f} | {n.mean():,.0f} |"


def features(folders: list[Path], repeats: int) -> Iterator[str]:
    """Yield a line per number of classes: how often the intervals hold the accuracy over all classes of two banks.

    The classes are drawn from those of the banks, and nearest centroids are scored. Drawing C of M classes without
    replacement varies less than drawing from a world, by the factor sqrt(1 - C / M), which the intervals do not know.
    """
    banks = [FeatureBank.load(folder) for folder in folders]
    n_all = len(banks[0].class_names)
    truth = _accuracies(banks, _form(20_000), 1)[0].mean(axis=1)
    names = ("first", "first, jackknife", "difference", "difference, jackknife")
    yield f"| of {n_all} classes | episodes | factor |" + "".join(f" {name} |" for name in names)
    yield "|---|---|---|" + "---|" * len(names)
    rng = np.random.default_rng(0)
    for n_classes, n_episodes in ((20, 200), (20, 1_000), (40, 200), (40, 1_000), (85, 200), (85, 1_000)):
        holds = []
        for seed in track(range(repeats), f"{n_classes} classes, {n_episodes} episodes", console=Console(stderr=True)):
            chosen = np.sort(rng.choice(n_all, n_classes, replace=False))
            (a, b), classes = _accuracies([_of_classes(bank, chosen) for bank in banks], _form(n_episodes), seed)
            row = []
            for values, true in ((a, truth[0]), (a - b, truth[0] - truth[1])):
                error = error_over_classes(values, classes)
                assert isinstance(error, ClassError)
                jackknife = student_quantile(error.freedom) * np.sqrt(error.jackknife)
                row += [abs(values.mean() - true) < width for width in (error.half_width, jackknife)]
            holds.append(row)
        figures = "".join(f" {share:.3f} |" for share in np.mean(holds, axis=0))
        yield f"| {n_classes} | {n_episodes:,} | {np.sqrt(1 - n_classes / n_all):.2f} |{figures}"


def _form(n_episodes: int, n_shot: int = 1, n_query: int = 15) -> EpisodeSpec:
    return EpisodeSpec(n_way=5, n_shot=n_shot, n_query=n_query, n_episodes=n_episodes)


def foretold(folders: list[Path], repeats: int) -> Iterator[str]:
    """Yield a line per number of episodes: the width on new classes of all classes, as planned on 20 of them.

    The width is that of the difference of two banks by nearest centroids, the mean over 20 draws of episodes. Each
    repeat plans on other classes.
    """
    banks = [FeatureBank.load(folder) for folder in folders]
    n_all, n_pilot = len(banks[0].class_names), 20
    yield f"| episodes | ± on {n_all} classes, points | ± planned on {n_pilot}, median | middle half | within 15 % |"
    yield "|---|---|---|---|---|"
    rng = np.random.default_rng(0)
    for n_episodes in (500, 2_000):
        found = []
        for seed in range(20):
            (a, b), classes = _accuracies(banks, _form(n_episodes), seed)
            error = error_over_classes(a - b, classes)
            assert isinstance(error, ClassError)
            found.append(error.half_width)
        whole = float(np.mean(found))
        planned = []
        for seed in track(range(repeats), f"{n_episodes} episodes", console=Console(stderr=True)):
            chosen = np.sort(rng.choice(n_all, n_pilot, replace=False))
            (a, b), classes = _accuracies([_of_classes(bank, chosen) for bank in banks], _form(n_episodes), seed)
            components = variance_components(a - b, classes)
            planned.append(expected_width(components, Design(n_classes=n_all, n_episodes=n_episodes), scope="classes"))
        low, median, high = np.quantile(planned, [0.25, 0.5, 0.75])
        share = np.mean(np.abs(np.array(planned) / whole - 1) <= 0.15)
        widths = f"{100 * whole:.2f} | {100 * median:.2f} ({median / whole - 1:+.0%})"
        yield f"| {n_episodes:,} | {widths} | {100 * low:.2f} to {100 * high:.2f} | {share:.0%} |"


def best_foretold(repeats: int) -> Iterator[str]:
    """Yield a line per number of episodes: how often plans on 20 classes are within 15 % of the width on 340.

    Next to the plan there are two that nobody can make: the effects of pairs and episodes are known beforehand, or even
    the effects of the 20 classes are seen without noise. Effects are normal, with the deviations of icons.
    """
    yield "| episodes | planned | pairs and noise known | classes without noise |"
    yield "|---|---|---|---|"
    truth = Components(n_way=5, of_class=0.13, of_pair=0.12, of_episode=0.1)
    for n_episodes in (500, 2_000):
        world = World(classes=20, way=5, episodes=n_episodes, of_class=0.13, of_pair=0.12, of_episode=0.1)
        pilot, whole = (Design(n_classes=n_classes, n_episodes=n_episodes) for n_classes in (20, 340))

        def width(variance: float, components: Components = truth, whole: Design = whole) -> float:
            known = replace(components, of_class=float(np.sqrt(max(variance, 0.0))), skewness=0.0)
            return expected_width(known, whole, scope="classes")

        # The jackknife's expectation is linear in the variance of a class's effect.
        expected = expectations(replace(truth, of_class=0.0), pilot)
        rng, found = np.random.default_rng(0), []
        for _ in range(repeats):
            values, classes = world.draw(rng)
            error, components = error_over_classes(values, classes), variance_components(values, classes)
            assert isinstance(error, ClassError)
            effects = rng.normal(0, truth.of_class, 20)
            found.append(
                [
                    width(components.of_class**2, components),
                    width((error.jackknife - expected.jackknife) / expected.per_class),
                    width(float(effects.var(ddof=1))),
                ]
            )
        shares = (np.abs(np.array(found) / width(truth.of_class**2) - 1) <= 0.15).mean(axis=0)
        yield f"| {n_episodes:,} |" + "".join(f" {share:.0%} |" for share in shares)


def _of_classes(bank: FeatureBank, chosen: IntArray) -> FeatureBank:
    part = _rows_of(bank, np.flatnonzero(np.isin(bank.labels, chosen)))
    names = tuple(bank.class_names[label] for label in chosen)
    return replace(part, labels=np.searchsorted(chosen, part.labels), class_names=names)


def _rows_of(bank: FeatureBank, rows: IntArray) -> FeatureBank:
    return FeatureBank(
        features=bank.features[rows],
        labels=bank.labels[rows],
        image_ids=tuple(bank.image_ids[row] for row in rows),
        class_names=bank.class_names,
    )


def _answers(bank: FeatureBank, spec: EpisodeSpec, seed: int) -> tuple[Manifest, EpisodeTable]:
    """Return new episodes of a bank, and the answers of nearest centroids."""
    manifest = draw_manifest(bank, spec, seed=seed)
    probe = Probe(name="nearest_centroid", classifier=nearest_centroid())
    return manifest, collect(score(bank, manifest, probe, audit_share=0), {})


def _accuracies(banks: list[FeatureBank], spec: EpisodeSpec, seed: int) -> tuple[FloatArray, IntArray]:
    """Return (n_banks, n_episodes) accuracies of nearest centroids on the same episodes, and their classes."""
    manifest = draw_manifest(banks[0], spec, seed=seed)
    probe = Probe(name="nearest_centroid", classifier=nearest_centroid())
    tables = [collect(score(bank, manifest, probe, audit_share=0), {}) for bank in banks]
    return np.stack([table.accuracy for table in tables]), tables[0].classes


def regrets(repeats: int) -> Iterator[str]:
    """Yield coverage of the regret of a choice, for a fixed choice and for the best on the same episodes."""
    yield "| backbones | true steps, points | classes | choice | true regret | measured regret | covers |"
    yield "|---|---|---|---|---|---|---|"
    for n_backbones, step, world in REGRETS:
        truth = step * np.arange(n_backbones)
        found: dict[str, list[tuple[float, float, bool]]] = {"the worst": [], "the middle": [], "best measured": []}
        for seed in track(range(repeats), f"{n_backbones} backbones", console=Console(stderr=True)):
            rng = np.random.default_rng(seed)
            classes = world.draw_classes(rng)
            accuracies = np.stack([mean + world.draw_values(classes, rng) for mean in truth])
            places = (0, n_backbones // 2, int(accuracies.mean(axis=1).argmax()))
            for choice, place in zip(found, places, strict=True):
                regret, true = choice_regret(accuracies, [place], classes), float(truth.max() - truth[place])
                found[choice].append((true, regret.mean, regret.low - 1e-12 <= true <= regret.high + 1e-12))
        for choice, values in found.items():
            true, measured, covers = np.mean(values, axis=0)
            setting = f"| {n_backbones} | {100 * step:g} | {world.classes} | {choice} "
            yield f"{setting}| {100 * true:.2f} | {100 * measured:.2f} | {covers:.3f} |"


def main() -> None:
    """Print the chosen tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--features", type=Path, nargs=2, metavar="FOLDER", help="banks for `features` and `plan`")
    parser.add_argument("--halves", type=Path, metavar="FOLDER", help="a bank, for the table `halves`")
    arguments = parser.parse_args()
    tables: dict[str, Callable[[], Iterator[str]]] = {
        "classes": lambda: over_classes(WORLDS, arguments.repeats, is_counted=False),
        "pairs": lambda: over_classes(DIFFERENCES, arguments.repeats, is_counted=True),
        "seeds": lambda: over_seeds(arguments.repeats),
        "images": lambda: over_images(arguments.repeats),
        "halves": lambda: halves(arguments.halves, arguments.repeats),
        "stopping": lambda: stopping(arguments.repeats),
        "regrets": lambda: regrets(arguments.repeats),
        "power": lambda: kept_power(arguments.repeats),
        "features": lambda: features(arguments.features, arguments.repeats),
        "bound": lambda: best_foretold(arguments.repeats),
        "plan": lambda: foretold(arguments.features, arguments.repeats),
    }
    of_banks = [name for name in ("features", "halves") if getattr(arguments, name)]
    for name in arguments.tables or of_banks or ["classes", "pairs", "seeds", "images", "stopping", "regrets"]:
        print(f"\n{name}, {arguments.repeats} repeats\n", flush=True)
        for line in tables[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()
