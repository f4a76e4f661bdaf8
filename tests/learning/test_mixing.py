from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lurefs.config.learning_schema import AugmentConfig
from lurefs.learning.mixing import mix, mixes
from lurefs.seeding import seeded_numpy


def batch(n: int = 6) -> tuple[Tensor, Tensor]:
    images = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(n) % 4


@pytest.mark.parametrize("n", [6, 7])
def test_mixup_adds_each_image_and_its_opposite_by_a_share_of_a_beta_distribution(n: int) -> None:
    images, labels = batch(n)
    seed = 12345678901
    with seeded_numpy(seed % 2**32):
        np.random.rand()  # timm draws whether the batch is mixed
        share = np.random.beta(0.4, 0.4)
    mixed, targets = mix(images.clone(), labels, 4, AugmentConfig(mixup=0.4), seed)
    one_hot = torch.nn.functional.one_hot(labels, 4).float()
    for i in range(6):
        torch.testing.assert_close(mixed[i], share * images[i] + (1 - share) * images[5 - i])
        torch.testing.assert_close(targets[i], share * one_hot[i] + (1 - share) * one_hot[5 - i])
    if n == 7:
        assert torch.equal(mixed[6], images[6]) and torch.equal(targets[6], one_hot[6])


def test_cutmix_pastes_a_box_and_its_share_of_the_area_is_in_the_labels() -> None:
    for seed in range(20):
        images, labels = batch()
        mixed, targets = mix(images.clone(), labels, 4, AugmentConfig(cutmix=1.0), seed)
        is_own = (mixed == images).all(1)
        assert torch.equal(is_own | (mixed == images.flip(0)).all(1), torch.ones(6, 8, 8, dtype=torch.bool))
        share = is_own[0].float().mean()
        expected = share * torch.nn.functional.one_hot(labels[0], 4) + (1 - share) * torch.nn.functional.one_hot(
            labels[5], 4
        )
        torch.testing.assert_close(targets[0], expected)


def test_the_draw_depends_on_its_seed_alone_and_leaves_the_global_generator_alone() -> None:
    settings = AugmentConfig(mixup=0.8, cutmix=1.0)
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    images, labels = batch()
    first, again, other = (mix(images.clone(), labels, 4, settings, seed)[0] for seed in (1, 1, 2))
    assert np.random.rand() == expected
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_single_image_stays_and_nothing_is_mixed_by_default() -> None:
    images, labels = batch(1)
    mixed, targets = mix(images.clone(), labels, 4, AugmentConfig(mixup=1.0), 0)
    assert torch.equal(mixed, images) and targets.tolist() == [[1, 0, 0, 0]]
    assert not mixes(AugmentConfig())
    assert mixes(AugmentConfig(cutmix=0.1))
