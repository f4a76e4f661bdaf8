from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from lurefs.boundary import apply_strategy, count_changes, probe_images
from lurefs.config import RunConfig
from lurefs.errors import UserError
from lurefs.images import load_images
from lurefs.plan import make_plan
from lurefs.stage import plan_backbone
from lurefs.unlearn.contract import Changes, ProbeImages

NO_IMAGES = ProbeImages(draw=lambda source, n_images: iter(()))


def test_probe_images_come_from_what_is_asked_for(make_config: Callable[..., RunConfig]) -> None:
    plan = make_plan(make_config())
    images = load_images(
        plan.dataset, plan.images.train, plan.classes.base, torch.device("cpu"), labels=plan.given_labels
    )
    draw = probe_images(plan_backbone(plan), images, plan.chunks, 2, seed=0).draw
    for source, rows in (
        ("seen", plan.chunks[2].train),
        ("oldest", plan.chunks[0].train),
        ("new", np.intersect1d(plan.chunks[2].new, plan.chunks[2].train)),
    ):
        labels = torch.cat([batch[1] for batch in draw(source, 10_000)])  # type: ignore[arg-type]
        expected = images.labels[images.positions(rows)]
        assert torch.equal(labels.sort().values, expected.sort().values)
    assert sum(len(batch[1]) for batch in draw("seen", 7)) == 7


def test_a_strategy_that_changes_nothing_is_refused() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(UserError, match="'idle' changed no weight"):
        apply_strategy(lambda *_: Changes(masks={}), "idle", model, nn.Linear(2, 1), NO_IMAGES, seed=0)


def test_changes_are_counted_for_every_parameter() -> None:
    counts = count_changes(nn.Linear(2, 3), Changes(masks={"weight": torch.eye(3, 2, dtype=torch.bool)}))
    assert counts == {"weight": (2, 6), "bias": (0, 3)}
    assert count_changes(nn.Linear(2, 3), Changes(masks={})) == {"weight": (0, 6), "bias": (0, 3)}
