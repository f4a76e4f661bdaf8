"""Settings of a probe are chosen on validation classes alone, kept, and stated with the results."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from episodes.bank import FeatureBank
from episodes.executors import serial
from episodes.probes import SEED, knn, lda, logistic_regression, ridge
from episodes.scoring import score, score_grid
from episodes.specs import EpisodeSpec
from episodes.table import EpisodeTable, collect
from lurefs.comparing.choices import choice_table
from lurefs.comparing.exports import to_csv
from lurefs.comparing.finished_runs import read_runs
from lurefs.comparing.groups import groups_of
from lurefs.comparing.standings import standings
from lurefs.comparing.text_tables import text_tables
from lurefs.config.load import run_config
from lurefs.config.schema import ProbeConfig, RunConfig
from lurefs.errors import UserError
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.runs.summary import ChoiceSummary
from lurefs.stages.choosing import choice_of, choice_path
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage
from lurefs.tracking.records import cell_record

NAME = "novel-3way-2shot"
N_BASE, N_VALIDATION, N_NOVEL, N_IMAGES = 3, 4, 4, 12
GRID = {"C": [0.01, 1.0, 100.0]}


def write_images(folder: Path, *, validation: int = 0, novel: int = 0, mixed_novel: bool = False) -> Path:
    """Write a data set whose validation and novel images depend on seeds; `mixed_novel` shuffles the novel labels."""
    labels = np.repeat(np.arange(N_BASE + N_VALIDATION + N_NOVEL), N_IMAGES)
    group = np.digitize(labels, [N_BASE, N_BASE + N_VALIDATION])
    images = np.zeros((len(labels), 8, 8), np.uint8)
    for part, seed in enumerate((0, validation, novel)):
        rng = np.random.default_rng([part, seed])
        centres = rng.integers(0, 255, (len(np.unique(labels)), 8, 8))
        rows = np.flatnonzero(group == part)
        images[rows] = (centres[labels[rows]] * 0.3 + rng.integers(0, 178, (len(rows), 8, 8))).astype(np.uint8)
    if mixed_novel:
        rows = np.flatnonzero(group == 2)
        images[rows] = images[np.random.default_rng(5).permutation(rows)]
    folder.mkdir(exist_ok=True)
    np.savez(folder / "images.npz", images=images, labels=labels)
    return folder / "images.npz"


def config_of(path: Path, **changes: Any) -> RunConfig:
    names = [str(label) for label in range(N_BASE + N_VALIDATION + N_NOVEL)]
    split = {
        "base": names[:N_BASE],
        "validation": names[N_BASE : N_BASE + N_VALIDATION],
        "novel": names[N_BASE + N_VALIDATION :],
    }
    values: dict[str, Any] = {
        "name": "choosing",
        "frozen": True,
        "dataset": {"name": "npz", "params": {"path": str(path)}},
        "class_split": split,
        "backbone": {"name": "test_byobnet", "image_size": 32},
        "benchmarks": {NAME: {"n_way": 3, "n_shot": 2, "n_query": 5, "n_episodes": 40}},
        "probes": {"chosen": {"choose": GRID}, "fixed": {}},
        "trackers": {"wandb": {"mode": "disabled"}},
    }
    return run_config({**values, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("choosing")
    directory = RunDirectory(folder / "run")
    run_stage(make_plan(config_of(write_images(folder))), directory, "run")
    return directory


def choices_of(directory: RunDirectory, probe: str = "chosen") -> dict[str, ChoiceSummary]:
    """Return the choices of a probe: of the run's backbone (``) and of the controls."""
    benchmark = directory.read_summary().benchmarks[NAME]
    of_controls = {name: control.probes[probe] for name, control in benchmark.controls.items()}
    found = {name: figures.choice for name, figures in {"": benchmark.probes[probe], **of_controls}.items()}
    return {name: choice for name, choice in found.items() if choice is not None}


def run_again(directory: RunDirectory, path: Path | None = None, **changes: Any) -> None:
    config = run_config({**to_mapping(directory.read_config()), **changes})
    run_stage(make_plan(config), directory, "run", with_page=False)


def test_backbone_and_controls_choose_each_their_own_setting_and_say_how(finished: RunDirectory) -> None:
    found = choices_of(finished)
    assert found.keys() == {"", "untrained_twin", "image_statistics"}
    for choice in found.values():
        assert (choice.by, choice.n_episodes, choice.n_classes) == ("nll", 300, N_VALIDATION)
        assert [point.settings for point in choice.curve] == [{"C": value} for value in GRID["C"]]
        best = min(choice.curve, key=lambda point: point.nll or 0)
        assert choice.settings == best.settings
        assert choice.at_edge == (["C"] if choice.settings["C"] != 1.0 else [])
    assert len({tuple(point.nll for point in choice.curve) for choice in found.values()}) == 3
    assert choices_of(finished, "fixed") == {}


