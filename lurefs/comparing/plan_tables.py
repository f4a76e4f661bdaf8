"""Plans as tables of texts: what differences vary by, and what it takes to show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from episodes.planning import Design, Quantity, Scope
from lurefs.comparing.planning import POWER, QUANTITIES, Plan, Spread
from lurefs.comparing.text_tables import TextTable
from lurefs.comparing.texts import MISSING, count, counted, number, percent

Made = Sequence[tuple[Spread, Sequence[Plan]]]
WHERE: Mapping[Scope, str] = MappingProxyType(
    {"pool": "this pool", "classes": "new classes", "seeds": "new seeds"},
)
_HEADS: Mapping[Quantity, str] = MappingProxyType(
    {"n_classes": "classes", "n_episodes": "episodes", "n_seeds": "seeds", "n_images": "images"}
)
_VARY = (
    ("class × model", "of_class"),
    ("pair × model", "of_pair"),
    ("image × model", "of_image"),
    ("episode × model", "of_episode"),
    ("seed", "of_seed"),
    ("seed × episode", "of_rest"),
)


def plan_tables(made: Made, *, difference: float) -> list[TextTable]:
    """Return two tables per benchmark and probe: what values vary by, and what is needed."""
    cells = dict.fromkeys((spread.benchmark, spread.probe) for spread, _ in made)
    tables = []
    for cell in cells:
        of_cell = [(spread, plans) for spread, plans in made if (spread.benchmark, spread.probe) == cell]
        tables += [_spreads(of_cell), _needs(of_cell, difference)]
    return [table for table in tables if table.rows or table.notes]


def legend(made: Made, *, difference: float, at_power: float) -> list[str]:
    """Explain the tables."""
    if not any(plans for _, plans in made):
        return []
    chance, shown = f"{100 * at_power:g} %", _points(difference)
    said = [
        f"smallest: the difference, in points, that is shown with a chance of {chance}; endless: the same with endless "
        f"episodes, which nothing but more classes, images or seeds makes smaller. chance: that {shown} are shown.",
        f"classes, episodes, seeds, images: how many show {shown} with a chance of {chance} if all others stay as they "
        "are; none: no number does.",
    ]
    levels = sorted({spread.n_pairs for spread, _ in made if spread.n_pairs > 1})
    if levels:
        said.append(f"Tests are corrected for {count(levels[-1])} pairs, at worst.")
    if any("seeds" in spread.scopes and "classes" in spread.scopes and spread.benchmark for spread, _ in made):
        said.append("On new classes, the plan is for one training of each; lurefs has no interval over both.")
    return said


def smallest_words(made: Made, *, at_power: float = POWER) -> str:
    """Say in one line what differences one benchmark by one probe can show; "" if nothing is known."""
    said = []
    for scope in dict.fromkeys(plan.scope for _, plans in made for plan in plans):
        found = sorted(
            plan.smallest for _, plans in made for plan in plans if plan.scope == scope and plan.smallest is not None
        )
        if found:
            ends = dict.fromkeys((number(100 * found[0], 1), number(100 * found[-1], 1)))
            said.append(f"{' to '.join(ends)} on {WHERE[scope]}")
    if not said:
        return ""
    words = f"differences that would be shown with a chance of {100 * at_power:g} %: {', '.join(said)} (points)"
    return "; ".join(filter(None, [words, left_out([spread for spread, _ in made])]))


def left_out(spreads: Sequence[Spread]) -> str:
    """Say that only the differences of the highest groups were examined; "" if all were."""
    n_left_out = max((spread.n_left_out for spread in spreads), default=0)
    return f"of the {count(len(spreads))} highest, {count(n_left_out)} differences are left out" if n_left_out else ""


def at_hand(design: Design) -> str:
    """Return a design in words."""
    parts = [counted(design.n_classes, "class"), counted(design.n_episodes, "episode")]
    parts += [counted(design.n_seeds, "seed")] if design.n_seeds > 1 else []
    parts += [f"{counted(design.n_images, 'image')} a class"] if design.n_images is not None else []
    return ", ".join(parts)


def needs_texts(plan: Plan) -> tuple[str, ...]:
    """Return the texts of a plan but for the numbers needed: smallest, with endless episodes, chance."""
    return (
        percent(plan.smallest),
        percent(plan.with_endless_episodes),
        MISSING if plan.power is None else number(plan.power, 2),
    )


def _spreads(made: Made) -> TextTable:
    known = [(spread, spread.components) for spread, _ in made if spread.components is not None]
    columns = [
        (head, name) for head, name in _VARY if any(getattr(components, name) is not None for _, components in known)
    ]
    is_alone = all("−" not in spread.name and spread.benchmark for spread, _ in made)
    heads = [head.replace(" × model", "") if is_alone else head for head, _ in columns]
    rows = [[spread.name, *(percent(getattr(components, name)) for _, name in columns)] for spread, components in known]
    if any(components.skewness for _, components in known):
        heads.append("skewness")
        for row, (_, components) in zip(rows, known, strict=True):
            row.append(number(components.skewness, 1))
    what = "What accuracies vary by" if is_alone else "What differences vary by"
    return TextTable(
        title=_title(made, f"{what}: standard deviations, points"),
        columns=("", *heads),
        rows=tuple(map(tuple, rows)),
        optional=(len(heads),) if "skewness" in heads else (),
    )


def _needs(made: Made, difference: float) -> TextTable:
    plans = [plan for _, of_spread in made for plan in of_spread]
    quantities = [name for name in QUANTITIES if any(name in plan.needed for plan in plans)]
    designs = list(dict.fromkeys(at_hand(plan.design) for plan in plans))
    rows = [
        (f"{plan.name}: {WHERE[plan.scope]}", *needs_texts(plan), *(_needed(plan, name) for name in quantities))
        for plan in plans
    ]
    notes = [words for words in [left_out([spread for spread, _ in made])] if words]
    notes += [f"{spread.name}: no plan, since {spread.why_not}" for spread, _ in made if spread.why_not]
    notes += [f"{plan.name}, {WHERE[plan.scope]}: {plan.why_not}" for plan in plans if plan.why_not]
    notes += [_between(plan, spread.pilot) for spread, of_spread in made for plan in of_spread if spread.pilot]
    return TextTable(
        title=_title(made, f"To show {_points(difference)}, with {' or '.join(designs)}" if designs else "No plan"),
        columns=("", "smallest", "endless", "chance", *(_HEADS[name] for name in quantities)),
        rows=tuple(rows),
        notes=tuple(dict.fromkeys(filter(None, notes))),
        optional=(3,),
    )


def _title(made: Made, words: str) -> str:
    spread = made[0][0]
    return ", ".join(filter(None, [spread.benchmark, spread.probe])) + (f": {words}" if spread.benchmark else words)


def _needed(plan: Plan, quantity: Quantity) -> str:
    if quantity not in plan.needed:
        return MISSING
    found = plan.needed[quantity]
    return "none" if found is None else count(found)


def _between(plan: Plan, pilot: Design) -> str:
    """Say how sure a number of classes is that was estimated from a pilot's; "" if there is none."""
    if plan.classes_between is None:
        return ""
    least, most = plan.classes_between
    enough = f"is enough with {counted(plan.design.n_episodes, 'episode')}"
    if least is None:
        words = f"no number of classes {enough}"
    elif most is None:
        words = f"at least {count(least)} classes are needed, and perhaps no number {enough}"
    else:
        words = f"{count(least) if least == most else f'{count(least)} to {count(most)}'} classes are needed"
    return f"{plan.name}: judged from {counted(pilot.n_classes, 'class')}, {words} (95 % interval)"


def _points(difference: float) -> str:
    return f"{100 * difference:g} point" + ("" if difference == 0.01 else "s")
