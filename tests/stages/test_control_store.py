"""Scores of controls that another run of the machine made are copied if nothing that they depend on differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from episodes.table import EpisodeTable
from lurefs import cache
from lurefs.comparing.finished_runs import read_runs
from lurefs.comparing.standings import standings
from lurefs.config.schema import RunConfig
from lurefs.runs.directory import RunDirectory
from lurefs.stages import control_store, controls
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage

BENCHMARK = "novel-3way-1shot"
FROZEN = {
    "frozen": True,
    "controls": True,
    "class_split": {"base": 0.0, "validation": 0.4, "novel": 0.6},
    "benchmarks": {BENCHMARK: {"n_way": 3, "n_shot": 1, "n_query": 4, "n_episodes": 40}},
    "probes": {"logistic_regression": {"choose": {"C": [0.1, 10]}}},
}
CHOICES_AND_SCORES = 4
"""Files of both controls: the choice of C and the scores of each."""


@pytest.fixture
def evaluated(
    make_config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[RunDirectory, list[str]]]:
    """Evaluate a run; return its directory, and which controls were scored in it."""
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "cache"))
    scored: list[str] = []
    score_cell = controls.score_cell

    def counted(cell: Any, *args: Any, **options: Any) -> Any:
        scored.append(cell.whose)
        return score_cell(cell, *args, **options)

    monkeypatch.setattr(controls, "score_cell", counted)

    def evaluate(name: str, *, uses_store: bool = True, **changes: Any) -> tuple[RunDirectory, list[str]]:
        scored.clear()
        directory = RunDirectory(tmp_path / name)
        plan = make_plan(make_config(**{**FROZEN, **changes}))
        run_stage(plan, directory, "run", with_page=False, uses_store=uses_store)
        return directory, list(scored)

    return evaluate


def entries() -> list[Path]:
    return [each.path for each in cache.entries() if each.kind == control_store.KIND]


def control_files(directory: RunDirectory) -> dict[str, bytes]:
    folder = directory.path / "controls"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("card.json")
    }


def test_a_second_run_copies_scores_and_choices(evaluated: Callable[..., tuple[RunDirectory, list[str]]]) -> None:
    first, scored = evaluated("first")
    assert len(scored) == 2 and len(entries()) == 2
    second, scored = evaluated("second")
    assert scored == []
    assert control_files(first) == control_files(second)
    assert len(control_files(second)) >= CHOICES_AND_SCORES
    cards = [run.read_summary().benchmarks[BENCHMARK].controls for run in (first, second)]
    assert cards[0] == cards[1]


def test_the_time_of_a_copied_control_is_no_cost_of_a_run(
    evaluated: Callable[..., tuple[RunDirectory, list[str]]],
) -> None:
    directory, _ = evaluated("first")
    summary = directory.read_summary()
    (own,) = summary.benchmarks[BENCHMARK].probes.values()
    n_episodes = summary.benchmarks[BENCHMARK].n_episodes
    assert summary.run.seconds == pytest.approx(own.ms_per_episode * n_episodes / 1000)
    rows = standings(read_runs([directory])).controls
    assert len(rows) == 2
    assert [row.ms_per_episode for row in rows] == [None, None]


def test_another_seed_shares_the_image_statistics_only(
    evaluated: Callable[..., tuple[RunDirectory, list[str]]],
) -> None:
    evaluated("first")
    assert evaluated("seed", seed=1)[1] == ["control 'untrained_twin'"]


OTHER_BACKBONES = {
    "another model": {"backbone": {"name": "test_resnet", "image_size": 32}},
    "another size": {"backbone": {"name": "test_byobnet", "image_size": 48}},
    "another stem": {"backbone": {"name": "test_byobnet", "image_size": 32, "stem": "small"}},
    "other batches": {"learner": {"eval_batch_size": 7}},
}


@pytest.mark.parametrize("other", OTHER_BACKBONES)
def test_runs_of_other_backbones_share_the_image_statistics_as_each_would_compute_them(
    other: str, evaluated: Callable[..., tuple[RunDirectory, list[str]]]
) -> None:
    evaluated("first")
    shared, scored = evaluated("shared", **OTHER_BACKBONES[other])
    assert scored == ["control 'untrained_twin'"]
    own, scored = evaluated("own", uses_store=False, **OTHER_BACKBONES[other])
    assert len(scored) == 2
    one, same = (run.path / "controls" / "image_statistics" for run in (shared, own))
    assert without_times(one) == without_times(same)


def without_times(folder: Path) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Return the results of the image statistics per episode but for seconds, as bytes, and their identities."""
    tables = {path.name: EpisodeTable.load(path) for path in sorted(folder.glob("*.parquet"))}
    assert tables
    return {
        name: (
            b"".join(
                getattr(table, column).tobytes()
                for column in ("index", "classes", "accuracy", "nll", "brier", "converged")
            ),
            dict(table.identity),
        )
        for name, table in tables.items()
    }


def test_images_of_another_size_have_their_own_statistics(
    evaluated: Callable[..., tuple[RunDirectory, list[str]]], npz_path: Path
) -> None:
    evaluated("first")
    dataset = {"name": "npz", "params": {"path": str(npz_path), "image_size": 10}}
    assert len(evaluated("other", dataset=dataset)[1]) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"probes": {"logistic_regression": {"choose": {"C": [0.1, 1]}}}},
        {"probes": {"logistic_regression": {"params": {"C": 10}}}},
        {"probes": {"logistic_regression": {"choose": {"C": [0.1, 10]}, "choose_by": "accuracy"}}},
        {"benchmarks": {BENCHMARK: {"n_way": 3, "n_shot": 1, "n_query": 4, "n_episodes": 41}}},
        {"class_split": {"base": 0.0, "validation": 0.5, "novel": 0.5}},
    ],
)
def test_whatever_they_depend_on_makes_them_others(
    changes: dict[str, Any], evaluated: Callable[..., tuple[RunDirectory, list[str]]]
) -> None:
    evaluated("first")
    assert len(evaluated("other", **changes)[1]) == 2


@pytest.mark.parametrize("name", ["0", "1", "card.json"])
def test_a_damaged_entry_is_made_again(name: str, evaluated: Callable[..., tuple[RunDirectory, list[str]]]) -> None:
    first, _ = evaluated("first")
    for entry in entries():
        content = (entry / name).read_bytes()
        (entry / name).write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    second, scored = evaluated("second")
    assert len(scored) == 2
    assert evaluated("third")[1] == []
    assert set(control_files(first)) == set(control_files(second))


def test_runs_without_the_store_score_themselves(evaluated: Callable[..., tuple[RunDirectory, list[str]]]) -> None:
    evaluated("first")
    assert len(evaluated("second", uses_store=False)[1]) == 2


def test_probes_of_a_user_s_code_are_not_shared(evaluated: Callable[..., tuple[RunDirectory, list[str]]]) -> None:
    evaluated("first", probes={"own": {"name": "sklearn.svm:SVC"}})
    assert not entries()


def test_a_cache_that_cannot_be_used_stops_nothing(
    evaluated: Callable[..., tuple[RunDirectory, list[str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "a file"))
    assert len(evaluated("first")[1]) == 2
