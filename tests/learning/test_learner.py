from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from episodes import metrics
from lurefs import plugins
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.learning.images import LabelledImages, load_images
from lurefs.learning.learner import EpochRecord, Learner, learn_online, make_learner
from lurefs.learning.predictions import accuracy, predict
from lurefs.learning.unlearn.contract import Changes, ProbeImages, parameters_of, reset
from lurefs.runs.outcomes import ChunkOutcome, changed_predictions, reset_in_words
from lurefs.stages.plan import Plan, make_plan
from lurefs.stages.stage import plan_backbone

MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def plan(make_config: MakeConfig) -> Plan:
    return make_plan(make_config())


def images_of(plan: Plan) -> LabelledImages:
    rows = np.concatenate([plan.images.train, plan.images.val, plan.images.test])
    return load_images(plan.dataset, rows, plan.classes.base, torch.device("cpu"), labels=plan.given_labels)


def learner_of(plan: Plan, **settings: Any) -> Learner:
    backbone = plan_backbone(plan)
    return make_learner(backbone, plan.config.backbone, replace(plan.config.learner, **settings))


def learn_some(plan: Plan, learner: Learner, chunks: Any, first: int = 0) -> Iterator[Any]:
    return learn_online(
        learner,
        images_of(plan),
        chunks,
        plan.images.test,
        plan.config.learner,
        None,
        strategy_name="nothing",
        seed=plan.config.seed,
        first=first,
    )


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
    assert 0.15 < report.n_reset / n_weights < 0.2 * (1 - report.structural_zeros)
    assert report.strategy == "strategy"


def test_a_reset_reports_what_it_did_to_the_answers(plan: Plan) -> None:
    """The model has maps of 1 x 1, so that a part of its weights cannot matter; none of these is reset."""
    strategy = plugins.build("unlearn", "random_mask", {"keep_ratio": 0.5})
    reports = [outcome.unlearn for outcome in without_times(learn(plan, learner_of(plan), strategy))[1:]]
    seen = [np.union1d(before.train, after.train) for before, after in pairwise(plan.chunks)]
    assert [report.n_images for report in reports] == [len(rows) for rows in seen]
    for report in reports:
        assert 0 < report.changed_predictions < 1 and report.logit_change > 0
        assert report.structural_zeros > 0.05 and report.structural_zeros_reset == 0
        assert report.structural_zeros <= min(report.silent_before, report.silent_after)
        assert 0 <= report.accuracy_after_new_statistics <= 1


def test_a_reset_of_weights_that_cannot_matter_is_told_as_one_that_changed_no_prediction(plan: Plan) -> None:
    def padding_alone(model: Any, twin: Any, images: ProbeImages, generator: Any) -> Changes:
        return reset(model, parameters_of(twin), images.structural_zeros)

    outcomes = without_times(learn(plan, learner_of(plan), padding_alone))
    assert changed_predictions(outcomes) == [0.0, 0.0]
    assert [outcome.unlearn.logit_change for outcome in outcomes[1:]] == [0.0, 0.0]
    assert [outcome.unlearn.structural_zeros_reset for outcome in outcomes[1:]] == [1.0, 1.0]
    assert reset_in_words(outcomes) == "unlearning changed no prediction: this run is a warm start in effect"


def test_what_resets_did_is_told_as_far_as_it_was_measured(plan: Plan) -> None:
    first, second, _ = without_times(learn(plan, learner_of(plan), plugins.build("unlearn", "by_saliency", {})))

    def changing(share: float | None) -> ChunkOutcome:
        return replace(second, unlearn=replace(second.unlearn, changed_predictions=share))

    assert reset_in_words([first, changing(0.0), changing(0.1)]) == "1 of 2 resets changed no prediction"
    assert reset_in_words([first, changing(None)]) == reset_in_words([first, changing(0.1)]) == ""
    assert reset_in_words([first, changing(None), changing(0.0)]).startswith("unlearning changed no prediction")


