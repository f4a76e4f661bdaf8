from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from episodes.intervals import half_width
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group, groups_of
from lurefs.comparing.verdict_words import idle_resets
from lurefs.reporting.charts.group_styles import SEEDS, styles_of
from lurefs.reporting.charts.page_figures import PageFigures
from lurefs.reporting.sections import measures, robustness
from lurefs.reporting.sections.learning import section
from lurefs.reporting.sections.measures import COSTS, Axis, Measure, few_shot
from lurefs.reporting.series import curve, in_words
from lurefs.runs.outcomes import ChunkOutcome, FewShotScore, RobustnessScores, UnlearnReport
from made_up_runs import benchmark, outcome, run_in_memory, summary

UNLEARNED = UnlearnReport(
    strategy="by_saliency",
    n_kept=80,
    n_reset=20,
    reset_share={},
    accuracy_before=0.8,
    accuracy_after=0.3,
    seconds=1.0,
)
[IMAGES] = COSTS


def outcomes_of(errors: Sequence[int] = (60, 40, 20), seconds: float = 10.0) -> list[ChunkOutcome]:
    """Three chunks of 100 test images."""
    return [
        outcome(
            index,
            n_new=50,
            n_train=50,
            n_images_seen=500 * (index + 1),
            fit_accuracy=0.95,
            n_test_errors=n_errors,
            test_ece=0.25,
            n_forgotten=5 * index,
            n_gained=25 * index,
            unlearn=UNLEARNED if index else None,
            train_seconds=seconds,
            seconds=2 * seconds,
        )
        for index, n_errors in enumerate(errors)
    ]


def make_run(
    name: str,
    outcomes: Sequence[ChunkOutcome] = (),
    *,
    seed: int = 0,
    unlearn: str = "by_saliency",
    epochs: int = 5,
    backbone: str = "test_resnet",
) -> Run:
    values = {
        "name": name,
        "seed": seed,
        "unlearn": {"name": unlearn},
        "learner": {"epochs": epochs},
        "backbone": {"name": backbone},
    }
    return run_in_memory(values, outcomes=outcomes)


def alone(outcomes: Sequence[ChunkOutcome]) -> Group:
    return groups_of([make_run("lure", outcomes)])[0]


def points(group: Group, measure: Measure, axis: Axis = measures.CHUNKS) -> list[tuple[float, float]]:
    line = curve(group, measure.value, x=axis.value, interval=measure.interval)
    return [] if line is None else list(zip(np.asarray(line.x), np.asarray(line.y).round(9), strict=True))


class TestOneRun:
    @pytest.mark.parametrize(
        ("measure", "expected"),
        [
            (measures.ACCURACY, [40, 60, 80]),
            (measures.ERROR_RATE, [60, 50, 40]),
            (measures.GAP, [55, 35, 15]),
            (measures.ECE, [25, 25, 25]),
            (measures.NLL, [1.5, 1.5, 1.5]),
        ],
    )
    def test_every_chunk_has_its_value(self, measure: Measure, expected: list[float]) -> None:
        assert points(alone(outcomes_of()), measure) == list(zip([1, 2, 3], expected, strict=True))

    @pytest.mark.parametrize(
        ("measure", "expected"),
        [(measures.CHANGE, [20, 20]), (measures.FORGOTTEN, [5, 10]), (measures.GAINED, [25, 50])],
    )
    def test_a_change_begins_with_the_second_chunk(self, measure: Measure, expected: list[float]) -> None:
        assert points(alone(outcomes_of()), measure) == list(zip([2, 3], expected, strict=True))
        assert points(alone(outcomes_of()[:1]), measure) == []

    def test_images_seen_add_up_over_chunks(self) -> None:
        group = alone(outcomes_of())
        assert points(group, measures.ACCURACY, IMAGES) == [(500, 40), (1500, 60), (3000, 80)]

    def test_few_shot_accuracy_is_of_the_chunks_that_were_measured(self) -> None:
        score = FewShotScore(manifest="", probe="", n_episodes=9, accuracy=0.5, ci95_episodes=0.02)
        first, *rest = outcomes_of()
        measure = few_shot("novel")
        measured = [first, *(replace(outcome, few_shot={"novel": score}) for outcome in rest)]
        assert points(alone(measured), measure) == [(2, 50), (3, 50)]
        assert points(alone(outcomes_of()), measure) == []

    def test_a_value_that_is_not_finite_is_left_out(self) -> None:
        first, *rest = outcomes_of()
        assert [x for x, _ in points(alone([replace(first, test_nll=float("nan")), *rest]), measures.NLL)] == [2, 3]

    def test_it_keeps_its_own_name(self) -> None:
        line = curve(alone(outcomes_of()), measures.ACCURACY.value)
        assert line is not None and (line.label, line.has_band, line.half_width) == ("lure", False, None)
        assert in_words([line]) == "lure: 40 at first, 80 at last"


