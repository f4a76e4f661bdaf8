"""Faults for `tools/torture.py`: damaged files, full disks, folders that cannot be written, two commands at once.

After each fault the command must answer as for an error that the user can fix, or finish with the same results. Then
the fault is mended as the answer says, and the same command must end with the results of an undisturbed run.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from unittest import mock

import bad_inputs
from torture import RUN, Life, Tally, differences, live, prepare, restore, tell_lost

REPORT = ("report", "out", "--output", "page")
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda content: None,
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "noise": lambda content: random.Random(len(content)).randbytes(len(content)),
}
NOT_DAMAGED = (".lock", "log.txt")
DELETE = re.compile(r"delete (\S+?)(?::| and| to)")
"""The advice for a file that is damaged."""
MISSING = "shown: there is no "
"""What a page says of a file that is missing."""


def judge(tally: Tally, life: Life, what: str) -> bool:
    """Count how a life under a fault ended; return whether it refused, in three parts."""
    if life.code is None or life.n_left:
        tally.tell("hung", f"{what}: {life.output[-500:]}")
    if life.has_traceback:
        tally.tell("tracebacks", f"{what}: {life.output[-3000:]}")
    is_refused = life.code == 2 and "to fix:" in life.output
    if life.code != 0 and not is_refused and not life.has_traceback:
        tally.tell("tracebacks", f"{what}: an answer without advice, code {life.code}: {life.output[-1000:]}")
    return is_refused


def damaged_files(base: Path, n: int, rng: random.Random) -> Tally:
    """Damage files of a finished run, make its page, and do what the answers say until that succeeds."""
    tally = Tally("damaged files of a run")
    work, whole = base / "work", base / "whole"
    prepare(work, (RUN, REPORT))
    restore(whole, work)
    names = sorted(str(path.relative_to(whole)) for path in (whole / "out").rglob("*") if path.is_file())
    names = [name for name in names if Path(name).name not in NOT_DAMAGED and "figures" not in name]
    faults = [(name, damage) for name in names for damage in DAMAGES]
    for name, damage in rng.sample(faults, min(n, len(faults))):
        restore(work, whole)
        what = f"{name}, {damage}"
        content = DAMAGES[damage]((whole / name).read_bytes())
        (work / name).unlink() if content is None else (work / name).write_bytes(content)
        tally.tried += 1
        for _ in range(3):
            life = live(work, REPORT)
            if not judge(tally, life, what):
                break
            if (found := DELETE.search(life.output)) is not None:
                (work / found[1]).unlink(missing_ok=True)
            judge(tally, live(work, RUN), what)
        if life.code != 0:
            tally.tell("lost", f"{what}: the advice does not help: {life.output[-1500:]}")
        elif differences(whole / "page", work / "page") and MISSING not in (work / "page/report.html").read_text():
            tally.tell("accepted", what)
        others = differences(whole / "out", work / "out")
        not_lost = ("figures", "report", name.removeprefix("out/"))
        tell_lost(
            tally, whole / "out", work / "out", [other for other in others if not other.startswith(not_lost)], what
        )
    return tally


@contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[bool]:
    """Mount a small file system on a folder; without the right to, limit the size of files. Yields whether it could."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)]
    is_mounted = subprocess.run(["mount", *options], capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def limit_files(n_bytes: int) -> None:
    """Let every larger file fail; called in a fork."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def full_disks(base: Path, n: int, rng: random.Random) -> Tally:
    """Run on disks that become full at random sizes, then with room."""
    tally = Tally("full disk of a run")
    work, whole, before, disk = base / "work", base / "whole", base / "before", base / "disk"
    prepare(work)
    restore(before, work)
    live(work, RUN)
    restore(whole, work)
    size = sum(path.stat().st_size for path in (whole / "out").rglob("*") if path.is_file())
    for _ in range(n):
        restore(work, before)
        n_bytes = int(rng.uniform(0.02, 1.2) * size) // 4096 * 4096
        with small_disk(disk, n_bytes) as is_mounted:
            if is_mounted:
                (work / "out").symlink_to(disk)
            limit = None if is_mounted else partial(limit_files, n_bytes // 8)
            tally.tried += 1
            judge(tally, live(work, RUN, before=limit), f"{n_bytes:,} bytes")
            if is_mounted:
                (work / "out").unlink()
                shutil.copytree(disk, work / "out")
        mend(tally, whole, work, f"{n_bytes:,} bytes")
    return tally


def unusable_caches(base: Path, n: int, rng: random.Random) -> Tally:
    """Run with caches that are full, that are no folders, whose entries are damaged; it must finish each time."""
    tally = Tally("unusable caches")
    work, whole, before = base / "work", base / "whole", base / "before"
    prepare(work)
    restore(before, work)
    live(work, RUN)
    restore(whole, work)
    cached = [path.relative_to(whole) for path in sorted((whole / "cache").rglob("*")) if path.is_file()]
    kinds = ["full", "a file", "too small", *(f"{path} {damage}" for path in cached for damage in DAMAGES)]
    for kind in kinds[:3] + rng.sample(kinds[3:], max(0, min(n, len(kinds)) - 3)):
        restore(work, before)
        environment = {}
        with small_disk(base / "disk", 8192) if kind == "full" else nullcontext(False) as is_mounted:
            if is_mounted:
                environment = {"LUREFS_CACHE": str(base / "disk")}
            elif kind == "a file":
                (work / "cache").write_text("no folder")
            elif kind == "too small":
                environment = {"LUREFS_CACHE_GB": "0.000001"}
            elif kind != "full":
                shutil.copytree(whole / "cache", work / "cache")
                name, damage = kind.split(" ", 1)
                content = DAMAGES[damage]((work / name).read_bytes())
                (work / name).unlink() if content is None else (work / name).write_bytes(content)
            life = live(work, RUN, environment=environment)
        tally.tried += 1
        judge(tally, life, kind)
        if life.code != 0:
            tally.tell("lost", f"{kind}: code {life.code}: {life.output[-1500:]}")
        tell_lost(tally, whole, work, differences(whole, work), kind)
    return tally


def two_at_once(base: Path, n: int, rng: random.Random) -> Tally:
    """Start the same run twice, the second at a random moment, in one folder with one cache: one refuses or waits."""
    tally = Tally("two runs in one folder")
    work, whole, before = base / "work", base / "whole", base / "before"
    prepare(work)
    restore(before, work)
    undisturbed = live(work, RUN)
    restore(whole, work)
    for _ in range(n):
        restore(work, before)
        delay = rng.uniform(0, undisturbed.seconds)
        first = os.fork()
        if first == 0:
            os._exit(live(work, RUN, output=base / "first.txt").code or 0)
        time.sleep(delay)
        second = live(work, RUN, is_alone=False)
        os.waitpid(first, 0)
        tally.tried += 1
        if judge(tally, second, f"{delay:.2f} s later") and "another process" not in second.output:
            tally.tell("lost", f"{delay:.2f} s later: {second.output[-1000:]}")
        mend(tally, whole, work, f"{delay:.2f} s later")
    return tally


def mend(tally: Tally, whole: Path, work: Path, what: str) -> None:
    """Run again after a fault is gone, and compare."""
    life = live(work, RUN)
    if life.code != 0:
        tally.tell("lost", f"{what}: it cannot go on: {life.output[-1500:]}")
    tell_lost(tally, whole, work, differences(whole, work), what)


def bad_input(base: Path, n: int, rng: random.Random) -> Tally:
    """Give bad settings, files and commands, one of each kind in turn; see `tools/bad_inputs.py`."""
    tally = Tally("bad inputs")
    base.mkdir(parents=True)
    column = {"traceback": "tracebacks", "accepted": "accepted", "hung": "hung"}
    with mock.patch.dict(os.environ, {"LUREFS_CACHE": str(base / "cache"), "WANDB_MODE": "disabled"}):
        for outcome in bad_inputs.battery(base, rng.randrange(2**32), n):
            tally.tried += 1
            if outcome.verdict in column:
                tally.tell(column[outcome.verdict], f"{outcome.kind}: {outcome.name}: {outcome.detail}")
    return tally


BATTERIES = (damaged_files, full_disks, unusable_caches, two_at_once, bad_input)
