from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from episodes.bank import FeatureBank
from episodes.comparison import paired_difference
from episodes.image_names import ImageNames
from episodes.manifest import Manifest
from episodes.metrics import Reliability
from episodes.over_seeds import summarise_seeds
from episodes.sampler import EpisodeSpec
from episodes.summary import hardest_by_chance, percentile_5_by_chance, summarise, tails
from episodes.table import EpisodeTable
from lurefs import plugins
from lurefs.comparing import texts
from lurefs.comparing.answers import Answers, read_answers
from lurefs.comparing.controls import controls_of
from lurefs.comparing.finished_runs import read_runs
from lurefs.comparing.standings import standings
from lurefs.comparing.text_tables import text_tables
from lurefs.comparing.verdict_words import verdict_sentences
from lurefs.comparing.verdicts import Verdicts, judge_all
from lurefs.config.identity import digest, run_identity
from lurefs.config.learning_schema import ChunksConfig
from lurefs.data.dataset import ImageDataset
from lurefs.errors import UserError
from lurefs.reporting.charts import curves, episode_sheets, style
from lurefs.reporting.page import write_report
from lurefs.reporting.sections import narrative
from lurefs.reporting.sections.headline import Headline, headline
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import ChunkOutcome, FewShotScore, RobustnessScores, UnlearnReport
from made_up_runs import accuracy, change_benchmark, change_probe, control, outcome, probe, write_run

N_CLASSES, N_IMAGES, N_EPISODES = 10, 8, 20
SPEC = EpisodeSpec(n_way=3, n_shot=2, n_query=3, n_episodes=N_EPISODES)
NOVEL = tuple(f"class {label}" for label in range(5, N_CLASSES))

MakeRun = Callable[..., RunDirectory]


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    return _make_data(tmp_path / "strokes.npz")


def _make_data(path: Path) -> Path:
    """Save white strokes on black, 10 classes of 8 images."""
    generator = np.random.default_rng(0)
    images = np.zeros((N_CLASSES * N_IMAGES, 8, 8), dtype=np.uint8)
    images[:, 2:4, 2:6] = generator.integers(128, 255, (len(images), 2, 4))
    labels = np.repeat(np.arange(N_CLASSES), N_IMAGES)
    ids = np.array([f"image {row}" for row in range(len(images))])
    class_names = np.array([f"class {label}" for label in range(N_CLASSES)])
    np.savez(path, images=images, labels=labels, class_names=class_names, image_ids=ids)
    return path


@pytest.fixture
def make_run(tmp_path: Path, data_path: Path) -> MakeRun:
    def make(
        name: str = "lure",
        *,
        unlearn: str = "by_saliency",
        gain: float = 0.0,
        seed: int = 0,
        folder: str = "",
        training_seed: int = 0,
    ) -> RunDirectory:
        directory = _make_run(tmp_path / (folder or name), data_path, name, unlearn=unlearn, gain=gain, seed=seed)
        trained = replace(directory.read_config(), seed=training_seed)
        directory.write_config(trained)
        found = directory.read_summary()
        stated = replace(found.run, seed=training_seed, digest=digest(run_identity(trained)))
        directory.write_summary(replace(found, run=stated))
        return directory

    return make


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """One run that no test changes."""
    folder = tmp_path_factory.mktemp("a folder")
    data_path = _make_data(folder / "strokes.npz")
    return _make_run(folder / "lure", data_path, "lure", unlearn="by_saliency", gain=0.0, seed=0)


@pytest.fixture(scope="module")
def one_page(one_run: RunDirectory) -> _Text:
    """The page of that run."""
    return read(write_report([one_run], one_run.path / "out"))


@pytest.fixture(scope="module")
def three_runs(one_run: RunDirectory) -> list[RunDirectory]:
    """A run that is better, the reference, and one that is equal to the reference."""
    folder = one_run.path.parent
    data_path = folder / "strokes.npz"
    return [
        _make_run(folder / "three" / name, data_path, name, unlearn=unlearn, gain=gain, seed=0)
        for name, unlearn, gain in [
            ("lure", "by_saliency", 1.0),
            ("warm", "nothing", 0.0),
            ("third", "from_scratch", 0.0),
        ]
    ]


@pytest.fixture(scope="module")
def page_of_three(three_runs: list[RunDirectory]) -> _Text:
    """The page of these three."""
    return read(write_report(three_runs, three_runs[0].path.parent / "out"))


@pytest.fixture(scope="module")
def page_of_two(one_run: RunDirectory) -> Path:
    """The page of that run beside one that unlearns nothing and has a name to be escaped."""
    data_path = one_run.path.parent / "strokes.npz"
    other = _make_run(one_run.path.parent / "other", data_path, "a&b", unlearn="nothing", gain=1.0, seed=0)
    return write_report([one_run, other], one_run.path.parent / "two")


def _make_run(path: Path, data_path: Path, name: str, *, unlearn: str, gain: float, seed: int) -> RunDirectory:
    manifest = _manifest(seed)
    values = {
        "name": name,
        "dataset": {"name": "npz", "params": {"path": str(data_path)}},
        "class_split": {
            "base": [f"class {label}" for label in range(4)],
            "validation": ["class 4"],
            "novel": list(NOVEL),
        },
        "unlearn": {"name": unlearn},
        "benchmarks": {"novel": {"n_way": 3, "n_shot": 2, "n_query": 3, "n_episodes": N_EPISODES, "seed": seed}},
        "probes": {"centroid": {"name": "nearest_centroid"}},
    }
    directory = write_run(
        path,
        values,
        {"novel": {"centroid": _table(manifest, gain)}},
        {"novel": manifest},
        outcomes=[_outcome(index, manifest, unlearn) for index in range(2)],
        seconds=140.0,
        n_not_converged=7,
    )
    _bank().save(directory.features_dir("novel"))
    directory.identity_path.write_text(json.dumps(_identity()))
    return directory


