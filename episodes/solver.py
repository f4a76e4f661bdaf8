"""Exact classifiers for many episodes at once, from the products of support and query features alone.

A linear classifier with an L2 penalty lies in the span of the support (representer theorem; Schoelkopf, Herbrich and
Smola 2001), so an episode needs only its Gram matrix. scikit-learn's estimator is the definition; every solver says for
each episode whether its own answer is certain to be that estimator's, and what is not certain goes to scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PRODUCT_ERROR = 2.5e-7
"""What an inner product of features of length one may be off by in single precision."""
GRADIENT_NORM = 1e-7
"""The objective is 1-strongly convex in the weights, so the gradient's norm bounds the distance to the solution."""
MAX_ITERATIONS = 60
MAX_SQUARED_LENGTH = 4.0
"""Longer features lose too many digits in single precision."""


@dataclass(frozen=True, kw_only=True)
class GramBlock:
    """Inner products of the images of several episodes of one form, support class by class.

    Attributes:
        support: (n_episodes, n_support, n_support) float32.
        query: (n_episodes, n_query, n_support) float32.
        longest: (n_episodes,) float32, the largest squared length of an episode's features.
        n_way: Classes an episode.
        n_shot: Support images a class.
    """

    support: Tensor
    query: Tensor
    longest: Tensor
    n_way: int
    n_shot: int


@dataclass(frozen=True, kw_only=True)
class Solution:
    """What a solver found.

    Attributes:
        predicted: (n_episodes, n_query) int64, episode labels.
        probabilities: (n_episodes, n_query, n_way) float64, or None if the classifier has none.
        is_certain: (n_episodes,) bool, whether the answer is the estimator's.
    """

    predicted: Tensor
    probabilities: Tensor | None
    is_certain: Tensor


Solver = Callable[[GramBlock], Solution]


def find_solver(classifier: Any) -> Solver | None:
    """Return the solver whose answer is that of an unfitted scikit-learn classifier, or None if there is none.

    Settings that change the solution and are not covered here (weights of classes, no intercept, another penalty) have
    no solver.
    """
    settings = _settings(classifier)
    name = f"{type(classifier).__module__.split('.')[0]}.{type(classifier).__name__}"
    if name == "sklearn.LogisticRegression" and _is_plain(settings, _PLAIN_LOGISTIC):
        return lambda block: logistic_regression(block, C=float(settings["C"]))
    if name == "sklearn.RidgeClassifier" and _is_plain(settings, _PLAIN_RIDGE):
        return lambda block: ridge(block, alpha=float(settings["alpha"]))
    if name == "sklearn.KNeighborsClassifier" and _is_plain(settings, _PLAIN_KNN):
        return lambda block: nearest_neighbours(block, n_neighbors=int(settings["n_neighbors"]))
    if name == "sklearn.NearestCentroid" and _is_plain(settings, _PLAIN_CENTROID):
        return nearest_centroid
    return None


def logistic_regression(block: GramBlock, *, C: float = 1.0) -> Solution:  # noqa: N803
    """Fit multinomial logistic regression with an L2 penalty and a free intercept.

    Minimises 0.5 |W|^2 + C sum_i cross-entropy_i. With W = A^T X and the double-centred support Gram matrix Gc,
    U = (I + C / K Gc)^-1 is the inverse Hessian at W = 0 of K balanced classes, and A <- A - D U with the gradient
    D = C (P - Y) + A (its columns' mean taken out by the intercept) is a Newton iteration with that Hessian kept fixed
    (chord method; Ortega and Rheinboldt 1970, section 7.1). The preconditioner is single, the state double precision.

    scikit-learn fits two classes with one weight vector, whose penalty is twice that of the two symmetric ones here:
    C counts half.
    """
    import torch

    n_episodes, n = block.support.shape[:2]
    n_way, device = block.n_way, block.support.device
    C = C / 2 if n_way == 2 else C  # noqa: N806
    labels = torch.arange(n_way, device=device).repeat_interleave(block.n_shot)
    target = torch.nn.functional.one_hot(labels, n_way).T.double()

    row_mean = block.support.mean(2, keepdim=True)
    centred = block.support - row_mean
    hessian = (centred - centred.mean(1, keepdim=True)).mul_(C / n_way)
    hessian.diagonal(dim1=1, dim2=2).add_(1.0)
    factor, failed = torch.linalg.cholesky_ex(hessian)
    inverse = torch.cholesky_inverse(factor).double()

    gram = block.support.double()
    mean = gram.mean(2, keepdim=True)
    gram = gram - mean
    coefficients = ((target - 1.0 / n_way) * C).expand(n_episodes, -1, -1) @ inverse
    coefficients -= coefficients.mean(2, keepdim=True)
    intercept = torch.zeros(n_episodes, n_way, 1, dtype=torch.float64, device=device)
    for iteration in range(MAX_ITERATIONS):
        probabilities = torch.baddbmm(intercept, coefficients, gram).softmax(1)
        gradient = (probabilities - target).mul_(C)
        of_intercept = gradient.sum(2, keepdim=True)
        gradient.add_(coefficients).sub_(of_intercept, alpha=1.0 / n)
        if iteration >= 2:
            in_weights = torch.linalg.vecdot(gradient.flatten(1), (gradient @ gram).flatten(1))
            norm = (in_weights.clamp_min(0) + of_intercept.square().sum((1, 2))).sqrt()
            if bool((norm <= GRADIENT_NORM).all()):
                break
        step = gradient @ inverse
        coefficients = coefficients - step + step.mean(2, keepdim=True)
        intercept = intercept - of_intercept * (n_way / (C * n))
    offset = (intercept - coefficients @ mean).float()
    logits = torch.baddbmm(offset, coefficients.float(), block.query.transpose(1, 2)).transpose(1, 2)
    predicted, is_clear = _decide(logits, GRADIENT_NORM + PRODUCT_ERROR * coefficients.abs().sum(2).amax(1))
    is_certain = is_clear & (norm <= GRADIENT_NORM) & (failed == 0) & (block.longest <= MAX_SQUARED_LENGTH)
    return Solution(predicted=predicted, probabilities=logits.double().softmax(2), is_certain=is_certain)