def test_the_results_are_those_of_the_chosen_setting(finished: RunDirectory, tmp_path: Path) -> None:
    value = choices_of(finished)[""].settings["C"]
    table = finished.read_episodes(NAME, "chosen", with_predicted=True)
    assert table.identity["probe"]["params"] == {"C": value} and "choose" not in table.identity["probe"]
    directory = RunDirectory(tmp_path / "run")
    path = Path(str(finished.read_config().dataset.params["path"]))
    run_stage(
        make_plan(config_of(path, probes={"fixed": {"params": {"C": value}}}, controls=False)),
        directory,
        "run",
        with_page=False,
    )
    assert np.array_equal(directory.read_episodes(NAME, "fixed").nll, table.nll)


@pytest.mark.parametrize("change", [{"mixed_novel": True}, {"novel": 7}], ids=str)
def test_neither_labels_nor_images_of_novel_classes_change_the_choice(
    finished: RunDirectory, tmp_path: Path, change: dict[str, Any]
) -> None:
    directory = RunDirectory(tmp_path / "run")
    run_stage(make_plan(config_of(write_images(tmp_path / "other", **change))), directory, "run", with_page=False)
    assert choices_of(directory) == choices_of(finished)
    before, after = (found.read_episodes(NAME, "chosen").nll for found in (finished, directory))
    assert not np.array_equal(before, after)


def test_other_images_of_validation_classes_change_the_curve(finished: RunDirectory, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    run_stage(make_plan(config_of(write_images(tmp_path / "other", validation=7))), directory, "run", with_page=False)
    for name, choice in choices_of(directory).items():
        assert choice.curve != choices_of(finished)[name].curve


def written(directory: RunDirectory) -> dict[str, int]:
    folders = ("episodes", "choices", "controls", "features")
    files = [path for folder in folders for path in sorted((directory.path / folder).rglob("*")) if path.is_file()]
    return {str(path.relative_to(directory.path)): path.stat().st_mtime_ns for path in files}


def test_a_rerun_keeps_everything_and_another_grid_scores_only_its_own_probe_again(
    finished: RunDirectory, tmp_path: Path
) -> None:
    directory = RunDirectory(shutil.copytree(finished.path, tmp_path / "run"))
    first = written(directory)
    run_again(directory)
    assert written(directory) == first
    run_again(directory, probes={"chosen": {"choose": {"C": [0.1, 10.0]}}, "fixed": {}})
    changed = {name for name, when in written(directory).items() if first.get(name) != when}
    own = f"{NAME}--chosen"
    assert changed == {
        f"choices/{own}.json",
        f"episodes/{own}.parquet",
        *(
            f"controls/{control}/{own}.{end}"
            for control in choices_of(finished)
            if control
            for end in ("json", "parquet")
        ),
    }


def test_a_lost_choice_is_made_again_and_its_results_stay(finished: RunDirectory, tmp_path: Path) -> None:
    directory = RunDirectory(shutil.copytree(finished.path, tmp_path / "run"))
    path, first = choice_path(directory, NAME, "chosen"), written(directory)
    content = path.read_bytes()
    path.unlink()
    run_again(directory)
    assert path.read_bytes() == content
    assert {name for name, when in written(directory).items() if first[name] != when} == {
        f"choices/{NAME}--chosen.json"
    }


def test_a_damaged_choice_is_refused(finished: RunDirectory, tmp_path: Path) -> None:
    directory = RunDirectory(shutil.copytree(finished.path, tmp_path / "run"))
    path = choice_path(directory, NAME, "chosen")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "curve": "none"}))
    with pytest.raises(UserError, match="is damaged"):
        run_again(directory)


def test_a_product_of_settings_with_a_transform_and_a_probe_without_probabilities(tmp_path: Path) -> None:
    probes = {"ridge": {"name": "ridge", "choose": {"transform": ["l2", "none"], "alpha": [0.1, 10.0]}}}
    directory = RunDirectory(tmp_path / "run")
    run_stage(make_plan(config_of(write_images(tmp_path), probes=probes, controls=False)), directory, "run")
    choice = choices_of(directory, "ridge")[""]
    expected = [{"transform": chain, "alpha": alpha} for chain in ("l2", "none") for alpha in (0.1, 10.0)]
    assert [point.settings for point in choice.curve] == expected
    assert choice.by == "accuracy" and all(point.nll is None for point in choice.curve)
    assert choice.settings == max(choice.curve, key=lambda point: point.accuracy).settings
    identity = directory.read_episodes(NAME, "ridge").identity["probe"]
    assert (identity["transform"], identity["params"]) == (
        choice.settings["transform"],
        {"alpha": choice.settings["alpha"]},
    )