def _bank() -> FeatureBank:
    labels = np.repeat(np.arange(len(NOVEL)), N_IMAGES)
    features = np.eye(len(NOVEL), 6, dtype=np.float32)[labels]
    features += np.random.default_rng(1).normal(0, 0.4, features.shape).astype(np.float32)
    ids = tuple(f"image {row}" for row in range(5 * N_IMAGES, N_CLASSES * N_IMAGES))
    return FeatureBank(features=features, labels=labels, image_ids=ids, class_names=NOVEL)


def _manifest(seed: int) -> Manifest:
    generator = np.random.default_rng(seed)
    classes = np.stack([generator.permutation(len(NOVEL))[:3] for _ in range(N_EPISODES)])
    drawn = np.stack([[label * N_IMAGES + generator.permutation(N_IMAGES)[:5] for label in row] for row in classes])
    return Manifest(
        spec=SPEC,
        seed=seed,
        images_digest=_bank().images_digest,
        classes=classes,
        support=drawn[:, :, :2].reshape(N_EPISODES, -1),
        query=drawn[:, :, 2:].reshape(N_EPISODES, -1),
    )


def _table(manifest: Manifest, gain: float) -> EpisodeTable:
    """The first queries of an episode are right, and the others are taken for the class after their own."""
    generator = np.random.default_rng(2)
    counts = np.zeros(15, dtype=np.int64)
    accuracy = generator.integers(4, 9, N_EPISODES) / 9 + gain * generator.integers(0, 2, N_EPISODES) / 9
    accuracy = np.minimum(accuracy, 1)
    labels = np.repeat(np.arange(3), 3)
    is_right = np.arange(9) < (9 * accuracy).round()[:, None]
    return EpisodeTable(
        index=np.arange(N_EPISODES),
        classes=manifest.classes,
        accuracy=accuracy,
        predicted=np.where(is_right, labels, (labels + 1) % 3).astype(np.int16),
        nll=np.full(N_EPISODES, np.nan),
        brier=np.full(N_EPISODES, np.nan),
        converged=np.ones(N_EPISODES, dtype=bool),
        seconds=np.full(N_EPISODES, 0.001),
        reliability=Reliability(n=counts, confidence=np.zeros(15), correct=counts),
        identity={"manifest": manifest.hash},
    )


def _cut(directory: RunDirectory, n_episodes: int, *, is_other_manifest: bool) -> None:
    """Leave a run the first episodes only, of the manifest as it is or of a shorter one."""
    manifest = directory.read_manifest("novel")
    if is_other_manifest:
        manifest = manifest.prefix(n_episodes)
        manifest.save(directory.manifest_path("novel"))
    table = directory.read_episodes("novel", "centroid")
    table = replace(table.first(n_episodes), identity={"manifest": manifest.hash})
    table.save(directory.episodes_path("novel", "centroid"))
    change_benchmark(directory, "novel", manifest=manifest.hash, probes={"centroid": probe(table)})


def _outcome(index: int, manifest: Manifest, unlearn: str) -> ChunkOutcome:
    did = UnlearnReport(
        strategy=unlearn,
        n_kept=800,
        n_reset=200,
        reset_share={},
        accuracy_before=0.5,
        accuracy_after=0.25,
        accuracy_after_new_statistics=0.3125,
        seconds=0.5,
        n_images=512,
        changed_predictions=0.125,
        logit_change=0.25,
        silent_before=0.01,
        silent_after=0.02,
    )
    score = FewShotScore(manifest=manifest.hash, probe="centroid", n_episodes=10, accuracy=0.5, ci95_episodes=0.02)
    return outcome(
        index,
        n_new=1200,
        n_train=1000 * (index + 1),
        n_images_seen=20_000,
        best_epoch=3,
        n_test_errors=30 - 10 * index,
        n_test=80,
        test_ece=0.0625,
        test_nll=1.25,
        n_forgotten=4 * index,
        n_gained=14 * index,
        n_epochs_to_recover=2 if index else None,
        unlearn=did if index else None,
        few_shot={"novel": score},
        train_seconds=61.0,
        seconds=65.0,
    )


def _identity() -> dict[str, Any]:
    return {
        "digest": "ba9876543210",
        "backbone": {"name": "test_efficientnet", "n_parameters": 12345, "n_features": 6},
        "split": {"n_base_classes": 4, "n_validation_classes": 1, "n_novel_classes": 5, "n_train_images": 3200},
        "versions": {"torch": "2.9.9"},
    }


