"""Paired comparison of models on the same episodes: differences, p-values and groups of ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from string import ascii_letters

import numpy as np

from episodes.accuracies import Accuracies
from episodes.arrays import FloatArray, IntArray
from episodes.manifest import Manifest
from episodes.over_classes import ClassIndex, around_classes, error_over_classes, index_classes
from episodes.sign_flips import draw_signs, flipped_sums
from episodes.summary import Summary, summarise
from episodes.table import EpisodeTable

N_FLIPS = 9_999
LEVEL = 0.05
"""Chance that any test of a family calls a difference real where there is none."""
MAX_EXACT = 16
_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Difference of two models on the same episodes.

    Attributes:
        difference: Summary of the per-episode differences a - b.
        n_wins: Episodes in which a is better.
        n_ties: Episodes in which they are equal.
        n_losses: Episodes in which b is better.
        correlation: Pearson correlation of the two over episodes; NaN if one of them is constant.
        p_episodes: Two-sided p of no difference *on this pool of classes*, by sign flips.
        p_classes: Two-sided p of no difference *on new classes of this kind*, below 0.05 where `ci95_classes` excludes
            zero; None without that.
    """

    difference: Summary
    n_wins: int
    n_ties: int
    n_losses: int
    correlation: float
    p_episodes: float
    p_classes: float | None = None


