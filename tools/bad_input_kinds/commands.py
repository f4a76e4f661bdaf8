"""Options, paths and orders of words that no command takes."""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator

from bad_input_kinds.configs import NAMES
from bad_input_kinds.damage import EXTREMES
from bad_input_kinds.worlds import Case, World


def bad_commands(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield options, paths and orders that no command takes."""
    lines = [
        "plan --assume way=2.5,class=3,pair=5,episode=5 --classes 20 --episodes 100",
        "plan --assume class=3,class=4,pair=5,episode=5 --classes 20 --episodes 100",
        "plan --assume class=nan,pair=5,episode=5 --classes 20 --episodes 100",
        "plan --assume class --classes 20 --episodes 100",
        "plan --assume class=3,pair=5,episode=5 --classes 0 --episodes 100",
        "plan --assume class=3,pair=5,episode=5 --classes 20 --episodes 1000000000000",
        "plan --assume class=3,pair=5,episode=5 --classes 20 --episodes 100 --difference nan",
        "plan --assume class=3,pair=5,episode=5 --classes 20 --episodes 100 --power 2",
        "compare /nowhere", "report /dev/null", "plan /nowhere", "push /nowhere",
        "episodes show /dev/null", "episodes show /nowhere", "episodes verify /dev/zero",
        "run --config /nowhere.yaml", "run --config /dev/null", "run --config ''", "run --run-dir /nowhere",
        "run ~nosuchuser/x.yaml", "evaluate ~nosuchuser/x --backbone test_resnet", "evaluate /dev/zero",
        "evaluate /dev/null", "evaluate ''", "init /nowhere", "init /dev/zero", "list nothing", "cache nothing",
        "sweep --config /nowhere", "sweep --config quickstart learner.epochs=[]", "reproduce /nowhere",
        "run --config quickstart --workers 0 --dry-run", "run --config quickstart --workers 1000000 --dry-run",
        "run --config quickstart seeds=[] --dry-run", "run --config quickstart seeds=[0,0] --dry-run",
        "run --config quickstart a=b --dry-run", "run --config quickstart = --dry-run",
        "run --config quickstart 'learner=5' --dry-run", "run --config quickstart learner.epochs.x=5 --dry-run",
    ]  # fmt: skip
    rng.shuffle(lines)
    for line in lines:
        yield Case(name=line, commands=[shlex.split(line)], is_meaningless=True)
    places = (*NAMES, "~nosuchuser/x", "/dev/null/x", "/proc/x", "x/" * 300, "/" + "x" * 300, "a\nb")
    for place in places:
        if place not in ("figures", "report.html", " ", "a--seed-1", "a/b", "a\rb", "a\x1b[31mb", "a\nb", ".."):
            yield Case(
                name=f"run into {place[:20]!r}",
                commands=[[*world.dry_run()[:2], "--dry-run", "--run-dir", place]],
                is_meaningless=place in ("\ud800", "a\0b"),
            )
        for words in (["compare"], ["run", "--dry-run"], ["evaluate"], ["episodes", "show"]):
            is_wrong = bool(place.strip())  # an empty path is the current folder
            if place != "..":  # all that others have in the temporary folder
                yield Case(name=f"{words[0]} {place[:20]!r}", commands=[[*words, place]], is_meaningless=is_wrong)
    options = ("--config", "--run-dir", "--workers", "--shots", "--way", "--backbone", "--weights", "--difference",
               "--classes", "--benchmark", "--probe", "--output", "--reference")  # fmt: skip
    names = ("run", "evaluate", "compare", "report", "plan", "episodes", "init", "list", "sweep", "reproduce")
    while True:
        words = [rng.choice(names), *rng.choices([str(world.run), "", "x", "a=b", "--dry-run", "-1"], k=2)]
        for option in rng.sample(options, 2):
            words += [option, str(rng.choice(EXTREMES))[:400]]
        if words[0] in ("run", "evaluate", "sweep", "reproduce", "init"):
            words.append("--dry-run")
        yield Case(name=" ".join(words)[:90], commands=[words])
