"""Sources that are held back from base training, and what queries share with support and training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lurefs.cli import main
from lurefs.config.identity import digest, pretrain_identity, run_identity
from lurefs.config.load import to_yaml
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory
from lurefs.stages.plan import Plan, make_plan

FORM = {"n_way": 2, "n_shot": 1, "n_query": 3, "n_episodes": 20}
MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def with_sources(npz_path: Path, make_config: MakeConfig) -> MakeConfig:
    """Write four cameras `a` to `d` into the data, each with six images of each class."""
    with np.load(npz_path) as stored:
        arrays = dict(stored)
    np.savez(npz_path, **arrays, sources=np.array(list("abcd"))[np.arange(len(arrays["labels"])) % 4])

    def make(**changes: Any) -> RunConfig:
        benchmarks = {
            "all": FORM,
            "held-back": {**FORM, "sources": "held_back"},
            "known-classes": {**FORM, "classes": "base", "sources": "held_back"},
            "seen": {**FORM, "sources": "seen"},
        }
        return make_config(**{"benchmarks": benchmarks, "source_split": {"held_back": ["b", "d"]}, **changes})

    return make


def names(plan: Plan, rows: Any) -> set[str]:
    return {plan.dataset.source_names[source] for source in plan.dataset.sources[rows]}


def test_base_training_does_not_see_sources_that_are_held_back(with_sources: MakeConfig) -> None:
    plan = make_plan(with_sources())
    for part in (plan.images.train, plan.images.val, plan.images.test):
        assert names(plan, part) == {"a", "c"}
    pools = {name: benchmark.images for name, benchmark in plan.benchmarks.items()}
    assert {name: names(plan, images.rows) for name, images in pools.items()} == {
        "all": set("abcd"),
        "held-back": {"b", "d"},
        "known-classes": {"b", "d"},
        "seen": {"a", "c"},
    }
    base = {plan.dataset.class_names[label] for label in plan.classes.base}
    assert set(pools["known-classes"].class_names) == base and not base & set(pools["held-back"].class_names)
    assert len(pools["known-classes"].rows) == len(base) * 12


def test_a_share_of_the_sources_is_drawn(with_sources: MakeConfig) -> None:
    for share, n_seen in ((0.25, 3), (0.5, 2), (0.99, 1), (0.01, 3)):
        plan = make_plan(with_sources(source_split={"held_back": share}, benchmarks={"all": FORM}))
        assert len(names(plan, plan.images.train)) == n_seen
    drawn = [
        names(plan, plan.images.train)
        for seed in range(6)
        for plan in [make_plan(with_sources(source_split={"held_back": 0.5, "seed": seed}))]
    ]
    assert len({frozenset(found) for found in drawn}) > 1


def test_the_shares_of_known_sources_are_told_everywhere(
    with_sources: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_sources(chunks={"n_chunks": 1}, learner={"epochs": 1}, after_chunk={"few_shot": False})
    (tmp_path / "recipe.yaml").write_text(to_yaml(config))
    main(["run", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run")])
    said, directory = capsys.readouterr().out, RunDirectory(tmp_path / "run")
    found = {name: measured.sources for name, measured in directory.read_summary().benchmarks.items()}
    shares = {name: (each.n_sources, each.base) for name, each in found.items() if each is not None}
    assert shares["held-back"] == shares["known-classes"] == (2, 0.0) and shares["seen"] == (2, 1.0)
    assert shares["all"][0] == 4 and 0.3 < (shares["all"][1] or 0) < 0.7
    manifest, bank = directory.read_manifest("all"), directory.read_bank("all")
    plan = make_plan(config)
    source_of = dict(zip(plan.dataset.image_ids, plan.dataset.sources.tolist(), strict=True))
    hits = [
        source_of[bank.image_ids[row]] in {source_of[bank.image_ids[other]] for other in episode.support}
        for episode in manifest
        for row in episode.query
    ]
    assert found["all"] is not None and found["all"].support == pytest.approx(np.mean(hits))
    assert "sources: no query image is by a source that base training saw" in said
    assert "sources: 100.0\u00a0% of the query images are by a source that base training saw" in said
    assert "Sources: no query image is by a source" in directory.report_path.read_text()


def test_data_without_sources_say_nothing(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(to_yaml(make_config(chunks={"n_chunks": 1}, learner={"epochs": 1})))
    main(["run", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run")])
    assert '"sources"' not in (tmp_path / "run" / "summary.json").read_text()
    assert "Sources: " not in (tmp_path / "run" / "report.html").read_text()


def test_what_is_measured_on_sources_changes_no_weights_and_what_is_held_back_does(with_sources: MakeConfig) -> None:
    one, other = with_sources(), with_sources(benchmarks={"all": FORM})
    assert pretrain_identity(one) == pretrain_identity(other)
    older = replace(other, source_split=None)
    assert "source_split" not in run_identity(older) and "sources" not in run_identity(older)["benchmarks"]["all"]
    assert digest(run_identity(older)) != digest(run_identity(other))
    assert len(make_plan(older).images.train) != len(make_plan(other).images.train)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source_split": None}, "source_split is not set"),
        ({"source_split": {"held_back": ["camera"]}}, "source_split.held_back"),
        ({"source_split": {"held_back": list("abcd")}}, "names 4 of 4 sources"),
        ({"source_split": {"held_back": []}}, "names 0 of 4 sources"),
        ({"source_split": {"held_back": 1.5}}, "source_split.held_back"),
        ({"benchmarks": {"a": {**FORM, "sources": "held_back", "n_query": 15}}}, "or change source_split.held_back"),
        (
            {"benchmarks": {"a": {**FORM, "sources": "seen", "classes": "all", "dataset": {"name": "digits"}}}},
            "has a data set of its own",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(with_sources: MakeConfig, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(with_sources(**changes))
    assert words in str(caught.value)


def test_data_of_one_source_hold_none_back(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match="does not say which source"):
        make_plan(make_config(source_split={}))
