"""Kill every command at random moments, damage files and fill disks: nothing may be lost, and every answer is clear.

    OMP_NUM_THREADS=1 uv run python tools/torture.py --kills 100

Each command runs once undisturbed. Then it is killed again and again at random moments by SIGKILL, SIGTERM or Ctrl-C,
continued, and its files are compared with those of the undisturbed run: all bytes but times must be the same, and no
file of finished work may be written again. Most lives are forks of this process, which has the libraries loaded; every
fifth one is a new process, killed while it imports. `tools/torture_faults.py` and `tools/torture_places.py` have the
other batteries.

The row of a battery is printed when it ends, and what goes wrong at once, on stderr. Both versions of a file that
differs are kept in a folder that is named.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

PATIENCE = 120.0
"""Seconds after which a life that was not killed counts as hung."""
KILLS_PER_FOLDER = 5
"""After so many kills a command is left alone until it ends."""
COLD_EVERY, COLD_SECONDS = 5, 6.0
"""Each fifth life is a new process, killed within the first seconds."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LIBRARIES = (
    *("torch._dynamo", "timm", "learn2learn", "sklearn.linear_model", "matplotlib.pyplot", "pyarrow.parquet"),
    *("rich.progress", "lurefs.stages.run", "lurefs.sweeps.cells", "lurefs.comparing.finished_runs"),
)
RECIPE = """
name: {name}
dataset: {{name: folder, params: {{path: photos, image_size: 16}}}}
class_split: {{base: 0.5, validation: 0.0, novel: 0.5}}
chunks: {{n_chunks: 2}}
backbone: {{name: test_byobnet, stem: small, image_size: 24}}
learner: {{epochs: 2, batch_size: 8}}
checkpoints: {{every_seconds: 0}}
benchmarks:
  3way: {{n_way: 3, n_shot: 1, n_query: 5, n_episodes: 60}}
after_chunk: {{n_episodes: 20}}
{more}
"""
FINE_TUNED = "probes: {lr: {}, tuned: {name: fine_tuning, params: {steps: 3}}}\ncontrols: false"
FROZEN = ("--backbone", "test_byobnet,test_resnet", "--shots", "1", "--way", "3", "backbone.pretrained=false")
"""Options of `evaluate` and `init`."""
TIMES = re.compile(r"seconds|ms_per|per_second")
"""Names of values that differ from run to run."""
WITH_TIMES = (".html", ".svg", ".csv", ".md", ".tex")
NOT_COMPARED = ("log.txt", ".lock")
FINISHED = ("features/*/features.npy", "episodes/*.parquet", "manifests/*.parquet", "controls/*/*.parquet")
"""Files that are written once, when a part of a run is finished; and weights, once their chunk has an outcome."""