class TestSeeds:
    def three(self) -> Group:
        errors = [(60, 40), (50, 40), (70, 10)]
        runs = [make_run(f"lure-seed{seed}", outcomes_of(errors[seed], 10 + seed), seed=seed) for seed in range(3)]
        [group] = groups_of(runs)
        return group

    def test_one_curve_is_the_mean_with_students_interval_over_seeds(self) -> None:
        line = curve(self.three(), measures.ACCURACY.value)
        assert line is not None and line.half_width is not None
        assert (line.label, line.has_band) == ("lure (3 seeds)", True)
        np.testing.assert_allclose(line.y, [40, 70])
        # t(2) = 4.303; the standard deviations over seeds are 10 and sqrt(300).
        np.testing.assert_allclose(line.half_width, [4.302653 * 10 / 3**0.5, 4.302653 * 10], rtol=1e-6)
        assert half_width(10.0, 3) == pytest.approx(4.302653 * 10 / 3**0.5)

    def test_its_cost_is_the_mean_of_theirs(self) -> None:
        errors = [(60, 40), (50, 40), (70, 10)]
        longer = [
            [
                replace(outcome, n_images_seen=outcome.n_images_seen + 300 * seed)
                for outcome in outcomes_of(errors[seed])
            ]
            for seed in range(3)
        ]
        runs = [make_run(f"lure-seed{seed}", outcomes, seed=seed) for seed, outcomes in enumerate(longer)]
        assert [x for x, _ in points(groups_of(runs)[0], measures.ACCURACY, IMAGES)] == [800, 2100]

    def test_two_seeds_have_a_mean_and_no_interval(self) -> None:
        runs = [make_run(f"lure-seed{seed}", outcomes_of(), seed=seed) for seed in (3, 4)]
        line = curve(groups_of(runs)[0], measures.ACCURACY.value)
        assert line is not None and (line.label, line.half_width) == ("lure (2 seeds)", None)

    def test_seeds_that_agree_are_as_uncertain_as_the_episodes_that_they_share(self) -> None:
        score = FewShotScore(manifest="", probe="", n_episodes=9, accuracy=0.5, ci95_episodes=0.02)
        outcomes = [replace(outcome, few_shot={"novel": score}) for outcome in outcomes_of()]
        measure = few_shot("novel")
        lines = [
            curve(group, measure.value, interval=measure.interval)
            for seeds in ((0,), (0, 1, 2))
            for group in groups_of([make_run(f"lure{seed}", outcomes, seed=seed) for seed in seeds])
        ]
        assert [list(np.asarray(line.half_width)) for line in lines if line] == [[2.0] * 3, [2.0] * 3]

    def test_only_chunks_that_all_seeds_have_are_drawn(self) -> None:
        runs = [make_run("a", outcomes_of(), seed=0), make_run("a", outcomes_of()[:2], seed=1)]
        assert [x for x, _ in points(groups_of(runs)[0], measures.ACCURACY)] == [1, 2]


class TestGroups:
    def test_other_settings_and_equal_seeds_are_not_pooled(self) -> None:
        runs = [
            make_run("lure", seed=0),
            make_run("warm", seed=0, unlearn="nothing"),
            make_run("lure", seed=1),
            make_run("again", seed=0),
        ]
        groups = groups_of(runs)
        assert [[run.label for run in group.runs] for group in groups] == [["lure", "lure"], ["warm"], ["again"]]
        assert [group.label for group in groups] == ["lure (2 seeds)", "warm", "again"]
        assert [group.style for group in groups] == [0, 1, 2]
        assert styles_of(groups) == {"lure": 0, "warm": 1, "again": 2}

    def test_a_run_that_did_not_learn_is_not_pooled_with_those_that_did(self) -> None:
        assert len(groups_of([make_run("a", outcomes_of(), seed=0), make_run("a", seed=1)])) == 2

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("lure-seed{}", "lure"),
            ("lure_s{}", "lure"),
            ("lure {}", "lure"),
            ("seed{}-lure", "lure"),
            ("lenses{}", "lenses"),
            ("lr-0.1-seed{}", "lr-0.1"),
            ("smoke", "smoke"),
            ("run10", "run10"),
            ("a name that is as long as names may be seed {}", "a name that is as long as names may be"),
        ],
    )
    def test_is_called_by_what_its_names_share(self, pattern: str, expected: str) -> None:
        [group] = groups_of([make_run(pattern.format(seed), seed=seed) for seed in (0, 1)])
        assert group.label == f"{expected} (2 seeds)"

    def test_is_called_by_its_settings_where_the_names_share_nothing(self) -> None:
        runs = [make_run("first", seed=0), make_run("second", seed=1), make_run("third", epochs=9)]
        assert [group.label for group in groups_of(runs)] == ["epochs 5 (2 seeds)", "third"]
        assert groups_of(runs[:2])[0].label == "by_saliency (2 seeds)"


