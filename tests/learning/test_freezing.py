from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch

from lurefs import plugins
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.learning.backbones import stages
from lurefs.learning.freezing import frozen_names
from lurefs.learning.images import load_images
from lurefs.learning.learner import Learner, learn_online, make_learner
from lurefs.runs.outcomes import ChunkOutcome
from lurefs.stages.checks import check
from lurefs.stages.plan import Plan, make_plan
from lurefs.stages.stage import plan_backbone

MakeConfig = Callable[..., RunConfig]
FREEZE: list[int | list[str]] = [2, ["stem", "stages.0*", "stages.1"]]


def learn(plan: Plan) -> tuple[Learner, list[Any]]:
    config = plan.config
    learner = make_learner(plan_backbone(plan), config.backbone, config.learner)
    rows = np.concatenate([plan.images.train, plan.images.val, plan.images.test])
    images = load_images(plan.dataset, rows, plan.classes.base, torch.device("cpu"), labels=plan.given_labels)
    strategy = plugins.build("unlearn", config.unlearn.name, config.unlearn.params)
    events = learn_online(
        learner,
        images,
        plan.chunks,
        plan.images.test,
        config.learner,
        strategy,
        strategy_name=config.unlearn.name,
        seed=config.seed,
    )
    return learner, list(events)


@pytest.mark.parametrize("freeze", FREEZE, ids=str)
@pytest.mark.parametrize("name", plugins.names("unlearn"))
def test_frozen_parts_stay_to_the_bit_through_every_strategy_and_the_others_learn(
    make_config: MakeConfig, name: str, freeze: int | list[str]
) -> None:
    plan = make_plan(make_config(unlearn={"name": name}, learner={"epochs": 2, "batch_size": 16, "freeze": freeze}))
    initial = {n: t.clone() for n, t in plan_backbone(plan).model.state_dict().items()}
    learner, events = learn(plan)
    state = learner.backbone.model.state_dict()
    assert any(n.endswith("running_mean") for n in learner.frozen)
    for key, tensor in state.items():
        assert torch.equal(tensor, initial[key]) == (key in learner.frozen), key
    reports = [event.unlearn for event in events if isinstance(event, ChunkOutcome) and event.unlearn is not None]
    assert all(
        report.reset_share[key] == 0 for report in reports for key in report.reset_share if key in learner.frozen
    )


@pytest.mark.parametrize("name", ["by_saliency", "random_mask", "by_magnitude", "inverse_saliency"])
def test_the_share_to_reset_is_of_the_weights_that_learn(make_config: MakeConfig, name: str) -> None:
    unlearn = {"name": name, "params": {"keep_ratio": 0.5, "ranking": "layer"}}
    plan = make_plan(make_config(unlearn=unlearn, learner={"epochs": 1, "batch_size": 16, "freeze": 2}))
    learner, events = learn(plan)
    shares = next(e for e in events if isinstance(e, ChunkOutcome) and e.chunk_index == 1).unlearn.reset_share
    assert shares["head.fc.weight"] == pytest.approx(0.5, abs=0.01)
    assert all(share == 0 for key, share in shares.items() if key in learner.frozen)


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_a_number_freezes_the_first_stages(model: str) -> None:
    built = timm.create_model(model, num_classes=3)
    parts = stages(built)
    assert frozen_names(built, 2) == {name for part in parts[:2] for name in part}
    with pytest.raises(UserError, match=rf"freeze is {len(parts)}, but timm divides .* into {len(parts)} parts"):
        frozen_names(built, len(parts))


@pytest.mark.parametrize(
    ("freeze", "words"),
    [
        (["layer9"], r"has 'layer9', which fits no parameter(.*\n)*.*did you mean 'layer\d'"),
        (["*"], r"leaves no parameter of ResNet to learn(.*\n)*.*frozen=true"),
    ],
)
def test_a_freeze_that_does_not_suit_the_model_is_refused(freeze: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        frozen_names(timm.create_model("test_resnet", num_classes=3), freeze)


def test_a_pattern_freezes_modules_and_single_parameters() -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    assert frozen_names(model, ["layer1"]) == {name for name in model.state_dict() if name.startswith("layer1.")}
    assert frozen_names(model, ["fc.bias"]) == {"fc.bias"}


@pytest.mark.parametrize(
    ("unlearn", "freeze", "words"),
    [
        ({"name": "head"}, ["head"], "'head' changed no weight"),
        ({"name": "last_layers", "params": {"from_module": "head"}}, ["head"], "'last_layers' changed no weight"),
        ({"name": "by_saliency"}, ["*.weight"], "no weight that could be"),
        ({"name": "nothing"}, ["layer9"], "has 'layer9', which fits no parameter"),
    ],
)
def test_what_would_never_change_anything_is_refused_before_the_work(
    make_config: MakeConfig, unlearn: dict[str, Any], freeze: list[str], words: str
) -> None:
    config = make_config(unlearn=unlearn)
    config = replace(config, learner=replace(config.learner, freeze=freeze))
    with pytest.raises(UserError, match=words):
        check(make_plan(config))
