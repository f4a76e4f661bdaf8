from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lurefs.comparing.finished_runs import Run, read_runs
from lurefs.config.schema import RunConfig
from lurefs.reporting.page import write_page
from lurefs.runs.directory import RunDirectory
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage


@pytest.fixture
def run(make_config: Callable[..., RunConfig], tmp_path: Path) -> Run:
    """A finished run of a second without a page."""
    directory = RunDirectory(tmp_path / "run")
    config = make_config(learner={"epochs": 1, "batch_size": 16}, chunks={"n_chunks": 2})
    run_stage(make_plan(config), directory, "run", with_page=False)
    (found,) = read_runs([directory])
    return found


def test_a_page_is_made_again_only_if_what_it_was_made_from_has_changed(run: Run, tmp_path: Path) -> None:
    path = write_page([run], tmp_path / "page")
    first = path.read_bytes()
    path.write_bytes(b"drawn by hand" + b"\n" + first.splitlines(keepends=True)[-1])
    assert write_page([run], tmp_path / "page").read_bytes().startswith(b"drawn by hand")

    other = replace(run, label="another name")
    assert b"another name" in write_page([other], tmp_path / "page").read_bytes()
    assert write_page([run], tmp_path / "page").read_bytes() == first

    pretrain = replace(run.summary.pretrain, anytime_accuracy=0.123)
    run.directory.write_summary(replace(run.summary, pretrain=pretrain))
    (changed,) = read_runs([run.directory])
    assert write_page([changed], tmp_path / "page").read_bytes() != first


def test_a_page_that_was_cut_or_has_lost_its_figures_is_made_again(run: Run, tmp_path: Path) -> None:
    path = write_page([run], tmp_path / "page")
    first = path.read_bytes()
    path.write_bytes(first[:-10])
    assert write_page([run], tmp_path / "page").read_bytes() == first
    (tmp_path / "page" / "figures").rename(tmp_path / "figures")
    write_page([run], tmp_path / "page")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {path.name for path in (tmp_path / "page" / "figures").iterdir()} == names
    (tmp_path / "page" / "figures" / min(names)).unlink()
    write_page([run], tmp_path / "page")
    assert {path.name for path in (tmp_path / "page" / "figures").iterdir()} == names
