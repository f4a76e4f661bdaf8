"""Exact classifiers for many episodes at once, from the products of support and query features alone.

A linear classifier with an L2 penalty lies in the span of the support (representer theorem; Schoelkopf, Herbrich and
Smola 2001), so an episode needs only its Gram matrix. scikit-learn's estimator is the definition; every solver says for
each episode whether its own answer is certain to be that estimator's, and what is not certain goes to scikit-learn.
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
"""What an inner product in single precision may be off by, as a share of the features' squared length."""
DOUBLE_ERROR = 1e-14
"""The same in double precision, in which scikit-learn computes."""
GRADIENT_NORM, GRADIENT_NORM_IN_DOUBLE = 3e-7, 1e-8
"""Where the descent ends: the objective is 1-strongly convex in the weights, so the gradient's norm bounds the distance
to the solution. In single precision more would be in vain."""
NEARLY = 2e-7
"""Where its first part ends, which is in single precision, as a share of C times the square root of the number of
weights; rounding leaves a fifth of that."""
DISTANCE = 1e-5
"""How far the weights may be from the solution, all things counted, for the answer to be certain."""
REFERENCE_ERROR = 1e-8
"""Where the estimator's descent is ended: the largest entry of its gradient, as a mean over the support."""
MIN_ALPHA = 1e-7
"""A smaller penalty of ridge regression leaves a system that double precision does not solve."""
MAX_ITERATIONS = 300
MAX_SQUARED_LENGTH, ANY_SQUARED_LENGTH = 1024.0, 9.0
"""Squared lengths of features, times C where that is above 1, at which the estimator's own probabilities were within
1e-4 of the solution, as measured on eight kinds of features; and those that are short enough for any C."""
SMALL_PRODUCT, SMALL_RESULT = 1_000_000, 1_200
"""Multiplications in a product of two matrices that numpy's BLAS has quick kernels for, see `multiply`; and where the
second is the transpose of one in memory, values of the result."""
FEWEST = 16
"""Columns of a product that are worth a call."""
SMALLEST = 1e-20
"""Divisors, which are squared norms of gradients and directions, are at least that: what is smaller is rounding."""


