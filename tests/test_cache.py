"""What the cache holds, what goes when it is full, and the command that lists and clears it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lurefs import cache
from lurefs.cli import main
from lurefs.errors import UserError

N_BYTES = 40_960


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "cache"))
    monkeypatch.setenv(cache.BOUND, "0.0001")
    return tmp_path / "cache"


@pytest.fixture
def in_use() -> Iterator[list[int]]:
    """Descriptors of the entries in use."""
    descriptors: list[int] = []
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def add(key: str, used: float, n_bytes: int = N_BYTES) -> int:
    with cache.opened("images", key, about=f"the images {key}", n_bytes=n_bytes) as (folder, in_use):
        (folder / "pixels.bin").write_bytes(os.urandom(n_bytes))
    os.utime(folder / "entry.json", (used, used))
    return in_use


def keys() -> list[str]:
    return [entry.path.name for entry in cache.entries()]


def test_the_entry_used_longest_ago_goes_when_there_is_no_room(in_use: list[int]) -> None:
    for key, used in (("a", 200), ("b", 100)):
        os.close(add(key, used))
    assert keys() == ["a", "b"]
    in_use.append(add("c", 300))
    assert keys() == ["c", "a"]
    in_use.append(add("a", 400))
    with pytest.raises(cache.NoCacheError, match=r"the images d take 4.1e-05 GB beside .* in use"):
        add("d", 500)
    assert sorted(keys()) == ["a", "c"]


def test_an_entry_larger_than_the_bound_is_refused_and_others_stay() -> None:
    os.close(add("a", 100))
    with pytest.raises(cache.NoCacheError, match=r"the cache may hold 0.0001 \(LUREFS_CACHE_GB\)"):
        add("large", 200, n_bytes=200_000)
    assert keys() == ["a"]


def test_entries_in_use_stay_when_the_cache_is_cleared(
    in_use: list[int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.close(add("a", 100))
    in_use.append(add("b", 200))
    main(["cache"])
    listed = capsys.readouterr().out
    assert "images: the images a" in listed
    assert f"of at most 0.0001 GB in {folder}" in listed
    main(["cache", "--clear"])
    assert "removed 1 entry" in capsys.readouterr().out
    assert keys() == ["b"]


def test_a_cache_that_does_not_exist_is_empty_and_not_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["cache"])
    main(["cache", "--clear"])
    assert "0 entries" in capsys.readouterr().out
    assert not folder.exists()


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_bound_that_is_no_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.BOUND, text)
    with pytest.raises(UserError, match="LUREFS_CACHE_GB is"):
        cache.bound()


def test_the_user_s_cache_folder_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cache.PLACE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/mine")
    assert cache.cache_dir() == Path("/var/mine/lurefs")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_dir() == Path.home() / ".cache" / "lurefs"