def paired_difference(
    a: FloatArray, b: FloatArray, classes: IntArray, *, rng: np.random.Generator, n_flips: int = N_FLIPS
) -> PairedDifference:
    """Compare two models on the same episodes.

    Args:
        a: (n_episodes,) values of the first model.
        b: (n_episodes,) values of the second.
        classes: (n_episodes, n_way) int64; negative entries mean no class.
        rng: Draws the sign flips if there are too many differences to count all flips.
        n_flips: Number of flips drawn then.

    Raises:
        ValueError: The two differ in length, have fewer than two episodes, or have a value that is not finite.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} episodes cannot be paired")
    return paired_differences([a, b], [classes, classes], [(0, 1)], rng=rng, n_flips=n_flips)[0, 1]


def paired_differences(
    values: Sequence[FloatArray],
    classes: Sequence[IntArray],
    pairs: Sequence[tuple[int, int]],
    *,
    rng: np.random.Generator,
    n_flips: int = N_FLIPS,
) -> dict[tuple[int, int], PairedDifference]:
    """Compare many models in pairs, each pair as `paired_difference` does with an equal generator.

    All pairs share one draw of signs, so that each model's flipped sums are computed only once. So is what is left of
    its values after the effects of classes: of a difference it is the difference.

    Args:
        values: One array per model, (its n_episodes,), all from the same first episode on. A pair is compared on the
            episodes that both have.
        classes: One array per model, (its n_episodes, n_way) int64; negative entries mean no class.
        pairs: The models i and j of each difference i - j.
        rng: Draws the signs.
        n_flips: Number of flips.

    Raises:
        ValueError: A pair has fewer than two episodes in common, or a value is not finite.
    """
    arrays = [np.asarray(array, dtype=np.float64) for array in values]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a value of an episode is not finite; leave out episodes that were not measured")
    n_common = {(i, j): min(len(arrays[i]), len(arrays[j])) for i, j in pairs}
    signs = draw_signs(max(n_common.values(), default=0), n_flips, rng=rng)
    lengths: dict[int, set[int]] = {model: set() for pair in pairs for model in pair}
    for (i, j), n in n_common.items():
        lengths[i].add(n)
        lengths[j].add(n)
    flipped = {
        (model, n): sums
        for model, of_model in lengths.items()
        for n, sums in zip(sorted(of_model), flipped_sums(arrays[model], signs, sorted(of_model)), strict=True)
    }
    indexes: dict[bytes, ClassIndex] = {}  # models on the same episodes share one
    index_of, left = {}, {}
    for model, n in flipped:
        index = indexes.setdefault(classes[model][:n].tobytes(), index_classes(classes[model][:n]))
        index_of[model, n] = index
        if index.shows_noise:
            left[model, n] = around_classes(arrays[model][:n], index)
    return {
        (i, j): _paired(
            arrays[i][:n],
            arrays[j][:n],
            index_of[i, n],
            flipped[i, n] - flipped[j, n],
            left[i, n] - left[j, n] if (i, n) in left else None,
        )
        for (i, j), n in n_common.items()
    }


def compare_tables(
    a: EpisodeTable | Accuracies,
    b: EpisodeTable | Accuracies,
    *,
    rng: np.random.Generator,
    manifests: tuple[Manifest, Manifest] | None = None,
) -> PairedDifference:
    """Compare the accuracies of two tables of results on their `n_shared_episodes`.

    Raises:
        ValueError: The two did not meet the same episodes; the message says what differs.
    """
    n = n_shared_episodes(a, b, manifests=manifests)
    return paired_difference(a.accuracy[:n], b.accuracy[:n], a.classes[:n], rng=rng)


def n_shared_episodes(
    a: EpisodeTable | Accuracies, b: EpisodeTable | Accuracies, *, manifests: tuple[Manifest, Manifest] | None = None
) -> int:
    """Return the number of first episodes that both tables hold; these must be the same in both.

    `manifests` are those of the two; they are needed if their hashes differ because one begins with the other.

    Raises:
        ValueError: The two did not meet the same episodes; the message says what differs.
    """
    hashes = (a.identity.get("manifest"), b.identity.get("manifest"))
    if None in hashes:
        raise ValueError("a table does not name its manifest; compare tables with an identity")
    n_common = min(len(a), len(b))
    if not np.array_equal(a.index[:n_common], b.index[:n_common]):
        raise ValueError("the two hold different episodes of their manifests; compare tables that begin with the first")
    if hashes[0] != hashes[1]:
        if manifests is None:
            raise ValueError(
                f"the two tables have different manifests, {str(hashes[0])[:12]} and {str(hashes[1])[:12]}; "
                "give both manifests to compare on the episodes that they share"
            )
        if hashes != (manifests[0].hash, manifests[1].hash):
            raise ValueError("the given manifests are not those of the tables")
        if difference := manifest_difference(manifests[0].prefix(n_common), manifests[1].prefix(n_common)):
            raise ValueError(f"the two did not meet the same episodes: {difference}")
    return n_common


def n_common_prefix(a: Manifest, b: Manifest) -> int:
    """Return the number of first episodes that two manifests share, even if they index different banks."""
    alike, differ = 0, min(len(a), len(b)) + 1
    while differ - alike > 1:
        middle = (alike + differ) // 2 if differ <= min(len(a), len(b)) else differ - 1
        if a.prefix(middle).hash == b.prefix(middle).hash:
            alike = middle
        else:
            differ = middle
    return alike


def manifest_difference(a: Manifest, b: Manifest) -> str:
    """Return the most telling difference of two manifests in words; empty if they are equal."""
    if a.hash == b.hash:
        return ""
    if a.images_digest != b.images_digest:
        return f"their images differ ({a.images_digest[:12]} and {b.images_digest[:12]})"
    for field in fields(a.spec):
        values = (getattr(a.spec, field.name), getattr(b.spec, field.name))
        if values[0] != values[1] and field.name != "n_episodes":
            return f"{field.name} is {values[0]} and {values[1]}"
    for one, other in zip(a, b, strict=False):
        if not all(
            np.array_equal(getattr(one, name), getattr(other, name)) for name in ("classes", "support", "query")
        ):
            return f"episode {one.index} differs (seeds {a.seed} and {b.seed})"
    return f"n_episodes is {len(a)} and {len(b)}"


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, so that the chance of any false rejection stays below the level.

    Step-down (Holm 1979, section 3): in ascending order p_(i) becomes max over j <= i of min(1, (k - j + 1) * p_(j)).
    `p_values` are all of one family, without NaN; their order is kept.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in corrected]


def shaffer(p_values: Mapping[tuple[int, int], float], n_models: int) -> dict[tuple[int, int], float]:
    """Return p-values of all pairs of models, corrected for their number; never larger than with `holm`.

    Step-down (Shaffer 1986, procedure S1): in ascending order p_(i) becomes max over j <= i of min(1, t_j * p_(j)),
    where t_j is the largest number of the hypotheses j, j + 1, ... that can be true at once. If some pairs are equal,
    so are others: the possible numbers of true hypotheses among k models are the union over j = 1..k of C(j, 2) + s,
    where s are the possible numbers of k - j models. For three models t is 3, 1, 1; in Holm (1979) it is 3, 2, 1.

    Args:
        p_values: Uncorrected p of every pair (i, j), i < j, without NaN.
        n_models: Number of models.

    Raises:
        ValueError: A pair has no p-value.
    """
    pairs = _all_pairs(p_values, n_models)
    possible = np.array(sorted(_n_true_possible(n_models)))
    order = sorted(pairs, key=lambda pair: p_values[pair])
    corrected, largest = {}, 0.0
    for place, pair in enumerate(order):
        most = possible[np.searchsorted(possible, len(order) - place, side="right") - 1]
        largest = max(largest, min(1.0, float(most * p_values[pair])))
        corrected[pair] = largest
    return {pair: corrected[pair] for pair in p_values}


def correct_pairs(p_values: Mapping[tuple[int, int], float], n_models: int) -> dict[tuple[int, int], float]:
    """Return the p-values of pairs of models, corrected by `shaffer` if all pairs have one, otherwise by `holm`."""
    if len(p_values) == n_models * (n_models - 1) // 2:
        return shaffer(p_values, n_models)
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))


def is_apart(p: float | None) -> bool:
    """Return whether a corrected p-value is below `LEVEL`; only then are two models said to differ."""
    return p is not None and p < LEVEL


def tie_groups(means: Sequence[float], p_values: Mapping[tuple[int, int], float]) -> list[str]:
    """Return each model's groups of ties as letters: two models share a letter unless they are told apart.

    The letters are the compact letter display, by insert and absorb (Piepho 2004, section 2). The best model has the
    letter `a`; after `z` come capitals, then numbers in brackets. A shared letter does not prove equality: the
    episodes do not suffice to tell the two apart.

    Args:
        means: One per model; higher is better.
        p_values: Corrected p of each pair (i, j), i < j; see `correct_pairs`.

    Raises:
        ValueError: A pair has no p-value.
    """
    groups = [frozenset(range(len(means)))]
    for i, j in _all_pairs(p_values, len(means)):
        if not is_apart(p_values[i, j]):
            continue
        split = [group - {out} for group in groups if {i, j} <= group for out in (i, j)]
        groups = [group for group in groups if not {i, j} <= group]
        for new in split:
            if not any(new <= other for other in groups):
                groups = [other for other in groups if not other < new] + [new]
    rank = np.argsort(np.argsort(-np.asarray(means, dtype=np.float64), kind="stable"))
    groups.sort(key=lambda group: sorted(rank[model] for model in group))
    return [
        "".join(_letter(place) for place, group in enumerate(groups) if model in group) for model in range(len(means))
    ]


def _all_pairs(p_values: Mapping[tuple[int, int], float], n_models: int) -> list[tuple[int, int]]:
    pairs = list(combinations(range(n_models), 2))
    if missing := [pair for pair in pairs if pair not in p_values]:
        raise ValueError(f"models {missing[0][0]} and {missing[0][1]} were not compared; a ranking needs all pairs")
    return pairs


def _n_true_possible(n_models: int) -> set[int]:
    """Return the possible numbers of true null hypotheses among all pairs of `n_models` models; see `shaffer`."""
    possible = [{0}, {0}]
    for k in range(2, n_models + 1):
        possible.append({j * (j - 1) // 2 + rest for j in range(1, k + 1) for rest in possible[k - j]})
    return possible[n_models]


def _paired(
    a: FloatArray, b: FloatArray, classes: ClassIndex, flipped: FloatArray, left: FloatArray | None
) -> PairedDifference:
    """Compare two models.

    Args:
        a: (n_episodes,) values of the first model.
        b: Those of the second.
        classes: The classes of the episodes.
        flipped: (n_flips,) sums of the differences under random signs.
        left: (n_episodes,) what is left of the differences after the effects of classes; None if it is not known.
    """
    differences = a - b
    # Equal counts of correct answers may differ by a rounding error of their shares: that is a tie.
    differences[np.abs(differences) < _TOLERANCE] = 0.0
    error = error_over_classes(differences, classes, left)
    summary = summarise(differences, classes, over_classes=error)
    constant = np.ptp(a) == 0 or np.ptp(b) == 0
    return PairedDifference(
        difference=summary,
        n_wins=int((differences > 0).sum()),
        n_ties=int((differences == 0).sum()),
        n_losses=int((differences < 0).sum()),
        correlation=float("nan") if constant else float(np.corrcoef(a, b)[0, 1]),
        p_episodes=_p_of_flips(differences, flipped),
        p_classes=None if isinstance(error, str) else error.p(summary.mean),
    )


def _p_of_flips(differences: FloatArray, flipped: FloatArray) -> float:
    """Return the two-sided p of the mean of paired differences under random flips of their signs.

    If the models are equal, each difference is as likely with the other sign, so p is the share of flips whose
    absolute sum is at least the observed one (Fisher 1935, section 21; Good 2005). With at most `MAX_EXACT` nonzero
    differences all flips are counted. With more, n are drawn and p = (1 + number at least as large) / (1 + n),
    which is never zero and never too small on average (Phipson and Smyth 2010). If no drawn flip is as large, p is
    Hoeffding's bound of the share of all flips, 2 exp(-S^2 / (2 sum d^2)) with S the sum of the differences d, if that
    is smaller (Hoeffding 1963, theorem 2). The share itself is smaller still, so p remains valid, and it can survive a
    correction for many pairs, which 1 / (1 + n) cannot.

    Args:
        differences: (n_episodes,) finite.
        flipped: (n,) sums of the differences under drawn signs.
    """
    sizes = np.abs(differences)
    sizes = sizes[sizes > _TOLERANCE]
    least = abs(float(np.sum(differences))) * (1 - _TOLERANCE) - _TOLERANCE
    if len(sizes) > MAX_EXACT:
        n_at_least = int((np.abs(flipped) >= least).sum())
        # Only if no flip is as large: in general the smaller of two valid p-values is not valid.
        return (1 + n_at_least) / (1 + len(flipped)) if n_at_least else min(1 / (1 + len(flipped)), _bound(differences))
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    return float((np.abs(sums) >= least).mean())


def _bound(differences: FloatArray) -> float:
    """Return Hoeffding's bound of `_p_of_flips`, above zero."""
    exponent = -(float(differences.sum()) ** 2) / (2 * float(np.square(differences).sum()))
    return max(2 * float(np.exp(exponent)), float(np.finfo(np.float64).tiny))


def _letter(place: int) -> str:
    """Return a letter, or a number in brackets; neither runs together with its neighbours."""
    return ascii_letters[place] if place < len(ascii_letters) else f"({place + 1})"