def with_robustness(outcomes: Sequence[ChunkOutcome], n_images: int = 100) -> list[ChunkOutcome]:
    scores = RobustnessScores(
        n_images=n_images,
        corruptions={"gaussian_noise": {"1": 0.75, "5": 0.25}, "jpeg": {"1": 0.5, "5": 0.5}},
        attacks={"pgd": {"0.0314": 0.125, "0.0157": 0.25}},
    )
    return [replace(outcome, robustness=scores) for outcome in outcomes]


class TestRobustness:
    def test_severity_is_averaged_over_corruptions_and_begins_at_the_unchanged_images(self) -> None:
        line = robustness.severity_curve(alone(with_robustness(outcomes_of())))
        assert line is not None
        assert (list(np.asarray(line.x)), list(np.asarray(line.y))) == ([0, 1, 5], [80, 62.5, 37.5])

    def test_unchanged_images_are_left_out_where_they_are_others(self) -> None:
        line = robustness.severity_curve(alone(with_robustness(outcomes_of(), n_images=50)))
        assert line is not None and list(np.asarray(line.x)) == [1, 5]

    def test_an_attack_is_ordered_by_its_strength_in_levels_of_a_pixel(self) -> None:
        line = robustness.attack_curve(alone(with_robustness(outcomes_of())), "pgd")
        assert line is not None
        np.testing.assert_allclose(line.x, [0, 4.0035, 8.007])
        assert list(np.asarray(line.y)) == [80, 25, 12.5]
        assert robustness.attack_curve(alone(with_robustness(outcomes_of())), "fgsm") is None

    def test_the_last_chunk_that_was_measured_counts(self) -> None:
        first, *rest = outcomes_of()
        line = robustness.severity_curve(alone([*with_robustness([first]), *rest]))
        assert line is not None and list(np.asarray(line.y)) == [40, 62.5, 37.5]

    def test_the_table_has_a_row_a_change_and_a_column_a_group(self) -> None:
        runs = [make_run("lure", with_robustness(outcomes_of())), make_run("warm", outcomes_of(), unlearn="nothing")]
        table = robustness.table(groups_of(runs))
        assert table["columns"] == ["lure", "warm"]
        assert [(row["name"], row["values"]) for row in table["rows"]] == [
            ("All corruptions", ["50.00", "–"]),
            ("gaussian noise", ["50.00", "–"]),
            ("jpeg", ["50.00", "–"]),
            ("pgd, 4/255", ["25.00", "–"]),
            ("pgd, 8/255", ["12.50", "–"]),
        ]

    def test_seeds_have_an_interval_in_the_table(self) -> None:
        runs = [make_run(f"lure{seed}", with_robustness(outcomes_of()), seed=seed) for seed in range(3)]
        assert robustness.table(groups_of(runs))["rows"][0]["values"] == ["50.00 ± 0.00"]


