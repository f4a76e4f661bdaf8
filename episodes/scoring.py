"""Scoring of a probe on the episodes of a bank: one row of results per episode, in blocks of episodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import FloatArray
from episodes.bank import FeatureBank
from episodes.executors import Executor
from episodes.files import release_pages
from episodes.fitting import ProbeError, fit_episode, proper_scores, score_episode
from episodes.inner_products import Features, Products, SharedProducts
from episodes.manifest import Manifest, draw_manifest
from episodes.metrics import count_by_confidence, empty_reliability
from episodes.probes import Probe, converged, logistic_regression
from episodes.sampler import EpisodeSpec
from episodes.solver import Solver, find_solver
from episodes.stopping import BLOCK_SIZE, MIN_EPISODES, until_narrow
from episodes.table import EpisodeTable, collect
from episodes.transforms import FeatureTransform, fit_transform

MAX_BATCHED_EPISODES = 1024
BATCHED_VALUES = 2**21
"""Values per block of the batched solver: few enough for the cache, enough to be worth the calls."""
SINGLE_EPISODES = 16
"""Episodes per block if scikit-learn fits them one by one."""
DOUBLE_EPISODES = 32
"""Episodes per block that is solved in double precision."""
LARGE_BYTES, LARGE_RANGE = 2**30, 12 * 1024
"""Size of features of which only those of this many episodes are prepared at a time."""
BATCHED_RANGE, SINGLE_RANGE = 4096, 128
"""Episodes per item of an executor: long enough that sending them costs little."""
STOPPING_RANGES = {BATCHED_RANGE: 10 * BLOCK_SIZE, SINGLE_RANGE: 2 * BLOCK_SIZE}
"""The same if scoring may stop early: short enough that little is computed in vain."""
AUDIT_SHARE = 0.005
MIN_AUDITED = 20
AUDIT_TOLERANCE = 1e-4
"""Largest difference allowed between probabilities of the batched solver and scikit-learn's."""


class AuditError(RuntimeError):
    """The batched solver and scikit-learn disagree on an episode of which the solver was certain."""


def evaluate(
    bank: FeatureBank,
    spec: EpisodeSpec,
    probe: Probe | None = None,
    *,
    seed: int = 0,
    target_ci95: float | None = None,
) -> EpisodeTable:
    """Draw episodes on a bank and score a probe on them.

    Args:
        bank: The features.
        spec: The form and number of the episodes.
        probe: The probe; None is logistic regression at C = 1 on features of length one.
        seed: Seed of the draw.
        target_ci95: See `score`.

    Raises:
        SpecError: There are too few classes, or too few images in one of them.
        ProbeError: scikit-learn refuses to fit the probe on an episode.
    """
    probe = probe or Probe(name="logistic_regression", classifier=logistic_regression())
    manifest = draw_manifest(bank, spec, seed=seed)
    blocks = score(bank, manifest, probe, target_ci95=target_ci95)
    return collect(blocks, {"manifest": manifest.hash, "probe": probe.settings})


def score(
    bank: FeatureBank,
    manifest: Manifest,
    probe: Probe,
    *,
    query_bank: FeatureBank | None = None,
    device: str = "cpu",
    audit_share: float = AUDIT_SHARE,
    chosen: range | None = None,
    target_ci95: float | None = None,
    with_values: bool = False,
) -> Iterator[EpisodeTable]:
    """Fit the probe on each episode's support and measure it on its query; yield the results block by block.

    If the probe has a batched solver, blocks of episodes are solved together. Episodes of which the solver is not
    certain are solved in double precision, and if that is not enough, fitted by scikit-learn to convergence. A share of
    the certain episodes (at least 20, unless `audit_share` is 0) is fitted by scikit-learn as well, and a disagreement
    ends the evaluation. With `probe.solver` `sklearn` the literal estimator is fitted, episode by episode. All work is
    on one thread, in double precision except batched inner products and the query probabilities of batched episodes.

    Args:
        bank: The features.
        manifest: The episodes, drawn on the bank's images.
        probe: The probe to fit.
        query_bank: Features of the queries, if they come from elsewhere: the same images, row by row, in another state.
            Features of the support always come from `bank`.
        device: Device of the batched solver.
        audit_share: Share of batched episodes to check; 0 checks none.
        chosen: Range of consecutive episodes; None is all.
        target_ci95: Stop as soon as the 95 % interval of the mean accuracy over episodes has this half width, a
            fraction, checked after every 100 episodes from 200 on (see `episodes.stopping`). None scores all.
        with_values: Whether the results hold the probabilities of all queries, or their decision values.

    Raises:
        ValueError: The manifest was drawn on other images than the bank's, the two banks do not belong together, or it
            lacks some of the chosen episodes.
        ProbeError: scikit-learn refuses to fit the probe on an episode, or the transform has no reference, or one that
            does not suit it or the bank.
        AuditError: The batched solver is wrong on an episode of which it was certain.
    """
    block_size = None if target_ci95 is None else BLOCK_SIZE
    chosen = range(len(manifest)) if chosen is None else chosen
    blocks = _score_blocks(bank, query_bank, manifest, probe, device, audit_share, block_size, with_values, chosen)
    return blocks if target_ci95 is None else until_narrow(blocks, attrgetter("accuracy"), target_ci95)