@dataclass(frozen=True)
class Command:
    """A command of lurefs, and what it needs.

    Attributes:
        name: Its name in the table.
        arguments: Of `lurefs`, with paths relative to the working directory.
        needs: The commands whose results lie in the working directory before.
        environment: Variables to set.
        is_exact: Whether nothing that it writes or prints depends on times.
    """

    name: str
    arguments: tuple[str, ...]
    needs: tuple[tuple[str, ...], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    is_exact: bool = False


RUN = ("run", "--config", "small.yaml", "--run-dir", "out")
FINISHED_RUNS = (
    ("run", "--config", "small.yaml", "--run-dir", "runs/a"),
    ("run", "--config", "small.yaml", "--run-dir", "runs/b", "unlearn.name=nothing"),
)
STAGES = tuple((stage, *RUN[1:]) for stage in ("pretrain", "extract", "evaluate"))
SWEEP = ("sweep", "--config", "small.yaml", "--run-dir", "out", "seed=[0,1]")
MAKE = ("episodes", "make", "--config", "small.yaml", "--benchmark", "3way", "--output", "out.parquet")
COMMANDS = (
    Command("run", RUN),
    Command("run, W&B offline", RUN, environment={"WANDB_MODE": "offline"}),
    Command("run, fine-tuned probe", ("run", "--config", "tuned.yaml", "--run-dir", "out")),
    Command("pretrain", STAGES[0]),
    Command("extract", STAGES[1], STAGES[:1]),
    Command("evaluate", STAGES[2], STAGES[:2]),
    Command("evaluate DATA", ("evaluate", "photos", *FROZEN, "--run-dir", "out")),
    Command("sweep", SWEEP),
    Command("reproduce", ("reproduce", "runs/a", "--output", "out"), FINISHED_RUNS[:1]),
    Command("report", ("report", "runs/a", "runs/b", "--output", "out"), FINISHED_RUNS, is_exact=True),
    Command("compare", ("compare", "runs/a", "runs/b", "--output", "out"), FINISHED_RUNS, is_exact=True),
    Command("plan", ("plan", "runs/a", "runs/b", "--json"), FINISHED_RUNS, is_exact=True),
    Command("init", ("init", "photos", *FROZEN[:-1], "--output", "out.yaml"), is_exact=True),
    Command("episodes make", MAKE),
    Command("episodes show", ("episodes", "show", "out/manifests/3way.parquet"), (RUN,), is_exact=True),
    Command("list", ("list", "datasets"), is_exact=True),
    Command("push --dry-run", ("push", "runs/a", "--dry-run"), FINISHED_RUNS[:1], is_exact=True),
    Command("views --dry-run", ("views", "runs/a", "--dry-run"), FINISHED_RUNS[:1]),
    Command("cache --clear", ("cache", "--clear"), FINISHED_RUNS[:1]),
    Command("run, two seeds, two workers", ("run", "--config", "group.yaml", "--run-dir", "out", "--workers", "2")),
    Command("sweep, two workers", (*SWEEP, "--workers", "2")),
)


@dataclass
class Tally:
    """The row of one battery in the table.

    Attributes:
        battery: Its name.
        tried: Cases: lives that were to be killed, or faults.
        tracebacks: Answers with a traceback, or with the words of an unforeseen error.
        accepted: Faults after which a command succeeded with other results.
        survived: Kills after which the command went on to the end.
        lost: Files that differ from the undisturbed ones, or are missing.
        again: Files of finished work that were written again.
        hung: Lives that did not end, or left processes.
        slowest: The longest time from SIGTERM or Ctrl-C to the end, in seconds.
        details: What went wrong, in words.
    """

    battery: str
    tried: int = 0
    tracebacks: int = 0
    accepted: int = 0
    survived: int = 0
    lost: int = 0
    again: int = 0
    hung: int = 0
    slowest: float = 0.0
    details: list[str] = field(default_factory=list)

    def tell(self, what: str, detail: str, n: int = 1) -> None:
        """Count something that went wrong, and print it on stderr at once."""
        setattr(self, what, getattr(self, what) + n)
        self.details.append(f"{self.battery}: {what}: {detail}")
        print(self.details[-1], file=sys.stderr, flush=True)


COLUMNS = ("battery", "tried", "tracebacks", "accepted", "survived", "lost", "again", "hung")


@dataclass(frozen=True, kw_only=True)
class Life:
    """How a process ended.

    Attributes:
        code: Its exit code; negative for a signal; None if it hung.
        seconds: From its start.
        after_signal: Seconds from the signal to its end.
        output: What it printed.
        was_killed: Whether the signal reached it.
        n_left: Processes that it left.
    """

    code: int | None
    seconds: float
    after_signal: float
    output: str
    was_killed: bool
    n_left: int

    @property
    def has_traceback(self) -> bool:
        """Whether it answered as no command should."""
        return self.code == 70 or "Traceback (most recent call last)" in self.output


def live(
    folder: Path,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    kill: tuple[float, int] | None = None,
    is_cold: bool = False,
    before: Callable[[], None] | None = None,
    output: Path | None = None,
    is_alone: bool = True,
) -> Life:
    """Run a command of lurefs in a folder, and kill it if asked.

    Args:
        folder: The working directory; the cache is in it.
        arguments: Of `lurefs`.
        environment: Variables to set.
        kill: Seconds from the start, and the signal. Ctrl-C is sent to all processes, as a terminal does.
        is_cold: Whether the process loads all libraries, and is not a fork of this one.
        before: Called in a fork, before the command.
        output: Receives what it prints; a file beside the folder if not given.
        is_alone: Whether no other life goes on, so that all processes that are left are its own.
    """
    variables = {"LUREFS_CACHE": str(folder / "cache"), "WANDB_MODE": "disabled", **(environment or {})}
    output = output or folder.parent / "output.txt"
    start = time.monotonic()
    if is_cold:
        with output.open("wb") as stream:
            child = subprocess.Popen(
                [sys.executable, "-m", "lurefs", *arguments],
                cwd=folder,
                env={**os.environ, **variables, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                preexec_fn=_with_default_signals,
            ).pid
    else:
        child = os.fork()
        if child == 0:
            _be(folder, arguments, variables, output, before)
    sent = None
    if kill is not None:
        ended = _wait(child, kill[0])
        if ended is None:
            sent = time.monotonic()
            _send(child, kill[1])
    else:
        ended = None
    status = ended if ended is not None else _wait(child, PATIENCE)
    end = time.monotonic()
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    n_left = _bury(child) if is_alone else 0
    return Life(
        code=None if status is None else os.waitstatus_to_exitcode(status),
        seconds=end - start,
        after_signal=0.0 if sent is None else end - sent,
        output=output.read_text(errors="replace"),
        was_killed=sent is not None and status is not None and os.waitstatus_to_exitcode(status) != 0,
        n_left=n_left,
    )


def _send(child: int, number: int) -> None:
    """Send a signal to a process; Ctrl-C to its group, which a fork does not lead in its first moment."""
    try:
        (os.killpg if number == signal.SIGINT else os.kill)(child, number)
    except ProcessLookupError:
        os.kill(child, number)  # it is not waited for yet, so its number is its own


def _with_default_signals() -> None:
    for number in SIGNALS[1:]:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _be(
    folder: Path,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    output: Path,
    before: Callable[[], None] | None,
) -> None:
    """Become a command of lurefs; never returns."""
    code = 1
    try:
        os.setsid()
        _with_default_signals()
        os.chdir(folder)
        os.environ.update(variables)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1), os.dup2(descriptor, 2)
        if before is not None:
            before()
        from lurefs.cli import main

        main(list(arguments))
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        with suppress(Exception):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def _wait(child: int, seconds: float) -> int | None:
    """Return the status of a child that ends within some seconds; None for one that does not."""
    until = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        if time.monotonic() >= until:
            return None
        time.sleep(0.002)


def _bury(group: int) -> int:
    """Wait until all processes that a command started have ended; end those that do not, and return their number."""
    until, n_left = time.monotonic() + 15, 0
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)  # orphans are children of this process, see `main`
        except ChildProcessError:
            return n_left
        if pid == 0 and time.monotonic() > until:
            n_left += 1
            os.killpg(group, signal.SIGKILL)
            until += 15
        if pid == 0:
            time.sleep(0.005)


