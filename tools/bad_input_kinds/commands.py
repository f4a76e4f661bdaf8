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
        "sweep --config one_backbone seed=[1,1] --dry-run", "sweep --config one_backbone seed=[null] --dry-run",
        "sweep --config one_backbone seed=[[1,2]] --dry-run", "sweep --config one_backbone seed=[1,2] --slurm x",
        "sweep --config one_backbone seed=[1,2] --workers -1", "sweep --config compare_backbones method=random",
        "sweep --config compare_backbones parameters.seed.values=[] --dry-run", "sweep a b", "sweep", "plan", "extract",
        f"plan {world.run} --difference 0", f"plan {world.run} --power 1", f"plan {world.run} --classes 2",
        f"plan {world.run} --benchmark x", f"plan {world.run} --seeds 1000000000000",
        f"compare {world.run} --probe ''", f"compare {world.run} --output {world.run}", f"compare {world.run} nosuch",
        f"compare {world.run} --over episodes", f"reproduce {world.run} --output {world.run}", "reproduce ''",
        f"views {world.manifest} --dry-run", f"push {world.manifest} --dry-run",
        f"report {world.run} --output /dev/full",
        f"episodes show {world.run}/summary.json", f"episodes verify {world.run}", "episodes make", "episodes",
        f"episodes verify {world.manifest} --episode 99", f"evaluate {world.features} {world.features}",
        f"evaluate {world.features} --backbone x", f"evaluate {world.images} --backbone ,", "cache --max-gb 0",
        f"evaluate {world.images} --backbone test_resnet --weights /nowhere --dry-run",
        f"init {world.photos} --output {world.photos}", f"init {world.photos} --backbone no_such --output x.yaml",
        f"run --run-dir {world.run} seed=5 --dry-run", f"run {world.run}/identity.json --dry-run",
        "run quickstart --run-dir a --run-root b --dry-run", "run --run-root b --config quickstart --dry-run",
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
