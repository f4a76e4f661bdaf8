from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from lurefs.errors import UserError
from lurefs.tracking.tracker import choose_mode, has_key

KEY = {"WANDB_API_KEY": "0" * 40}


@pytest.mark.parametrize(
    ("configured", "environment", "mode"),
    [
        ("auto", {}, "offline"),
        ("auto", KEY, "online"),
        ("auto", {"WANDB_API_KEY": ""}, "offline"),
        ("auto", {"WANDB_MODE": ""}, "offline"),
        ("auto", {"WANDB_MODE": "", **KEY}, "online"),
        ("auto", {"WANDB_MODE": "offline", **KEY}, "offline"),
        ("auto", {"WANDB_MODE": "dryrun", **KEY}, "offline"),
        ("auto", {"WANDB_MODE": "Online"}, "online"),
        ("auto", {"WANDB_MODE": "disabled", **KEY}, "disabled"),
        ("auto", {"WANDB_DISABLED": "true", "WANDB_MODE": "online", **KEY}, "disabled"),
        ("auto", {"WANDB_DISABLED": "1"}, "disabled"),
        ("auto", {"WANDB_DISABLED": ""}, "offline"),
        ("auto", {"WANDB_DISABLED": "false", **KEY}, "online"),
        ("offline", {"WANDB_MODE": "online", "WANDB_DISABLED": "true", **KEY}, "offline"),
        ("online", {"WANDB_MODE": "disabled"}, "online"),
        ("disabled", KEY, "disabled"),
    ],
)
def test_mode_follows_the_config_then_the_environment(
    tmp_path: Path, configured: str, environment: dict[str, str], mode: str
) -> None:
    assert choose_mode(configured, {"HOME": str(tmp_path), **environment})[0] == mode


@pytest.mark.parametrize("file_name", [".netrc", "_netrc", "elsewhere"])
@pytest.mark.parametrize(("host", "is_found"), [("api.wandb.ai", True), ("wandb.example.org", False)])
def test_key_may_stand_in_the_netrc_file(tmp_path: Path, file_name: str, host: str, is_found: bool) -> None:
    path = tmp_path / file_name
    path.write_text(f"machine {host}\n  login user\n  password {'0' * 40}\n")
    path.chmod(0o600)
    environment = {"HOME": str(tmp_path)} if file_name != "elsewhere" else {"NETRC": str(path)}
    assert has_key(environment) is is_found
    assert has_key({**environment, "WANDB_BASE_URL": f"https://{host}"})


def test_damaged_netrc_file_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine")
    assert not has_key({"HOME": str(tmp_path)})


def test_unknown_wandb_mode_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"WANDB_MODE is 'oflin'(.|\n)*offline(.|\n)*unset"):
        choose_mode("auto", {"WANDB_MODE": "oflin"})


@pytest.mark.parametrize("variables", [{"WANDB_DISABLED": "true"}, {"WANDB_MODE": "disabled"}])
def test_disabled_run_writes_nothing_for_wandb(
    run: Any, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tracker = run.go()
    assert "disabled" in tracker.note
    assert not (run.directory.path / "wandb").exists()


def test_run_works_where_wandb_is_not_installed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "not installed" in run.go().note


def test_strict_online_run_is_refused_where_wandb_is_not_installed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="wandb"):
        run.with_wandb(mode="online", strict=True).start()


def test_online_without_a_key_goes_on_offline(run: Any) -> None:
    tracker = run.with_wandb(mode="online").start()
    tracker.close()
    assert tracker.note.startswith("W&B: offline (no key found)")


def test_strict_online_without_a_key_is_refused(run: Any) -> None:
    with pytest.raises(UserError, match=r"no API key(.|\n)*strict(.|\n)*wandb login"):
        run.with_wandb(mode="online", strict=True).start()
