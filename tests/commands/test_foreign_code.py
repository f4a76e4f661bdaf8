"""A config may come from anyone: code that it names runs only where the user expects it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lurefs import plugins
from lurefs.cli import main
from lurefs.config.load import load, to_yaml
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory

MARK = "called"
STRATEGY = """
from pathlib import Path
from lurefs.learning.unlearn.whole import from_scratch


def strategy(mark: str = ""):
    if mark:
        Path(mark).write_text("called")
    return from_scratch()
"""


def failing(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == code
    return capsys.readouterr().err


@pytest.fixture(autouse=True)
def _as_at_a_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plugins.ALLOW_CODE, raising=False)
    monkeypatch.setattr(plugins, "_permitted", {})


@pytest.fixture
def hostile(make_config: Callable[..., RunConfig], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of one finished run, whose stored configuration names functions that leave a mark."""
    folder, finished = tmp_path / "theirs", tmp_path_factory.getbasetemp() / "finished frozen run"
    if not finished.exists():
        recipe = tmp_path / "mine.yaml"
        recipe.write_text(to_yaml(make_config(frozen=True)))
        main(["run", str(recipe), "--run-dir", str(tmp_path / "finished")])
        shutil.copytree(tmp_path / "finished", finished)
    shutil.copytree(finished, folder)
    values = yaml.safe_load((folder / "config.yaml").read_text())
    values["unlearn"] = {"name": "os:system", "params": {"command": f"touch {tmp_path / MARK}"}}
    values["executor"] = {"name": "os:mkdir", "params": {"path": str(tmp_path / MARK)}}
    values["probes"]["theirs"] = {"name": "os:mkdir", "params": {"path": str(tmp_path / MARK)}}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of wandb_workspaces
@pytest.mark.parametrize("command", ["report", "compare", "push", "views", "run", "pretrain", "evaluate", "reproduce"])
def test_a_command_on_somebodys_run_calls_nothing_that_it_names(
    command: str, hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    is_stage = command in ("run", "pretrain", "evaluate")
    try:
        main([command, *(["--run-dir", str(hostile), "--dry-run"] if is_stage else [str(hostile)])])
    except SystemExit as ended:
        assert ended.code in (0, 2)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize(
    ("kind", "name", "params"),
    [
        ("unlearn", "os:system", {"command": "true"}),
        ("probe", "builtins:exit", {}),
        ("probe", "sklearn.datasets:clear_data_home", {}),
        ("dataset", "shutil:rmtree", {"path": "x"}),
        ("executor", "lurefs.cache:clear", {}),
        ("dataset", ":", {}),
        ("dataset", "..x:y", {}),
        ("probe", "no_such_package:x", {}),
    ],
)
def test_a_path_to_other_code_is_refused_unless_it_is_permitted(kind: str, name: str, params: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"would run code of|cannot be imported"):
        plugins.build(kind, name, params)


def test_plugins_and_classes_of_scikit_learn_need_no_permission() -> None:
    assert plugins.build("probe", "sklearn.naive_bayes:GaussianNB", {}).fit
    assert plugins.build("unlearn", "lurefs.learning.unlearn.whole:from_scratch", {}) is not None


def test_a_module_beside_the_recipe_runs_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "beside_the_recipe.py").write_text(STRATEGY)
    (tmp_path / "a.yaml").write_text("dataset: {name: digits}\nunlearn: {name: 'beside_the_recipe:strategy'}\n")
    load(tmp_path / "a.yaml")
    assert f"runs code of {tmp_path / 'beside_the_recipe.py'}" in capsys.readouterr().err


def test_other_modules_run_with_permission_and_only_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "installed_elsewhere.py").write_text(STRATEGY)
    monkeypatch.syspath_prepend(str(elsewhere))
    recipe = tmp_path / "a.yaml"
    recipe.write_text(
        "dataset: {name: digits}\nclass_split: {base: 0.3, validation: 0.2, novel: 0.5}\n"
        f"unlearn: {{name: 'installed_elsewhere:strategy', params: {{mark: '{tmp_path / MARK}'}}}}\n"
    )
    said = failing(["run", str(recipe), "--dry-run"], capsys)
    assert f"would run code of {elsewhere / 'installed_elsewhere.py'}" in said and "--allow-code" in said
    assert not (tmp_path / MARK).exists() and "installed_elsewhere" not in sys.modules
    main(["run", str(recipe), "--dry-run", "--allow-code"])
    assert (tmp_path / MARK).read_text() == "called"
    assert "runs code of" in capsys.readouterr().err
    assert "would run code of" in failing(["run", str(recipe), "--dry-run"], capsys)


def test_a_factory_that_fails_or_ends_the_process_is_named(tmp_path: Path) -> None:
    with plugins.code_allowed(True), pytest.raises(UserError, match=r"'sys:exit' failed: SystemExit"):
        plugins.build("executor", "sys:exit", {})
    with plugins.code_allowed(True), pytest.raises(UserError, match="cannot be called"):
        plugins.build("unlearn", "fractions:Fraction", {})


@pytest.mark.parametrize("where", ["recipe", "override", "nested"])
def test_environment_variables_stay_out_of_stored_settings(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("A_SECRET", "hush")
    value = "${oc.decode:${oc.env:A_SECRET}}" if where == "nested" else "${oc.env:A_SECRET}"
    (tmp_path / "a.yaml").write_text(
        "name: a\n" + ("" if where == "override" else f"trackers: {{wandb: {{project: '{value}'}}}}\n")
    )
    typed = [f"trackers.wandb.project={value}"] if where == "override" else []
    said = failing(["run", str(tmp_path / "a.yaml"), "--dry-run", *typed], capsys)
    assert "reads an environment variable" in said and "hush" not in said


def test_a_stored_configuration_is_read_literally(hostile: Path) -> None:
    values = yaml.safe_load((hostile / "config.yaml").read_text())
    values["trackers"]["wandb"]["project"] = "${name}"
    (hostile / "config.yaml").write_text(yaml.safe_dump(values))
    assert RunDirectory(hostile).read_config().trackers.wandb.project == "${name}"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RuntimeError("a bug"), 70, "please report it with"),
        (OSError(28, "No space left on device", "a file"), 2, "free some space"),
        (MemoryError("Unable to allocate 9 TiB"), 2, "lower the batch size"),
        (PermissionError(13, "Permission denied", "a file"), 2, "allow it"),
    ],
)
def test_an_unforeseen_error_is_one_line_and_a_saved_traceback(
    error: Exception, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("lurefs.commands.listing.run", fail)
    said = failing(["list", "probes"], capsys, code)
    assert words in said and "Traceback" not in said
    if code == 70:
        saved = Path(said.split()[-1])
        assert "a bug" in saved.read_text() and "lurefs list probes" in saved.read_text()
        saved.unlink()
