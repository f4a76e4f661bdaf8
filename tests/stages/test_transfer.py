"""Transfer as a part of a run: features, fits, figures, the page, and what is refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from episodes.transfer.table import summarise_transfer
from lurefs import cli
from lurefs.commands import run as run_command
from lurefs.comparing.finished_runs import read_runs
from lurefs.comparing.groups import groups_of
from lurefs.config.identity import pretrain_identity
from lurefs.config.load import to_yaml
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.reporting.sections.transfer import form, label_efficiency, rows
from lurefs.runs.directory import RunDirectory
from lurefs.stages.checks import check
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage
from lurefs.stages.transfer_plan import plan_transfers

MakeConfig = Callable[..., RunConfig]
SMALL: dict[str, Any] = {"sizes": [1, 4, "all"], "n_repeats": 2, "grid": {"C": [1, 100]}}


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def with_transfer(make_config: MakeConfig, *, unlearn: str = "by_saliency", **changes: Any) -> RunConfig:
    return make_config(
        name=unlearn,
        unlearn={"name": unlearn},
        transfer={"curve": {**SMALL, **changes}},
        after_chunk={"few_shot": False},
        chunks={"n_chunks": 2},
        controls=False,
    )


def test_a_run_leaves_features_fits_and_figures_of_a_transfer(
    make_config: MakeConfig, directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_transfer(make_config)
    run_stage(make_plan(config), directory, "run")
    table = directory.read_transfer("curve")
    assert [(fit.size, fit.repeat) for fit in table.fits] == [(1, 0), (1, 1), (4, 0), (4, 1), ("all", 0)]
    bank = directory.read_bank("curve")
    assert bank.identity == directory.read_bank("novel-3way-1shot").identity
    summary = directory.read_summary().transfer["curve"]
    assert (summary.parameter, summary.grid, summary.n_classes) == ("C", [1.0, 100.0], 4)
    assert list(summary.sizes) == ["1", "4", "all"]
    figures = summary.sizes["4"]
    assert figures == summarise_transfer(table)[4]
    assert figures.chosen == tuple(fit.chosen for fit in table.of_size(4))
    assert figures.n_at_edge == 2
    assert (figures.n_train, figures.n_validation, figures.n_test) == (16, 8, 28)
    assert summary.sizes["all"].accuracy.ci95_repeats is None
    assert "Transfer of whole data sets" in directory.report_path.read_text(encoding="utf-8")
    assert (directory.figures_dir / "transfer-curve.svg").exists()
    run_command.print_transfers(read_runs([directory]))
    assert "images per class" in capsys.readouterr().out


def test_fits_are_computed_once_and_anew_when_their_setting_changes(
    make_config: MakeConfig, directory: RunDirectory
) -> None:
    run_stage(make_plan(with_transfer(make_config)), directory, "run", with_page=False)
    path = directory.transfer_path("curve")
    features, fits = directory.features_dir("curve") / "features.npy", path.read_bytes()
    before = features.stat().st_mtime_ns, path.stat().st_mtime_ns
    run_stage(make_plan(with_transfer(make_config)), directory, "run", with_page=False)
    assert (features.stat().st_mtime_ns, path.stat().st_mtime_ns) == before
    run_stage(make_plan(with_transfer(make_config, seed=1)), directory, "evaluate")
    assert features.stat().st_mtime_ns == before[0]
    assert path.read_bytes() != fits


def test_a_transfer_does_not_change_what_the_weights_are_made_from(make_config: MakeConfig) -> None:
    config = with_transfer(make_config)
    assert pretrain_identity(config) == pretrain_identity(replace(config, transfer={}))


def test_a_transfer_may_have_a_data_set_and_a_probe_of_its_own(
    make_config: MakeConfig, directory: RunDirectory
) -> None:
    config = with_transfer(
        make_config,
        dataset={"name": "digits"},
        classes="all",
        sizes=[2, "all"],
        probe={"name": "knn", "params": {"n_neighbors": 3}},
        grid=None,
    )
    plan = make_plan(config)
    check(plan)
    planned = plan_transfers(plan)["curve"]
    assert len(planned.images.class_names) == 10
    assert planned.spec.parameter is None
    run_stage(plan, directory, "run")
    summary = directory.read_summary().transfer["curve"]
    assert summary.grid is None
    assert summary.sizes["all"].n_validation == 0
    assert summary.sizes["all"].accuracy.mean > summary.sizes["2"].accuracy.mean > 0.2


def test_the_grid_is_over_c_unless_the_probe_sets_it(make_config: MakeConfig) -> None:
    def parameter(**changes: Any) -> str | None:
        plan = make_plan(with_transfer(make_config, **changes))
        return plan_transfers(plan)["curve"].spec.parameter

    assert parameter(grid=None) == "C"
    assert parameter(grid=None, probe={"name": "logistic_regression", "params": {"C": 3.0}}) is None
    assert parameter(grid={}) is None
    assert parameter(grid={"tol": [1e-6, 1e-4]}) == "tol"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sizes": [1, 2, 50]}, "transfer.curve.sizes asks for 50 training images per class, but class '1' has 15"),
        ({"sizes": [2, 2]}, "transfer.curve.sizes is [2, 2]"),
        ({"sizes": [0]}, "different numbers of images per class"),
        ({"sizes": ["some"]}, "transfer.curve.sizes[0] is 'some'"),
        ({"val": 0.5, "test": 0.5}, "leaves none to train on"),
        ({"grid": {"C": [1, 0.1]}}, "ascending values"),
        ({"grid": {"alpha": [1.0]}}, "no setting 'alpha'"),
        ({"grid": {"C": [-1.0, 1.0]}}, "transfer.curve.grid.C is -1.0"),
        ({"probe": {"name": "knm"}}, "did you mean 'knn'"),
        ({"dataset": {"name": "digits"}}, "set transfer.curve.classes to all"),
        ({"classes": "validation"}, "raise class_split.validation"),
        ({"n_repeat": 3}, "did you mean 'transfer.curve.n_repeats'"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    make_config: MakeConfig, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        check(make_plan(with_transfer(make_config, **changes)))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("n_images", "words"),
    [([9], "transfer.curve is on 1 npz classes"), ([9, 1], "transfer.curve: class '1' has 1 images")],
)
def test_too_few_images_of_its_own_data_set_are_refused_under_its_own_name(
    make_config: MakeConfig, tmp_path: Path, n_images: list[int], words: str
) -> None:
    labels = np.repeat(np.arange(len(n_images)), n_images)
    np.savez(tmp_path / "few.npz", images=np.zeros((len(labels), 8, 8), dtype=np.uint8), labels=labels)
    dataset = {"name": "npz", "params": {"path": str(tmp_path / "few.npz")}}
    with pytest.raises(UserError) as caught:
        check(make_plan(with_transfer(make_config, dataset=dataset, classes="all", sizes=["all"])))
    assert words in str(caught.value)


def test_a_transfer_cannot_bear_the_name_of_a_benchmark(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match="the name of a benchmark and of a transfer"):
        make_config(transfer={"novel-3way-1shot": SMALL})


def test_a_dry_run_says_what_a_transfer_would_fit(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(with_transfer(make_config)), encoding="utf-8")
    cli.main(["run", "--config", str(path), "--run-dir", str(tmp_path / "run"), "--dry-run"])
    assert "transfer  curve: 1, 4, all of 60 training images in 4 classes" in capsys.readouterr().out


def test_the_figure_has_a_line_a_run_and_pairs_runs_of_equal_draws(make_config: MakeConfig, tmp_path: Path) -> None:
    directories = [RunDirectory(tmp_path / name) for name in ("one", "other")]
    for directory, unlearn in zip(directories, ("nothing", "from_scratch"), strict=True):
        run_stage(make_plan(with_transfer(make_config, unlearn=unlearn)), directory, "run")
    runs = read_runs(directories)
    svg = label_efficiency(groups_of(runs), "curve")
    assert svg is not None
    assert "from_scratch" in svg
    assert "training images per class" in svg
    found = rows(runs, "curve")
    assert [row["size"] for row in found] == ["1", "1", "4", "4", "all", "all"]
    a, b = (directory.read_transfer("curve") for directory in (directories[1], directories[0]))
    difference = np.mean([x.accuracy - y.accuracy for x, y in zip(a.of_size(4), b.of_size(4), strict=True)])
    assert found[3]["difference"].replace("−", "-") == f"{difference * 100:+.2f}".replace("+0.00", "0.00")
    assert found[2]["difference"] == "–"
    assert "C of 2 values from 1 to 100, chosen by nll" in form(runs, "curve")
