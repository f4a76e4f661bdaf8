from __future__ import annotations

import numpy as np
import pytest
import torch

from episodes.inner_products import Features, Products
from episodes.manifest import make_manifest
from episodes.sampler import EpisodeSpec
from episodes.solver import DOUBLE_ERROR, GramBlock
from episodes.transforms import fit_transform

N_EPISODES, N_SUPPORT = 5, 6
LABELS = np.repeat(np.arange(4), 10)
MANIFEST = make_manifest(
    LABELS, EpisodeSpec(n_way=3, n_shot=2, n_query=2, n_episodes=N_EPISODES), seed=0, images_digest="abc"
)
RNG = np.random.default_rng(0)
SUPPORT = (5.0 + RNG.normal(size=(40, 7))).astype(np.float32)
QUERY = (5.0 + 3 * RNG.normal(size=(40, 7))).astype(np.float32)
"""The same images by another backbone: longer than the support's."""


def block_of(query: np.ndarray, *, in_double: bool) -> GramBlock:
    features = Features(support=SUPPORT, query=query)
    products = Products(features, MANIFEST, fit_transform("none"), "cpu", range(N_EPISODES))
    return products.block_in_double(np.arange(N_EPISODES)) if in_double else products.block(0, N_EPISODES)


@pytest.mark.parametrize("in_double", [False, True], ids=["single", "double"])
@pytest.mark.parametrize("query", [SUPPORT, QUERY], ids=["one bank", "two banks"])
def test_products_and_lengths_are_those_of_features_less_the_centre_of_the_support(
    query: np.ndarray, in_double: bool
) -> None:
    block = block_of(query, in_double=in_double)
    centre = SUPPORT.astype(np.float64).mean(axis=0)
    support, queries = SUPPORT[MANIFEST.support] - centre, query[MANIFEST.query] - centre
    weights = RNG.normal(size=(N_EPISODES, 4, N_SUPPORT))
    given = torch.tensor(weights, dtype=block.support.dtype)
    expected = {
        "support": support @ support.transpose(0, 2, 1),
        "query": support @ queries.transpose(0, 2, 1),
        "weighted": weights @ support @ queries.transpose(0, 2, 1),
        "longest": np.square(np.concatenate([support, queries], axis=1)).sum(2).max(1),
    }
    found = {
        "support": block.support,
        "query": block.of_query(None),
        "weighted": block.of_query(given),
        "longest": block.longest,
    }
    for name, values in found.items():
        np.testing.assert_allclose(values.numpy(), expected[name], rtol=1e-4, atol=1e-4, err_msg=name)
    assert (block.longest > 20).any() == (query is QUERY)


def test_the_error_in_double_precision_counts_the_centre_that_the_estimator_does_not_take_off() -> None:
    block = block_of(SUPPORT, in_double=True)
    centre = SUPPORT.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose((block.error - DOUBLE_ERROR * block.longest).numpy(), DOUBLE_ERROR * centre @ centre)