def test_unlearning_is_measured_on_the_validation_images_of_the_chunk_that_follows(plan: Plan) -> None:
    learner, images = learner_of(plan), images_of(plan)
    chunks = plan.chunks[:1]
    learn(replace(plan, chunks=chunks), learner)
    expected = accuracy(learner.backbone, images, images.positions(plan.chunks[1].validation), 512)
    outcomes = without_times(learn(plan, learner_of(plan), plugins.build("unlearn", "from_scratch", {})))
    assert outcomes[1].unlearn.accuracy_before == expected
    assert outcomes[1].unlearn.accuracy_after == pytest.approx(1 / 4, abs=0.25)


def test_epochs_to_recover_are_counted_on_these_images(plan: Plan) -> None:
    events = learn(plan, learner_of(plan), plugins.build("unlearn", "from_scratch", {}), epochs=8)
    for outcome in without_times(events):
        values = [e.val_accuracy for e in events if isinstance(e, EpochRecord) and e.chunk_index == outcome.chunk_index]
        if outcome.chunk_index == 0:
            assert outcome.n_epochs_to_recover is None
            continue
        reached = [epoch for epoch, value in enumerate(values, 1) if value >= outcome.unlearn.accuracy_before]
        fell = outcome.unlearn.accuracy_after < outcome.unlearn.accuracy_before
        assert outcome.n_epochs_to_recover == ((reached or [None])[0] if fell else 0)


def test_a_warm_start_has_nothing_to_recover(plan: Plan) -> None:
    assert [outcome.n_epochs_to_recover for outcome in without_times(learn(plan, learner_of(plan)))] == [None] * 3


@pytest.mark.parametrize("first", [1, 2])
def test_what_was_forgotten_and_gained_is_counted_after_a_restart_as_well(plan: Plan, first: int) -> None:
    learner = learner_of(plan)
    outcomes, right = [], []
    images = images_of(plan)
    positions = images.positions(plan.images.test)
    for event in learn_some(plan, learner, plan.chunks):
        if isinstance(event, ChunkOutcome):
            outcomes.append(event)
            right.append(predict(learner.backbone, images, positions, 512).argmax(1) == images.labels[positions])
    assert (outcomes[0].n_forgotten, outcomes[0].n_gained) == (0, 0)
    for before, after, outcome in zip(right, right[1:], outcomes[1:], strict=False):
        assert outcome.n_forgotten == int((before & ~after).sum())
        assert outcome.n_gained == int((~before & after).sum())
        assert int((~after).sum()) - int((~before).sum()) == outcome.n_forgotten - outcome.n_gained
    assert sum(outcome.n_gained for outcome in outcomes) > 0
    restarted = learner_of(plan)
    list(learn_some(plan, restarted, plan.chunks[:first]))
    assert without_times(list(learn_some(plan, restarted, plan.chunks, first))) == without_times(outcomes)[first:]


def test_a_strategy_that_looks_for_something_to_do_may_find_nothing(plan: Plan) -> None:
    def idle(model: Any, twin: Any, draw_probe: Any, generator: Any) -> Changes:
        return Changes(masks={}, may_be_empty=True)

    report = without_times(learn(plan, learner_of(plan), idle))[1].unlearn
    assert report.n_reset == 0
    assert set(report.reset_share.values()) == {0.0}
    assert report.accuracy_after == report.accuracy_before


def test_diverged_training_is_told(make_config: MakeConfig) -> None:
    plan = make_plan(make_config(learner={"epochs": 3, "optimizer": {"name": "sgd", "params": {"lr": 1e3}}}))
    with pytest.raises(UserError, match="training diverged"):
        learn(plan, learner_of(plan))


def test_the_kept_epoch_is_the_best_on_validation(plan: Plan) -> None:
    events = learn(plan, learner_of(plan), epochs=6)
    for chunk_index in range(3):
        values = [e.val_accuracy for e in events if isinstance(e, EpochRecord) and e.chunk_index == chunk_index]
        outcome = next(e for e in events if isinstance(e, ChunkOutcome) and e.chunk_index == chunk_index)
        assert outcome.val_accuracy == max(values) == values[outcome.best_epoch]


def test_of_epochs_of_equal_accuracy_the_one_of_the_lowest_nll_is_kept(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.7, 0.4, 0.5, 9.0] * 3)  # three epochs of a chunk, and its test
    monkeypatch.setattr(metrics, "accuracy", lambda *_: 0.5)
    monkeypatch.setattr(metrics, "nll", lambda *_: next(losses))
    outcomes = without_times(learn(plan, learner_of(plan), epochs=3))
    assert [outcome.best_epoch for outcome in outcomes] == [1, 1, 1]


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