def _score_blocks(
    bank: FeatureBank,
    query_bank: FeatureBank | None,
    manifest: Manifest,
    probe: Probe,
    device: str,
    audit_share: float,
    block_size: int | None,
    with_values: bool,
    chosen: range,
) -> Iterator[EpisodeTable]:
    """Yield the results in blocks of `block_size` episodes; None chooses the fastest size."""
    from threadpoolctl import threadpool_limits

    if manifest.images_digest != bank.images_digest:
        raise ValueError(
            f"the manifest was drawn on images {manifest.images_digest[:12]}, the bank has {bank.images_digest[:12]}"
        )
    query_bank = query_bank or bank
    if query_bank.images_digest != bank.images_digest or query_bank.features.shape != bank.features.shape:
        raise ValueError(
            f"the two banks hold images {bank.images_digest[:12]} and {query_bank.images_digest[:12]}, with features "
            f"of shape {bank.features.shape} and {query_bank.features.shape}; both must be equal"
        )
    if chosen.step != 1 or not 0 <= chosen.start <= chosen.stop <= len(manifest):
        raise ValueError(f"the chosen episodes are {chosen}, but the manifest has range(0, {len(manifest)})")
    n_features = bank.features.shape[1]
    if probe.reference is not None and probe.reference.shape[1:] != (n_features,):
        raise ProbeError(f"the reference has the shape {probe.reference.shape}, but the bank has {n_features} features")
    features, transform = Features(support=bank.features, query=query_bank.features), _fitted(probe)
    solver = _solver_of(probe, manifest)
    audited = _choose_audited(len(manifest), audit_share)
    if block_size is not None:  # scoring may stop after the first episodes
        audited |= _choose_audited(MIN_EPISODES, audit_share)

    def score_one_by_one(part: range) -> EpisodeTable:
        return collect([score_episode(features, manifest[index], probe, transform) for index in part], {})

    with threadpool_limits(limits=1):

        def scored(episodes: range) -> Iterator[EpisodeTable]:
            score_part: Callable[[range], EpisodeTable] = score_one_by_one
            n_fastest = SINGLE_EPISODES
            if solver is not None:
                products = Products(features, manifest, transform, device, episodes)
                batch = _Batch(features, manifest, probe, transform, solver, products)
                score_part, n_fastest = partial(batch.score, audited=audited), batch.n_episodes
            for part in _parts(episodes, block_size or n_fastest):
                tables = []
                for block in _parts(part, n_fastest):
                    table = score_part(block)
                    tables.append(table if with_values else replace(table, values=None))
                    release_pages(features.support)
                    release_pages(features.query)
                yield tables[0] if block_size is None else collect(tables, {})

        n_prepared = max(len(chosen), 1)
        if solver is not None and bank.features.nbytes > LARGE_BYTES:
            n_prepared = LARGE_RANGE - LARGE_RANGE % (block_size or 1)  # so that all blocks are the same
        for episodes in _parts(chosen, n_prepared):
            yield from scored(episodes)


def _fitted(probe: Probe) -> FeatureTransform:
    try:
        return fit_transform(probe.transform, probe.reference)
    except ValueError as error:
        raise ProbeError(f"{probe.name} cannot be fitted: {error}") from error


def _solver_of(probe: Probe, manifest: Manifest) -> Solver | None:
    return find_solver(probe.classifier) if probe.solver == "auto" and manifest.spec.is_uniform else None


def _parts(chosen: range, size: int) -> Iterator[range]:
    return (range(start, min(start + size, chosen.stop)) for start in chosen[::size])


