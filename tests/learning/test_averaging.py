from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lurefs import plugins
from lurefs.config.schema import RunConfig
from lurefs.learning import learner as module
from lurefs.learning.averaging import Average
from lurefs.learning.images import load_images
from lurefs.learning.learner import EpochRecord, Learner, learn_online, make_learner
from lurefs.learning.predictions import accuracy
from lurefs.runs.outcomes import ChunkOutcome
from lurefs.stages.plan import Plan, make_plan
from lurefs.stages.stage import plan_backbone

State = dict[str, Tensor]
DECAY = 0.7


@pytest.fixture
def plan(make_config: Callable[..., RunConfig]) -> Plan:
    return make_plan(make_config(learner={"epochs": 3, "batch_size": 16, "ema_decay": DECAY, "select": "last"}))


def state_of(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def run(plan: Plan, strategy: str = "nothing") -> tuple[Learner, Any]:
    config = plan.config
    learner = make_learner(plan_backbone(plan), config.backbone, config.learner)
    rows = np.concatenate([plan.images.train, plan.images.val, plan.images.test])
    images = load_images(plan.dataset, rows, plan.classes.base, torch.device("cpu"), labels=plan.given_labels)
    events = learn_online(
        learner,
        images,
        plan.chunks,
        plan.images.test,
        config.learner,
        plugins.build("unlearn", strategy, {}),
        strategy_name=strategy,
        seed=config.seed,
    )
    return learner, ((event, images) for event in events)


def expected_average(steps: list[State]) -> State:
    """Return the average by its definition: min(decay, 1 - n^(-2/3)) of the old one at step n."""
    average = steps[0]
    for n, state in enumerate(steps[1:], start=2):
        kept = min(DECAY, 1 - n ** (-2 / 3))
        average = {k: kept * average[k] + (1 - kept) * t if t.is_floating_point() else t for k, t in state.items()}
    return average


@pytest.mark.parametrize("strategy", ["nothing", "by_saliency", "from_scratch"])
def test_the_average_of_a_chunk_is_kept_and_the_next_chunk_goes_on_from_it(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    steps: list[State] = []
    reset_from: list[State] = []
    train_step, unlearn = module._train_step, module._unlearn

    def watch_step(learner: Learner, *args: Any) -> Tensor:
        result = train_step(learner, *args)
        steps.append(state_of(learner.backbone.model))
        return result

    def watch_reset(learner: Learner, *args: Any) -> Any:
        reset_from.append(state_of(learner.backbone.model))
        return unlearn(learner, *args)

    monkeypatch.setattr(module, "_train_step", watch_step)
    monkeypatch.setattr(module, "_unlearn", watch_reset)
    learner, events = run(plan, strategy)
    kept: list[State] = []
    for event, images in events:
        if isinstance(event, EpochRecord):
            validation = images.positions(plan.chunks[event.chunk_index].validation)
            average = expected_average(steps)
            for name, tensor in event.progress.average.items():
                torch.testing.assert_close(tensor, average[name], rtol=1e-4, atol=1e-5)
            assert event.val_accuracy == accuracy(learner.judged.backbone, images, validation, 512)
            raw = state_of(learner.backbone.model)
            assert all(torch.equal(raw[name], steps[-1][name]) for name in raw)  # training goes on from the raw ones
        if isinstance(event, ChunkOutcome):
            kept.append(state_of(learner.backbone.model))
            for name, tensor in kept[-1].items():
                torch.testing.assert_close(tensor, expected_average(steps)[name], rtol=1e-4, atol=1e-5)
            assert any(not torch.equal(tensor, steps[-1][name]) for name, tensor in kept[-1].items())
            steps.clear()
    assert len(reset_from) == (0 if strategy == "nothing" else 2)
    for before, acted_on in zip(kept, reset_from, strict=False):  # the reset acts on what the chunk before it left
        assert all(torch.equal(before[name], acted_on[name]) for name in before)


def test_without_a_decay_there_is_no_average(plan: Plan) -> None:
    plain = replace(plan, config=replace(plan.config, learner=replace(plan.config.learner, ema_decay=None)))
    learner, events = run(plain)
    records = [event for event, _ in events if isinstance(event, EpochRecord)]
    assert learner.average is None and not any(record.progress.average for record in records)
    assert learner.judged.backbone.model is learner.backbone.model


def test_an_average_goes_on_from_a_stored_state() -> None:
    model = nn.BatchNorm1d(2)
    whole, first = Average(model, 0.9, {}), Average(model, 0.9, {})
    states = []
    for step in range(1, 7):
        model.weight.data += step
        model.running_mean += 0.5
        whole.update(model, step)
        if step <= 3:
            first.update(model, step)
            states.append(first.state())
    resumed = Average(model, 0.9, states[-1])
    model.weight.data -= 4 + 5 + 6
    model.running_mean -= 1.5
    for step in range(4, 7):
        model.weight.data += step
        model.running_mean += 0.5
        resumed.update(model, step)
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, resumed.state()[name])
