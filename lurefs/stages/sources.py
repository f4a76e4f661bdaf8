"""Whether query images come from sources that base training, or their own support, has images of."""

from __future__ import annotations

import numpy as np

from episodes.manifest import Manifest
from lurefs.runs.summary import SourceShares
from lurefs.stages.plan import Benchmark, Plan

MAX_EPISODES = 10_000
"""Episodes that are counted at most."""


def source_shares(plan: Plan, benchmark: Benchmark, manifest: Manifest) -> SourceShares | None:
    """Return the shares of query images by known sources; None if the data have one source or none.

    Images of another data set than the run's own have other sources than the base images.
    """
    dataset, images = benchmark.images.dataset, benchmark.images
    if len(dataset.source_names) < 2:
        return None
    sources = dataset.sources[images.rows]
    block = manifest.prefix(min(len(manifest), MAX_EPISODES)).block
    n_sources = len(dataset.source_names)
    support, query = (sources[rows] for rows in (block.support, block.query))
    episodes = np.repeat(np.arange(len(block)), block.n_ways) * n_sources  # of each class of each episode
    of_support, of_query = (np.repeat(episodes, sizes) for sizes in (block.n_support, block.n_query))
    base = None
    if not plan.config.frozen and dataset.identity == plan.dataset.identity:
        learned = np.concatenate([plan.images.train, plan.images.val])
        base = float(np.isin(query, plan.dataset.sources[learned]).mean())
    return SourceShares(
        n_sources=len(np.unique(sources)),
        base=base,
        support=float(np.isin(of_query + query, of_support + support).mean()),
    )