def differences(whole: Path, other: Path, *, is_exact: bool = False) -> list[str]:
    """Return the names of files that differ otherwise than in times, or that only one of two folders has."""
    names = {str(path.relative_to(root)) for root in (whole, other) for path in _files(root)}
    return sorted(
        name for name in names if content(whole / name, is_exact=is_exact) != content(other / name, is_exact=is_exact)
    )


def tell_lost(tally: Tally, whole: Path, other: Path, names: Sequence[str], what: str) -> None:
    """Count files that differ from those of an undisturbed run, and keep both versions of each for a comparison."""
    for number, name in enumerate(names, start=len(tally.details)):
        kept = Path(tempfile.gettempdir(), f"torture-lost-{os.getpid()}", f"{tally.battery} {number}")
        for root, version in ((whole, "undisturbed"), (other, "disturbed")):
            if (root / name).is_file():
                (kept / version).mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, kept / version)
        missing = [str(root / name) for root in (whole, other) if not (root / name).is_file()]
        tally.tell("lost", f"{what}: {name}{' (missing: ' + missing[0] + ')' if missing else ''}, kept in {kept}")


def _files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if path.is_file() and parts[0] != "cache" and "wandb" not in parts and path.name not in NOT_COMPARED:
            yield path


def content(path: Path, *, is_exact: bool = False) -> Any:
    """Return the content of a file; unless `is_exact`, without times."""
    try:
        return path.read_bytes() if is_exact else _without_times(path)
    except Exception as error:  # of many kinds for a damaged file
        return type(error)


