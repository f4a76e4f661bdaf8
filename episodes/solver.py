"""Exact solvers that fit one classifier on many episodes at once, from inner products of their features alone.

A linear classifier with an L2 penalty lies in the span of the support (representer theorem; Schoelkopf, Herbrich and
Smola 2001), so an episode needs only its Gram matrix. The reference is scikit-learn's estimator: every solver marks the
episodes on which its answer is certain to be the estimator's, and scikit-learn solves the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

SINGLE_ERROR = 2.5e-7
"""Error bound of an inner product in single precision, as a share of the features' squared length."""
DOUBLE_ERROR = 1e-14
"""The same bound in double precision, which scikit-learn uses."""
GRADIENT_NORM, GRADIENT_NORM_IN_DOUBLE = 3e-7, 1e-8
"""Gradient norms at which the descent ends. The objective is 1-strongly convex in the weights, so the norm bounds the
distance to the solution. Rounding makes a smaller norm useless in single precision."""
NEARLY = 2e-7
"""Gradient norm at which its first part, in single precision, ends: a share of C sqrt(number of weights). Rounding
leaves a fifth of that."""
DISTANCE = 1e-5
"""Largest distance of the weights from the solution, all errors counted, at which an answer is certain."""
ROUNDING = 1e-14
"""Error bound of a decision value of ridge regression, which is about 1, by rounding of sums in double precision. It
matters where all features are so short that the values of all classes are nearly equal."""
REFERENCE_ERROR = 1e-8
"""Where the estimator's descent ends: the largest entry of its gradient, as a mean over the support."""
MIN_ALPHA = 1e-7
"""Smallest penalty of ridge regression whose linear system double precision can solve."""
MAX_ITERATIONS = 300
MAX_SQUARED_LENGTH, ANY_SQUARED_LENGTH = 1024.0, 9.0
"""Largest squared length of features, times max(1, C), at which the estimator's own probabilities were within 1e-4 of
the solution, measured on eight kinds of features; and the largest one that is safe for any C."""
SMALL_PRODUCT, SMALL_RESULT = 1_000_000, 1_200
"""Most multiplications in a matrix product for which numpy's BLAS uses its fast kernels; and most values of the result
if the second matrix is transposed in memory. See `multiply`."""
FEWEST = 16
"""Fewest columns of a product that are worth a call."""
SMALLEST = 1e-20
"""Lower bound of divisors, which are squared norms of gradients and directions; anything smaller is rounding."""


