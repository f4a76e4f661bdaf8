from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lurefs import plugins
from lurefs.config import AugmentConfig, LearnerConfig, PluginConfig, RunConfig
from lurefs.errors import UserError
from lurefs.learner import EpochRecord, LabelledImages, Learner, augment, learn_online, load_images, probe_images
from lurefs.optimizers import build_optimizer, clear_moments, learning_rate_factor
from lurefs.outcomes import ChunkOutcome
from lurefs.plan import Plan, make_plan
from lurefs.stage import plan_backbone
from lurefs.unlearn.contract import Changes

MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def plan(make_config: MakeConfig) -> Plan:
    return make_plan(make_config())


def images_of(plan: Plan) -> LabelledImages:
    rows = np.concatenate([plan.images.train, plan.images.val, plan.images.test])
    return load_images(plan.dataset, rows, plan.classes.base, torch.device("cpu"))


def learner_of(plan: Plan) -> Learner:
    backbone = plan_backbone(plan)
    optimizer = build_optimizer(backbone.model, plan.config.learner.optimizer)
    return Learner(backbone=backbone, build=plan.config.backbone, optimizer=optimizer)


def learn(plan: Plan, learner: Learner, strategy: Any = None, first: int = 0, **settings: Any) -> list[Any]:
    return list(
        learn_online(
            learner,
            images_of(plan),
            plan.chunks,
            plan.images.test,
            replace(plan.config.learner, **settings),
            strategy,
            strategy_name="strategy",
            seed=plan.config.seed,
            first=first,
        )
    )


def weights(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.backbone.model.state_dict().items()}


def without_times(outcomes: list[Any]) -> list[Any]:
    return [
        replace(
            outcome,
            seconds=0.0,
            train_seconds=0.0,
            unlearn=None if outcome.unlearn is None else replace(outcome.unlearn, seconds=0.0),
        )
        for outcome in outcomes
        if isinstance(outcome, ChunkOutcome)
    ]


@pytest.mark.parametrize("strategy", plugins.names("unlearn"))
def test_two_runs_of_one_seed_are_equal_to_the_bit(plan: Plan, strategy: str) -> None:
    learners = [learner_of(plan) for _ in range(2)]
    first, second = (learn(plan, learner, plugins.build("unlearn", strategy, {})) for learner in learners)
    assert without_times(first) == without_times(second)
    for name, tensor in weights(learners[0]).items():
        assert torch.equal(tensor, weights(learners[1])[name])


def test_events_come_epoch_by_epoch_and_chunk_by_chunk(plan: Plan) -> None:
    events = learn(plan, learner_of(plan))
    kinds = [type(event) for event in events]
    assert kinds == [EpochRecord, EpochRecord, ChunkOutcome] * 3
    outcomes = [event for event in events if isinstance(event, ChunkOutcome)]
    assert [outcome.phase for outcome in outcomes] == ["learn", "relearn", "relearn"]
    assert [outcome.n_train for outcome in outcomes] == [len(chunk.train) for chunk in plan.chunks]
    assert [outcome.n_images_seen for outcome in outcomes] == [2 * len(chunk.train) for chunk in plan.chunks]
    assert all(outcome.n_test == len(plan.images.test) for outcome in outcomes)
    assert all(outcome.unlearn is None for outcome in outcomes)


def test_a_model_learns_classes_of_different_brightness(plan: Plan) -> None:
    outcomes = without_times(learn(plan, learner_of(plan), epochs=12))
    assert outcomes[-1].test_accuracy > 0.6 > 1 / 4


def test_the_first_chunk_is_alike_whatever_the_strategy(plan: Plan) -> None:
    one = without_times(learn(plan, learner_of(plan), plugins.build("unlearn", "from_scratch", {})))
    other = without_times(learn(plan, learner_of(plan), None))
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_unlearning_is_reported(plan: Plan) -> None:
    outcomes = without_times(learn(plan, learner_of(plan), plugins.build("unlearn", "by_saliency", {})))
    report = outcomes[1].unlearn
    n_weights = sum(parameter.numel() for parameter in learner_of(plan).backbone.model.parameters())
    assert report.n_kept + report.n_reset == n_weights
    assert 0.18 < report.n_reset / n_weights <= 0.2
    assert report.strategy == "strategy"
    assert report.accuracy_before == outcomes[0].val_accuracy
    assert 0 <= report.accuracy_after <= 1