def test_images_have_the_labels_that_were_given(make_config: MakeConfig) -> None:
    plan = make_plan(make_config(chunks={"n_chunks": 3, "label_noise": 0.5}))
    images = images_of(plan)
    given = np.searchsorted(plan.classes.base, plan.given_labels)
    true = np.searchsorted(plan.classes.base, plan.dataset.labels)
    for rows, labels in ((plan.images.train, given), (plan.images.val, given), (plan.images.test, true)):
        assert images.labels[images.positions(rows)].tolist() == labels[rows].tolist()
    assert given[plan.images.train].tolist() != true[plan.images.train].tolist()


def test_iterating_is_lazy(plan: Plan) -> None:
    learner = learner_of(plan)
    before = weights(learner)
    events = learn_some(plan, learner, plan.chunks)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(learner).items())
    next(events)
    assert not all(torch.equal(tensor, before[name]) for name, tensor in weights(learner).items())


def test_later_chunks_train_as_long_as_they_are_told_to(plan: Plan) -> None:
    events = learn(plan, learner_of(plan), epochs=3, relearn_epochs=1)
    assert [event.n_epochs for event in events if isinstance(event, EpochRecord)] == [3, 3, 3, 1, 1]
    n_train = [len(chunk.train) for chunk in plan.chunks]
    assert [outcome.n_images_seen for outcome in without_times(events)] == [3 * n_train[0], *n_train[1:]]


def test_from_scratch_can_train_on_as_many_images_as_a_warm_start_has_seen(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lurefs.learning import learner as module

    seen: list[int] = []
    step = module._train_step
    monkeypatch.setattr(module, "_train_step", lambda *args: seen.append(len(args[1])) or step(*args))
    warm = without_times(learn(plan, learner_of(plan)))
    seen.clear()
    outcomes = without_times(
        learn(plan, learner_of(plan), plugins.build("unlearn", "from_scratch", {}), match_images_seen=True)
    )
    n_images = np.cumsum([outcome.n_images_seen for outcome in warm]).tolist()
    assert [outcome.n_images_seen for outcome in outcomes] == n_images
    assert sum(seen) == sum(n_images)


def test_l2_init_holds_the_weights_near_the_initial_ones(plan: Plan) -> None:
    def distance(**settings: Any) -> float:
        learner = learner_of(plan, **settings)
        initial = [weight.detach().clone() for weight in learner.backbone.model.parameters()]
        learn(plan, learner, **settings)
        found = zip(learner.backbone.model.parameters(), initial, strict=True)
        return float(sum(((weight.detach() - start) ** 2).sum() for weight, start in found))

    assert distance(l2_init=1.0) < 0.5 * distance()


def test_bfloat16_trains_to_other_weights_of_the_same_type(plan: Plan) -> None:
    learners = [learner_of(plan) for _ in range(2)]
    learn(plan, learners[0])
    learn(plan, learners[1], precision="bfloat16")
    one, other = (weights(learner) for learner in learners)
    assert all(one[name].dtype == other[name].dtype for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_compiled_model_learns_alike_and_keeps_its_plain_names(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or original(model, backend="eager"))
    learners = [learner_of(plan), learner_of(plan, compile=True)]
    outcomes = [without_times(learn(plan, learner)) for learner in learners]
    assert compiled == [learners[1].backbone.model]
    assert outcomes[0] == outcomes[1]
    assert list(weights(learners[0])) == list(weights(learners[1]))


@pytest.mark.parametrize("channels_last", [True, False])
def test_channels_stand_last_in_memory_where_they_are_meant_to(make_config: MakeConfig, channels_last: bool) -> None:
    plan = make_plan(make_config(learner={"epochs": 1, "batch_size": 16, "channels_last": channels_last}))
    learner = learner_of(plan)
    assert learner.backbone.prepare(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).is_contiguous() != channels_last
    learn(plan, learner, plugins.build("unlearn", "from_scratch", {}))
    kernel = next(
        weight for weight in learner.backbone.model.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1
    )
    assert kernel.is_contiguous() != channels_last
