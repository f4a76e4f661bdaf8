"""Specification of episodes: numbers of classes, support and query images, and the check against the data.

Nothing is drawn here: `episodes.blocks` draws episodes of a spec, and `episodes.sampler` gives them their indices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from episodes.arrays import IntArray
from episodes.cards import NUMBERS, Kind, check_card

MIN_ALPHA = 0.05
"""Smallest `query_alpha`; below it, all gamma variates of an episode could underflow to zero."""


class SpecError(ValueError):
    """An episode spec that contradicts itself or that the data cannot fill.

    Args:
        problem: What was wrong, with the offending value.
        expected: What would have been accepted.
        fix: What to do about it.
    """

    def __init__(self, problem: str, expected: str, fix: str) -> None:
        super().__init__(problem, expected, fix)
        self.problem = problem
        self.expected = expected
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}; {self.fix}"


@dataclass(frozen=True, kw_only=True)
class MetaDatasetSpec:
    """Limits of episodes with variable ways and shots; see `episodes.blocks.meta_dataset_counts`.

    Attributes:
        min_way: Fewest classes per episode.
        max_way: Most classes per episode; all classes if there are fewer.
        max_support: Most support images per episode.
        max_support_per_class: Most images that one class adds to the total support size; its shots may be more.
        max_query: Most query images per class.
    """

    min_way: int = 5
    max_way: int = 50
    max_support: int = 500
    max_support_per_class: int = 100
    max_query: int = 10


@dataclass(frozen=True, kw_only=True)
class EpisodeSpec:
    """The form of an episode. The first four fields suffice for the usual form; the others change it.

    Attributes:
        n_way: Classes per episode.
        n_shot: Support images per class.
        n_query: Query images per class; the mean number if `query_alpha` is set.
        n_episodes: Number of episodes in a manifest; no episode depends on it.
        shots: Support images of the first, second, ... class of an episode: n_way numbers, in place of `n_shot`.
        shot_range: Fewest and most support images per class, drawn evenly for each class, in place of `n_shot`.
        query_alpha: Concentration of a symmetric Dirichlet distribution from which the class shares of the
            n_way * n_query queries are drawn; the smaller, the less balanced.
        meta_dataset: Variable ways and shots, in place of `n_way`, `n_shot` and `n_query`.
        disjoint: Whether no image may be in two episodes.
    """

    n_way: int = 5
    n_shot: int = 1
    n_query: int = 15
    n_episodes: int = 2000
    shots: tuple[int, ...] | None = None
    shot_range: tuple[int, int] | None = None
    query_alpha: float | None = None
    meta_dataset: MetaDatasetSpec | None = None
    disjoint: bool = False

    def __post_init__(self) -> None:
        for name in ("shots", "shot_range"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON and YAML have lists
        for name, least in (("n_way", 2), ("n_shot", 1), ("n_query", 1), ("n_episodes", 1)):
            if getattr(self, name) < least:
                raise SpecError(f"{name} is {getattr(self, name)}", f"at least {least}", f"raise {name}")
        self._check_shots()
        self._check_combination()
        if self.meta_dataset is not None:
            _check_bounds(self.meta_dataset)
        if self.query_alpha is not None and not self.query_alpha >= MIN_ALPHA:
            raise SpecError(f"query_alpha is {self.query_alpha:g}", f"at least {MIN_ALPHA}", "raise query_alpha")

    @property
    def is_uniform(self) -> bool:
        """Whether every class of every episode has n_shot support and n_query query images."""
        return self.shots is None and self.shot_range is None and self.query_alpha is None and self.meta_dataset is None

    @property
    def counts(self) -> dict[str, int | None]:
        """n_way, n_shot and n_query; None for a count that varies between episodes or classes."""
        is_fixed = self.meta_dataset is None
        return {
            "n_way": self.n_way if is_fixed else None,
            "n_shot": self.n_shot if is_fixed and self.shots is None and self.shot_range is None else None,
            "n_query": self.n_query if is_fixed and self.query_alpha is None else None,
        }

    @property
    def n_images_needed(self) -> int:
        """The fewest images that a class must have, support and query together."""
        if self.meta_dataset is not None:
            return 2
        n_query = self.n_query if self.query_alpha is None else self.n_query * self.n_way
        return max(self.shots or self.shot_range or (self.n_shot,)) + n_query

    @property
    def min_way(self) -> int:
        """The smallest number of classes of an episode."""
        return self.n_way if self.meta_dataset is None else self.meta_dataset.min_way

    @property
    def max_way(self) -> int:
        """The largest number of classes of an episode."""
        return self.n_way if self.meta_dataset is None else self.meta_dataset.max_way

    def smallest_uniform(self) -> EpisodeSpec:
        """Return a uniform spec of one episode with the fewest classes and shots that this spec allows."""
        n_shot = 1 if self.meta_dataset is not None else min(self.shots or self.shot_range or (self.n_shot,))
        return EpisodeSpec(n_way=self.min_way, n_shot=n_shot, n_query=self.n_query, n_episodes=1)

    def to_card(self) -> dict[str, Any]:
        """Return the fields as a JSON-serialisable mapping; the unusual ones only if they are set."""
        return {name: value for name, value in asdict(self).items() if name in _USUAL or value not in (None, False)}

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> EpisodeSpec:
        """Return the spec that a mapping from `to_card` describes.

        Raises:
            ValueError: It is of another form, or of a newer version.
        """
        given = {name: _CARD[name] for name in card if name in _CARD}
        checked = check_card(card, {**dict.fromkeys(_USUAL, int), **given}, what="the form of the episodes")
        bounds = checked.get("meta_dataset")
        if bounds is not None:
            names = [field.name for field in fields(MetaDatasetSpec)]
            check_card(bounds, dict.fromkeys(names, int), what="meta_dataset")
            _refuse_newer(bounds, names)
        _refuse_newer(checked, _CARD)
        return cls(**{**checked, "meta_dataset": None if bounds is None else MetaDatasetSpec(**bounds)})

    def words(self) -> str:
        """Describe the form of one episode in words."""
        bounds = self.meta_dataset
        if bounds is not None:
            text = (
                f"{bounds.min_way}- to {bounds.max_way}-way, up to {bounds.max_support} support images, "
                f"up to {bounds.max_query} queries per class (Meta-Dataset)"
            )
        else:
            shots = f"{self.n_shot}-shot"
            if self.shots is not None:
                shots = f"{', '.join(str(n_shot) for n_shot in self.shots)} shots"
            elif self.shot_range is not None:
                shots = f"{self.shot_range[0]}- to {self.shot_range[1]}-shot"
            queries = f"{self.n_query} queries per class"
            if self.query_alpha is not None:
                queries = f"{self.n_way * self.n_query} queries, class shares Dirichlet({self.query_alpha:g})"
            text = f"{self.n_way}-way {shots}, {queries}"
        return f"{text}, no image in two episodes" if self.disjoint else text

    def _check_shots(self) -> None:
        if self.shots is not None and (len(self.shots) != self.n_way or min(self.shots) < 1):
            raise SpecError(
                f"shots is {list(self.shots)}",
                f"n_way = {self.n_way} numbers of at least 1, one per class",
                "change shots or n_way",
            )
        if self.shot_range is not None and (
            len(self.shot_range) != 2 or not 1 <= self.shot_range[0] <= self.shot_range[1]
        ):
            raise SpecError(
                f"shot_range is {list(self.shot_range)}",
                "the fewest and the most support images per class, at least 1",
                "write e.g. [1, 10]",
            )

    def _check_combination(self) -> None:
        default = {field.name: field.default for field in fields(self)}
        excluded: dict[str, Sequence[str]] = {
            "meta_dataset": ("n_way", "n_shot", "n_query", "shots", "shot_range", "query_alpha", "disjoint"),
            "shots": ("n_shot", "shot_range"),
            "shot_range": ("n_shot",),
            "query_alpha": ("disjoint",),
        }
        for name, others in excluded.items():
            clash = next((other for other in others if getattr(self, other) != default[other]), None)
            if getattr(self, name) is not None and clash is not None:
                raise SpecError(
                    f"{clash} is {getattr(self, clash)!r} and {name} is set",
                    f"only one of the two, since {name} sets the same numbers"
                    if clash != "disjoint"
                    else f"only one of the two, since with {name} the number of images per class is random",
                    f"leave {clash} or {name} out",
                )


_USUAL = ("n_way", "n_shot", "n_query", "n_episodes")
_CARD: Mapping[str, Kind] = {
    **dict.fromkeys(_USUAL, int),
    "shots": NUMBERS,
    "shot_range": NUMBERS,
    "query_alpha": (float, type(None)),
    "meta_dataset": (dict, type(None)),
    "disjoint": bool,
}
"""Entries of the card of a spec."""


def _refuse_newer(card: Mapping[str, Any], known: Collection[str]) -> None:
    if newer := [str(name) for name in card if name not in known]:
        raise ValueError(f"the form of the episodes has {newer[0]!r}, which this version does not know")


def check_fits(spec: EpisodeSpec, n_per_class: IntArray, class_names: Sequence[str] | None = None) -> None:
    """Raise if the data have too few classes or images for a spec.

    Args:
        spec: The form and number of the episodes.
        n_per_class: (n_classes,) images per class, each at least 1.
        class_names: One name per class, for the message.

    Raises:
        SpecError: There are too few classes, or too few images in one of them.
    """
    if spec.min_way > len(n_per_class):
        name = "n_way" if spec.meta_dataset is None else "meta_dataset.min_way"
        raise SpecError(
            f"{name} is {spec.min_way}, but there are {len(n_per_class)} classes",
            f"at most {len(n_per_class)}",
            f"lower {name.split('.')[-1]}",
        )
    smallest = int(n_per_class.argmin())
    needed, available = spec.n_images_needed, int(n_per_class[smallest])
    if needed > available:
        where = "the smallest class" if class_names is None else f"class {class_names[smallest]!r}"
        raise SpecError(
            f"{_need_in_words(spec)}, but {where} has {available} images", f"at most {available}", _fix(spec, available)
        )
    if spec.disjoint:
        n_possible = n_disjoint_episodes(spec, n_per_class)
        if spec.n_episodes > n_possible:
            raise SpecError(
                f"n_episodes is {spec.n_episodes} with no image in two of them, but {int(n_per_class.sum())} images of "
                f"{len(n_per_class)} classes give {n_possible} such episodes",
                f"at most {n_possible}",
                f"lower n_episodes to {n_possible} or less, or leave disjoint out",
            )


def n_disjoint_episodes(spec: EpisodeSpec, n_per_class: IntArray) -> int:
    """Return the largest number of episodes that share no image.

    Class c has m_c = n_c // n_images_needed portions. E episodes of n_way different classes exist if and only if
    sum_c min(m_c, E) >= n_way * E, and the largest such E is returned.
    """
    portions = np.asarray(n_per_class) // spec.n_images_needed
    low, high = 0, int(portions.sum()) // spec.n_way
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(portions, middle).sum() >= spec.n_way * middle:
            low = middle
        else:
            high = middle - 1
    return low


def _check_bounds(bounds: MetaDatasetSpec) -> None:
    if not 2 <= bounds.min_way <= bounds.max_way <= bounds.max_support:
        raise SpecError(
            f"meta_dataset has min_way {bounds.min_way}, max_way {bounds.max_way}, max_support {bounds.max_support}",
            "2 <= min_way <= max_way <= max_support",
            "change one of the three",
        )
    if bounds.max_support_per_class < 1 or bounds.max_query < 1:
        raise SpecError(
            f"meta_dataset has max_support_per_class {bounds.max_support_per_class} and max_query {bounds.max_query}",
            "both at least 1",
            "raise the one that is too small",
        )


def _need_in_words(spec: EpisodeSpec) -> str:
    if spec.meta_dataset is not None:
        return "meta_dataset needs 2 images per class"
    shots = "n_shot" if spec.shots is None and spec.shot_range is None else "the most shots"
    queries = "n_query" if spec.query_alpha is None else "n_way * n_query (a class may get all queries)"
    return f"{shots} + {queries} is {spec.n_images_needed} per class"


def _fix(spec: EpisodeSpec, available: int) -> str:
    if spec.meta_dataset is not None:
        return "drop the class"
    n_shot = max(spec.shots or spec.shot_range or (spec.n_shot,))
    n_query = (available - n_shot) // (1 if spec.query_alpha is None else spec.n_way)
    if n_query > 0:
        return f"lower n_query to {n_query} or less, or drop the class"
    has_n_shot = spec.shots is None and spec.shot_range is None
    return f"lower {'n_shot and n_query' if has_n_shot else 'shots and queries'}, or drop the class"