def test_a_strategy_that_changes_nothing_is_refused(plan: Plan) -> None:
    def idle(model: Any, twin: Any, draw_probe: Any, generator: Any) -> Changes:
        return Changes(masks={})

    with pytest.raises(UserError, match="changed no weight"):
        learn(plan, learner_of(plan), idle)


def test_a_strategy_that_looks_for_something_to_do_may_find_nothing(plan: Plan) -> None:
    def idle(model: Any, twin: Any, draw_probe: Any, generator: Any) -> Changes:
        return Changes(masks={}, may_be_empty=True)

    report = without_times(learn(plan, learner_of(plan), idle))[1].unlearn
    assert report.n_reset == 0
    assert set(report.reset_share.values()) == {0.0}
    assert report.accuracy_after == report.accuracy_before


def test_diverged_training_is_told(make_config: MakeConfig) -> None:
    plan = make_plan(make_config(learner={"epochs": 3, "optimizer": {"name": "sgd", "params": {"lr": 1e12}}}))
    with pytest.raises(UserError, match="training diverged"):
        learn(plan, learner_of(plan))


def test_the_kept_epoch_is_the_best_on_validation(plan: Plan) -> None:
    events = learn(plan, learner_of(plan), epochs=6)
    for chunk_index in range(3):
        values = [e.val_accuracy for e in events if isinstance(e, EpochRecord) and e.chunk_index == chunk_index]
        outcome = next(e for e in events if isinstance(e, ChunkOutcome) and e.chunk_index == chunk_index)
        assert outcome.val_accuracy == max(values) == values[outcome.best_epoch]


def test_select_last_keeps_the_last_epoch(plan: Plan) -> None:
    outcomes = without_times(learn(plan, learner_of(plan), select="last", epochs=3))
    assert [outcome.best_epoch for outcome in outcomes] == [2, 2, 2]


def test_from_scratch_starts_with_a_new_optimizer_and_others_keep_theirs(plan: Plan) -> None:
    for strategy, is_new in (("from_scratch", True), ("by_saliency", False)):
        learner = learner_of(plan)
        before = learner.optimizer
        learn(plan, learner, plugins.build("unlearn", strategy, {}), optimizer_state="keep")
        assert (learner.optimizer is not before) == is_new


@pytest.mark.parametrize("setting", ["keep", "clear_reset", "clear_all"])
def test_moments_are_treated_as_the_setting_says(plan: Plan, setting: str) -> None:
    learner = learner_of(plan)
    seen: dict[str, Any] = {}

    def strategy(model: Any, twin: Any, draw_probe: Any, generator: Any) -> Changes:
        with torch.no_grad():
            model.head.fc.weight[0] = 9.0
        mask = torch.zeros_like(model.head.fc.weight, dtype=torch.bool)
        mask[0] = True
        seen["moment"] = learner.optimizer.state[model.head.fc.weight]["momentum_buffer"].clone()
        return Changes(masks={"head.fc.weight": mask})

    generator = learn_online(
        learner,
        images_of(plan),
        plan.chunks[:2],
        plan.images.test,
        replace(plan.config.learner, optimizer_state=setting, epochs=1),  # type: ignore[arg-type]
        strategy,
        strategy_name="strategy",
        seed=0,
    )
    moments: list[Tensor] = []
    original = torch.optim.SGD.step

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "moment" in seen and not moments:
            state = self.state.get(learner.backbone.model.head.fc.weight, {})
            moments.append(state["momentum_buffer"].clone() if state else torch.zeros(0))
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", spy)
        list(generator)
    expected = {"keep": seen["moment"], "clear_all": torch.zeros(0)}.get(setting)
    if expected is None:
        expected = seen["moment"].clone()
        expected[0] = 0
    assert torch.equal(moments[0], expected)