def _without_times(path: Path) -> Any:
    if path.suffix not in (".json", ".jsonl", ".parquet", ".pt", *WITH_TIMES):
        return path.read_bytes()
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        table = parquet.read_table(path)
        return [(name, repr(table[name].to_pylist())) for name in table.column_names if name != "seconds"]
    if path.suffix == ".pt":
        import torch

        return repr(_timeless(torch.load(path, weights_only=True)))
    if path.suffix in WITH_TIMES:  # they show times, and curves over times
        text = re.sub(rb"made from \w+|[\d.,]+", b"#", path.read_bytes())
        return re.sub(rb" +|-{2,}", b" ", text)  # columns are as wide as their longest time
    texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    return [repr(_timeless(json.loads(text))) for text in texts]


def _timeless(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _timeless(value) for key, value in values.items() if not TIMES.search(str(key))}
    if hasattr(values, "tolist"):
        return values.tolist()
    return [_timeless(value) for value in values] if isinstance(values, list | tuple) else values


def _finished(root: Path) -> dict[Path, int]:
    """Return the files of finished work in all runs of a folder, with the time of their last change."""
    found: dict[Path, int] = {}
    for config in root.rglob("config.yaml"):
        run = config.parent
        paths = [path for pattern in FINISHED for path in run.glob(pattern)]
        if (run / "chunks.jsonl").is_file():
            n_chunks = len((run / "chunks.jsonl").read_text().splitlines())
            paths += [run / f"checkpoints/chunk-{index:03d}.safetensors" for index in range(n_chunks)]
        found |= {path: path.stat().st_mtime_ns for path in paths if path.is_file()}
    return found


def prepare(folder: Path, needs: Sequence[Sequence[str]] = ()) -> None:
    """Fill a working directory: recipes, images, and the results of the commands that are needed.

    Raises:
        RuntimeError: One of these fails.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, more in {"small": "", "tuned": FINE_TUNED, "group": "seeds: [0, 1]"}.items():
        (folder / f"{name}.yaml").write_text(RECIPE.format(name=name, more=more))
    photos = folder.parent / "photos"  # never copied, since a run knows its images by their inodes
    if not photos.exists():
        _draw_photos(photos)
    (folder / "photos").symlink_to(photos)
    for arguments in needs:
        life = live(folder, arguments)
        if life.code != 0:
            raise RuntimeError(f"{' '.join(arguments)} ended with {life.code}: {life.output}")


def _draw_photos(folder: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for label, number in np.ndindex(6, 8):
        (folder / f"class {label}").mkdir(parents=True, exist_ok=True)
        pixels = np.clip(rng.integers(0, 160, (40, 48, 3)) + label * 10, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"class {label}" / f"{number}.png")


def restore(folder: Path, copy: Path) -> None:
    """Make a working directory as it was when it was copied, with the times of its files."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(copy, folder, symlinks=True)