class _Text(HTMLParser):
    """The words of a page, its tables as lists of rows, and every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self._cell: list[str] | None = None
        self._skips = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._skips += tag in ("style", "script")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        self._skips -= tag in ("style", "script")
        if tag in ("td", "th") and self._cell is not None:
            self.rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if not self._skips:
            self.words.append(data)
            if self._cell is not None:
                self._cell.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def read(path: Path) -> _Text:
    parser = _Text()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def judged(directories: list[RunDirectory]) -> Verdicts:
    return judge_all(read_runs(directories))["novel", "centroid"]


def card_of(directories: list[RunDirectory]) -> Headline:
    card = headline(judged(directories))
    assert card is not None
    return card


def values(directory: RunDirectory) -> tuple[np.ndarray, np.ndarray]:
    table = directory.read_episodes("novel", "centroid")
    return table.accuracy, table.classes


def as_percent(value: float) -> str:
    return f"{100 * value:.2f}"


class TestOneRun:
    def test_headline_states_accuracy_both_intervals_and_chance(self, one_run: RunDirectory, one_page: _Text) -> None:
        summary = summarise(*values(one_run))
        assert summary.ci95_classes is not None
        text = one_page.text
        assert f"{as_percent(summary.mean)} %" in text.replace("\u2009", " ")
        pool, classes = as_percent(summary.ci95_episodes), as_percent(summary.ci95_classes)
        assert f"± {pool} on this pool of classes, ± {classes} on average over new classes of this kind" in text
        assert "3-way 2-shot, 3 queries per class, chance 33.33 %" in text

    def test_table_holds_the_summary_and_dashes_where_there_is_none(
        self, one_run: RunDirectory, one_page: _Text
    ) -> None:
        summary = summarise(*values(one_run))
        assert summary.ci95_classes is not None
        three = [as_percent(number) for number in (summary.mean, summary.ci95_episodes, summary.ci95_classes)]
        assert any(row[:4] == ["lure", *three] and row[-1] == "20" for row in one_page.rows)
        assert ["lure", "–", "–", "–", "7"] in one_page.rows
        assert "centroid gives no probabilities, so it has no NLL, Brier score and ECE." in one_page.text

    def test_probabilities_are_shown_with_three_digits(self, make_run: MakeRun, tmp_path: Path) -> None:
        run = make_run()
        change_probe(run, "novel", "centroid", nll=accuracy(1.23456), brier=accuracy(0.5), ece=0.125)
        assert ["lure", "1.235", "0.500", "12.50", "7"] in read(write_report([run], tmp_path / "out")).rows

    def test_learning_and_cost_are_told(self, one_page: _Text) -> None:
        assert [
            "lure",
            "68.75",
            "75.00",
            "+15.00",
            "6.25",
            "1.250",
            "50",
            "31.25",
            "12.50",
            "25.00",
            "2.0",
        ] in one_page.rows
        assert ["lure", "2 min 02 s", "0.5 s", "40,000", "2 min 20 s"] in one_page.rows
        unlearned = ["20.0", "12.50", "0.250", "1.0 → 2.0", "50.00", "25.00", "31.25", "2"]
        measured = ["50.00", "75.00", "4", "14", "+15.00", "6.25", "50.00 ± 2.00", "65.0 s"]
        assert ["2", "1,200", "2,000", *unlearned, *measured] in one_page.rows

    def test_what_was_run_stands_in_words(self, one_page: _Text) -> None:
        text = one_page.text
        assert "test_efficientnet was trained on 4 classes of npz, whose images arrived in 2 chunks." in text
        assert "4 base, 1 validation, 5 novel" in text
        assert "test_efficientnet (12,345 weights, 6 features)" in text
        assert "3,200 for training" in text
        assert "the least salient weights are re-initialised (LURE), keep_ratio 0.8" in text

    def test_provenance_lets_a_reader_repeat_the_run(self, one_run: RunDirectory, one_page: _Text) -> None:
        text = one_page.text
        assert f"lurefs run --config '{one_run.config_path}'" in text
        manifest = one_run.read_manifest("novel").hash
        for part in (one_run.read_summary().run.digest, "ba9876543210", "torch 2.9.9", manifest, "nearest_centroid"):
            assert part in text

    def test_episode_is_the_first_nearest_to_the_median(self, one_run: RunDirectory, one_page: _Text) -> None:
        accuracy, _ = values(one_run)
        index = int(np.abs(accuracy - np.median(accuracy)).argmin())
        assert f"Episode {index} of novel, by lure and centroid" in one_page.text

    def test_images_are_shown_as_dark_ink_and_told_to_screen_readers(
        self, one_run: RunDirectory, one_page: _Text
    ) -> None:
        images = [value for tag, name, value in one_page.attributes if (tag, name) == ("img", "src")]
        table = one_run.read_episodes("novel", "centroid")
        n_wrong = (9 * (1 - np.sort(table.accuracy)[:3])).round().sum()
        assert len(images) == 9 * 5 + 3 * 5 + 3 * 3 * 2 + n_wrong
        assert ("img", "class", "tile ink") in one_page.attributes
        labels = [value for tag, name, value in one_page.attributes if (tag, name) == ("div", "aria-label")]
        assert any(re.match(r"A, class \d: [0-3] of 3 images classified correctly", label) for label in labels)

    def test_no_interval_over_classes_is_said_with_its_reason(self, make_run: MakeRun, tmp_path: Path) -> None:
        run = make_run()
        without = accuracy(0.5, ci95_classes=None, no_ci95_classes="a class is in every episode")
        change_probe(run, "novel", "centroid", accuracy=without)
        text = read(write_report([run], tmp_path / "out")).text
        assert "no interval on new classes (a class is in every episode)" in text


class TestMissingThings:
    def test_identity(self, make_run: MakeRun, tmp_path: Path) -> None:
        run = make_run()
        run.identity_path.unlink()
        assert "test_efficientnet was trained on npz" in read(write_report([run], tmp_path / "out")).text

    def test_chunks(self, make_run: MakeRun, tmp_path: Path) -> None:
        run = make_run()
        run.chunks_path.unlink()
        text = read(write_report([run], tmp_path / "out")).text
        assert "Learning, chunk by chunk" not in text
        assert f"is not shown: there is no {run.chunks_path}." in text
        assert "Time and images" in text

    def test_images(self, make_run: MakeRun, tmp_path: Path, data_path: Path) -> None:
        run = make_run()
        data_path.unlink()
        page = read(write_report([run], tmp_path / "out"))
        assert "Images are not shown:" in page.text
        assert "Episodes are not shown:" in page.text
        assert "Accuracy by class" in page.text
        assert "img" not in page.tags

    def test_features(self, make_run: MakeRun, tmp_path: Path) -> None:
        run = make_run()
        (run.features_dir("novel") / "bank.json").unlink()
        page = read(write_report([run], tmp_path / "out"))
        assert "One episode" not in page.text
        for what in ("Episodes are", "Confusions are", "A map of the features is"):
            assert f"{what} not shown: there is no" in page.text
        assert "Base classes, 4 of 4" in page.text

    def test_features_where_the_episodes_know_the_names_of_their_images(
        self, make_run: MakeRun, tmp_path: Path
    ) -> None:
        run = make_run()
        names = ImageNames.of(run.read_bank("novel"))
        replace(run.read_manifest("novel"), images=names).save(run.manifest_path("novel"))
        (run.features_dir("novel") / "bank.json").unlink()
        text = read(write_report([run], tmp_path / "out")).text
        assert "One episode" in text and "Accuracy by class" in text
        assert "A map of the features is not shown: there is no" in text

    def test_answers(self, make_run: MakeRun, tmp_path: Path) -> None:
        run = make_run()
        replace(run.read_episodes("novel", "centroid"), predicted=None).save(run.episodes_path("novel", "centroid"))
        page = read(write_report([run], tmp_path / "out"))
        reason = "not shown: the results of lure on novel are older than stored answers."
        assert f"Episodes are {reason}" in page.text and f"Confusions are {reason}" in page.text
        assert "Map of the features." in page.text

    def test_benchmarks(self, make_run: MakeRun, tmp_path: Path) -> None:
        run = make_run()
        run.write_summary(replace(run.read_summary(), benchmarks={}))
        assert "Nothing was measured on episodes yet." in read(write_report([run], tmp_path / "out")).text

    def test_summary_is_the_user_s_to_make(self, make_run: MakeRun, tmp_path: Path) -> None:
        run = make_run()
        run.summary_path.unlink()
        with pytest.raises(UserError, match=r"no summary\.json"):
            write_report([run], tmp_path / "out")

    def test_a_place_that_cannot_be_written_is_told(self, make_run: MakeRun, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"file cannot be written: .*\n.*\n.*give another folder: --output"):
            write_report([make_run()], tmp_path / "file")

    def test_no_run_at_all_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no run to report"):
            write_report([], tmp_path / "out")


class TestSeveralRuns:
    def test_differences_are_paired_against_the_run_that_unlearns_nothing(
        self, three_runs: list[RunDirectory], page_of_three: _Text
    ) -> None:
        better, reference = values(three_runs[0]), values(three_runs[1])
        paired = paired_difference(better[0], reference[0], reference[1], rng=np.random.default_rng(0))
        difference = paired.difference
        assert difference.ci95_classes is not None
        numbers = [f"+{as_percent(difference.mean)}", as_percent(difference.ci95_episodes)]
        corrected = 3 * paired.p_episodes, min(1, 3 * (paired.p_classes or 0))
        numbers += [as_percent(difference.ci95_classes), *map(texts.p_value, corrected)]
        numbers += [f"{paired.n_wins} / {paired.n_ties} / {paired.n_losses}"]
        assert ["lure", *numbers, f"{paired.correlation:.2f}", str(difference.n)] in page_of_three.rows
        assert f"+{as_percent(difference.mean)} points against warm, the reference" in page_of_three.text

    def test_three_runs_have_one_row_each_and_a_word_on_choosing_the_best(self, page_of_three: _Text) -> None:
        assert "3 runs compared" in page_of_three.text
        assert "lure, the highest of 3 runs, by centroid" in page_of_three.text
        assert "corrected for all pairs, so that the best may be picked after they were measured" in page_of_three.text
        row = ["third", "0.00", "0.00", "0.00", "1.000", "1.000", "0 / 20 / 0", "1.00", "20"]
        assert row in page_of_three.rows

    def test_settings_that_differ_are_listed_and_no_others(self, page_of_three: _Text) -> None:
        paths = [row for row in page_of_three.rows if row and re.match(r"[a-z_]+\.", row[0])]
        assert paths == [["unlearn.name", "by_saliency", "nothing", "from_scratch"]]

    def test_other_episodes_are_shown_with_a_warning_and_not_paired(self, make_run: MakeRun, tmp_path: Path) -> None:
        runs = [make_run("warm", unlearn="nothing"), make_run(gain=1.0), make_run("other", seed=5, gain=2.0)]
        page = read(write_report(runs, tmp_path / "out"))
        assert "These runs did not meet the same episodes." in page.text
        assert f"episodes {runs[2].read_manifest('novel').hash[:12]}: other" in page.text
        assert [
            "other",
            "not compared with warm: the two did not meet the same episodes: episode 0 differs (seeds 5 and 0)",
        ] in page.rows
        assert "Not compared with warm: the two did not meet the same episodes: episode 0" in page.text
        assert any(row[:1] == ["lure"] and "/" in "".join(row) and len(row) == 9 for row in page.rows)

    @pytest.mark.parametrize("is_other_manifest", [False, True], ids=["stopped earlier", "drawn shorter"])
    def test_runs_that_met_fewer_episodes_are_paired_on_those_that_both_met(
        self, make_run: MakeRun, tmp_path: Path, is_other_manifest: bool
    ) -> None:
        runs = [make_run("warm", unlearn="nothing"), make_run(gain=1.0)]
        expected = paired_difference(
            values(runs[1])[0][:12], values(runs[0])[0][:12], values(runs[0])[1][:12], rng=np.random.default_rng(0)
        )
        _cut(runs[1], 12, is_other_manifest=is_other_manifest)
        page = read(write_report(runs, tmp_path / "out"))
        assert "These runs did not meet the same episodes." not in page.text
        [row] = [row for row in page.rows if row[:1] == ["lure"] and "/" in "".join(row)]
        assert (row[1], row[-1]) == (texts.points(expected.difference.mean), "12")
        assert "By centroid, lure and warm are paired on the first 12 episodes, which both met." in page.text
        assert "points against warm, on the first 12 episodes, which both met" in page.text
        assert [row[-1] for row in page.rows if row[:1] in (["warm"], ["lure"]) and len(row) == 7] == ["20", "12"]

    def test_the_width_that_ends_the_scoring_is_said_and_whether_it_was_reached(
        self, make_run: MakeRun, tmp_path: Path
    ) -> None:
        run = make_run()
        change_benchmark(run, "novel", target_ci95=0.003)
        text = read(write_report([run], tmp_path / "out")).text
        width = as_percent(summarise(*values(run)).ci95_episodes)
        assert "chance 33.33 %; until ± 0.30 on this pool, at most 20 episodes" in text
        assert f"lure was still at ± {width} on this pool after all 20 episodes, above the target of ± 0.30" in text

    def test_lost_episodes_are_a_reason_and_not_an_error(self, make_run: MakeRun, tmp_path: Path) -> None:
        runs = [make_run("warm", unlearn="nothing"), make_run(gain=1.0)]
        runs[0].episodes_path("novel", "centroid").unlink()
        assert "not compared with warm: there is no" in read(write_report(runs, tmp_path / "out")).text

    def test_the_reference_as_the_best_is_set_against_the_next(self, make_run: MakeRun) -> None:
        runs = [make_run("warm", unlearn="nothing", gain=2.0), make_run(gain=1.0), make_run("last")]
        assert card_of(runs).difference.endswith(" points against lure, the next best, on the same episodes")

    def test_of_several_seeds_the_headline_is_their_mean_and_its_difference_over_seeds(self, make_run: MakeRun) -> None:
        gains = {"lure": (1.0, 1.5, 0.9), "warm": (0.0, 0.1, 0.3), "last": (0.0, 2.5, 0.0)}
        runs = {
            name: [
                make_run(f"{name}-s{seed}", unlearn=unlearn, gain=gains[name][seed], training_seed=seed)
                for seed in range(3)
            ]
            for name, unlearn in (("lure", "by_saliency"), ("warm", "nothing"), ("last", "last_layers"))
        }
        lure, warm, last = (np.stack([values(run)[0] for run in runs[name]]) for name in runs)
        assert last.mean(1).max() > lure.mean(1).max()
        mean, difference = summarise_seeds(lure), summarise_seeds(lure - warm)
        assert difference.mean > 0

        all_runs = [run for of_name in runs.values() for run in of_name]
        card, verdicts = card_of(all_runs), judged(all_runs)
        assert card.accuracy == as_percent(mean.mean)
        assert card.of_what == "lure (3 seeds), the highest of 3 training procedures, by centroid"
        assert card.intervals == f"±\u00a0{as_percent(mean.ci95_seeds)} on new seeds, on this pool of classes"
        points = texts.points(difference.mean)
        assert card.difference == f"{points} points against warm (3 seeds), the reference, seed by seed"
        assert f"±\u00a0{as_percent(difference.ci95_seeds)} on new seeds" in card.difference_intervals
        verdict = verdicts.between("lure (3 seeds)", "warm (3 seeds)")
        assert card.verdict == verdict_sentences(verdict, verdicts)
        assert verdict.p["seeds"] >= difference.p

        alone = card_of(runs["lure"])
        assert (alone.of_what, alone.difference) == ("lure (3 seeds), by centroid", "")
        few = card_of([*runs["lure"][:2], *runs["warm"][:2]])
        assert few.intervals == "no interval: fewer than 3 seeds"
        assert few.difference == (
            "Not compared with warm (2 seeds): both have 2 of the 3 seeds that a difference over seeds needs."
        )

    def test_runs_of_one_name_are_told_apart(self, make_run: MakeRun) -> None:
        runs = read_runs([make_run(folder="first"), make_run(folder="second"), make_run("other")])
        assert [run.label for run in runs] == ["first", "second", "other"]


class TestTiesAndControls:
    def test_runs_that_share_a_letter_cannot_be_told_apart(
        self, three_runs: list[RunDirectory], page_of_three: _Text
    ) -> None:
        letters = judged(three_runs).letters
        assert letters["pool"] == {"lure": "a", "warm": "b", "third": "b"}
        assert letters["classes"].keys() == letters["pool"].keys()
        row = next(row for row in page_of_three.rows if row and row[0] == "■warmreference")
        assert row[1] == f"2b this pool · {letters['classes']['warm']} new classes"
        assert "letters of ties" in page_of_three.text

    def test_two_runs_are_compared_and_not_ranked(self, page_of_two: Path) -> None:
        assert "letters of ties" not in read(page_of_two).text

    def test_runs_of_other_episodes_are_not_ranked(self, make_run: MakeRun) -> None:
        assert judged([make_run(), make_run("second"), make_run("other", seed=5)]).letters == {}

    def test_tails_and_chance_stand_beside_the_accuracy(self, one_run: RunDirectory, one_page: _Text) -> None:
        accuracy, classes = values(one_run)
        found = tails(accuracy, classes)
        hardest = f"{NOVEL[found.hardest_class]} {as_percent(found.hardest_class_mean)}"
        row = next(row for row in one_page.rows if row[:1] == ["lure"])
        mean, std = float(accuracy.mean()), float(accuracy.std(ddof=1))
        below = 100 * percentile_5_by_chance(mean, 9), 100 * hardest_by_chance(std, found.hardest_class_n, len(NOVEL))
        assert row[4:] == [
            f"{as_percent(found.percentile_5)} (−{below[0]:.1f} by chance)",
            f"{hardest} (−{below[1]:.1f} by chance)",
            "20",
        ]
        assert ["Chance", "33.33", "–", "–", "–", "–", "–"] in one_page.rows

    def test_controls_of_equal_figures_share_a_row_and_others_name_their_runs(
        self, make_run: MakeRun, tmp_path: Path
    ) -> None:
        runs = [make_run(), make_run("warm", unlearn="nothing")]
        for run, twin in zip(runs, (0.3, 0.4), strict=True):
            add_controls(run, untrained_twin=twin, image_statistics=0.5)
        controls = controls_of(read_runs(runs), "novel", "centroid")
        assert [len(control.runs) for control in controls] == [1, 1, 2]
        rows = read(write_report(runs, tmp_path / "out")).rows
        assert [row[:2] for row in rows if len(row) > 1 and row[0].startswith(("Untrained", "Image s"))] == [
            ["Untrained twin of lure", "30.00"],
            ["Untrained twin of warm", "40.00"],
            ["Image statistics", "50.00"],
        ]

    def test_a_run_that_is_not_above_a_control_is_told(self, make_run: MakeRun, tmp_path: Path) -> None:
        run = make_run()
        add_controls(run, untrained_twin=0.1, image_statistics=0.99)
        text = read(write_report([run], tmp_path / "out")).text
        assert "By centroid, lure does not beat plain image statistics (99.00 %)." in text.replace("\u00a0", " ")
        assert "does not beat its own" not in text


def add_controls(run: RunDirectory, **means: float) -> None:
    controls = {name: control({"centroid": probe(mean)}) for name, mean in means.items()}
    change_benchmark(run, "novel", controls=controls)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (texts.points(0.0123), "+1.23"),
        (texts.points(-0.0123), "−1.23"),
        (texts.points(0.00001), "0.00"),
        (texts.points(-0.00001), "0.00"),
        (texts.percent(1.0), "100.00"),
        (texts.number(float("nan"), 2), "–"),
        (texts.number(1234.5, 1), "1,234.5"),
        (texts.p_value(0.0312), "0.031"),
        (texts.p_value(0.00049), "< 0.001"),
        (texts.p_value(None), "–"),
        (texts.duration(99.94), "99.9 s"),
        (texts.duration(99.96), "1 min 40 s"),
        (texts.duration(6000.0), "1 h 40 min"),
        (texts.counted(1, "class"), "1 class"),
        (texts.counted(2000, "chunk"), "2,000 chunks"),
        (texts.counted(2, "query"), "2 queries"),
        (texts.joined(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_as_people_read_them(text: str, expected: str) -> None:
    assert text == expected


class TestPage:
    def test_needs_no_other_file_and_no_network(self, page_of_two: Path) -> None:
        page = read(page_of_two)
        fetched = {"src", "href", "xlink:href", "srcset", "data", "poster", "action"}
        for tag, name, value in page.attributes:
            if name in fetched:
                assert value.startswith(("data:", "#")), (tag, name, value)
        assert not {"link", "iframe", "object", "form"} & set(page.tags)
        assert page.tags.count("script") == 1
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        style = "".join(re.findall(r"<style>(.*?)</style>", page_of_two.read_text(), flags=re.DOTALL))
        assert "@import" not in style and "url(" not in style

    def test_names_are_escaped(self, page_of_two: Path) -> None:
        assert "a&amp;b" in page_of_two.read_text()
        assert "a&b" not in page_of_two.read_text()

    def test_ids_are_unique_and_references_find_them(self, page_of_two: Path) -> None:
        page = read(page_of_two)
        ids = [value for _, name, value in page.attributes if name == "id"]
        assert len(ids) == len(set(ids))
        assert {value for _, name, value in page.attributes if name == "aria-labelledby"} <= set(ids)

    def test_every_table_has_a_caption_and_every_chart_a_name(self, page_of_two: Path) -> None:
        page = read(page_of_two)
        assert page.tags.count("table") == page.tags.count("caption") > 4
        charts = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
        assert page.tags.count("svg") == len(charts) == 16

    def test_headings_skip_no_level(self, page_of_two: Path) -> None:
        levels = [int(tag[1]) for tag in read(page_of_two).tags if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))

    def test_figures_lie_beside_it_as_files(self, page_of_two: Path) -> None:
        assert {file.name for file in (page_of_two.parent / "figures").iterdir()} == {
            "accuracy-novel.svg",
            "chunks-novel-by-images.svg",
            "chunks-novel.svg",
            "confusion-novel.svg",
            "difference-novel.svg",
            "episode.png",
            "hardest-1.png",
            "hardest-2.png",
            "hardest-3.png",
            "learning-base-by-images.svg",
            "learning-base.svg",
            "learning-change.svg",
            "learning-ece.svg",
            "learning-error-rate.svg",
            "learning-forgotten.svg",
            "learning-gained.svg",
            "learning-gap.svg",
            "learning-nll.svg",
            "map-novel.svg",
            "plan-novel.svg",
            "samples-base.png",
            "samples-novel.png",
        }

    @pytest.mark.parametrize(
        ("images", "n_macs", "expected"),
        [
            ((1, 2), (10, 10), {"cost-images.svg"}),
            ((1, 1), (10, 20), {"cost-macs.svg"}),
            ((1, 3), (10, 20), {"cost-images.svg", "cost-macs.svg", "cost-training.svg"}),
            ((2, 1), (10, 20), {"cost-images.svg", "cost-macs.svg"}),
            ((1, 1), (10, 10), set()),
        ],
        ids=["images", "arithmetic", "both", "both, of equal training", "neither"],
    )
    def test_accuracy_is_charted_against_each_cost_in_which_runs_differ_and_against_no_time(
        self,
        images: tuple[int, int],
        n_macs: tuple[int, int],
        expected: set[str],
        make_run: MakeRun,
        tmp_path: Path,
    ) -> None:
        runs = [make_run(), make_run("warm", unlearn="nothing")]
        for place, run in enumerate(runs):
            outcomes = run.read_outcomes()
            seconds = 10.0 + place
            run.write_outcomes(
                [replace(each, n_images_seen=1000 * images[place], train_seconds=seconds) for each in outcomes]
            )
            run.write_cost({"n_macs": 10**6 * n_macs[place], "images_per_second": 100.0 + place})
        page = read(write_report(runs, tmp_path / "out"))
        assert {path.name for path in (tmp_path / "out" / "figures").glob("cost-*")} == expected
        assert "timed once" in page.text and f"{2000 * images[0]:,}" in page.text

    def test_training_takes_the_same_time_in_every_table_and_unlearning_is_not_in_it(
        self, make_run: MakeRun, tmp_path: Path
    ) -> None:
        runs = [make_run(), make_run("warm", unlearn="nothing")]
        for run in runs:
            first, last = run.read_outcomes()
            assert last.unlearn is not None
            did = replace(last.unlearn, seconds=5.0)
            run.write_outcomes([replace(first, train_seconds=4.0), replace(last, train_seconds=6.0, unlearn=did)])
        page = read(write_report(runs, tmp_path / "out"))
        header = next(row for row in page.rows if row[:2] == ["Run", "Training epochs"])
        assert next(row for row in page.rows if row[:2] == ["lure", "10.0 s"])[header.index("Unlearning")] == "5.0 s"
        board = next(row for row in page.rows if row[-1] == "Training epochs")
        assert [row[-1] for row in page.rows if len(row) == len(board) and row[0].endswith("lure")] == ["10.0 s"]
        _, costs = text_tables(standings(read_runs(runs)))
        assert costs.columns[-1] == "training epochs"
        assert [row[-1] for row in costs.rows] == ["10.0 s", "10.0 s"]

    def test_changed_images_are_told_where_they_were_measured(self, make_run: MakeRun, tmp_path: Path) -> None:
        runs = [make_run(), make_run("warm", unlearn="nothing")]
        scores = RobustnessScores(
            n_images=80, corruptions={"jpeg": {"1": 0.5, "2": 0.25}}, attacks={"fgsm": {"0.0157": 0.125}}
        )
        runs[0].write_outcomes([replace(outcome, robustness=scores) for outcome in runs[0].read_outcomes()])
        page = read(write_report(runs, tmp_path / "out"))
        assert "Accuracy on 80 held-out images of the base classes that were changed." in page.text
        assert [row for row in page.rows if row[:1] in (["jpeg"], ["fgsm, 4/255"])] == [
            ["jpeg", "37.50"],
            ["fgsm, 4/255", "12.50"],
        ]
        assert "Changed images" not in read(write_report(runs[1:], tmp_path / "other")).text

    def test_runs_that_differ_by_their_seed_are_one_curve(self, make_run: MakeRun, tmp_path: Path) -> None:
        runs = [make_run(f"lure-seed{seed}", training_seed=seed) for seed in range(3)]
        page = read(write_report(runs, tmp_path / "out"))
        assert "lure (3 seeds): lure-seed0, lure-seed1 and lure-seed2." in page.text
        labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
        assert any("lure (3 seeds): 62.5 at first, 75 at last" in label for label in labels)

    def test_runs_of_several_seeds_have_a_row_over_seeds_and_a_difference_from_the_reference(
        self, make_run: MakeRun, tmp_path: Path
    ) -> None:
        gains = {"lure": (1.0, 2.0, 3.0), "warm": (0.0, 0.0, 1.0)}
        runs = {
            name: [
                make_run(f"{name}-s{seed}", unlearn=unlearn, gain=gains[name][seed], training_seed=seed)
                for seed in range(3)
            ]
            for name, unlearn in (("lure", "by_saliency"), ("warm", "nothing"))
        }
        lure, warm = (np.stack([values(run)[0] for run in runs[name]]) for name in runs)
        mean, difference = summarise_seeds(lure), summarise_seeds(lure - warm)
        page = read(write_report([*runs["lure"], *runs["warm"]], tmp_path / "out"))
        assert [
            "lure (3 seeds)",
            "3",
            as_percent(mean.mean),
            as_percent(mean.ci95_seeds),
            f"+{as_percent(difference.mean)}",
            as_percent(difference.ci95_seeds),
            texts.p_value(difference.p),
        ] in page.rows
        assert any(row[:2] == ["warm (3 seeds)", "3"] and row[4:] == ["–", "–", "–"] for row in page.rows)
        assert "Runs that differ only by their seed are judged by their mean" in page.text
        assert "Each run was trained once" not in page.text
        page = read(write_report([*runs["lure"][:2], *runs["warm"]], tmp_path / "fewer"))
        row = next(row for row in page.rows if row[:2] == ["lure (2 seeds)", "2"])
        reason = "not compared with warm (3 seeds): both have 2 of the 3 seeds that a difference over seeds needs"
        assert row[3:] == ["–", f"{reason}, since seed 2 has a result in one of the two only"]
        page = read(write_report([*runs["lure"][:2], *runs["warm"][:2]], tmp_path / "two"))
        assert next(row for row in page.rows if row[:2] == ["lure (2 seeds)", "2"])[4:] == [
            reason.replace("warm (3", "warm (2")
        ]

    def test_answers_by_confidence_are_charted_counted_and_told_in_words(
        self, make_run: MakeRun, tmp_path: Path
    ) -> None:
        run = make_run()
        n, confidence, correct = np.zeros(15, dtype=np.int64), np.zeros(15), np.zeros(15, dtype=np.int64)
        n[5], confidence[5], correct[5] = 60, 22.2, 36  # sure of 37 %, right on 60 %
        n[14], confidence[14], correct[14] = 20, 19.0, 20
        table = run.read_episodes("novel", "centroid")
        pooled = Reliability(n=n, confidence=confidence, correct=correct)
        replace(table, reliability=pooled).save(run.episodes_path("novel", "centroid"))
        page = read(write_report([run], tmp_path / "out"))
        assert (tmp_path / "out" / "figures" / "reliability-novel.svg").exists()
        assert ["33 to 40", "60", "37.0", "60.0"] in page.rows
        assert ["93 to 100", "20", "95.0", "100.0"] in page.rows
        assert (
            "lure: 70.0 % of 80 answers are correct, at a mean confidence of 51.5 %; bin by bin the two differ by 18.5 "
            "points (ECE): it is underconfident."
        ) in page.text.replace("\u00a0", " ")
        assert pooled.ece == pytest.approx(0.185)

    def test_a_probe_without_probabilities_has_no_answers_by_confidence(self, one_page: _Text) -> None:
        assert "Answers by confidence" not in one_page.text

    def test_equal_runs_give_equal_bytes(self, make_run: MakeRun, tmp_path: Path) -> None:
        run = make_run()
        folders = [write_report([run], tmp_path / name).parent for name in ("one", "two")]
        one, two = ({file.name: file.read_bytes() for file in folder.rglob("*.*")} for folder in folders)
        assert one == two and len(one) > 4

    def test_colour_photographs_are_left_as_they_are(self, make_run: MakeRun, tmp_path: Path, data_path: Path) -> None:
        arrays = dict(np.load(data_path))
        np.savez(data_path, **{**arrays, "images": np.repeat(arrays["images"][..., None], 3, axis=3)})
        page = read(write_report([make_run()], tmp_path / "out"))
        assert ("img", "class", "tile") in page.attributes
        sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
        assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)
        assert ("img", "class", "tile ink") not in page.attributes


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ({}, ""),
        ({"schedule": "growing", "class_order": "balanced"}, ", growing chunks, every class spread evenly"),
        ({"schedule": "large_first", "first_share": 0.7}, ", 70\u00a0% of the images in the first"),
        ({"class_order": "skewed", "skew_alpha": 0.5}, ", classes spread unevenly (Dirichlet 0.5)"),
        ({"images_per_class": 16, "label_noise": 0.3}, ", at most 16 images per class, 30\u00a0% of the labels wrong"),
        ({"chunk_by": "source"}, ", whole sources per chunk"),
    ],
)
def test_the_page_says_in_which_regime_images_arrived(chunks: dict[str, Any], expected: str) -> None:
    assert texts.regime(ChunksConfig(**chunks)) == expected


class TestEpisodes:
    @pytest.fixture
    def answers(self, make_run: MakeRun) -> Answers:
        return read_answers(read_runs([make_run()])[0], "novel", "centroid")

    @pytest.fixture
    def dataset(self, answers: Answers) -> ImageDataset:
        return plugins.build("dataset", "npz", answers.run.config.dataset.params)

    def test_many_images_are_cut_and_it_is_said(
        self, answers: Answers, dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(episode_sheets, "MAX_QUERY", 2)
        monkeypatch.setattr(narrative, "MAX_QUERY", 2)
        [sheet] = episode_sheets.draw_episodes(answers, [0], dataset, only_wrong=False)
        assert [len(row.query) for row in sheet.rows] == [2, 2, 2]
        assert "At most 2 of the 3 images per class are shown." in narrative.typical_caption(sheet, answers)

    def test_images_that_are_gone_are_refused(self, answers: Answers, dataset: ImageDataset) -> None:
        renamed = replace(dataset, image_ids=tuple(f"new {name}" for name in dataset.image_ids))
        with pytest.raises(UserError, match="no longer has the images of novel"):
            episode_sheets.draw_episodes(answers, [0], renamed, only_wrong=False)

    def test_the_hardest_are_those_of_the_lowest_accuracy_and_never_without_a_mistake(self, answers: Answers) -> None:
        accuracy = np.array([1.0, 0.5, 0.25, 1.0, 0.5])
        assert episode_sheets.hardest_episodes(replace(answers, accuracy=accuracy)) == [2, 1, 4]
        assert episode_sheets.hardest_episodes(replace(answers, accuracy=accuracy[:2])) == [1]

    def test_of_a_hard_episode_only_the_mistakes_are_shown_each_with_what_it_was_taken_for(
        self, answers: Answers, dataset: ImageDataset
    ) -> None:
        predicted = answers.predicted.copy()
        predicted[4] = [0, 1, 2, 1, 1, 1, 2, 0, 2]
        [sheet] = episode_sheets.draw_episodes(replace(answers, predicted=predicted), [4], dataset, only_wrong=True)
        assert [row.taken_for for row in sheet.rows] == [("B", "C"), (), ("A",)]
        assert [(row.n_right, row.n_query) for row in sheet.rows] == [(1, 3), (3, 3), (2, 3)]
        assert (sheet.n_right, sheet.n_query) == (6, 9)
        episode = answers.manifest[4]
        row_of = {name: row for row, name in enumerate(dataset.image_ids)}
        rows = [row_of[answers.images.image_ids[row]] for row in episode.query[[1, 2]]]
        assert np.array_equal(255 - sheet.rows[0].query, dataset.read(np.array(rows)))
        assert sheet.rows[1].query.shape == (0, 8, 8, 1)
        assert narrative.hardest_caption(sheet, 1) == (
            "Episode 4, with the lowest accuracy: 6 of 9 images classified correctly (66.67\u00a0%)."
        )


def test_a_figure_that_cannot_be_drawn_leaves_the_rest_and_is_made_by_the_next_report(
    make_run: MakeRun,
    tmp_path: Path,
    undrawn: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run()
    with monkeypatch.context() as patched:
        patched.setattr(style, "_undrawn", undrawn)
        patched.setattr(curves, "draw_line", lambda *_, **__: 1 / 0)
        page = write_report([run], tmp_path / "out")
    assert page.read_text().count("This figure could not be drawn: ZeroDivisionError: division by zero") >= 1
    assert "This figure could not be drawn" in capsys.readouterr().err
    assert "Map of the features" in page.read_text()
    assert "could not be drawn" not in write_report([run], tmp_path / "out").read_text()


def test_a_page_without_pictures_is_made_again_when_the_images_are_back(
    make_run: MakeRun, tmp_path: Path, data_path: Path
) -> None:
    run = make_run()
    data_path.rename(tmp_path / "away.npz")
    without = write_report([run], tmp_path / "out").read_text()
    (tmp_path / "away.npz").rename(data_path)
    assert "data:image/" not in without
    assert "data:image/" in write_report([run], tmp_path / "out").read_text()