def test_probe_images_come_from_what_is_asked_for(plan: Plan) -> None:
    images, backbone = images_of(plan), plan_backbone(plan)
    draw = probe_images(backbone, images, plan.chunks, 2, seed=0).draw
    for source, rows in (
        ("seen", plan.chunks[2].train),
        ("oldest", plan.chunks[0].train),
        ("new", np.intersect1d(plan.chunks[2].new, plan.chunks[2].train)),
    ):
        labels = torch.cat([batch[1] for batch in draw(source, 10_000)])  # type: ignore[arg-type]
        expected = images.labels[images.positions(rows)]
        assert torch.equal(labels.sort().values, expected.sort().values)
    assert sum(len(batch[1]) for batch in draw("seen", 7)) == 7


def test_augmentation_shifts_whole_images_and_mirrors_half(plan: Plan) -> None:
    batch = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
    batch[:, 0, 4, 2] = 255
    shifted = augment(batch, AugmentConfig(crop_padding=2, flip=False), torch.Generator().manual_seed(0))
    assert shifted.sum(dim=(1, 2, 3)).unique().tolist() == [255]
    places = {tuple(place) for place in shifted[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(y, x) for y in range(2, 7) for x in range(5)}
    mirrored = augment(batch, AugmentConfig(crop_padding=0, flip=True), torch.Generator().manual_seed(0))
    n_mirrored = int((mirrored[:, 0, 4, 5] == 255).sum())
    assert 70 < n_mirrored < 130
    assert torch.equal(augment(batch, AugmentConfig(crop_padding=0), torch.Generator()), batch)


def test_learning_rate_starts_anew_with_every_chunk() -> None:
    def factors(**settings: Any) -> list[float]:
        config = LearnerConfig(**settings)
        return [round(learning_rate_factor(step, 10, 1, config), 4) for step in range(10)]

    assert factors(schedule="constant") == [1.0] * 10
    assert factors(schedule="step") == [1.0] * 4 + [0.1] * 4 + [0.01] * 2
    cosine = factors(schedule="cosine")
    assert (cosine[0], cosine[5]) == (1.0, 0.5)
    assert sorted(cosine, reverse=True) == cosine
    assert factors(schedule="constant", warmup_epochs=2)[:3] == [0.3333, 0.6667, 1.0]


def test_only_marked_moments_are_cleared() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = build_optimizer(model, PluginConfig(name="adamw", params={"lr": 0.1}))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    clear_moments(optimizer, model, {"weight": torch.tensor([[True, False]])})
    moment = optimizer.state[model.weight]["exp_avg"]
    assert moment[0, 0] == 0 != moment[0, 1]
    assert optimizer.state[model.bias]["exp_avg"] != 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (PluginConfig(name="sdg"), "unknown optimizer 'sdg'"),
        (PluginConfig(name="sgd", params={"lr": 0.1, "momentun": 0.9}), "do not suit 'sgd'"),
    ],
)
def test_wrong_optimizers_are_refused(config: PluginConfig, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_optimizer(torch.nn.Linear(2, 1), config)


def test_images_keep_their_rows(plan: Plan) -> None:
    images = images_of(plan)
    rows = plan.chunks[1].train[::-1].copy()
    expected = np.searchsorted(plan.classes.base, plan.dataset.labels[rows])
    assert images.labels[images.positions(rows)].tolist() == expected.tolist()
    assert torch.equal(
        images.images[images.positions(rows)], torch.from_numpy(plan.dataset.read(rows).transpose(0, 3, 1, 2).copy())
    )


def test_iterating_is_lazy(plan: Plan) -> None:
    learner = learner_of(plan)
    before = weights(learner)
    events: Iterator[Any] = learn_online(
        learner,
        images_of(plan),
        plan.chunks,
        plan.images.test,
        plan.config.learner,
        None,
        strategy_name="nothing",
        seed=0,
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(learner).items())
    next(events)
    assert not all(torch.equal(tensor, before[name]) for name, tensor in weights(learner).items())
