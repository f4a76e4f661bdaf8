"""Conformal prediction sets: the classes that a query may have, with a guaranteed coverage.

A class is in a query's set if its p-value is above alpha, so the set misses the correct class with a probability of at
most alpha. All p-values are conservative: ties count against a miss, and nothing is drawn at random. What is exchanged
with what differs:

 - `split_p_values` compares a query with the queries of held-out episodes. The guarantee is for a query of a further
   episode that is exchangeable with them as a whole. Episodes of other classes are only as far as both groups of
   classes are alike, and held-out episodes share a limited number of classes. For other classes coverage is therefore
   measured, not guaranteed.
 - `support_p_values` compares a query with the support of its own episode, class by class. Support and queries of a
   class are drawn alike, so the guarantee is exact for each class, without any other data. K support images of a class
   allow no p-value below 1 / (K + 1): for a smaller alpha all sets are full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import FloatArray, IntArray
from episodes.summary import Summary, hardest_by_chance, summarise

ROUNDING = 1e-9
"""Scores that differ by less than this share of the largest squared length count as equal."""


@dataclass(frozen=True, kw_only=True)
class SetCounts:
    """Prediction sets of some episodes, counted.

    Attributes:
        n_queries: (n_episodes, n_way) int64, queries by episode label.
        covered: (n_episodes, n_way) int64, of these, those whose set has their class.
        sizes: (n_episodes, n_way + 1) int64, queries by the number of classes in their set.
        correct: (n_episodes,) int64, of the queries whose set has one class, those of that class.
    """

    n_queries: IntArray
    covered: IntArray
    sizes: IntArray
    correct: IntArray


@dataclass(frozen=True, kw_only=True)
class SetSummary:
    """Figures of prediction sets over all episodes.

    Attributes:
        coverage: Share of queries whose set has their class.
        lowest_class: The class with the lowest coverage, as in the table of episodes.
        lowest_coverage: Coverage of its queries, fraction.
        lowest_by_chance: Where chance alone would put the lowest one if the classes did not differ, fraction.
        mean_size: Mean number of classes in a set.
        sizes: Share of queries whose set has 0, 1, 2, ... classes, fractions.
        answered: Share of queries whose set has one class, fraction; on the others a cautious user would abstain.
        accuracy: Accuracy on these, fraction; None if there are none.
    """

    coverage: Summary
    lowest_class: int
    lowest_coverage: float
    lowest_by_chance: float
    mean_size: float
    sizes: tuple[float, ...]
    answered: float
    accuracy: float | None


def nonconformity(values: NDArray[np.floating], *, are_probabilities: bool) -> FloatArray:
    """Return how badly each class suits a query, (..., n_way) float64; NaN where values are.

    For probabilities 1 - p (Sadinle, Lei and Wasserman 2019). For other decision values, whose scale is arbitrary, the
    highest value among the other classes minus the own.
    """
    exact: FloatArray = np.asarray(values, dtype=np.float64)
    if are_probabilities:
        return 1 - exact
    filled = np.where(np.isnan(exact), -np.inf, exact)
    two_highest = np.sort(filled, axis=-1)[..., -2:]
    is_only_highest = filled > two_highest[..., :1]
    others = np.where(is_only_highest, two_highest[..., :1], two_highest[..., 1:])
    return np.where(np.isnan(exact), np.nan, others - filled)


def of_labels(scores: FloatArray, labels: IntArray) -> FloatArray:
    """Return the scores of the correct classes, (n_episodes, n_query); NaN where the label is -1."""
    chosen = np.take_along_axis(scores, np.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    return np.where(labels >= 0, chosen, np.nan)


def split_p_values(held_out: FloatArray, scores: FloatArray) -> FloatArray:
    """Return p-values from held-out episodes, of the shape of `scores`.

    p is the share of held-out scores that are at least as high, with equal weight for each episode, where the further
    episode counts as one more that is at least as high: (sum_i share_i + 1) / (m + 1) for m episodes. Queries of an
    episode depend on each other, so the episode is the unit (hierarchical conformal prediction: Lee, Barber and Willett
    2023; with one query per episode it is split conformal prediction, Vovk et al. 2005, Angelopoulos and Bates 2023).
    No p is below 1 / (m + 1).

    Args:
        held_out: (m, n_query) scores of the correct classes of held-out queries; NaN for none.
        scores: Scores of any shape, higher is worse; NaN gives NaN.
    """
    episodes, queries = np.nonzero(~np.isnan(held_out))
    n_queries = np.bincount(episodes, minlength=len(held_out))
    order = np.argsort(held_out[episodes, queries], kind="stable")
    weights = 1 / n_queries[episodes[order]]
    at_least = np.append(np.cumsum(weights[::-1])[::-1], 0.0)
    places = np.searchsorted(held_out[episodes, queries][order], scores, side="left")
    return np.where(np.isnan(scores), np.nan, (at_least[places] + 1) / (len(held_out) + 1))


def split_threshold(held_out: FloatArray, *, alpha: float) -> float | None:
    """Return the highest score whose p-value from held-out episodes is above alpha; None if every score's is.

    For probabilities, a class is in a set if its probability is at least 1 minus this.
    """
    found = np.unique(held_out[~np.isnan(held_out)])
    if split_p_values(held_out, np.array(np.inf)) > alpha:
        return None
    return float(found[split_p_values(held_out, found) > alpha].max())


def support_p_values(support: FloatArray, labels: IntArray, query: FloatArray) -> FloatArray:
    """Return p-values from an episode's own support, (n_query, n_way) float64.

    Full conformal prediction within each class (Vovk, Gammerman and Shafer 2005, section 4.5: label-conditional): to
    test a class, the query joins its K support images, and p is the share of the K + 1 images whose score is at least
    the query's. The score is the squared distance to the mean of the other K, minus that to the nearest mean of another
    class. It treats all K + 1 images alike, so P(p <= alpha) <= alpha for each class. The jackknife+ (Barber et al.
    2021) would promise 1 - 2 alpha only, and would need support and query to be exchangeable over all classes
    together, which a fixed number of shots per class rules out.

    Args:
        support: (n_support, n_features), after the probe's transform.
        labels: (n_support,) int64 in 0..n_way-1, each at least once.
        query: (n_query, n_features).
    """
    centre = support.mean(axis=0, dtype=np.float64)
    support, query = support - centre, query - centre
    n_shots = np.bincount(labels)
    means = np.stack([support[labels == label].mean(axis=0) for label in range(len(n_shots))])
    lengths, query_lengths = np.square(support).sum(axis=1), np.square(query).sum(axis=1)
    to_means = lengths[:, None] - 2 * support @ means.T + np.square(means).sum(axis=1)
    query_to_means = query_lengths[:, None] - 2 * query @ means.T + np.square(means).sum(axis=1)
    between = query @ support.T
    tolerance = ROUNDING * max(float(lengths.max()), float(query_lengths.max()))
    p_values = np.empty((len(query), len(n_shots)))
    for label, n_shot in enumerate(n_shots):
        own = np.flatnonzero(labels == label)
        others = np.arange(len(n_shots)) != label
        total = n_shot * means[label]
        along = support[own] @ total  # products of each own image with the sum of all own ones
        products = between[:, own]
        rest = along - lengths[own] + products  # with the sum of the others, query included: (n_query, K)
        squared = total @ total + lengths[own] + query_lengths[:, None] - 2 * along - 2 * products
        squared += 2 * (query @ total)[:, None]
        distances = lengths[own] - 2 * rest / n_shot + squared / n_shot**2
        scores = distances - to_means[np.ix_(own, others)].min(axis=1)
        of_query = query_to_means[:, label] - query_to_means[:, others].min(axis=1)
        n_at_least = (scores >= of_query[:, None] - tolerance).sum(axis=1)
        p_values[:, label] = (n_at_least + 1) / (n_shot + 1)
    return p_values


def count_sets(p_values: FloatArray, labels: IntArray, *, alpha: float) -> SetCounts:
    """Count the prediction sets of the classes whose p-value is above alpha.

    Args:
        p_values: (n_episodes, n_query, n_way); NaN for missing classes and queries.
        labels: (n_episodes, n_query) int64; -1 for missing queries.
        alpha: Largest share of misses that is allowed, in (0, 1).
    """
    sets = p_values > alpha
    is_query = labels >= 0
    n_way = p_values.shape[2]
    sizes = np.where(is_query, sets.sum(axis=2), -1)
    has_own = np.take_along_axis(sets, np.maximum(labels, 0)[..., None], axis=2)[..., 0] & is_query
    own = labels[..., None] == np.arange(n_way)
    return SetCounts(
        n_queries=own.sum(axis=1),
        covered=(own & has_own[..., None]).sum(axis=1),
        sizes=(sizes[..., None] == np.arange(n_way + 1)).sum(axis=1),
        correct=(has_own & (sizes == 1)).sum(axis=1),
    )


def join_counts(parts: Sequence[SetCounts]) -> SetCounts:
    """Return the counts of several groups of episodes as those of one."""
    names = [field.name for field in fields(SetCounts)]
    return SetCounts(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def full_sets(labels: IntArray, classes: IntArray) -> SetCounts:
    """Return the counts of sets with all classes of an episode, as too few labels for alpha leave them."""
    is_there = (labels[:, :, None] >= 0) & (classes[:, None] >= 0)
    return count_sets(np.where(is_there, 1.0, np.nan), labels, alpha=0.5)


def summarise_sets(counts: SetCounts, classes: IntArray) -> SetSummary:
    """Return the figures of the sets of at least two episodes.

    Args:
        counts: The counts.
        classes: (n_episodes, n_way) int64, the classes of each episode; negative entries mean no class.
    """
    n = counts.n_queries.sum(axis=1)
    asked = counts.n_queries > 0
    present, places = np.unique(classes[asked], return_inverse=True)
    n_of_class = np.bincount(places, weights=counts.n_queries[asked])
    of_class = np.bincount(places, weights=counts.covered[asked]) / n_of_class
    lowest = int(of_class.argmin())
    spread = (counts.covered[asked] / counts.n_queries[asked]).std()
    by_chance = hardest_by_chance(float(spread), int(np.bincount(places)[lowest]), len(present))
    n_answered = int(counts.sizes[:, 1].sum())
    shares = counts.sizes.sum(axis=0) / n.sum()
    return SetSummary(
        coverage=summarise(counts.covered.sum(axis=1) / n, classes),
        lowest_class=int(present[lowest]),
        lowest_coverage=float(of_class[lowest]),
        lowest_by_chance=float(np.average(of_class, weights=n_of_class)) - by_chance,
        mean_size=float(shares @ np.arange(len(shares))),
        sizes=tuple(shares.tolist()),
        answered=n_answered / int(n.sum()),
        accuracy=int(counts.correct.sum()) / n_answered if n_answered else None,
    )