class TestSection:
    def titles(self, runs: Sequence[Run], part: str, tmp_path: Path) -> list[str]:
        found = section(runs, groups_of(runs), {}, PageFigures(tmp_path))[part]
        charts = found["charts"] if isinstance(found, dict) else found
        return [chart["title"] for chart in charts]

    def test_what_was_not_measured_has_no_chart(self, tmp_path: Path) -> None:
        runs = [make_run("lure", outcomes_of()[:1])]
        found = section(runs, groups_of(runs), {}, PageFigures(tmp_path))
        assert found["robustness"] is None and found["changes"] == found["more_cost"] == []
        assert section([make_run("lure")], groups_of([make_run("lure")]), {}, PageFigures(tmp_path)).keys() == {
            "missing"
        }

    def test_robustness_has_a_chart_a_question(self, tmp_path: Path) -> None:
        runs = [make_run("lure", with_robustness(outcomes_of()))]
        expected = ["Corrupted images", "Corrupted images by severity", "Attack pgd"]
        assert self.titles(runs, "robustness", tmp_path) == expected

    def test_cost_is_images_seen_since_a_time_is_measured_once(self, tmp_path: Path) -> None:
        runs = [make_run("lure", outcomes_of())]
        assert self.titles(runs, "cost", tmp_path) == ["Base accuracy against images seen"]

    def test_seeds_are_told_in_the_caption_and_in_a_note(self, tmp_path: Path) -> None:
        runs = [make_run(f"lure{seed}", outcomes_of(), seed=seed) for seed in range(3)]
        found = section(runs, groups_of(runs), {}, PageFigures(tmp_path))
        assert found["notes"] == ["lure (3 seeds): lure0, lure1 and lure2"]
        assert found["main"][0]["caption"].endswith(SEEDS)
        assert 'aria-label="Base accuracy. ' in found["main"][0]["svg"]
        assert "lure (3 seeds): 40 at first, 80 at last" in found["main"][0]["svg"]
        assert len(found["rows"]) == len(found["chunks"]) == 3

    def test_over_seeds_stand_the_means_of_the_accuracies_with_their_intervals(self, tmp_path: Path) -> None:
        score = FewShotScore(manifest="", probe="", n_episodes=9, accuracy=0.5, ci95_episodes=0.02)
        runs = []
        for seed, n_errors in enumerate((20, 30, 40)):
            *first, last = outcomes_of((60, n_errors))
            run = make_run(f"lure{seed}", [*first, replace(last, few_shot={"novel": score})], seed=seed)
            runs.append(replace(run, summary=summary({"novel": benchmark({})})))
        found = section([*runs, make_run("alone", outcomes_of())], groups_of(runs), {}, PageFigures(tmp_path))
        assert found["benchmarks"] == ["novel"]
        assert found["seeds"] == [
            {
                "group": "lure (3 seeds)",
                "anytime": f"55.00 ± {100 * half_width(0.05, 3):.2f}",
                "last": f"70.00 ± {100 * half_width(0.1, 3):.2f}",
                "few_shot": ["50.00 ± 0.00"],
            }
        ]

    def test_many_curves_of_several_backbones_have_a_chart_a_backbone(self, tmp_path: Path) -> None:
        strategies = ("by_saliency", "nothing", "from_scratch")
        runs = [
            make_run(f"{backbone} {unlearn}", outcomes_of(), unlearn=unlearn, backbone=backbone)
            for backbone in ("test_vit", "test_resnet", "test_convnext")
            for unlearn in strategies
        ]
        titles = [f"Base accuracy, {backbone}" for backbone in ("test_vit", "test_resnet", "test_convnext")]
        found = section(runs, groups_of(runs), {}, PageFigures(tmp_path))["main"]
        assert [chart["title"] for chart in found][:4] == [*titles, "Cumulative error rate"]
        assert "test_vit nothing" in found[0]["svg"] and "test_resnet nothing" not in found[0]["svg"]
        assert self.titles(runs[:6], "main", tmp_path)[0] == "Base accuracy"


def with_effect(*shares: float | None) -> list[ChunkOutcome]:
    """Two chunks with a reset before them, of which each changed a share of the predictions."""
    first, *rest = outcomes_of()
    did = [replace(UNLEARNED, changed_predictions=share) for share in shares]
    return [first, *(replace(outcome, unlearn=report) for outcome, report in zip(rest, did, strict=True))]


class TestIdleResets:
    def test_a_run_whose_resets_changed_no_prediction_is_called_a_warm_start(self, tmp_path: Path) -> None:
        runs = [make_run("lure", with_effect(0.0, 0.0)), make_run("other", with_effect(0.1, 0.2), unlearn="head")]
        said = "lure: unlearning changed no prediction: this run is a warm start in effect"
        assert idle_resets(groups_of(runs)) == [said]
        assert section(runs, groups_of(runs), {}, PageFigures(tmp_path))["idle"] == [f"{said}."]

    def test_of_several_seeds_it_is_said_in_how_many(self) -> None:
        runs = [
            make_run(f"lure-seed{seed}", with_effect(*shares), seed=seed)
            for seed, shares in enumerate([(0.0, 0.2), (0.3, 0.2), (0.1, 0.2)])
        ]
        assert idle_resets(groups_of(runs)) == ["lure (3 seeds) (in 1 of 3 runs): 1 of 2 resets changed no prediction"]

    def test_nothing_is_said_where_nothing_was_unlearned_or_measured(self) -> None:
        warm = [replace(outcome, unlearn=None) for outcome in outcomes_of()]
        assert idle_resets(groups_of([make_run("warm", warm), make_run("old", with_effect(None, None))])) == []
