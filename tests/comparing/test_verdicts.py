"""One record of what is told apart and what beats its controls, and the sentences that are read off it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from episodes.comparison import PairedDifference
from episodes.summary import Summary
from lurefs.cli import main
from lurefs.comparing.estimates import Scope, of_training
from lurefs.comparing.finished_runs import Run, read_runs
from lurefs.comparing.same_episodes import on_common_episodes
from lurefs.comparing.standings import standings
from lurefs.comparing.text_tables import text_tables
from lurefs.comparing.verdict_words import not_above_controls, verdict_sentences
from lurefs.comparing.verdicts import Verdict, Verdicts, judge_all
from lurefs.reporting.sections.headline import headline, warnings
from lurefs.runs.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]
ABOVE, LEVEL, BELOW = 0.1, 0.0, -0.1


def judged(directories: Sequence[RunDirectory]) -> Verdicts:
    return judge_all(read_runs(directories))["novel", "centroid"]


def of_seeds(make_run: MakeRun, name: str, gains: Sequence[float], **more: object) -> list[RunDirectory]:
    return [make_run(f"{name}-s{seed}", seed=seed, gain=gain, **more) for seed, gain in enumerate(gains)]


class TestPairs:
    def test_a_difference_that_is_turned_round_has_the_same_p_and_the_other_sign(self, make_run: MakeRun) -> None:
        verdicts = judged([make_run("lure", gain=0.9), make_run("warm", unlearn="nothing")])
        there, back = verdicts.between("lure", "warm"), verdicts.between("warm", "lure")
        assert there.difference is not None and back.difference is not None
        assert back.difference.mean == -there.difference.mean
        assert (there.p, there.difference.half_widths) == (back.p, back.difference.half_widths)
        assert there.paired is not None and back.paired is not None
        assert (there.paired.n_wins, there.paired.n_losses) == (back.paired.n_losses, back.paired.n_wins)

    def test_of_groups_with_the_same_seeds_are_tested_over_seeds_only(self, make_run: MakeRun) -> None:
        lure = of_seeds(make_run, "lure", (0.8, 0.9, 0.85))
        warm = of_seeds(make_run, "warm", (0.1, 0.15, 0.05), unlearn="nothing")
        verdict = judged([*lure, *warm]).between("lure (3 seeds)", "warm (3 seeds)")
        assert verdict.difference is not None
        assert (set(verdict.p), set(verdict.difference.half_widths), verdict.paired) == ({"seeds"}, {"seeds"}, None)

    @pytest.mark.parametrize(
        ("n_lure", "n_warm", "reason"),
        [
            (3, 1, "both have 1 of the 3 seeds that a difference over seeds needs, since seeds 1 and 2 have a result"),
            (2, 2, "both have 2 of the 3 seeds that a difference over seeds needs"),
            (1, 2, "both have 1 of the 3 seeds that a difference over seeds needs, since seed 1 has a result"),
        ],
    )
    def test_that_are_not_alike_have_a_reason_in_place_of_a_difference(
        self, make_run: MakeRun, n_lure: int, n_warm: int, reason: str
    ) -> None:
        lure = of_seeds(make_run, "lure", [0.5] * n_lure)
        warm = of_seeds(make_run, "warm", [0.0] * n_warm, unlearn="nothing")
        verdicts = judged([*lure, *warm])
        [pair] = verdicts.pairs
        assert (pair.difference, pair.p, verdicts.letters) == (None, {}, {})
        assert pair.why_not.startswith(reason)

    def test_that_can_be_tested_among_others_that_cannot_are_corrected_by_holm(self, make_run: MakeRun) -> None:
        single = [make_run("lure", gain=0.9), make_run("warm", unlearn="nothing")]
        seeds = of_seeds(make_run, "scratch", (0.1, 0.2, 0.3), unlearn="from_scratch")
        verdicts = judged([*single, *seeds])
        assert (verdicts.correction, verdicts.n_tested("pool"), len(verdicts.pairs)) == ("Holm", 1, 3)
        assert verdicts.between("lure", "warm").p == judged(single).between("lure", "warm").p

    def test_the_letters_say_what_the_corrected_p_values_say(self, make_run: MakeRun) -> None:
        names = {"warm": "nothing", "lure": "by_saliency", "scratch": "from_scratch", "head": "head"}
        gains = (0.0, 0.35, 0.4, 0.9)
        runs = [make_run(name, gain=gain, unlearn=by) for (name, by), gain in zip(names.items(), gains, strict=True)]
        verdicts = judged(runs)
        assert verdicts.correction == "Shaffer"
        for pair in verdicts.pairs:
            for scope, letters in verdicts.letters.items():
                share = set(letters[pair.group]) & set(letters[pair.less])
                assert bool(share) == (pair.p[scope] >= 0.05)

    def test_what_is_in_the_files_is_what_is_in_the_record(self, make_run: MakeRun) -> None:
        runs = [make_run("lure", gain=0.9), make_run("warm", unlearn="nothing"), make_run("third", unlearn="head")]
        found = standings(read_runs(runs))
        verdicts = found.verdicts["novel", "centroid"]
        row = next(row for row in found.groups if row.name == "lure")
        pair = next(pair for pair in found.pairs if {pair.group, pair.less} == {"lure", "warm"})
        p = verdicts.between("lure", "warm").p
        assert (row.p_episodes, row.p_classes) == (pair.p_episodes, pair.p_classes) == (p["pool"], p["classes"])


class TestControls:
    def of(self, runs: Sequence[RunDirectory], label: str) -> dict[str, bool]:
        return dict(judged(runs).beats[label])

    def test_a_run_beats_what_the_paired_interval_sets_below_it(self, make_run: MakeRun) -> None:
        run = make_run("lure", controls={"untrained_twin": ABOVE, "image_statistics": 0.001})
        assert self.of([run], "lure") == {"untrained_twin": True, "image_statistics": False}

    def test_a_run_does_not_beat_what_is_above_it(self, make_run: MakeRun) -> None:
        assert self.of([make_run("lure", controls={"image_statistics": BELOW})], "lure") == {"image_statistics": False}

    def test_without_the_episodes_of_a_control_only_a_level_above_the_run_is_judged(self, make_run: MakeRun) -> None:
        run = make_run("lure", controls={"untrained_twin": ABOVE, "image_statistics": BELOW})
        for control in ("untrained_twin", "image_statistics"):
            run.control_path("novel", control, "centroid").unlink()
        assert self.of([run], "lure") == {"image_statistics": False}

    def test_three_seeds_are_judged_by_the_interval_over_seeds(self, make_run: MakeRun) -> None:
        lower = (0.1, 0.11, -0.09)
        apart = [make_run(f"lure-s{s}", seed=s, controls={"untrained_twin": by}) for s, by in enumerate(lower)]
        assert self.of(apart, "lure (3 seeds)") == {"untrained_twin": False}
        alike = [make_run(f"warm-s{s}", seed=s, controls={"untrained_twin": ABOVE + s / 100}) for s in range(3)]
        assert self.of(alike, "warm (3 seeds)") == {"untrained_twin": True}

    def test_two_seeds_beat_a_control_only_if_both_do(self, make_run: MakeRun) -> None:
        runs = [make_run(f"lure-s{s}", seed=s, controls={"untrained_twin": by}) for s, by in enumerate((0.2, 0.0))]
        assert self.of(runs, "lure (2 seeds)") == {"untrained_twin": False}

    def test_on_the_first_episodes_they_are_those_of_the_first_episodes(self, make_run: MakeRun) -> None:
        runs = read_runs(
            [
                make_run("lure", controls={"image_statistics": ABOVE}),
                make_run("warm", n_episodes=25, unlearn="nothing", controls={"image_statistics": BELOW}),
            ]
        )
        first = judge_all(on_common_episodes(runs, ["novel"]))["novel", "centroid"]
        assert first.beats == {"lure": {"image_statistics": True}, "warm": {"image_statistics": False}}
        table = runs[0].directory.read_control_accuracies("novel", "image_statistics", "centroid")
        assert first.controls[0].by_run["lure"] == pytest.approx(table.accuracy[:25].mean())

    def test_stand_below_the_runs_without_rank_and_test(self, make_run: MakeRun) -> None:
        level = {"untrained_twin": ABOVE}
        runs = [make_run("lure", gain=0.9, controls=level), make_run("warm", unlearn="nothing", controls=level)]
        table = text_tables(standings(read_runs(runs)))[0]
        assert [row[0] for row in table.rows] == ["lure", "warm", "control: untrained twin"]
        assert set(table.rows[-1][2:]) == {"–"}
        assert any(note.startswith("control: untrained twin: each run has its own; the mean") for note in table.notes)

    def test_what_does_not_beat_them_is_said_first_on_the_page_and_under_the_table(
        self, make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        make_run("lure", gain=0.9, controls={"image_statistics": ABOVE})
        make_run("warm", unlearn="nothing", controls={"image_statistics": BELOW})
        main(["compare", str(tmp_path / "runs"), "--output", str(tmp_path / "out")])
        said = " ".join(capsys.readouterr().out.split())
        assert "warm does not beat plain image statistics (" in said
        page = (tmp_path / "out/report.html").read_text()
        lead = page[page.index('class="lead">') + 13 :]
        assert lead.startswith("On novel, warm does not beat plain image statistics (")
        markdown = (tmp_path / "out/comparison.md").read_text()
        assert "| control: image statistics |" in markdown
        found = json.loads((tmp_path / "out/comparison.json").read_text())
        assert [row["beats_image_statistics"] for row in found["groups"]] == [True, False]
        assert [row["name"] for row in found["controls"]] == ["control: image statistics"]


class TestWords:
    PAIR = Summary(mean=0.16, std=0.1, n=50, ci95_episodes=0.02, ci95_classes=0.13)

    def said(self, p: dict[Scope, float], n_pairs: int = 3, summary: Summary = PAIR) -> str:
        paired = PairedDifference(difference=summary, n_wins=9, n_ties=1, n_losses=2, correlation=0, p_episodes=0)
        first = Verdict(group="a", less="b", difference=of_training(summary), paired=paired, p=p)
        others = [Verdict(group="a", less=str(number), p=dict.fromkeys(p, 0.9)) for number in range(n_pairs - 1)]
        verdicts = Verdicts(
            benchmark="novel",
            probe="ridge",
            groups=(),
            accuracies={},
            reference=None,
            pairs=(first, *others),
            letters={},
            correction="Shaffer",
            controls=(),
            beats={},
        )
        return verdict_sentences(first, verdicts)

    def test_an_interval_that_leaves_zero_out_is_no_verdict_where_the_corrected_p_is_too_large(self) -> None:
        assert self.said({"pool": 0.0001, "classes": 0.07}) == (
            "On this pool of classes the two are told apart (p < 0.001, corrected for 3 pairs). On average over new "
            "classes of this kind the two are not told apart (p = 0.070, corrected for 3 pairs): by itself the "
            "interval excludes zero, but among 3 pairs one such can occur by chance."
        )

    def test_an_interval_that_holds_zero_needs_no_excuse(self) -> None:
        wide = replace(self.PAIR, ci95_classes=0.2)
        assert "by itself" not in self.said({"pool": 0.0001, "classes": 0.07}, summary=wide)

    def test_a_single_pair_is_not_corrected(self) -> None:
        said = self.said({"pool": 0.02, "classes": 0.04}, n_pairs=1)
        assert said.startswith("On this pool of classes the two are told apart (p = 0.020). On average over new")

    def test_without_an_interval_over_classes_nothing_is_said_of_them(self) -> None:
        said = self.said({"pool": 0.02}, summary=replace(self.PAIR, ci95_classes=None))
        assert said.endswith("Nothing is known about new classes: there is no interval over them.")

    def test_where_none_beats_a_control_that_is_said_in_one_word(self, make_run: MakeRun) -> None:
        names = {"warm": "nothing", "lure": "by_saliency"}
        runs = [make_run(name, unlearn=by, controls={"image_statistics": BELOW}) for name, by in names.items()]
        [sentence] = not_above_controls(judged(runs))
        assert sentence.startswith("none of the 2 runs beats plain image statistics (")
        card = headline(judged(runs))
        assert card is not None and card.warnings[0].startswith("None of the 2 runs beats")
        assert warnings([judged(runs)])[0].startswith("On novel, none of the 2 runs beats")

    def test_single_trainings_are_called_so_and_procedures_are_not(self, make_run: MakeRun) -> None:
        warm, lure = make_run("warm", unlearn="nothing"), make_run("lure", gain=0.5)
        alone, several = headline(judged([warm, lure])), of_seeds(make_run, "head", (0.1, 0.2, 0.3), unlearn="head")
        assert alone is not None and alone.verdict.endswith(
            "These trained models, one training each: another seed may change the order."
        )
        assert alone.verdict.startswith("On this pool of classes the two trained models are")
        runs: list[Run] = read_runs([*several, *of_seeds(make_run, "new", (0.3, 0.2, 0.3), unlearn="from_scratch")])
        assert not any("another seed may" in note for table in text_tables(standings(runs)) for note in table.notes)

    def test_single_trainings_among_several_seeds_are_named(self, make_run: MakeRun) -> None:
        warm, lure = make_run("warm", unlearn="nothing"), make_run("lure", gain=0.5)
        several = of_seeds(make_run, "head", (0.1, 0.2, 0.3), unlearn="head")
        card = headline(judged([warm, *several]))
        assert card is not None and card.verdict.endswith(
            "warm is a single training: another seed may change its place."
        )
        table, _ = text_tables(standings(read_runs([warm, lure, *several])))
        assert "lure and warm are single trainings: another seed may change their places" in table.notes