@dataclass(frozen=True, kw_only=True)
class GramBlock:
    """Inner products of the images of several episodes of one form, support class by class.

    Attributes:
        support: (n_episodes, n_support, n_support) float32, or float64 as all that follows.
        of_query: Returns for weights w, (n_episodes, k, n_support), the products of each query with the weighted sums
            of the support, sum_i w_i <x_i, query>: (n_episodes, k, n_query). For None it returns the products with each
            support image, k being n_support.
        longest: (n_episodes,), the largest squared length of an episode's features.
        reach: (n_episodes,), a bound of the same before their centre was taken off them.
        error: (n_episodes,), by how much the product of two of them may be off, here or in the estimator.
        n_way: Classes an episode.
        n_shot: Support images a class.
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
    """What a solver found.

    Attributes:
        predicted: (n_episodes, n_query) int64, episode labels.
        probabilities: (n_episodes, n_query, n_way) floating, or None if the classifier has none.
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

    scikit-learn fits two classes with one weight vector, whose penalty is twice that of the two symmetric ones here:
    C counts half.

    The estimator is not at the solution either. Where its descent ends, an entry of its gradient may be C n times
    `REFERENCE_ERROR`: by the curvature of at least 1 in the weights, and of C n / K in the intercepts while they are
    small, that moves the logits. Measured at C from 1e-4 to 100, two of them came 2.4 such units apart; four are
    counted.
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
    """Return weights A (b, n_way, n_support) and intercepts (b, n_way, 1), and how far off each may be, (b,) twice.

    The first part of the descent is in single precision, the second starts from what the first found, so that of its
    errors nothing remains.

    The distance of the weights is bounded by the norm of the gradient, and that is known up to the error of the Gram
    matrix, which for features that are all but equal is as large as the matrix itself: |D G D^T| is off by up to
    sum_k |D_k|_1^2 times the error of a product. It is infinite where the descent did not end. The intercepts have no
    penalty: theirs is the gradient over its curvature at W = 0, and they matter where C, and so the weights, are small.

    Args:
        gram: (b, n_support, n_support) float64, rows centred.
        block: What it is of.
        C: Weight of an image's cross-entropy.
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
    """Where a descent ended: weights (b, n_way, n_support), intercepts (b, n_way, 1), gradients of both, norm (b,)."""

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
    """Go down from weights A (b, n_way, n_support) and intercepts b (b, n_way, 1) to a gradient of the wanted norm.

    Preconditioned conjugate gradients in the span of the support (Polak and Ribiere 1969, with beta >= 0). With the
    row-centred Gram matrix G and P = softmax(A G + b), the gradient is D = A + C (P - Y) minus its rows' means in A,
    and the sums of C (P - Y) in b; the inner product in A is that of the weights W, <U, V> = sum (U G) V, and steps in
    b are scaled by K / (C n), the inverse of their curvature at W = 0. A step is Newton's along its direction: its
    curvature needs no product with G, so that an iteration needs one.

    Args:
        gram: (b, n_support, n_support) G, in the precision of all that is computed.
        target: (n_way, n_support), C Y.
        C: Weight of an image's cross-entropy.
        weights: Where to start; rows sum to zero.
        intercept: The same.
        wanted_norm: Where to end, at the latest after `MAX_ITERATIONS`.
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
        norm = ((squared - scale * of_sums).abs_() + of_sums).sqrt_()  # a negative square is an error of the matrix
        is_done = ~(norm > wanted_norm)  # stays where it is, however small the numbers become; or it diverged
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

    On a CPU, numpy's BLAS takes a third of the time of torch's for small products, and two thirds in double precision;
    products in single precision are cut into small ones along n.
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
    with np.errstate(over="ignore", invalid="ignore"):  # an episode that diverges is told by its norm
        if n_at_once >= n_columns:
            return torch.from_numpy(np.matmul(*factors, out=None if out is None else out.numpy()))
        out = torch.empty(*left.shape[:2], n_columns) if out is None else out
        for start in range(0, n_columns, n_at_once):
            part = slice(start, start + n_at_once)
            np.matmul(factors[0], factors[1][:, :, part], out=out.numpy()[:, :, part])
    return out


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Return the sums of the products of two stacks of matrices, (b,)."""
    import torch

    products: Tensor = torch.linalg.vecdot(left.flatten(1), right.flatten(1))
    return products


def ridge(block: GramBlock, *, alpha: float = 1.0) -> Solution:
    """Fit ridge regression on -1/+1 targets with a free intercept, in its dual (Saunders, Gammerman and Vovk 1998).

    The kernel is the double-centred Gram matrix K = X X^T. The dual's columns sum to zero, so that of the centring of a
    query's products only that by the support's row means remains. An error of a product counts twice: in the query's,
    and in the kernel's, of which a value has up to |X^T (K + alpha)^-1| <= 1 / (2 sqrt(alpha)) times as much.
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
    predicted, is_clear = _decide(values, block.error * dual.abs().sum(1).amax(1) * (1 + of_kernel))
    return Solution(
        predicted=predicted,
        probabilities=None,
        is_certain=is_clear & (failed == 0) & (block.reach <= MAX_SQUARED_LENGTH),
    )


def nearest_centroid(block: GramBlock) -> Solution:
    """Choose the nearest class mean in Euclidean distance; without probabilities, which scikit-learn scales anew."""
    import torch

    n_episodes, n_way, n_shot = len(block.support), block.n_way, block.n_shot
    classes = torch.eye(n_way, dtype=block.support.dtype, device=block.support.device)
    mean = classes.repeat_interleave(n_shot, 1) / n_shot
    of_query = block.of_query(mean.expand(n_episodes, -1, -1)).transpose(1, 2).double()
    blocks = block.support.view(n_episodes, n_way, n_shot, n_way, n_shot)
    squared = blocks.double().mean((2, 4)).diagonal(dim1=1, dim2=2)
    predicted, is_clear = _decide(of_query - squared[:, None] / 2, 2 * block.error)
    is_certain = is_clear & (block.reach <= MAX_SQUARED_LENGTH)
    return Solution(predicted=predicted, probabilities=None, is_certain=is_certain)


def nearest_neighbours(block: GramBlock, *, n_neighbors: int) -> Solution:
    """Let the nearest support images vote, each with the same weight; ties of votes go to the lower label.

    An answer is certain where the last neighbour that votes and the first that does not are at clearly different
    distances.
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
    """Return the best class of each query (b, n_query), and for each episode whether all of them are clear (b,).

    Args:
        values: (b, n_query, n_way) decision values.
        error: (b,) by how much a value may be off; the two best must be twice as far apart, twice over for safety.
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
