"""Faults for `tools/torture.py`: damaged files, full disks, folders that cannot be written, two commands at once.

After each fault the command must answer as for an error that the user can fix, or finish with the same results. Then
the fault is mended as the answer says, and the same command must end with the results of an undisturbed run.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from torture import RUN, Life, Tally, differences, live, prepare, restore

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "noise": lambda content: random.Random(len(content)).randbytes(len(content)),
}
NOT_DAMAGED = (".lock", "log.txt")
DELETE = re.compile(r"delete (\S+?)(?::| and| to)")
"""The advice for a file that is damaged."""


def judge(tally: Tally, life: Life, what: str) -> bool:
    """Count how a life under a fault ended; return whether it refused, in three parts."""
    tally.tried += 1
    if life.code is None or life.n_left:
        tally.tell("hung", f"{what}: {life.output[-500:]}")
    if life.has_traceback:
        tally.tell("tracebacks", f"{what}: {life.output[-3000:]}")
    is_refused = life.code == 2 and "to fix:" in life.output
    if life.code != 0 and not is_refused and not life.has_traceback:
        tally.tell("tracebacks", f"{what}: an answer without advice, code {life.code}: {life.output[-1000:]}")
    return is_refused


def compare(tally: Tally, whole: Path, work: Path, what: str, life: Life) -> None:
    """Compare what a command left with an undisturbed run."""
    if life.code != 0:
        tally.tell("lost", f"{what}: it cannot go on: {life.output[-1500:]}")
    for name in differences(whole, work):
        tally.tell("lost", f"{what}: {name}")


def damaged_files(base: Path, share: float, rng: random.Random) -> Tally:
    """Damage each file of a finished run in several ways, run again, and do what the answer says until it runs."""
    tally = Tally("damaged files of a run")
    work, whole = base / "work", base / "whole"
    prepare(work, (RUN,))
    restore(whole, work)
    names = sorted(str(path.relative_to(whole)) for path in (whole / "out").rglob("*") if path.is_file())
    for name in (name for name in names if Path(name).name not in NOT_DAMAGED):
        for damage, change in {**DAMAGES, "missing": None}.items():
            if rng.random() >= share:
                continue
            restore(work, whole)
            what = f"{name}, {damage}"
            if change is None:
                (work / name).unlink()
            else:
                (work / name).write_bytes(change((whole / name).read_bytes()))
            life = live(work, RUN)
            for _ in range(3):
                if not judge(tally, life, what):
                    break
                found = DELETE.search(life.output)
                if found is None:
                    tally.tell("lost", f"{what}: no advice: {life.output[-1000:]}")
                    break
                path = work / found[1]
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                life = live(work, RUN)
            compare(tally, whole, work, what, life)
    return tally