def score_in_parallel(
    bank: FeatureBank,
    manifest: Manifest,
    probe: Probe,
    executor: Executor,
    *,
    query_bank: FeatureBank | None = None,
    device: str = "cpu",
    audit_share: float = AUDIT_SHARE,
    target_ci95: float | None = None,
    with_values: bool = False,
) -> Iterator[EpisodeTable]:
    """Score like `score`, with ranges of episodes as items of the executor; the results are the same."""
    n_range = SINGLE_RANGE if probe.solver == "sklearn" or find_solver(probe.classifier) is None else BATCHED_RANGE
    block_size = None
    if target_ci95 is not None:
        n_range, block_size = STOPPING_RANGES[n_range], BLOCK_SIZE
    shared = (bank, query_bank, manifest, probe, device, audit_share, block_size, with_values)
    results = executor(_score_range, shared, list(_parts(range(len(manifest)), n_range)))
    blocks = (block for blocks in results for block in blocks)
    return blocks if target_ci95 is None else until_narrow(blocks, attrgetter("accuracy"), target_ci95)


def _score_range(
    bank: FeatureBank,
    query_bank: FeatureBank | None,
    manifest: Manifest,
    probe: Probe,
    device: str,
    audit_share: float,
    block_size: int | None,
    with_values: bool,
    chosen: range,
) -> list[EpisodeTable]:
    blocks = list(
        _score_blocks(bank, query_bank, manifest, probe, device, audit_share, block_size, with_values, chosen)
    )
    return [collect(blocks, {})] if block_size is None else blocks