def table_of(accuracy: float, nll: float) -> EpisodeTable:
    bank = FeatureBank.from_arrays(np.eye(4), np.arange(4) % 2)
    table = collect(
        score(bank, draw(bank, EpisodeSpec(n_way=2, n_shot=1, n_query=1, n_episodes=2)), probe_of(knn())), {}
    )
    return replace(table, accuracy=np.full(2, accuracy), nll=np.full(2, nll))


def draw(bank: FeatureBank, spec: EpisodeSpec) -> Any:
    from episodes.manifest import draw_manifest

    return draw_manifest(bank, spec, seed=0)


def probe_of(classifier: Any, transform: str = "l2", solver: Any = "auto") -> Any:
    from episodes.probes import Probe

    return Probe(name="p", classifier=classifier, transform=transform, solver=solver)


def test_the_criterion_decides_and_the_first_of_equal_ones_wins() -> None:
    tables = [table_of(0.6, 0.9), table_of(0.7, 0.8), table_of(0.8, 0.8)]
    by_nll = choice_of(ProbeConfig(choose={"C": [1, 2, 3]}), tables, n_classes=5)
    by_accuracy = choice_of(ProbeConfig(choose={"C": [1, 2, 3]}, choose_by="accuracy"), tables, n_classes=5)
    assert (by_nll.settings, by_nll.at_edge) == ({"C": 2}, [])
    assert (by_accuracy.settings, by_accuracy.at_edge, by_accuracy.by) == ({"C": 3}, ["C"], "accuracy")


@pytest.mark.parametrize(
    ("choose", "at_edge"),
    [
        ({"n_neighbors": [1, 3]}, []),
        ({"C": [0.1, 3]}, ["C"]),
        ({"weights": ["uniform", "distance"]}, []),
        ({"C": [1.0]}, []),
    ],
    ids=str,
)
def test_an_edge_is_the_end_of_several_numbers_and_one_neighbour_is_none(
    choose: dict[str, Any], at_edge: list[str]
) -> None:
    tables = [table_of(0.7, 0.1), table_of(0.6, 0.2)][: len(next(iter(choose.values())))]
    assert choice_of(ProbeConfig(choose=choose), tables, n_classes=5).at_edge == at_edge


@pytest.mark.parametrize("n_shot", [1, 3])
@pytest.mark.parametrize(
    "classifiers",
    [
        [logistic_regression(C=value) for value in (0.01, 1, 100, 1000)],
        [ridge(alpha=value) for value in (0.1, 1, 10)],
        [knn(n_neighbors=value) for value in (1, 3)],
        [lda(shrinkage=value) for value in (0.1, 0.5)],
        [knn(), knn(weights="distance")],
    ],
    ids=lambda classifiers: type(classifiers[0]).__name__,
)
def test_a_grid_scores_each_setting_as_it_is_scored_alone(classifiers: list[Any], n_shot: int) -> None:
    rng = np.random.default_rng(SEED)
    labels = np.repeat(np.arange(8), 12)
    bank = FeatureBank.from_arrays(rng.normal(size=(96, 24)) + rng.normal(size=(8, 24))[labels] * 0.5, labels)
    manifest = draw(bank, EpisodeSpec(n_way=4, n_shot=max(2, n_shot), n_query=5, n_episodes=70))
    probes = [probe_of(classifier, chain) for chain in ("l2", "none") for classifier in classifiers]
    blocks = list(score_grid(bank, manifest, probes, serial()))
    for probe, tables in zip(probes, zip(*blocks, strict=True), strict=True):
        table = collect(tables, {})
        alone = collect(score(bank, manifest, probe), {})
        assert np.array_equal(table.predicted, alone.predicted) and np.array_equal(table.accuracy, alone.accuracy)
        np.testing.assert_allclose(table.nll, alone.nll, rtol=2e-4)


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ({"choose": {}}, "has 0 combinations"),
        ({"choose": {"C": []}}, r"choose\.C is \[\]"),
        ({"choose": {"C": [1, 1.0]}}, "different values"),
        ({"choose": {"C": list(range(1, 70))}}, "has 69 combinations"),
        ({"choose": {"C": [1, 2]}, "params": {"C": 1}}, "in params and in choose"),
        ({"choose_by": "accuracy"}, "nothing to choose"),
        ({"choose": {"transform": ["l2", "centre"]}}, r"choose\.transform\[1\] is 'centre'"),
        ({"choose": {"transform": [None]}}, r"choose\.transform\[0\] is None"),
        ({"name": "fine_tuning", "choose": {"C": [1, 2]}}, "is fine-tuned"),
        ({"name": "knn", "choose": {"n_neighbors": [1, "two"]}}, "n_neighbors is 'two'"),
        ({"choose": {"C": [[1]]}}, "C is"),
    ],
    ids=str,
)
def test_grids_that_cannot_be_are_refused_when_the_recipe_is_read(
    tmp_path: Path, probe: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        config_of(write_images(tmp_path), probes={"p": probe})


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ({"choose": {"C": [1.0, -1.0]}}, r"choose.C is -1.0"),
        ({"choose": {"D": [1.0]}}, "probes.p is 'logistic_regression' with {'D': 1.0}"),
        ({"name": "knn", "choose": {"n_neighbors": [1, 7]}}, "with {'n_neighbors': 7} cannot be fitted"),
        ({"choose": {"transform": ["l2", "pca:5000"]}}, "pca:5000"),
    ],
    ids=str,
)
def test_values_that_the_classifier_refuses_are_refused_before_any_work(
    tmp_path: Path, probe: dict[str, Any], words: str
) -> None:
    from lurefs.stages.checks import check

    with pytest.raises(UserError, match=words):
        check(make_plan(config_of(write_images(tmp_path), probes={"p": probe})))


