"""Bad inputs of every kind, given to the commands: each must be refused in three parts, or read rightly.

    OMP_NUM_THREADS=1 uv run python tools/bad_inputs.py --cases 1000

Every kind has a file in `bad_input_kinds/`: cases that are written out, then an endless stream of valid configs,
records, manifests and data files that are damaged at random: entries dropped, of another type or extreme, files cut
short, bytes flipped. A new bad input is a line in the list of its kind; a new kind is a generator of cases, and a line
in `KINDS`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from unittest import mock

from bad_input_kinds.commands import bad_commands
from bad_input_kinds.configs import bad_configs
from bad_input_kinds.data import bad_data
from bad_input_kinds.manifests import bad_manifests
from bad_input_kinds.records import bad_records
from bad_input_kinds.running import Hung, say
from bad_input_kinds.settings import bad_plugins, bad_settings
from bad_input_kinds.weights import bad_weights
from bad_input_kinds.worlds import Case, World, make_world

Verdict = Literal["refused", "finished", "traceback", "accepted", "hung"]
"""`refused` in three parts; `finished`; `traceback` (an error that nobody foresaw); `accepted` (a setting that means
nothing was taken); or `hung`."""
GOOD: tuple[Verdict, ...] = ("refused", "finished")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command met a bad input.

    Attributes:
        kind: The kind of input.
        name: The case.
        verdict: The worst of its commands.
        detail: The first line that the command said about it.
    """

    kind: str
    name: str
    verdict: Verdict
    detail: str


KINDS: dict[str, Callable[[World, random.Random], Iterator[Case]]] = {
    "settings": bad_settings,
    "plug-ins": bad_plugins,
    "configs": bad_configs,
    "records": bad_records,
    "manifests": bad_manifests,
    "data": bad_data,
    "weights": bad_weights,
    "commands": bad_commands,
}


def battery(folder: Path, seed: int = 0, n: int = 1000, *, kinds: tuple[str, ...] = tuple(KINDS)) -> Iterator[Outcome]:
    """Yield the outcomes of `n` bad inputs, one of each kind in turn.

    Args:
        folder: Where to write the inputs.
        seed: Of all choices.
        n: Number of cases.
        kinds: Keys of `KINDS`.
    """
    tools = str(Path(__file__).resolve().parent)
    others = [path for path in sys.path if path != tools]  # a library may import the package `coverage`
    with mock.patch.object(sys, "path", others):
        yield from _battery(folder, seed, n, kinds)


def _battery(folder: Path, seed: int, n: int, kinds: tuple[str, ...]) -> Iterator[Outcome]:
    world = make_world(folder.resolve())
    streams = {kind: KINDS[kind](world, random.Random(f"{seed} {kind}")) for kind in kinds}
    for number in range(n):
        kind = kinds[number % len(kinds)]
        case = next(streams[kind])
        with contextlib.chdir(folder):  # some commands write where they are
            outcome = meet(kind, case)
        yield outcome
        for made in case.folders:
            shutil.rmtree(made, ignore_errors=True)


def meet(kind: str, case: Case) -> Outcome:
    """Return the worst outcome of a case's commands."""
    found = [_verdict(words, case) for words in case.commands]
    order: tuple[Verdict, ...] = ("finished", "refused", "accepted", "hung", "traceback")
    verdict, detail = max(found, key=lambda each: order.index(each[0]))
    return Outcome(kind=kind, name=case.name, verdict=verdict, detail=detail)


def _verdict(words: list[str], case: Case) -> tuple[Verdict, str]:
    try:
        code, said = say(words)
    except Hung:
        return "hung", f"lurefs {' '.join(words)}"[:300]
    lines = said.splitlines() or [""]
    detail = f"{words[0]}: {next((line for line in lines if 'error:' in line), '')}"[:300]
    if code == 0:
        return ("accepted" if case.is_meaningless else "finished"), detail
    is_told = ("expected:" in said and "to fix:" in said) or said.startswith("usage:")
    if code == 2 and is_told and "Traceback" not in said:
        return "refused", detail
    return "traceback", f"exit {code}, {detail}"


def main() -> None:
    """Run the battery, print what went wrong, and a table of verdicts by kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    arguments = parser.parse_args()
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    kinds = tuple(arguments.kinds.split(","))
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("LUREFS_CACHE", f"{folder}/cache")
        for outcome in battery(Path(folder), arguments.seed, arguments.cases, kinds=kinds):
            counts[outcome.kind, outcome.verdict] += 1
            if outcome.verdict not in GOOD:
                print(f"{outcome.verdict}  {outcome.kind}: {outcome.name!r}: {outcome.detail!r}", flush=True)
    verdicts = get_args(Verdict)
    print(f"{'kind':<10}" + "".join(f"{verdict:>10}" for verdict in verdicts))
    for kind in kinds:
        print(f"{kind:<10}" + "".join(f"{counts[kind, verdict]:>10}" for verdict in verdicts))
    if any(verdict not in GOOD for _, verdict in counts):
        sys.exit(1)


if __name__ == "__main__":
    main()