def score_grid(
    bank: FeatureBank, manifest: Manifest, probes: Sequence[Probe], executor: Executor, *, device: str = "cpu"
) -> Iterator[list[EpisodeTable]]:
    """Score several settings of one probe on the same episodes, each as `score` does alone, without its audit.

    Those with the same transform are solved block by block in turn, so that inner products are computed once for all.

    Yields:
        For one range of episodes after another, the results of each of the probes.

    Raises:
        ProbeError: scikit-learn refuses one of them, or a transform does not suit the bank.
    """
    n_single = sum(_solver_of(probe, manifest) is None for probe in probes)
    n_range = max(SINGLE_RANGE // n_single, 1) if n_single else BATCHED_RANGE
    parts = list(_parts(range(len(manifest)), n_range))
    yield from executor(_score_grid_range, (bank, manifest, tuple(probes), device), parts)


def _score_grid_range(
    bank: FeatureBank, manifest: Manifest, probes: Sequence[Probe], device: str, chosen: range
) -> list[EpisodeTable]:
    found: dict[int, EpisodeTable] = {}
    together: dict[str, dict[int, tuple[Probe, Solver]]] = {}
    for place, probe in enumerate(probes):
        solver = _solver_of(probe, manifest)
        if solver is None:
            found[place] = collect(score(bank, manifest, probe, device=device, audit_share=0, chosen=chosen), {})
        else:
            together.setdefault(probe.transform, {})[place] = probe, solver
    for solved in together.values():
        found |= _solve_together(bank, manifest, solved, device, chosen)
    return [found[place] for place in range(len(probes))]


def _solve_together(
    bank: FeatureBank, manifest: Manifest, solved: Mapping[int, tuple[Probe, Solver]], device: str, chosen: range
) -> dict[int, EpisodeTable]:
    """Score probes of one transform by their solvers, block by block in turn."""
    from threadpoolctl import threadpool_limits

    features = Features(support=bank.features, query=bank.features)
    transform = _fitted(next(iter(solved.values()))[0])
    with threadpool_limits(limits=1):
        products = SharedProducts(features, manifest, transform, device, chosen)
        batches = {
            place: _Batch(features, manifest, probe, transform, solver, products)
            for place, (probe, solver) in solved.items()
        }
        tables: dict[int, list[EpisodeTable]] = {place: [] for place in batches}
        for part in _parts(chosen, next(iter(batches.values())).n_episodes):
            for place, batch in batches.items():
                tables[place].append(batch.score(part, audited=frozenset()))
    return {place: collect(blocks, {}) for place, blocks in tables.items()}


class _Batch:
    """Scoring of blocks of a manifest by the batched solver."""

    def __init__(
        self,
        raw: Features,
        manifest: Manifest,
        probe: Probe,
        transform: FeatureTransform,
        solver: Solver,
        products: Products,
    ) -> None:
        self.raw, self.manifest, self.probe, self.transform, self.solver = raw, manifest, probe, transform, solver
        self.products = products
        n_support = manifest.support.shape[1]
        n_fitting = max(8, BATCHED_VALUES // (n_support * (8 * manifest.spec.n_way + n_support)))
        power_of_two = 1 << (n_fitting.bit_length() - 1)  # so that ranges have the same blocks as the whole
        self.n_episodes = min(power_of_two, MAX_BATCHED_EPISODES)

    def score(self, part: range, *, audited: frozenset[int]) -> EpisodeTable:
        """Score some consecutive episodes."""
        start, stop = part.start, part.stop
        spec, began = self.manifest.spec, time.perf_counter()
        predicted, probabilities, values, is_certain = self._solve(part)
        labels = np.repeat(np.arange(spec.n_way), spec.n_query)
        is_correct = predicted == labels
        accuracy = is_correct.mean(axis=1)
        nll, brier = proper_scores(probabilities, labels, len(accuracy))
        pooled = empty_reliability()
        if probabilities is not None:
            pooled = count_by_confidence(probabilities.max(axis=2)[is_certain], is_correct[is_certain])
        is_converged = np.ones(len(accuracy), dtype=bool)
        seconds = np.full(len(accuracy), (time.perf_counter() - began) / len(accuracy))
        for position in np.flatnonzero(~is_certain):
            row = score_episode(
                self.raw,
                self.manifest[start + int(position)],
                self._converged(),
                self.transform,
                with_probabilities=probabilities is not None,
            )
            accuracy[position], is_converged[position] = row.accuracy[0], row.converged[0]
            if probabilities is not None:
                nll[position], brier[position], pooled = row.nll[0], row.brier[0], pooled + row.reliability
            assert row.predicted is not None
            predicted[position] = row.predicted[0]
            if values is not None and row.values is not None:
                values[position] = row.values[0]
            seconds[position] += row.seconds[0]
        checked = [index for index in range(start, stop) if index in audited and is_certain[index - start]]
        for index in checked:
            found = None if probabilities is None else probabilities[index - start]
            self._audit(index, predicted[index - start], found)
        n_single = int((~is_certain).sum())
        return EpisodeTable(
            index=np.arange(start, stop),
            classes=self.manifest.classes[start:stop],
            accuracy=accuracy,
            nll=nll,
            brier=brier,
            converged=is_converged,
            seconds=seconds,
            reliability=pooled,
            predicted=predicted,
            n_by_solver={"batched": len(accuracy) - n_single, "scikit-learn": n_single, "audited": len(checked)},
            values=values,
        )

    def _solve(
        self, part: range
    ) -> tuple[NDArray[np.int16], NDArray[Any] | None, NDArray[Any] | None, NDArray[np.bool_]]:
        """Return predictions, probabilities or None, these or decision values, and certainty.

        Uncertain episodes are solved again in double precision.
        """
        solution = self.solver(self.products.block(part.start, part.stop))
        predicted, is_certain = solution.predicted.cpu().numpy().astype(np.int16), solution.is_certain.cpu().numpy()
        probabilities = None if solution.probabilities is None else solution.probabilities.cpu().numpy()
        values = probabilities if solution.values is None else solution.values.cpu().numpy()
        uncertain = np.flatnonzero(~is_certain)
        for places in np.split(uncertain, range(DOUBLE_EPISODES, len(uncertain), DOUBLE_EPISODES)):
            if not len(places):
                continue
            again = self.solver(self.products.block_in_double(part.start + places))
            is_certain[places] = again.is_certain.numpy()
            predicted[places] = again.predicted.numpy()
            if probabilities is not None and again.probabilities is not None:
                probabilities[places] = again.probabilities.numpy()
            elif values is not None and again.values is not None:
                values[places] = again.values.numpy()
        return predicted, probabilities, values, is_certain

    def _converged(self) -> Probe:
        return replace(self.probe, classifier=converged(self.probe.classifier))

    def _audit(self, index: int, predicted: NDArray[np.int16], probabilities: FloatArray | None) -> None:
        fit = fit_episode(self.raw, self.manifest[index], self._converged(), self.transform)
        n_different = int((fit.predicted != predicted).sum())
        gap = 0.0
        if probabilities is not None and fit.probabilities is not None:
            gap = float(np.abs(fit.probabilities - probabilities).max())
        if n_different or gap > AUDIT_TOLERANCE:
            raise AuditError(
                f"{self.probe.name}, episode {index}: the batched solver differs from scikit-learn in {n_different} "
                f"predictions, and by up to {gap:.1e} in a probability; set the probe's solver to sklearn and report it"
            )


def _choose_audited(n_episodes: int, share: float) -> frozenset[int]:
    if share <= 0:
        return frozenset()
    n_audited = min(n_episodes, max(MIN_AUDITED, round(share * n_episodes)))
    chosen = np.random.default_rng(0).choice(n_episodes, n_audited, replace=False)
    return frozenset(int(index) for index in chosen)
