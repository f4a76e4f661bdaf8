from __future__ import annotations

import timm
import torch

from lurefs import plugins
from lurefs.learning.unlearn.contract import ProbeImages
from lurefs.learning.unlearn.whole import from_scratch, nothing


def test_from_scratch_leaves_nothing_of_the_old_model() -> None:
    model, twin = (timm.create_model("test_resnet", num_classes=5) for _ in range(2))
    changes = from_scratch()(model, twin, ProbeImages(draw=lambda source, n_images: iter(())), torch.Generator())
    assert changes.is_new_model
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name])


def test_nothing_is_no_strategy() -> None:
    assert plugins.build("unlearn", "nothing", {}) is None
    assert nothing() is None  # type: ignore[func-returns-value]