def ridge(block: GramBlock, *, alpha: float = 1.0) -> Solution:
    """Fit ridge regression on -1/+1 targets with a free intercept, in its dual (Saunders, Gammerman and Vovk 1998)."""
    import torch

    n_way, n = block.n_way, block.support.shape[1]
    labels = torch.arange(n_way, device=block.support.device).repeat_interleave(block.n_shot)
    target = torch.nn.functional.one_hot(labels, n_way).double() * 2 - 1
    target_mean = target.mean(0)
    gram = block.support.double()
    row_mean = gram.mean(1, keepdim=True)
    total_mean = row_mean.mean(2, keepdim=True)
    kernel = gram - row_mean - row_mean.transpose(1, 2) + total_mean
    kernel.diagonal(dim1=1, dim2=2).add_(alpha)
    factor, failed = torch.linalg.cholesky_ex(kernel)
    dual = torch.cholesky_solve((target - target_mean).expand(len(gram), n, n_way), factor)
    query = block.query.double()
    of_query = query - query.mean(2, keepdim=True) - row_mean + total_mean
    predicted, is_clear = _decide(of_query @ dual + target_mean, PRODUCT_ERROR * dual.abs().sum(1).amax(1))
    return Solution(
        predicted=predicted,
        probabilities=None,
        is_certain=is_clear & (failed == 0) & (block.longest <= MAX_SQUARED_LENGTH),
    )


def nearest_centroid(block: GramBlock) -> Solution:
    """Choose the nearest class mean in Euclidean distance; without probabilities, which scikit-learn scales anew."""
    shape = (len(block.support), -1, block.n_way, block.n_shot)
    of_query = block.query.view(shape).double().mean(3)
    blocks = block.support.view(len(block.support), block.n_way, block.n_shot, block.n_way, block.n_shot)
    squared = blocks.double().mean((2, 4)).diagonal(dim1=1, dim2=2)
    predicted, is_clear = _decide(of_query - squared[:, None] / 2, 2 * PRODUCT_ERROR * block.longest)
    return Solution(
        predicted=predicted, probabilities=None, is_certain=is_clear & (block.longest <= MAX_SQUARED_LENGTH)
    )


def nearest_neighbours(block: GramBlock, *, n_neighbors: int) -> Solution:
    """Let the nearest support images vote, each with the same weight; ties of votes go to the lower label.

    An answer is certain where the last neighbour that votes and the first that does not are at clearly different
    distances.
    """
    import torch

    lengths = block.support.diagonal(dim1=1, dim2=2)
    closeness = 2 * block.query - lengths[:, None]
    n_support = closeness.shape[2]
    nearest = closeness.topk(min(n_neighbors + 1, n_support), dim=2)
    labels = nearest.indices[:, :, :n_neighbors] // block.n_shot
    votes = torch.nn.functional.one_hot(labels, block.n_way).sum(2).double() / n_neighbors
    is_clear = torch.ones(len(closeness), dtype=torch.bool, device=closeness.device)
    if n_neighbors < n_support:
        gap = nearest.values[:, :, n_neighbors - 1] - nearest.values[:, :, n_neighbors]
        is_clear = (gap > 8 * PRODUCT_ERROR * block.longest[:, None]).all(1)
    return Solution(
        predicted=votes.argmax(2), probabilities=votes, is_certain=is_clear & (block.longest <= MAX_SQUARED_LENGTH)
    )


def _decide(values: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best class of each query (b, n_query), and for each episode whether all of them are clear (b,).

    Args:
        values: (b, n_query, n_way) decision values.
        error: (b,) by how much a value may be off; the two best must be twice as far apart, twice over for safety.
    """
    best, predicted = values.max(2)
    second = values.scatter(2, predicted[:, :, None], float("-inf")).amax(2)
    return predicted, (best - second > 4 * error[:, None]).all(1)


_PLAIN_LOGISTIC = {
    "l1_ratio": (0, 0.0, None),
    "dual": (False,),
    "fit_intercept": (True,),
    "class_weight": (None,),
    "penalty": ("l2", "deprecated"),
    "multi_class": ("auto", "multinomial", "deprecated"),
    "solver": ("lbfgs", "newton-cg", "newton-cholesky", "sag", "saga"),
}
_PLAIN_RIDGE = {"fit_intercept": (True,), "class_weight": (None,), "positive": (False,), "solver": ("auto", "cholesky")}
_PLAIN_KNN = {"weights": ("uniform",), "p": (2,), "metric": ("minkowski", "euclidean"), "metric_params": (None,)}
_PLAIN_CENTROID = {"metric": ("euclidean",), "shrink_threshold": (None,), "priors": ("uniform",)}


def _settings(classifier: Any) -> dict[str, Any]:
    found: dict[str, Any] = classifier.get_params(deep=False) if hasattr(classifier, "get_params") else {}
    return found


def _is_plain(settings: dict[str, Any], wanted: dict[str, tuple[Any, ...]]) -> bool:
    return all(settings[name] in accepted for name, accepted in wanted.items() if name in settings)