def kill_command(command: Command, base: Path, n_kills: int, rng: random.Random) -> Tally:
    """Kill a command `n_kills` times, and compare what it leaves with an undisturbed run."""
    tally = Tally(command.name)
    work, copy, whole = base / "work", base / "before", base / "whole"
    prepare(work, command.needs)
    restore(copy, work)
    undisturbed = live(work, command.arguments, environment=command.environment)
    if undisturbed.code != 0:
        raise RuntimeError(f"{command.name} ended with {undisturbed.code}: {undisturbed.output}")
    shutil.rmtree(whole, ignore_errors=True)
    work.rename(whole)
    restore(work, copy)
    n_here, kills, finished = 0, [], _finished(work)
    while tally.tried < n_kills or n_here:
        is_last = tally.tried >= n_kills or n_here >= KILLS_PER_FOLDER
        is_cold = not is_last and tally.tried % COLD_EVERY == COLD_EVERY - 1
        after = rng.uniform(0, COLD_SECONDS if is_cold else undisturbed.seconds)
        kill = None if is_last else (after, rng.choice(SIGNALS))
        life = live(work, command.arguments, environment=command.environment, kill=kill, is_cold=is_cold)
        _judge(tally, life, kill)
        for path, changed in finished.items():
            if not path.exists() or path.stat().st_mtime_ns != changed:
                tally.tell("again", f"{path.relative_to(work)}, after {kill}")
        finished = _finished(work)
        if kill is not None and life.was_killed:
            tally.tried, n_here = tally.tried + 1, n_here + 1
            kills.append((*kill, is_cold))
        elif life.code != 0:
            tally.tell("lost", f"it cannot go on: {life.code}, {life.output[-2000:]}")
        if not life.was_killed:
            tell_lost(tally, whole, work, differences(whole, work, is_exact=command.is_exact), f"after {kills}")
            if command.is_exact and life.output != undisturbed.output:
                tally.tell("lost", f"its words: {life.output[-2000:]}")
            tally.survived += n_here
            restore(work, copy)
            n_here, kills, finished = 0, [], _finished(work)
    return tally


def _judge(tally: Tally, life: Life, kill: tuple[float, int] | None) -> None:
    """Count what is wrong with the end of a life, whatever it leaves."""
    if life.code is None or life.n_left:
        tally.tell("hung", f"killed by {kill}, code {life.code}, {life.n_left} processes left: {life.output[-500:]}")
    if life.has_traceback:
        tally.tell("tracebacks", f"killed by {kill}: {life.output[-3000:]}")
    if kill is not None and life.was_killed and kill[1] != signal.SIGKILL:
        tally.slowest = max(tally.slowest, life.after_signal)
        if life.code == 128 + kill[1] and "the same command" not in life.output:
            tally.tell("tracebacks", f"no word on {kill}: {life.output[-500:]}")


def print_row(tally: Tally) -> None:
    """Print a row of the table."""
    values = [str(getattr(tally, name)) for name in COLUMNS]
    slowest = f"{tally.slowest:.2f}" if tally.slowest else "–"
    print(f"| {' | '.join(values)} | {slowest} |", flush=True)


def sum_of(tallies: Sequence[Tally]) -> Tally:
    """Return the last row of the table, without details."""
    sums = {name: sum(getattr(tally, name) for tally in tallies) for name in COLUMNS[1:]}
    return Tally("all", **sums, slowest=max((tally.slowest for tally in tallies), default=0.0))


def adopt_orphans() -> None:
    """Make processes whose parent was killed children of this one, so that none is overlooked (Linux)."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def load_libraries() -> None:
    """Import what the commands need, so that forks of this process begin at once."""
    for name in LIBRARIES:
        import_module(name)
    import_module("torch").set_num_threads(1)


def main() -> None:
    """Run the batteries that are asked for; exit with 1 if anything went wrong."""
    from torture_faults import BATTERIES as OF_FILES  # they use this module
    from torture_places import places_that_fail

    batteries = (*OF_FILES, places_that_fail)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of all commands together")
    parser.add_argument("--faults", type=int, default=30, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    names = [*(command.name for command in COMMANDS), *(battery.__name__ for battery in batteries)]
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    arguments = parser.parse_args()
    adopt_orphans()
    load_libraries()
    rng = random.Random(arguments.seed)
    tallies: list[Tally] = []
    print(f"| {' | '.join(COLUMNS)} | slowest end, s |\n|{'---|' * (len(COLUMNS) + 1)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="torture-") as base:
        for battery in (each for each in batteries if each.__name__ in arguments.only):
            tallies.append(battery(Path(base) / battery.__name__, arguments.faults, rng))
            print_row(tallies[-1])
        commands = [command for command in COMMANDS if command.name in arguments.only]
        for number, command in enumerate(commands):
            n_kills = arguments.kills * (number + 1) // len(commands) - arguments.kills * number // len(commands)
            tallies.append(kill_command(command, Path(base), n_kills, rng))
            print_row(tallies[-1])
    print_row(sum_of(tallies))
    sys.exit(any(tally.details for tally in tallies))


if __name__ == "__main__":
    main()
