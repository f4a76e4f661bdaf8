"""The command `lurefs plan`: how many classes, episodes, seeds and images tell a difference apart."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from lurefs import console
from lurefs.errors import UserError, unknown_name
from lurefs.runs.find import find_runs

if TYPE_CHECKING:
    from episodes.components import Components
    from episodes.planning import Design
    from lurefs.comparing.planning import Spread

EXAMPLES = """examples:
  lurefs plan runs/pilot
      what the runs in runs/pilot can show, and what it takes to tell 2 points apart
  lurefs plan runs/pilot --difference 1 --classes 85 --episodes 5000
      the same for 1 point, with 85 classes and 5,000 episodes in place of those of the runs
  lurefs plan --assume class=3,pair=5,episode=5 --classes 20 --episodes 2000
      without runs: standard deviations of the difference of two models, in points, by class, by pair of classes and
      by episode; add seed=1,rest=5 and --seeds 5 for new seeds, image=20,images=30 and --images 10 for images,
      skewness=-2 if a few classes are much harder than the others

A plan is for the test that 'lurefs compare' makes: the paired difference on the same episodes, over new classes,
over this pool of classes, or over new seeds. With several runs the test is corrected for all their pairs."""
ASSUMED = {
    "way": "n_way",
    "episode": "of_episode",
    "class": "of_class",
    "pair": "of_pair",
    "image": "of_image",
    "images": "n_images",
    "seed": "of_seed",
    "rest": "of_rest",
    "skewness": "skewness",
}
"""Words of `--assume`, and the fields of `Components`; those that start with `of_` are in points."""
VERSION = 1


def add_parser(commands: Any) -> None:
    """Add the command `plan` to an argument parser's commands."""
    parser = commands.add_parser(
        "plan",
        help="how many classes, episodes and seeds tell a difference apart",
        description="Say how many classes, episodes, seeds and images tell a difference of two models apart.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="a run, a folder of runs, a pattern, or a run's name")
    parser.add_argument("--assume", metavar="NAME=X,...", help=f"assumed spreads: {', '.join(ASSUMED)}")
    parser.add_argument("--difference", type=float, default=2.0, metavar="D", help="points to tell apart (default: 2)")
    parser.add_argument("--power", type=float, default=0.8, metavar="P", help="chance to show it (default: 0.8)")
    parser.add_argument("--classes", type=int, metavar="N", help="this many classes (default: as in the runs)")
    parser.add_argument("--episodes", type=int, metavar="N", help="this many episodes (default: as in the runs)")
    parser.add_argument("--seeds", type=int, metavar="N", help="this many seeds (default: as in the runs)")
    parser.add_argument("--images", type=int, metavar="N", help="this many images of a class (default: as in the runs)")
    parser.add_argument("--reference", metavar="NAME", help="the run that the others are compared with")
    parser.add_argument("--benchmark", metavar="NAME", help="only this one (default: all)")
    parser.add_argument("--probe", metavar="NAME", help="only this one (default: all)")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; return the exit code.

    Raises:
        UserError: A run cannot be found, is unfinished or damaged, the runs met different episodes, or an option is
            invalid.
    """
    from lurefs.comparing.planning import plans

    _check(arguments)
    found = [_as_wanted(spread, arguments) for spread in _spreads(arguments)]
    made = [
        (spread, plans(spread, difference=arguments.difference / 100, at_power=arguments.power)) for spread in found
    ]
    if arguments.json:
        content = {
            "version": VERSION,
            "difference": arguments.difference / 100,
            "power": arguments.power,
            "spreads": [asdict(spread) for spread, _ in made],
            "plans": [plan.to_mapping() for _, of_spread in made for plan in of_spread],
        }
        print(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    from lurefs.comparing.plan_tables import legend, plan_tables

    for table in plan_tables(made, difference=arguments.difference / 100):
        console.print_table(table.title, table.columns, table.rows, optional=table.optional)
        console.print_lines([*table.notes, ""])
    console.print_lines(legend(made, difference=arguments.difference / 100, at_power=arguments.power))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.runs) == bool(arguments.assume):
        given = "both runs and --assume" if arguments.runs else "neither runs nor --assume"
        raise UserError(
            f"there are {given}",
            "finished runs, or assumed spreads",
            "name runs, e.g. 'lurefs plan runs/pilot', or give --assume class=3,pair=5,episode=5",
        )
    if not 0 < arguments.difference <= 100:
        raise UserError(
            f"--difference is {arguments.difference:g}",
            "percentage points above 0, at most 100",
            "give e.g. --difference 2",
        )
    if not 0.05 < arguments.power < 1:
        raise UserError(f"--power is {arguments.power:g}", "a chance above 0.05 and below 1", "give e.g. --power 0.8")
    for name, least in (("classes", 3), ("episodes", 2), ("seeds", 1), ("images", 1)):
        number = getattr(arguments, name)
        if number is not None and not least <= number <= 1_000_000:
            raise UserError(f"--{name} is {number}", f"a number from {least} to 1,000,000", f"give another --{name}")


def _spreads(arguments: argparse.Namespace) -> Sequence[Spread]:
    if arguments.assume:
        return [_assumed(arguments)]
    from lurefs.commands.compare import comparable_runs
    from lurefs.comparing.planning import spreads_of
    from lurefs.comparing.standings import chosen_cells

    chosen = {"benchmark": arguments.benchmark, "probe": arguments.probe}
    runs = comparable_runs(
        find_runs(arguments.runs),
        reference=arguments.reference,
        common_episodes=False,
        skip_unfinished=False,
        **chosen,
    )
    cells = [(name, by) for name, probes in chosen_cells(runs, **chosen).items() for by in probes]
    if not cells:
        raise UserError(
            "these runs were not measured on episodes",
            "runs with a benchmark and a probe",
            "run 'lurefs evaluate' first, or give --assume",
        )
    for run in runs:
        for cell in cells:
            if run.result(*cell) is not None:
                run.accuracies(*cell)  # a damaged file is refused: it would be a pair without a plan
    return spreads_of(runs, cells)


def _assumed(arguments: argparse.Namespace) -> Spread:
    from episodes.components import Components
    from episodes.planning import Design
    from lurefs.comparing.planning import Spread

    unused = [name for name in ("reference", "benchmark", "probe") if getattr(arguments, name) is not None]
    if unused:
        raise UserError(
            f"--{unused[0]} chooses among runs, but there are none", "spreads alone", f"leave out --{unused[0]}"
        )
    missing = [f"--{name}" for name in ("classes", "episodes") if getattr(arguments, name) is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} is missing" if len(missing) == 1 else f"{' and '.join(missing)} are missing",
            "how many classes and episodes you have, or could have",
            "give e.g. --classes 20 --episodes 2000",
        )
    values: dict[str, float] = {"n_way": 5.0}
    given: set[str] = set()
    for part in arguments.assume.split(","):
        word, _, text = part.partition("=")
        if word.strip() not in ASSUMED:
            raise unknown_name("spread", word.strip(), ASSUMED)
        if word.strip() in given:
            raise UserError(f"--assume names {word.strip()} twice", "each spread once", "leave one of them out")
        given.add(word.strip())
        values[ASSUMED[word.strip()]] = _number(word.strip(), text)
    needs = {"of_episode": "episode", "of_class": "class"}
    absent = [word for name, word in needs.items() if name not in values]
    if absent:
        raise UserError(
            f"--assume does not say {' and '.join(absent)}",
            "at least the spreads by episode and by class",
            "give e.g. --assume class=3,pair=5,episode=5",
        )
    for one, other in (("of_seed", "of_rest"), ("of_image", "n_images")):
        if (one in values) != (other in values):
            words = {field: word for word, field in ASSUMED.items()}
            raise UserError(
                f"--assume has only one of {words[one]} and {words[other]}",
                "both or none",
                "seed=1,rest=5: of a seed, and of a seed in an episode; image=20,images=30: of an image, and images "
                "of a class behind 'class'",
            )
    if not values["n_way"] < arguments.classes:
        raise UserError(
            f"--classes is {arguments.classes}, but an episode has {values['n_way']:g}",
            "more classes than an episode has",
            "give a larger --classes, or e.g. --assume way=2,...",
        )
    has_seeds = "of_seed" in values
    return Spread(
        name="difference",
        components=Components(**values),
        design=Design(n_classes=arguments.classes, n_episodes=arguments.episodes, n_seeds=arguments.seeds or 1),
        scopes=("classes", "pool", "seeds") if has_seeds else ("classes", "pool"),
    )


def _number(word: str, text: str) -> float:
    """Return a spread as a fraction, or another number as it is."""
    from episodes.components import MOST_SKEWNESS

    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if word == "skewness":
        if not abs(value) <= MOST_SKEWNESS:
            raise UserError(
                f"skewness is {text!r}",
                f"a number from -{MOST_SKEWNESS:g} to {MOST_SKEWNESS:g}; 0 if no few classes lie apart",
                "give e.g. skewness=-2, if a few classes are much harder than the others",
            )
        return value
    is_count = not ASSUMED[word].startswith("of_")
    least, most = (2.0 if word == "way" else 1.0, 1e6) if is_count else (0.0, 1e3)
    if not least <= value <= most or (word == "way" and value != int(value)):
        raise UserError(
            f"{word} is {text!r}",
            f"a {'whole ' * (word == 'way')}number from {least:g} to {most:g}"
            if is_count
            else f"percentage points from 0 to {most:g}",
            f"give e.g. {word}={'5' if is_count else '3'}",
        )
    return value if is_count else value / 100


def _as_wanted(spread: Spread, arguments: argparse.Namespace) -> Spread:
    """Return a spread with the numbers that the user gave in place of those at hand."""
    if spread.design is None or spread.components is None:
        return spread
    wanted = {
        f"n_{name}": number
        for name in ("classes", "episodes", "seeds", "images")
        if (number := getattr(arguments, name)) is not None
    }
    _check_components(spread.components, arguments)
    return replace(spread, design=_changed(spread.design, wanted))


def _changed(design: Design, wanted: dict[str, int]) -> Design:
    assert set(wanted) <= {field.name for field in fields(design)}
    return replace(design, **wanted)


def _check_components(components: Components, arguments: argparse.Namespace) -> None:
    if arguments.classes is not None and arguments.classes <= components.n_way:
        raise UserError(
            f"--classes is {arguments.classes}, but an episode has {components.n_way:g}",
            "more classes than an episode has",
            "give a larger --classes",
        )
    if arguments.images is not None and components.of_image is None:
        raise UserError(
            "--images is given, but the effect of images is unknown",
            "runs that store their answers and have equal episodes, or assumed image=... and images=...",
            "leave out --images",
        )
    if arguments.seeds is not None and arguments.seeds > 1 and components.of_seed is None:
        raise UserError(
            f"--seeds is {arguments.seeds}, but one seed does not show how seeds vary",
            "runs with several seeds, or assumed seed=... and rest=...",
            "leave out --seeds, or name the runs of other seeds too",
        )
