"""A shared entry is whole or missing, whatever ended the process that wrote it and whatever happened to it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from lurefs import cache, console
from lurefs.stages import store

KIND, KEY = "features", "a key"
CONTENTS = {"0": b"first" * 1000, "1": b"second" * 1000}
NOTES = {"seconds": 1.5}
WRITER = """
import sys, time
from lurefs.stages import store

def write(output):
    output.write(b"first" * 500)
    print("half", flush=True)
    sys.stdin.readline()
    output.write(b"first" * 500)

files = {"0": write, "1": lambda output: output.write(b"second" * 1000)}
store.give("features", "a key", files, about="files", n_bytes=11_000, notes={"seconds": 1.5})
"""
MANY = """
from lurefs.stages import store

def write(content, output):
    for start in range(0, len(content), 100):
        output.write(content[start : start + 100])

for _ in range(40):
    files = {"0": lambda output: write(b"first" * 1000, output), "1": lambda output: write(b"second" * 1000, output)}
    store.give("features", "a key", files, about="files", n_bytes=11_000, notes={"seconds": 1.5})
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the entry."""
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "cache"))
    console.note_once.cache_clear()
    return tmp_path / "cache" / KIND / KEY


@pytest.fixture
def started() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts processes, which are killed at the end."""
    processes: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def half_written(started: Callable[[str], subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Return a process that has written half of the first file and waits."""
    process = started(WRITER)
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    return process


def give() -> None:
    files = {name: partial(_write, content) for name, content in CONTENTS.items()}
    store.give(KIND, KEY, files, about="files", n_bytes=sum(map(len, CONTENTS.values())), notes=NOTES)


def _write(content: bytes, output: store.Output) -> None:
    output.write(content)


def is_right() -> bool:
    """Return whether the entry is there; one that is there must be right."""
    taken = store.take(KIND, KEY, list(CONTENTS))
    if taken is None:
        return False
    files, notes = taken
    assert [content.tobytes() for content in files] == list(CONTENTS.values())
    assert notes == NOTES
    return True


def partial_files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if "partial" in path.name]


def test_what_is_given_can_be_taken() -> None:
    assert not is_right()
    give()
    assert is_right()


def test_what_a_killed_process_left_is_no_entry_and_goes(
    folder: Path, started: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = half_written(started)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(partial_files(folder)) == 1 and not is_right()
    give()
    assert is_right() and partial_files(folder) == []


def test_a_process_that_is_killed_while_it_writes_an_entry_again_leaves_no_wrong_one(
    folder: Path, started: Callable[[str], subprocess.Popen[str]]
) -> None:
    give()
    process = half_written(started)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not is_right()
    give()
    assert is_right() and partial_files(folder) == []


def test_a_process_that_still_writes_keeps_its_files_and_completes_the_entry(
    folder: Path, started: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = half_written(started)
    before = partial_files(folder)
    give()
    assert partial_files(folder) == before and not is_right()
    process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert is_right() and partial_files(folder) == []


def test_an_entry_that_is_being_written_is_not_removed(started: Callable[[str], subprocess.Popen[str]]) -> None:
    process = half_written(started)
    removed, kept = cache.clear()
    assert removed == [] and len(kept) == 1
    process.communicate("\n", timeout=60)
    assert is_right()


def test_processes_that_give_the_same_at_once_leave_it_right_at_any_moment(
    folder: Path, started: Callable[[str], subprocess.Popen[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    processes = [started(MANY) for _ in range(2)]
    deadline, n_right = time.monotonic() + 120, 0
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        n_right += is_right()
    assert [process.wait() for process in processes] == [0, 0]
    assert is_right() and n_right > 0 and partial_files(folder) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["0", "1", "card.json"])
@pytest.mark.parametrize("place", [0, 7, -1])
def test_a_changed_byte_makes_an_entry_missing_and_is_told_once(
    name: str, place: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    give()
    content = bytearray((folder / name).read_bytes())
    content[place] ^= 1
    (folder / name).write_bytes(content)
    assert not is_right() and not is_right()
    assert capsys.readouterr().err.count(f"{folder} is damaged") == 1
    give()
    assert is_right()


def test_damage_to_the_notes_is_noticed(folder: Path) -> None:
    give()
    text = (folder / "card.json").read_text()
    assert "1.5" in text
    (folder / "card.json").write_text(text.replace("1.5", "1.6"))
    assert not is_right()


@pytest.mark.parametrize("name", ["0", "1", "card.json"])
@pytest.mark.parametrize("n_bytes", [0, 100])
def test_a_file_that_was_cut_short_makes_an_entry_missing(name: str, n_bytes: int, folder: Path) -> None:
    give()
    os.truncate(folder / name, n_bytes)
    assert not is_right()
    give()
    assert is_right()


def test_a_file_that_is_gone_makes_an_entry_missing(folder: Path) -> None:
    give()
    (folder / "1").unlink()
    assert not is_right()


def test_an_entry_of_other_files_counts_as_missing() -> None:
    give()
    assert store.take(KIND, KEY, ["0"]) is None
    assert store.take(KIND, KEY, ["0", "1", "2"]) is None


@pytest.mark.parametrize("text", ["[]", "{}", '{"crc32": 0, "content": []}', '{"content": {"notes": 3}}', "NaN"])
def test_a_card_of_another_form_counts_as_missing(text: str, folder: Path) -> None:
    give()
    (folder / "card.json").write_text(text)
    assert not is_right()


def test_a_folder_that_cannot_be_written_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "a file"))
    give()
    give()
    assert not is_right()
    assert capsys.readouterr().err.count("cannot be used: ") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB, where one can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    if not is_mounted:
        pytest.skip("mounting is not permitted")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_an_entry_that_a_disk_cannot_hold_is_not_there_and_leaves_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(cache.PLACE, str(small_disk))
    files = {"0": partial(_write, bytes(50_000)), "1": partial(_write, bytes(50_000))}
    store.give(KIND, KEY, files, about="files", n_bytes=100_000, notes={})
    assert "No space left" in capsys.readouterr().err
    assert store.take(KIND, KEY, ["0", "1"]) is None
    assert partial_files(small_disk / KIND / KEY) == []


def test_a_read_only_file_system_is_told_and_stops_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(cache.PLACE, str(small_disk))
    give()
    assert is_right()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert not is_right()
    give()
    assert capsys.readouterr().err.count("Read-only file system") == 1


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_an_error_in_the_middle_of_writing_leaves_no_entry(
    error: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(output: store.Output) -> None:
        output.write(b"half")
        raise OSError(error, os.strerror(error))

    store.give(KIND, KEY, {"0": partial(_write, CONTENTS["0"]), "1": fail}, about="files", n_bytes=8, notes=NOTES)
    assert os.strerror(error) in capsys.readouterr().err
    assert not is_right() and partial_files(folder) == []
    give()
    assert is_right()


def test_a_cache_of_no_size_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    give()
    assert is_right()
    monkeypatch.setenv("LUREFS_CACHE_GB", "0")
    assert store.take(KIND, KEY, list(CONTENTS)) is None
