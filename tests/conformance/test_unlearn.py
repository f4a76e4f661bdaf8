"""What every strategy of the table must keep to, on every family, and one strategy from outside the package."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs import plugins
from lurefs.config.schema import RunConfig
from lurefs.learning import saliency, structure
from lurefs.learning.images import load_images
from lurefs.learning.learner import learn_online, make_learner
from lurefs.learning.unlearn.contract import Changes, ProbeImages, UnlearnStrategy, parameters_of, reset
from lurefs.runs.outcomes import ChunkOutcome
from lurefs.stages.plan import Plan, make_plan
from lurefs.stages.stage import plan_backbone


def every_other_row() -> UnlearnStrategy:
    """What a user writes: half of the rows of each matrix start anew."""

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        masks = {n: torch.zeros_like(w, dtype=torch.bool) for n, w in parameters_of(model).items() if w.ndim == 2}
        for mask in masks.values():
            mask[::2] = True
        return reset(model, parameters_of(twin), masks)

    return unlearn


STRATEGIES = [*(name for name in plugins.names("unlearn") if name != "nothing"), f"{__name__}:every_other_row"]
SETTINGS: Mapping[str, dict[str, Any]] = {"redo": {"tau": 0.9}}
"""Settings under which there is something to do, where the defaults may find nothing in a model that is untrained."""
WITH_SHARE = ["by_saliency", "random_mask", "by_magnitude", "inverse_saliency"]
LEAVE_NORMS = [*WITH_SHARE, "head", "dash", "fire"]
FAMILIES: Mapping[str, dict[str, Any]] = {
    "test_resnet": {},
    "test_byobnet": {},
    "test_efficientnet": {},
    "test_convnext": {},
    "test_nfnet": {},
    "test_vit": {"img_size": 32, "patch_size": 8},
    "test_coatnet": {"img_size": 32},
}
RANKED_PER_LAYER = ["test_convnext"]
of_every_strategy = pytest.mark.parametrize("name", STRATEGIES)
of_every_family = pytest.mark.parametrize("family", FAMILIES)


@dataclass(frozen=True)
class Outcome:
    model: nn.Module
    twin: nn.Module
    before: dict[str, Tensor]
    changes: Changes


def model_of(family: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(family, num_classes=5, **FAMILIES[family])


def draw_probe(source: str, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Two batches of 16, whatever is asked for."""
    generator = torch.Generator().manual_seed(len(source))
    for _ in range(2):
        yield torch.randn(16, 3, 32, 32, generator=generator), torch.randint(0, 5, (16,), generator=generator)


def build(name: str, **params: Any) -> UnlearnStrategy:
    return plugins.build("unlearn", name, {**SETTINGS.get(name, {}), **params})


def apply(name: str, family: str, **params: Any) -> Outcome:
    model, twin = model_of(family, 0), model_of(family, 1)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    changes = build(name, **params)(model, twin, ProbeImages(draw=draw_probe), torch.Generator().manual_seed(3))
    return Outcome(model, twin, before, changes)


@cache
def outcome_of(name: str, family: str) -> Outcome:
    return apply(name, family)


@of_every_family
@of_every_strategy
def test_what_is_not_marked_is_bit_identical(name: str, family: str) -> None:
    outcome = outcome_of(name, family)
    for parameter, after in parameters_of(outcome.model).items():
        mask = outcome.changes.masks.get(parameter, torch.zeros_like(after, dtype=torch.bool))
        assert mask.dtype == torch.bool and mask.shape == after.shape
        assert torch.equal(outcome.before[parameter][~mask], after[~mask])
    assert set(outcome.changes.masks) <= set(parameters_of(outcome.model))


@of_every_family
@of_every_strategy
def test_no_strategy_leaves_all_weights_as_they_were(name: str, family: str) -> None:
    outcome = outcome_of(name, family)
    changed = [not torch.equal(outcome.before[key], after) for key, after in parameters_of(outcome.model).items()]
    assert any(changed)


@of_every_family
@of_every_strategy
def test_weights_and_outputs_are_finite(name: str, family: str) -> None:
    model = outcome_of(name, family).model
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    images, _ = next(draw_probe("seen", 16))
    with torch.no_grad():
        assert torch.isfinite(model.eval()(images)).all()