@dataclass(frozen=True, kw_only=True)
class GramBlock:
    """Inner products of the features of several episodes of one form, support class by class.

    Attributes:
        support: (n_episodes, n_support, n_support), float32 or float64 like all other arrays here.
        of_query: Returns for weights w (n_episodes, k, n_support) the products of each query with the weighted sums of
            the support, sum_i w_i <x_i, query>: (n_episodes, k, n_query). For None it returns the products with each
            support image, so k is n_support.
        longest: (n_episodes,), the largest squared length of an episode's features.
        reach: (n_episodes,), an upper bound of the same before the centre was subtracted.
        error: (n_episodes,), error bound of the product of two features, here or in the estimator.
        n_way: Classes per episode.
        n_shot: Support images per class.
    """

    support: Tensor
    of_query: Callable[[Tensor | None], Tensor]
    longest: Tensor
    reach: Tensor
    error: Tensor
    n_way: int
    n_shot: int


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The answers of a solver for several episodes.

    Attributes:
        predicted: (n_episodes, n_query) int64, predicted episode labels.
        probabilities: (n_episodes, n_query, n_way) floating, or None if the classifier has none.
        is_certain: (n_episodes,) bool, whether the answer is the estimator's.
        values: (n_episodes, n_query, n_way) decision values of a classifier without probabilities; None with them.
    """

    predicted: Tensor
    probabilities: Tensor | None
    is_certain: Tensor
    values: Tensor | None = None


Solver = Callable[[GramBlock], Solution]


def find_solver(classifier: Any) -> Solver | None:
    """Return the solver that gives the answer of an unfitted scikit-learn classifier, or None if there is none.

    Settings that change the solution and are not covered here (class weights, no intercept, another penalty) have no
    solver.
    """
    settings = _settings(classifier)
    name = f"{type(classifier).__module__.split('.')[0]}.{type(classifier).__name__}"
    if name == "sklearn.LogisticRegression" and _is_plain(settings, _PLAIN_LOGISTIC) and _is_above(settings["C"], 0):
        return lambda block: logistic_regression(block, C=float(settings["C"]))
    is_ridge = name == "sklearn.RidgeClassifier" and _is_plain(settings, _PLAIN_RIDGE)
    if is_ridge and _is_above(settings["alpha"], MIN_ALPHA):
        return lambda block: ridge(block, alpha=float(settings["alpha"]))
    if name == "sklearn.KNeighborsClassifier" and _is_plain(settings, _PLAIN_KNN):
        return lambda block: nearest_neighbours(block, n_neighbors=int(settings["n_neighbors"]))
    if name == "sklearn.NearestCentroid" and _is_plain(settings, _PLAIN_CENTROID):
        return nearest_centroid
    return None


def logistic_regression(block: GramBlock, *, C: float = 1.0) -> Solution:  # noqa: N803
    """Fit multinomial logistic regression with an L2 penalty and a free intercept.

    Minimises 0.5 |W|^2 + C sum_i cross-entropy_i over W = A^T X, see `_descend`, and decides on the query's logits.

    scikit-learn fits two classes with one weight vector, whose penalty is twice that of the two symmetric ones here, so
    C is halved.

    scikit-learn's estimator is not exactly at the solution either. When its descent ends, an entry of its gradient may
    be C n times `REFERENCE_ERROR`. The curvature is at least 1 in the weights, and C n / K in small intercepts, which
    bounds the shift of the logits. Measured for C from 1e-4 to 100, two logits were 2.4 such units apart; `_decide`
    allows four.
    """
    import torch

    row_mean = block.support.mean(2, keepdim=True, dtype=torch.float64)
    gram = block.support.double() - row_mean
    weights, intercept, distance, shift = _solve_logistic(gram, block, C / 2 if block.n_way == 2 else C)
    offset = intercept - (weights * row_mean.transpose(1, 2)).sum(2, keepdim=True)
    dtype = block.support.dtype
    logits = block.of_query(weights.to(dtype)).add_(offset.to(dtype))
    length = block.longest.sqrt()
    of_reference = REFERENCE_ERROR * (C * len(block.support[0]) * length + block.n_way)
    error = distance * length + shift + of_reference + block.error * weights.abs().sum(2).amax(1)
    predicted, is_clear = _decide(logits.transpose(1, 2), error)
    is_short = (block.reach * max(1.0, C) <= MAX_SQUARED_LENGTH) | (block.reach <= ANY_SQUARED_LENGTH)
    is_certain = is_clear & is_short & (distance <= DISTANCE)
    return Solution(predicted=predicted, probabilities=logits.softmax(1).transpose(1, 2), is_certain=is_certain)


def _solve_logistic(gram: Tensor, block: GramBlock, C: float) -> tuple[Tensor, ...]:  # noqa: N803
    """Return weights A (b, n_way, n_support), intercepts (b, n_way, 1), and an error bound of each, (b,).

    The first part of the descent is in single precision. The second, in double precision, starts from its result and
    removes its rounding errors.

    The norm of the gradient bounds the distance of the weights. It is known up to the error of the Gram matrix, which
    for almost equal features is as large as the matrix itself: |D G D^T| is off by up to sum_k |D_k|_1^2 times the
    error of a product. The bound is infinite where the descent did not end. The intercepts have no penalty: their bound
    is the gradient over its curvature at W = 0. It matters where C, and so the weights, are small.

    Args:
        gram: (b, n_support, n_support) float64, rows centred.
        block: The episodes of `gram`.
        C: Weight of each image's cross-entropy.
    """
    import torch

    labels = torch.arange(block.n_way, device=gram.device).repeat_interleave(block.n_shot)
    target = C * torch.nn.functional.one_hot(labels, block.n_way).T.double()
    nearly = NEARLY * C * target.numel() ** 0.5
    wanted_norm = GRADIENT_NORM if block.support.dtype == torch.float32 else GRADIENT_NORM_IN_DOUBLE
    wanted_norm *= min(1.0, C)  # the weights are of the size of C
    start = target.new_zeros(len(gram), *target.shape).float()
    found = _descend(gram.float(), target.float(), C, start, start[:, :, :1], nearly)
    is_lost = ~found.norm.isfinite()[:, None, None]
    weights = found.weights.double().masked_fill_(is_lost, 0)
    weights -= weights.mean(2, keepdim=True)
    found = _descend(gram, target, C, weights, found.intercept.double().masked_fill_(is_lost, 0), wanted_norm)
    unknown = found.gradient.abs().sum(2).square_().sum(1) * block.error
    distance = (found.norm.square() + unknown).sqrt_().masked_fill_(~(found.norm <= wanted_norm), float("inf"))
    return found.weights, found.intercept, distance, found.sums.abs().amax((1, 2)) * block.n_way / (C * len(gram[0]))


@dataclass(frozen=True, kw_only=True)
class _Descent:
    """End of a descent: weights (b, n_way, n_support), intercepts (b, n_way, 1), both gradients and their norm (b,)."""

    weights: Tensor
    intercept: Tensor
    gradient: Tensor
    sums: Tensor
    norm: Tensor


def _descend(
    gram: Tensor,
    target: Tensor,
    C: float,  # noqa: N803
    weights: Tensor,
    intercept: Tensor,
    wanted_norm: float,
) -> _Descent:
    """Minimise the objective from weights A (b, n_way, n_support) and intercepts b (b, n_way, 1).

    Preconditioned conjugate gradients in the span of the support (Polak and Ribiere 1969, with beta >= 0). With the
    row-centred Gram matrix G and P = softmax(A G + b), the gradient is D = A + C (P - Y) minus its rows' means in A,
    and the sums of C (P - Y) in b. The inner product in A is that of the weights W, <U, V> = sum (U G) V. Steps in b
    are scaled by K / (C n), the inverse of their curvature at W = 0. The step length is Newton's along the direction,
    whose curvature needs no product with G, so an iteration needs only one.

    Args:
        gram: (b, n_support, n_support) G; its precision is used throughout.
        target: (n_way, n_support), C Y.
        C: Weight of each image's cross-entropy.
        weights: Starting point; rows sum to zero.
        intercept: Starting point.
        wanted_norm: Gradient norm at which to end; `MAX_ITERATIONS` is the limit.
    """
    import torch

    n_way, n = target.shape
    scale = n_way / (C * n)
    shifted = weights - target
    logits = multiply(weights, gram).add_(intercept)
    direction, along, last_change = (torch.zeros_like(shifted) for _ in range(3))
    intercept, in_intercept = intercept.clone(), torch.zeros_like(intercept)
    last_squared = torch.full_like(shifted[:, 0, 0], float("inf"))
    for _ in range(MAX_ITERATIONS):
        probabilities = logits.softmax(1)
        residual = torch.add(shifted, probabilities, alpha=C)
        sums = (probabilities.sum(2, keepdim=True) - n / n_way).mul_(C)
        gradient = residual - residual.mean(2, keepdim=True)
        change = multiply(gradient, gram).add_(sums, alpha=scale)
        squared = _inner(residual, change)
        of_sums = sums.square().sum((1, 2))
        norm = ((squared - scale * of_sums).abs_() + of_sums).sqrt_()  # a negative square is a rounding error of G
        is_done = ~(norm > wanted_norm)  # done episodes stay where they are; NaN is divergence
        if bool(is_done.all()):
            break
        steepest = sums * scale
        beta = (squared - _inner(residual, last_change)) / last_squared
        beta = beta.clamp_min_(0).masked_fill_(is_done, 0)[:, None, None]
        for of_step, of_gradient in ((direction, gradient), (along, change), (in_intercept, steepest)):
            torch.addcmul(of_gradient, of_step, beta, out=of_step)
        last_change, last_squared = change, squared.clamp_min(SMALLEST)
        weighted = probabilities.mul_(along)
        of_classes = weighted.sum(1).square_().sum(1)
        curvature = _inner(direction, along) + C * (_inner(weighted, along) - of_classes)
        step = -(_inner(residual, along) / curvature.clamp_min_(SMALLEST)).masked_fill_(is_done, 0)[:, None, None]
        shifted.addcmul_(step, direction)
        logits.addcmul_(step, along)
        intercept.addcmul_(step, in_intercept)
    return _Descent(weights=shifted.add_(target), intercept=intercept, gradient=gradient, sums=sums, norm=norm)


def multiply(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the matrix products of two stacks, (b, m, k) and (b, k, n).

    On a CPU, numpy's BLAS takes a third of the time of torch's for small products, and two thirds in double precision.
    So products in single precision are cut into small ones along n.
    """
    import torch

    n_columns = right.shape[2]
    n_at_once = n_columns
    if left.dtype == torch.float32:
        n_at_once = SMALL_PRODUCT // (left.shape[1] * left.shape[2])
        if right.stride(2) != 1:
            n_at_once = min(n_at_once, SMALL_RESULT // left.shape[1])
    if left.device.type != "cpu" or n_at_once < min(n_columns, FEWEST):
        return torch.bmm(left, right) if out is None else torch.bmm(left, right, out=out)
    factors = left.numpy(), right.numpy()
    with np.errstate(over="ignore", invalid="ignore"):  # the norm shows which episodes diverge
        if n_at_once >= n_columns:
            return torch.from_numpy(np.matmul(*factors, out=None if out is None else out.numpy()))
        out = torch.empty(*left.shape[:2], n_columns) if out is None else out
        for start in range(0, n_columns, n_at_once):
            part = slice(start, start + n_at_once)
            np.matmul(factors[0], factors[1][:, :, part], out=out.numpy()[:, :, part])
    return out


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Return the inner product of each pair of matrices in two stacks, (b,)."""
    import torch

    products: Tensor = torch.linalg.vecdot(left.flatten(1), right.flatten(1))
    return products


def ridge(block: GramBlock, *, alpha: float = 1.0) -> Solution:
    """Fit ridge regression on -1/+1 targets with a free intercept, in its dual (Saunders, Gammerman and Vovk 1998).

    The kernel is the double-centred Gram matrix K = X X^T. The dual's columns sum to zero, so a query's products only
    need centring by the support's row means. The error of a product counts twice: in the query's products, and in the
    kernel, from which a value gets up to |X^T (K + alpha)^-1| <= 1 / (2 sqrt(alpha)) times as much.
    """
    import torch

    n_way, n = block.n_way, block.support.shape[1]
    labels = torch.arange(n_way, device=block.support.device).repeat_interleave(block.n_shot)
    target = torch.nn.functional.one_hot(labels, n_way).double() * 2 - 1
    target_mean = target.mean(0)
    gram = block.support.double()
    row_mean = gram.mean(1, keepdim=True)
    kernel = gram - row_mean - row_mean.transpose(1, 2) + row_mean.mean(2, keepdim=True)
    kernel.diagonal(dim1=1, dim2=2).add_(alpha)
    factor, failed = torch.linalg.cholesky_ex(kernel)
    dual = torch.cholesky_solve((target - target_mean).expand(len(gram), n, n_way), factor)
    offset = target_mean - row_mean @ dual
    values = block.of_query(dual.transpose(1, 2).to(block.support.dtype)).transpose(1, 2) + offset
    of_kernel = (n * block.longest.double() / alpha).sqrt() / 2
    predicted, is_clear = _decide(values, ROUNDING + block.error * dual.abs().sum(1).amax(1) * (1 + of_kernel))
    return Solution(
        predicted=predicted,
        probabilities=None,
        is_certain=is_clear & (failed == 0) & (block.reach <= MAX_SQUARED_LENGTH),
        values=values,
    )


def nearest_centroid(block: GramBlock) -> Solution:
    """Choose the nearest class mean in Euclidean distance. No probabilities: scikit-learn rescales its own."""
    import torch

    n_episodes, n_way, n_shot = len(block.support), block.n_way, block.n_shot
    classes = torch.eye(n_way, dtype=block.support.dtype, device=block.support.device)
    mean = classes.repeat_interleave(n_shot, 1) / n_shot
    of_query = block.of_query(mean.expand(n_episodes, -1, -1)).transpose(1, 2).double()
    blocks = block.support.view(n_episodes, n_way, n_shot, n_way, n_shot)
    squared = blocks.double().mean((2, 4)).diagonal(dim1=1, dim2=2)
    values = of_query - squared[:, None] / 2
    predicted, is_clear = _decide(values, 2 * block.error)
    is_certain = is_clear & (block.reach <= MAX_SQUARED_LENGTH)
    return Solution(predicted=predicted, probabilities=None, is_certain=is_certain, values=values)


def nearest_neighbours(block: GramBlock, *, n_neighbors: int) -> Solution:
    """Classify by k nearest neighbours: support images vote with equal weights; ties go to the lower label.

    An answer is certain where the last neighbour that votes is clearly nearer than the first that does not.
    """
    import torch

    lengths = block.support.diagonal(dim1=1, dim2=2)
    closeness = (2 * block.of_query(None) - lengths[:, :, None]).transpose(1, 2)
    n_support = closeness.shape[2]
    nearest = closeness.topk(min(n_neighbors + 1, n_support), dim=2)
    labels = nearest.indices[:, :, :n_neighbors] // block.n_shot
    votes = torch.nn.functional.one_hot(labels, block.n_way).sum(2).double() / n_neighbors
    is_clear = torch.full((len(closeness),), n_neighbors <= n_support, device=closeness.device)
    if n_neighbors < n_support:
        gap = nearest.values[:, :, n_neighbors - 1] - nearest.values[:, :, n_neighbors]
        is_clear = (gap > 8 * block.error[:, None]).all(1)
    is_certain = is_clear & (block.reach <= MAX_SQUARED_LENGTH)
    return Solution(predicted=votes.argmax(2), probabilities=votes, is_certain=is_certain)


def _decide(values: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best class of each query (b, n_query), and per episode whether all of them are certain (b,).

    Args:
        values: (b, n_query, n_way) decision values.
        error: (b,) error bound of a value; the two best must differ by four times that, twice what is necessary.
    """
    import torch

    is_near = values >= values.amax(2, keepdim=True) - (4 * error).to(values.dtype)[:, None, None]
    labels = torch.arange(values.shape[2], device=values.device)
    return torch.where(is_near, labels, 0).amax(2), is_near.sum((1, 2)) == values.shape[1]


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


def _is_above(value: Any, bound: float) -> bool:
    return isinstance(value, Real) and float(value) > bound


def _is_plain(settings: dict[str, Any], wanted: dict[str, tuple[Any, ...]]) -> bool:
    return all(settings[name] in accepted for name, accepted in wanted.items() if name in settings)
