"""No open port, no key in a file or on the screen, files with the user's own permissions."""

from __future__ import annotations

import ast
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lurefs.cli import main
from lurefs.errors import without_secrets

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for package in ("lurefs", "episodes") for path in sorted((ROOT / package).rglob("*.py"))]
SECRET = "planted-secret-0123456789abcdef"
ADDRESS = f"https://somebody:{SECRET}@example.org/images"
RECIPE = ROOT / "tests" / "golden" / "recipe.yaml"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_listens_on_the_network(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported if name.partition(".")[0] in ("socketserver", "xmlrpc")}
    assert "http.server" not in imported
    called = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "attr")}
    assert not called & {
        "listen",
        "serve_forever",
        "start_server",
        "create_server",
        "start_unix_server",
        "create_unix_server",
    }


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (ADDRESS, "https://<password>@example.org/images"),
        ("git clone https://ghp_0123456789abcdefghij@github.com/a/b", "git clone https://<password>@github.com/a/b"),
        ("see https://example.org/a:b@c and user@host", "see https://example.org/a:b@c and user@host"),
        (f"token {SECRET}.", "token <HF_TOKEN>."),
    ],
)
def test_texts_lose_their_secrets(text: str, clean: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert without_secrets(text) == clean


@pytest.mark.parametrize("value", [ADDRESS, SECRET])
def test_settings_with_a_secret_are_refused_without_repeating_it(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["run", "--config", str(RECIPE), f"dataset.params.path={value}"])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert "dataset.params.path holds a password or the key of a service" in said.err
    assert SECRET not in said.out + said.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_saved_traceback_has_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: object) -> None:
        raise RuntimeError(f"no answer from {ADDRESS}")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("lurefs.commands.listing.run", fail)
    with pytest.raises(SystemExit) as caught:
        main(["list", "probes"])
    assert caught.value.code == 70
    [saved] = tmp_path.glob("lurefs-error-*")
    assert "RuntimeError: no answer from https://<password>@example.org" in saved.read_text()
    assert SECRET not in saved.read_text() + capsys.readouterr().err


@pytest.mark.parametrize("umask", [0o077, 0o002])
def test_a_run_with_its_log_for_wandb_has_the_users_permissions_and_no_key_and_can_be_copied(
    umask: int, tmp_path: Path
) -> None:
    environment = {**os.environ, "WANDB_API_KEY": SECRET * 2, "HF_TOKEN": SECRET, "LUREFS_CACHE": str(tmp_path / "c")}
    code = f"import os, sys; os.umask({umask}); from lurefs.cli import main; main(sys.argv[1:])"
    run = ["run", "--config", str(RECIPE), "--run-dir", str(tmp_path / "run"), "trackers.wandb.mode=offline"]
    done = subprocess.run([sys.executable, "-c", code, *run], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert (tmp_path / "run" / "wandb").is_dir() and len(files) > 30
    wrong = [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o666 != 0o666 & ~umask]
    assert not wrong
    assert SECRET not in done.stdout + done.stderr
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    shutil.copytree(tmp_path / "run", tmp_path / "copy with links", symlinks=True)