@of_every_family
@of_every_strategy
def test_a_head_can_be_fitted_on_what_is_left(name: str, family: str) -> None:
    model: Any = copy.deepcopy(outcome_of(name, family).model)
    images, labels = next(draw_probe("seen", 16))
    with torch.no_grad():  # batch statistics, which a chunk's first epoch brings in any case
        features = model.train().forward_head(model.forward_features(images), pre_logits=True)
    features = (features - features.mean(0)) / features.std(0).clamp_min(1e-6)
    head = nn.Linear(features.shape[1], 5)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(40):
        loss = functional.cross_entropy(head(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5


@of_every_family
@of_every_strategy
def test_a_seed_says_what_happens(name: str, family: str) -> None:
    first, again = outcome_of(name, family), apply(name, family)
    weights = parameters_of(first.model)
    assert all(torch.equal(weights[key], again_weight) for key, again_weight in parameters_of(again.model).items())
    assert all(torch.equal(mask, again.changes.masks[key]) for key, mask in first.changes.masks.items())


@of_every_family
@pytest.mark.parametrize("name", WITH_SHARE)
def test_exactly_the_asked_share_gets_the_twins_values(name: str, family: str) -> None:
    outcome = outcome_of(name, family)
    masks = outcome.changes.masks
    assert sorted(masks) == sorted(saliency.weight_names(outcome.model))
    assert (
        sum(int(mask.sum()) for mask in masks.values())
        == sum(mask.numel() // 5 if family in RANKED_PER_LAYER else mask.numel() / 5 for mask in masks.values()) // 1
    )
    fresh = parameters_of(outcome.twin)
    for key, after in parameters_of(outcome.model).items():
        if key in masks:
            assert torch.equal(after[masks[key]], fresh[key][masks[key]])


@pytest.mark.parametrize("name", WITH_SHARE)
def test_within_layers_the_share_is_that_of_each(name: str) -> None:
    for mask in apply(name, "test_resnet", ranking="layer", keep_ratio=0.7).changes.masks.values():
        assert int(mask.sum()) == 3 * mask.numel() // 10


@of_every_family
@pytest.mark.parametrize("name", LEAVE_NORMS)
def test_norm_layers_and_their_statistics_stay(name: str, family: str) -> None:
    outcome = outcome_of(name, family)
    for module_name, module in outcome.model.named_modules():
        if isinstance(module, structure.NORM_MODULES) and name not in module_name:
            for key, after in module.state_dict().items():
                assert torch.equal(after, outcome.before[f"{module_name}.{key}"])


@of_every_strategy
def test_the_whole_model_learns_afterwards(name: str) -> None:
    model = apply(name, "test_resnet").model.train()
    images, labels = next(draw_probe("seen", 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.7 * losses[0]


@pytest.fixture
def plan(make_config: Callable[..., RunConfig]) -> Plan:
    return make_plan(make_config(chunks={"n_chunks": 2}, learner={"epochs": 1, "batch_size": 16}))


@pytest.mark.parametrize(
    ("name", "setting"),
    [(name, "clear_reset") for name in STRATEGIES]
    + [(name, setting) for name in ("by_saliency", "from_scratch", "redo") for setting in ("keep", "clear_all")],
)
def test_moments_are_treated_as_the_learner_says(
    plan: Plan, name: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the first step after unlearning finds, against those that unlearning found."""
    backbone = plan_backbone(plan)
    learner = make_learner(backbone, plan.config.backbone, plan.config.learner)
    strategy, step = build(name), torch.optim.SGD.step
    before: dict[str, Tensor] = {}
    after: list[dict[str, Tensor]] = []
    done: list[Changes] = []

    def moments() -> dict[str, Tensor]:
        found = [(key, learner.optimizer.state.get(p, {})) for key, p in backbone.model.named_parameters()]
        return {key: state["momentum_buffer"].clone() for key, state in found if "momentum_buffer" in state}

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        before.update(moments())
        done.append(strategy(model, twin, images, generator))
        return done[0]

    def watched_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if done and not after:
            after.append(moments())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", watched_step)
    rows = np.concatenate([plan.images.train, plan.images.val, plan.images.test])
    images = load_images(plan.dataset, rows, plan.classes.base, torch.device("cpu"), labels=plan.given_labels)
    settings = replace(plan.config.learner, optimizer_state=setting)  # type: ignore[arg-type]
    events = learn_online(
        learner, images, plan.chunks, plan.images.test, settings, unlearn, strategy_name=name, seed=plan.config.seed
    )
    report = [event for event in events if isinstance(event, ChunkOutcome)][1].unlearn
    changes = done[0]
    if setting == "clear_all" or changes.is_new_model:
        assert before and not after[0]
    else:
        for key, moment in before.items():
            if setting == "clear_reset" and key in changes.masks:
                moment = moment.masked_fill(changes.masks[key], 0)
            assert torch.equal(after[0][key], moment)
    assert report is not None
    shares = {key: mask.float().mean().item() for key, mask in changes.masks.items()}
    assert report.reset_share == pytest.approx({key: shares.get(key, 0.0) for key in report.reset_share})
    assert report.n_reset == sum(int(mask.sum()) for mask in changes.masks.values()) > 0