@pytest.mark.parametrize(
    "benchmark",
    [{"classes": "validation"}, {"classes": "all"}, {"classes": "all", "dataset": "own"}],
    ids=str,
)
def test_a_benchmark_on_the_classes_of_the_choice_is_refused(tmp_path: Path, benchmark: dict[str, Any]) -> None:
    path = write_images(tmp_path)
    if "dataset" in benchmark:
        benchmark = {**benchmark, "dataset": {"name": "npz", "params": {"path": str(path)}}}
    with pytest.raises(UserError, match=r"benchmarks\.b has the classes .* choose on the validation classes"):
        config_of(path, benchmarks={"b": benchmark})


def test_a_transfer_is_sent_to_its_grid(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set transfer\.t\.grid"):
        config_of(write_images(tmp_path), transfer={"t": {"probe": {"choose": {"C": [1, 2]}}}})


def test_tables_exports_and_page_say_what_was_chosen(finished: RunDirectory) -> None:
    groups = groups_of(read_runs([finished]))
    found = standings([run for group in groups for run in group.runs], benchmark=NAME)
    [table] = [table for table in text_tables(found) if table.title.startswith(f"{NAME}, chosen")]
    choice = choices_of(finished)[""]
    value = choice.settings["C"]
    [note] = [note for note in table.notes if "settings chosen" in note]
    assert "by NLL on 300 episodes of 4 validation classes" in note and f"C {value:g}" in note.replace(".0 ", " ")
    assert any("at an edge of the grid" in note for note in table.notes) == any(
        each.at_edge for each in choices_of(finished).values()
    )
    assert [row.chosen for row in found.groups] == [f"C {value}", ""]
    assert {row.chosen for row in found.controls if row.probe == "chosen"} == {
        f"C {each.settings['C']}" for name, each in choices_of(finished).items() if name
    }
    assert f",C {value}," in to_csv(found)
    page = finished.report_path.read_text(encoding="utf-8")
    assert "All values that chosen could choose" in page and "All values that fixed could choose" not in page


def test_a_table_of_all_values_has_a_column_per_run_and_control(
    finished: RunDirectory,
) -> None:
    table = choice_table(groups_of(read_runs([finished])), NAME, "chosen")
    assert table["columns"] == ["choosing", "control: untrained twin", "control: image statistics"]
    assert [row["settings"] for row in table["rows"]] == [f"C {value}" for value in GRID["C"]]
    for place, choice in enumerate(choices_of(finished).values()):
        column = [row["cells"][place] for row in table["rows"]]
        assert [f"{point.nll:.3f}" for point in choice.curve] == [cell["nll"] for cell in column]
        marked = [f"C {GRID['C'][at]}" for at, cell in enumerate(column) if cell["is_chosen"]]
        assert marked == [f"C {choice.settings['C']}"]


def test_records_of_a_tracker_have_the_choice_and_its_curve(finished: RunDirectory) -> None:
    config = finished.read_config()
    chosen, fixed = (cell_record(config, finished, NAME, probe) for probe in ("chosen", "fixed"))
    choice = choices_of(finished)[""]
    assert chosen.summary["chosen_C"] == choice.settings["C"]
    assert (chosen.summary["chosen_by"], chosen.summary["chosen_at_edge"]) == ("nll", bool(choice.at_edge))
    expected = [
        [f"C {point.settings['C']}", point.accuracy, point.nll, point.settings == choice.settings]
        for point in choice.curve
    ]
    assert chosen.tables["choice"].rows == expected
    assert "choice" not in fixed.tables and "chosen_C" not in fixed.summary
