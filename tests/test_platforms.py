"""Systems that lack parts of POSIX, as far as they can be played here; nothing was tried on a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lurefs import locks
from lurefs.config.names import check_name
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory

RECIPE = """
name: elsewhere
dataset: {{name: folder, params: {{path: '{path}', image_size: 32}}}}
class_split: {{base: 0.5, validation: 0.0, novel: 0.5}}
image_split: {{val: 0.2, test: 0.2}}
chunks: {{n_chunks: 1}}
backbone: {{name: test_vit, params: {{embed_dim: 16, depth: 1, num_heads: 1, patch_size: 8}}}}
learner: {{epochs: 1, batch_size: 4}}
benchmarks:
  novel-2way-1shot: {{n_way: 2, n_shot: 1, n_query: 3, n_episodes: 20}}
after_chunk: {{n_episodes: 5}}
"""
WITHOUT = """
import os, sys
sys.modules["fcntl"] = None
for name in ("pread", "preadv", "pwrite", "sched_getaffinity"):
    if hasattr(os, name):
        delattr(os, name)
from lurefs.cli import main
main(sys.argv[1:])
"""


def test_a_run_needs_no_locks_and_no_reads_of_posix(photos: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "LUREFS_CACHE": str(tmp_path / "cache"), "WANDB_MODE": "disabled"}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(path=photos), encoding="utf-8")
    arguments = ["run", "--config", str(recipe), "--run-dir", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", WITHOUT, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()


def test_without_fcntl_nothing_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    directory = RunDirectory(tmp_path / "run")
    with directory.locked(), directory.locked():
        assert (tmp_path / "run" / ".lock").is_file()


def test_with_fcntl_the_second_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    directory = RunDirectory(tmp_path / "run")
    with directory.locked(), pytest.raises(UserError, match="another process is working"), directory.locked():
        pass


def test_numbers_of_the_locks_are_those_of_the_system() -> None:
    fcntl = pytest.importorskip("fcntl")
    for name in ("LOCK_SH", "LOCK_EX", "LOCK_NB", "LOCK_UN"):
        assert getattr(locks, name) == getattr(fcntl, name)


@pytest.mark.parametrize("name", ["a:b", "a\\b", 'a"b', "a|b", "a?b", "a*b", "con", "NUL.x", "com1", "ends."])
def test_names_that_windows_cannot_store_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot be the name of a file"):
        check_name(name)


def test_a_name_that_the_locale_cannot_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsencode", lambda name: name.encode("ascii"))
    check_name("naive")
    with pytest.raises(UserError, match="cannot be the name of a file in the encoding"):
        check_name("naïve")
