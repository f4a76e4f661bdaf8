"""Places that fail, for `tools/torture.py`: each folder of each command is read-only, missing or full, in turn.

A command must refuse in three parts, or go on without the place. Then the place is mended, and the same command must
end with the results of an undisturbed run. Root writes to any folder, so the commands give up this right (Linux).
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torture import FINISHED_RUNS, FROZEN, MAKE, RUN, STAGES, Tally, differences, live, prepare, restore, tell_lost
from torture_faults import judge, small_disk

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAPABILITIES_3 = 1, 2, 0x20080522


@dataclass(frozen=True)
class Place:
    """A command, and a place that fails it.

    Attributes:
        name: What fails.
        arguments: Of `lurefs`.
        read_only: Folders that may not be written, relative to the working directory; missing ones are made.
        ends: How the command must end.
        needs: The commands whose results lie in the working directory before.
        environment: Variables to set; `{work}` is the working directory.
        full: A folder on a disk without room.
    """

    name: str
    arguments: tuple[str, ...]
    read_only: tuple[str, ...] = ()
    ends: Literal["refused", "finished"] = "refused"
    needs: tuple[tuple[str, ...], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    full: str = ""


EVALUATE = ("evaluate", "photos", *FROZEN)
SWEEP = ("sweep", "--config", "small.yaml", "seed=[0,1]")
OFFLINE = {"WANDB_MODE": "offline"}
A, AB = FINISHED_RUNS[:1], FINISHED_RUNS
PLACES = (
    Place("run directory", RUN, ("out",)),
    Place("parent of the run directory", ("run", "--config", "small.yaml", "--run-dir", "ro/new/out"), ("ro",)),
    Place("working directory, where runs/ would be", ("run", "--config", "small.yaml"), (".",)),
    Place("run directory of a finished run", RUN, ("out",), "finished", (RUN,)),
    Place("checkpoints", RUN, ("out/checkpoints",)),
    Place("features", STAGES[1], ("out/features",), needs=STAGES[:1]),
    Place("episodes", STAGES[2], ("out/episodes",), needs=STAGES[:2]),
    Place("manifests", RUN, ("out/manifests",)),
    Place("figures", RUN, ("out/figures",)),
    Place("folder of a group", ("run", "--config", "group.yaml", "--run-dir", "out"), ("out",)),
    Place("one run of a group", ("run", "--config", "group.yaml", "--run-dir", "out"), ("out/group--seed-0",)),
    Place("group, workers", ("run", "--config", "group.yaml", "--run-dir", "out", "--workers", "2"), ("out",)),
    Place("cache, empty", RUN, ("cache",), "finished"),
    Place("cache, filled", RUN, ("cache",), "finished", needs=(("evaluate", "photos", *FROZEN, "--run-dir", "x"),)),
    Place("parent of the cache", RUN, ("cache",), "finished", environment={"LUREFS_CACHE": "{work}/cache/new"}),
    Place("clearing a cache", ("cache", "--clear"), ("cache",), needs=A),
    Place("listing a cache", ("cache",), ("cache",), "finished", needs=A),
    Place(
        "config",
        ("run", "--config", "ro/small.yaml", "--run-dir", "out", "dataset.params.path=photos"),
        ("ro",),
        "finished",
    ),
    Place("evaluate DATA", (*EVALUATE, "--run-dir", "out"), ("out",)),
    Place("evaluate DATA, working directory", EVALUATE, (".",)),
    Place("sweep", (*SWEEP, "--run-dir", "out"), ("out",)),
    Place("sweep, working directory", SWEEP, (".",)),
    Place("report", ("report", "runs/a", "runs/b", "--output", "ro"), ("ro",), needs=AB),
    Place("report in a new folder", ("report", "runs/a", "--output", "ro/x"), ("ro",), needs=A),
    Place("report that is current", ("report", "runs/a"), ("runs/a",), "finished", A),
    Place("report of runs elsewhere", ("report", "runs/a", "runs/b", "--output", "out"), ("runs",), "finished", AB),
    Place("compare", ("compare", "runs/a", "runs/b", "--output", "ro"), ("ro",), needs=AB),
    Place("compare, working directory", ("compare", "runs/a", "runs/b"), (".",), needs=AB),
    Place("compare of runs elsewhere", ("compare", "runs/a", "runs/b", "--output", "out"), ("runs",), "finished", AB),
    Place("plan", ("plan", "runs/a", "runs/b"), (".",), "finished", AB),
    Place("init", ("init", "photos", *FROZEN[:-1], "--output", "ro/out.yaml"), ("ro",)),
    Place("init, working directory", ("init", "photos", *FROZEN[:-1]), (".",)),
    Place("episodes make", (*MAKE[:-1], "ro/out.parquet"), ("ro",)),
    Place("episodes make in a new folder", (*MAKE[:-1], "ro/x/out.parquet"), ("ro",)),
    Place("episodes show", ("episodes", "show", "out/manifests/3way.parquet"), ("out",), "finished", (RUN,)),
    Place("reproduce", ("reproduce", "runs/a", "--output", "ro/out"), ("ro",), needs=A),
    Place("reproduce a run elsewhere", ("reproduce", "runs/a", "--output", "out"), ("runs",), "finished", A),
    Place("push --dry-run", ("push", "runs/a", "--dry-run"), ("runs",), "finished", A),
    Place("views --dry-run", ("views", "runs/a", "--dry-run"), ("runs",), "finished", A),
    Place("list", ("list", "datasets"), (".",), "finished"),
    Place("W&B's folder", RUN, ("out/wandb",), "finished", environment=OFFLINE),
    Place("W&B's full disk", RUN, (), "finished", environment=OFFLINE, full="out/wandb"),
    Place("home", RUN, ("cache/home",), "finished", environment={"HOME": "{work}/cache/home", "LUREFS_CACHE": ""}),
    Place("no home", RUN, (), "finished", environment={"HOME": "{work}/cache/nowhere", "LUREFS_CACHE": ""}),
    Place("temporary folder", RUN, ("tmp",), "finished", environment={"TMPDIR": "{work}/tmp"}),
    Place("no temporary folder", RUN, (), "finished", environment={"TMPDIR": "{work}/nowhere"}),
    Place("temporary folder, W&B", RUN, ("tmp",), "finished", environment={"TMPDIR": "{work}/tmp", **OFFLINE}),
    Place("full temporary folder", RUN, (), "finished", environment={"TMPDIR": "{work}/tmp"}, full="tmp"),
)


def places_that_fail(base: Path, n: int, rng: random.Random) -> Tally:
    """Let places fail the commands, a sample of `n` of them; then mend them."""
    tally = Tally("places that fail")
    for number, place in enumerate(rng.sample(PLACES, min(n, len(PLACES)))):
        fail(tally, base / f"{number}", place)
        shutil.rmtree(base / f"{number}", ignore_errors=True)
    return tally


def fail(tally: Tally, base: Path, place: Place) -> None:
    """Let one place fail, mend it, and compare with an undisturbed run."""
    work, whole, before = base / "work", base / "whole", base / "before"
    prepare(work, place.needs)
    for folder in place.read_only:
        (work / folder).mkdir(parents=True, exist_ok=True)
    if "ro/small.yaml" in place.arguments:
        shutil.copy(work / "small.yaml", work / "ro")
    restore(before, work)
    environment = {name: value.format(work=work) for name, value in place.environment.items()}
    undisturbed = live(work, place.arguments, environment=environment)
    if undisturbed.code != 0:
        raise RuntimeError(f"{place.name}: {place.arguments} ended with {undisturbed.code}: {undisturbed.output}")
    shutil.rmtree(whole, ignore_errors=True)
    work.rename(whole)
    restore(work, before)
    with ExitStack() as mended:
        for folder in place.read_only:
            mended.callback(_set_modes, (work / folder).resolve(), 0o200)
            _set_modes((work / folder).resolve(), -0o222)
        if place.full:
            mended.enter_context(small_disk(work / place.full, 4096))
        life = live(work, place.arguments, environment=environment, before=give_up_rights)
    tally.tried += 1
    if judge(tally, life, place.name) != (place.ends == "refused") and not life.has_traceback:
        tally.tell(
            "accepted" if life.code == 0 else "lost", f"{place.name}: it did not end {place.ends}: {life.output}"
        )
    if life.code != 0:
        life = live(work, place.arguments, environment=environment)
    if life.code != 0:
        tally.tell("lost", f"{place.name}: it cannot go on: {life.output[-1500:]}")
    tell_lost(tally, whole, work, differences(whole, work), place.name)


def _set_modes(folder: Path, change: int) -> None:
    """Add bits to the permissions of all files and folders below one, or take them away."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | change if change > 0 else mode & ~-change)


def give_up_rights() -> None:
    """Make this process ask for permissions like any user, also as root; called in a fork."""

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    if os.geteuid() == 0:
        kept = [(1 << 32) - 1 & ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH), (1 << 32) - 1]
        status = Path("/proc/self/status").read_text()
        has = int(status.split("CapPrm:")[1].split()[0], 16)
        words = [word & (has >> 32 * number) & 0xFFFFFFFF for number, word in enumerate(kept)]
        data = (ctypes.c_uint32 * 6)(words[0], words[0], 0, words[1], words[1], 0)
        if ctypes.CDLL(None, use_errno=True).capset(ctypes.byref(Header(CAPABILITIES_3, 0)), data) != 0:
            raise OSError(ctypes.get_errno(), "capset")
