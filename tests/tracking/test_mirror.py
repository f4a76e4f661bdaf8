from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import made_up_runs
from episodes.summary import summarise
from episodes.table import EpisodeTable
from lurefs.config.load import run_config
from lurefs.config.schema import RunConfig
from lurefs.runs.outcomes import ChunkOutcome, RobustnessScores
from lurefs.tracking import labels
from lurefs.tracking.labels import About, Card
from lurefs.tracking.rows import cell_summary, chunk_rows, episode_rows, pretrain_summary, running_accuracy


def about(config: RunConfig) -> About:
    return About(config=config, identity={}, cost={})


def cell_card(benchmark: str, probe: str, *, n_shot: int | None = 1, **settings: Any) -> Card:
    config = run_config({"name": "demo", "benchmarks": {benchmark: {}}, "probes": {probe: {}}, **settings})
    described = made_up_runs.benchmark({probe: made_up_runs.probe(0.5)}, n_shot=n_shot)
    return labels.cell_card(about(config), made_up_runs.summary({benchmark: described}), benchmark, probe)


def cell_id(benchmark: str, probe: str, **settings: Any) -> str:
    return cell_card(benchmark, probe, **settings).id


@pytest.mark.parametrize("benchmark", ["novel-5way-1shot", "5 way (100 %)", "n" * 90])
def test_id_is_one_that_wandb_accepts(benchmark: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", cell_id(benchmark, "logistic_regression"))


def test_ids_differ_where_benchmark_probe_or_seed_do() -> None:
    names = [("a b", "ridge"), ("a_b", "ridge"), ("a b", "knn"), ("n" * 90, "ridge"), ("n" * 91, "ridge")]
    ids = [cell_id(*pair) for pair in names] + [cell_id("a b", "ridge", seed=1)]
    assert len(set(ids)) == len(ids)


def test_id_is_independent_of_name_device_and_trackers() -> None:
    other = {"name": "other", "device": "cpu", "trackers": {"wandb": {"project": "p"}}}
    assert cell_id("a", "ridge") == cell_id("a", "ridge", **other)


def test_tags_are_short_and_each_there_once(run: Any) -> None:
    config: RunConfig = run.with_wandb(tags=["icons", "t" * 80]).config
    assert labels.tags(config) == ("test_efficientnet", "by_saliency", "icons", "t" * 64)


def test_pretrain_runs_of_two_strategies_share_a_group(run: Any) -> None:
    other = replace(run.config, unlearn=replace(run.config.unlearn, name="nothing"), seed=3)
    first, second = [labels.pretrain_card(about(config), []) for config in (run.config, other)]
    assert first.group == second.group
    assert first.id != second.id


def test_runs_can_be_filtered_by_how_the_images_arrive() -> None:
    chunks = {"schedule": "growing", "replay": "none", "label_noise": 0.3}
    card = labels.pretrain_card(about(run_config({"name": "demo", "chunks": chunks})), [])
    names = ("schedule", "replay", "label_noise", "class_order")
    assert {name: card.config[name] for name in names} == {**chunks, "class_order": "random"}
    assert "images_per_class" not in card.config


def test_cells_can_be_sorted_by_how_chunks_are_learned_and_unlearned() -> None:
    learner = {
        "epochs": 7,
        "batch_size": 32,
        "schedule": "step",
        "optimizer": {"name": "adamw", "params": {"lr": 0.003, "weight_decay": 0.05}},
    }
    config = cell_card("a", "ridge", learner=learner, chunks={"schedule": "growing"}).config
    assert {
        "optimizer": "adamw",
        "learning_rate": 0.003,
        "weight_decay": 0.05,
        "lr_schedule": "step",
        "schedule": "growing",
        "batch_size": 32,
        "epochs": 7,
        "relearn_epochs": 7,
        "stem": "default",
        "keep_ratio": 0.8,
    }.items() <= config.items()
    assert cell_card("a", "ridge", learner={"epochs": 7, "relearn_epochs": 2}).config["relearn_epochs"] == 2


@pytest.mark.parametrize(
    ("unlearn", "expected"),
    [
        ({"name": "by_magnitude"}, 0.8),
        ({"name": "random_mask", "params": {"keep_ratio": 0.5}}, 0.5),
        ({"name": "nothing"}, None),
        ({"name": "shrink_perturb"}, None),
    ],
)
def test_the_share_that_is_kept_is_the_strategys_own_where_none_is_set(
    unlearn: dict[str, Any], expected: float | None
) -> None:
    assert cell_card("a", "ridge", unlearn=unlearn).config.get("keep_ratio") == expected


def test_a_strategy_that_is_not_installed_here_still_has_a_card(run: Any) -> None:
    config = replace(run.config, unlearn=replace(run.config.unlearn, name="somewhere.else:strategy"))
    card = labels.pretrain_card(about(config), [])
    assert card.config["strategy"] == "somewhere.else:strategy"
    assert "keep_ratio" not in card.config


def test_a_rate_that_is_left_to_the_optimizer_is_left_out() -> None:
    config = cell_card("a", "ridge", learner={"optimizer": {"name": "adamw", "params": {}}}).config
    assert "learning_rate" not in config
    assert config["weight_decay"] == 0.0


def test_counts_that_a_form_leaves_open_are_left_out() -> None:
    card = cell_card("a", "ridge", n_shot=None)
    assert (card.config["n_way"], card.config["n_query"]) == (5, 15)
    assert "n_shot" not in card.config


def test_settings_that_are_not_known_yet_are_left_out(run: Any) -> None:
    card = labels.pretrain_card(about(run.config), [])
    assert "backbone_params_m" not in card.config
    assert None not in card.config.values()


def test_chunk_rows_accumulate_errors(outcome: Callable[[int], ChunkOutcome]) -> None:
    first, second = chunk_rows([outcome(0), outcome(1)])
    assert "unlearn_drop" not in first
    assert second == {
        "chunk_index": 1,
        "test_accuracy": 0.6,
        "val_accuracy": 0.5,
        "test_ece": 0.125,
        "test_nll": 1.5,
        "n_test_errors": 40,
        "cumulative_errors": 90,
        "generalisation_gap": pytest.approx(0.3),
        "n_forgotten": 2,
        "n_images_seen": 500,
        "train_seconds": 2.0,
        "unlearn_seconds": 0.1,
        "seconds": 3.0,
        "accuracy_change": pytest.approx(0.1),
        "unlearn_drop": 0.25,
        "few_shot/novel-5way-1shot": 0.5,
    }


def test_pretrain_summary_is_over_all_chunks(outcome: Callable[[int], ChunkOutcome]) -> None:
    assert pretrain_summary([outcome(0), outcome(1)]) == {
        "anytime_accuracy": pytest.approx(0.55),
        "cumulative_error_rate": 0.45,
        "train_images_per_second": 250.0,
        "total_forgotten": 2,
        "total_images_seen": 1000,
        "total_train_seconds": 4.0,
        "total_unlearn_seconds": 0.1,
    }


def test_robustness_is_told_under_flat_keys(outcome: Callable[[int], ChunkOutcome]) -> None:
    scores = RobustnessScores(
        n_images=9,
        clean_accuracy=0.75,
        corruptions={"fog": {"1": 0.5, "5": 0.25}},
        attacks={"pgd": {"0.0314": 0.125}},
    )
    (row,) = chunk_rows([replace(outcome(0), robustness=scores)])
    assert {key: value for key, value in row.items() if key.startswith("robustness")} == {
        "robustness/clean": 0.75,
        "robustness/corruptions": 0.375,
        "robustness/fog": 0.375,
        "robustness/pgd_0_0314": 0.125,
    }


def test_running_accuracy_is_short_and_ends_at_the_mean(table: EpisodeTable) -> None:
    curve = running_accuracy(table)
    summary = summarise(table.accuracy, table.classes)
    assert len(curve) <= 100
    assert curve[-1] == {
        "episode": 250,
        "running_accuracy": summary.mean,
        "running_accuracy_ci95_episodes": summary.ci95_episodes,
    }


def test_episode_rows_have_none_for_what_the_probe_has_not(table: EpisodeTable) -> None:
    rows = episode_rows(table)
    classes = " ".join(str(label) for label in table.classes[7])
    assert rows[7] == [7, classes, table.accuracy[7], None, None, True, 0.003]


def test_what_a_reset_did_is_in_the_curves_and_its_share_of_predictions_in_every_cell(
    run: Any, outcome: Callable[[int], ChunkOutcome]
) -> None:
    first, second = outcome(0), outcome(1)
    assert second.unlearn is not None
    did = replace(
        second.unlearn,
        accuracy_after_new_statistics=0.375,
        changed_predictions=0.125,
        logit_change=0.5,
        silent_before=0.25,
        silent_after=0.0,
    )
    outcomes = [first, replace(second, unlearn=did)]
    assert {
        "unlearn_drop": 0.25,
        "unlearn_drop_new_statistics": 0.125,
        "unlearn_changed_predictions": 0.125,
        "unlearn_logit_change": 0.5,
        "unlearn_silent_before": 0.25,
        "unlearn_silent_after": 0.0,
    }.items() <= chunk_rows(outcomes)[1].items()
    assert pretrain_summary(outcomes)["mean_changed_predictions"] == 0.125
    run.directory.write_outcomes(outcomes)
    run.evaluate()
    summary = run.directory.read_summary()
    benchmark = next(iter(summary.benchmarks))
    probe = next(iter(summary.benchmarks[benchmark].probes))
    assert cell_summary(summary, benchmark, probe, outcomes, {})["mean_changed_predictions"] == 0.125
    assert "mean_changed_predictions" not in cell_summary(summary, benchmark, probe, [first, second], {})
