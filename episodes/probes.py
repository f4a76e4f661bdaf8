"""Probes: unfitted scikit-learn classifiers for frozen features, with defaults that were never tuned on queries."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Classifier = Any

SEED = 0
"""The `random_state` of classifiers that have none, so that a score can be repeated."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A probe: a classifier, and the transform applied to the features before it.

    Attributes:
        name: Its key in result files.
        classifier: An unfitted scikit-learn classifier; a copy is fitted on every episode. One that draws at random
            without a seed is replaced by a copy with the seed `SEED`.
        transform: A chain of feature transforms, see `episodes.transforms`.
        reference: (n, n_features) features to fit the transform on, if it needs any.
        solver: `auto` solves many episodes at once where that gives the converged estimator's answer; `sklearn`
            always fits scikit-learn's own estimator, one episode after another.
        settings: JSON-serialisable description of the above, stored with the results.
    """

    name: str
    classifier: Classifier
    transform: str = "l2"
    reference: NDArray[np.float32] | None = None
    solver: Literal["auto", "sklearn"] = "auto"
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.solver not in ("auto", "sklearn"):
            raise ValueError(f"solver is {self.solver!r}; it must be 'auto' or 'sklearn'")
        check_classifier(self.classifier)
        object.__setattr__(self, "classifier", seeded(self.classifier))


def check_classifier(classifier: Any) -> None:
    """Refuse what is no scikit-learn classifier: a regression or a clustering has no accuracy.

    Raises:
        ValueError: `sklearn.base.is_classifier` says no.
    """
    from sklearn.base import is_classifier

    name = type(classifier).__name__
    if not hasattr(classifier, "get_params") or not hasattr(classifier, "fit"):
        raise ValueError(f"{name} is no scikit-learn estimator")
    if not is_classifier(classifier):
        raise ValueError(f"{name} is no classifier: it does not choose among the classes of an episode")


def unseeded(classifier: Classifier) -> list[str]:
    """Return the names of a classifier's seeds that are not set, also of the estimators within it."""
    settings = classifier.get_params(deep=True)
    return [name for name, value in settings.items() if name.split("__")[-1] == "random_state" and value is None]


def seeded(classifier: Classifier) -> Classifier:
    """Return a classifier whose unset seeds are `SEED`: itself if all are set, otherwise an unfitted copy."""
    from sklearn.base import clone

    seeds = dict.fromkeys(unseeded(classifier), SEED)
    return clone(classifier).set_params(**seeds) if seeds else classifier


def fit_quietly(classifier: Classifier, features: NDArray[Any], labels: NDArray[Any]) -> bool:
    """Fit a classifier without showing its warnings, and return whether the fit converged."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught, np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(features, labels)
    return not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)


def converged(classifier: Classifier) -> Classifier:
    """Return an unfitted copy that iterates to convergence.

    For logistic regression, `newton-cg` replaces `lbfgs`. It minimises the same objective and comes nearer to the
    solution in a half to a tenth of the time; `lbfgs` may end before `tol` without a warning.
    """
    from sklearn.base import clone

    copy = clone(classifier)
    if type(classifier).__name__ == "LogisticRegression":
        copy.set_params(tol=1e-8, max_iter=10_000)
        if copy.solver == "lbfgs":
            copy.set_params(solver="newton-cg")
    return copy


def logistic_regression(C: float = 1.0, max_iter: int = 1000, tol: float = 1e-6, **params: Any) -> Classifier:  # noqa: N803
    """Return multinomial logistic regression with an L2 penalty, fitted to convergence.

    scikit-learn's own `tol` of 1e-4 stops early, at a point that depends on the basis of the features.
    """
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, max_iter=max_iter, tol=tol, **params)


def ridge(alpha: float = 1.0, **params: Any) -> Classifier:
    """Return ridge regression on -1/+1 targets. It has no probabilities, so only accuracy is measured."""
    from sklearn.linear_model import RidgeClassifier

    return RidgeClassifier(alpha=alpha, **params)


def nearest_centroid(**params: Any) -> Classifier:
    """Return a classifier by the nearest class mean in Euclidean distance (prototypical classification)."""
    from sklearn.neighbors import NearestCentroid

    return NearestCentroid(**params)


def knn(n_neighbors: int = 1, **params: Any) -> Classifier:
    """Return a k-nearest-neighbour classifier: a vote of the nearest support images."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=n_neighbors, **params)


def linear_svm(C: float = 1.0, max_iter: int = 10_000, **params: Any) -> Classifier:  # noqa: N803
    """Return a linear SVM, one class against the rest. It has no probabilities, so only accuracy is measured."""
    from sklearn.svm import LinearSVC

    return LinearSVC(C=C, max_iter=max_iter, random_state=0, **params)


def lda(solver: str = "lsqr", shrinkage: str | float | None = "auto", **params: Any) -> Classifier:
    """Return linear discriminant analysis with a shrunk covariance. It needs at least two shots."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver=solver, shrinkage=shrinkage, **params)
