"""Who imports whom, read off the source: wings, and one home for each third-party library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for package in ("lurefs", "episodes") for path in (ROOT / package).rglob("*.py"))

ORDER = [
    {"episodes"},
    {"errors", "seeding", "ranks", "interrupts", "locks"},
    {"cache"},
    {"records"},
    {"plugins"},
    {"config"},
    {"data", "runs"},
    {"learning", "comparing"},
    {"console"},
    {"tracking", "reporting.charts"},
    {"reporting.series"},
    {"reporting.sections"},
    {"reporting"},
    {"stages"},
    {"sweeps"},
    {"results"},
    {"commands"},
    {"api"},
    {"cli"},
    {"__main__"},
]
"""From the bottom up: a wing imports what is in itself or below it, never what is beside it or above."""

HOMES = {
    "learn2learn": {"episodes.sampler", "lurefs.data.few_shot_set"},
    "timm": {
        "lurefs.data.timm_reader",
        "lurefs.learning.backbones",
        "lurefs.learning.features",
        "lurefs.learning.averaging",
        "lurefs.learning.mixing",
        "lurefs.learning.timm_models",
        "lurefs.learning.optimizers",
        "lurefs.stages.identity",
    },
    "datasets": {"lurefs.data.hub"},
    "omegaconf": {"lurefs.config.documents"},
    "wandb": {"lurefs.tracking.tracker", "lurefs.tracking.client", "lurefs.commands.push", "lurefs.tracking.views"},
    "wandb_workspaces": {"lurefs.tracking.views"},
    "sklearn": {
        "episodes.probes",
        "episodes.projection",
        "episodes.fitting",
        "episodes.transfer.fits",
        "lurefs.data.digits",
    },
    "matplotlib": {
        "lurefs.reporting.charts.curves",
        "lurefs.reporting.charts.heat_map",
        "lurefs.reporting.charts.pareto",
        "lurefs.reporting.charts.style",
        "lurefs.reporting.sections.confusion",
    },
    "jinja2": {"lurefs.reporting.page"},
    "rich": {"lurefs.console"},
    "fontTools": {"lurefs.data.fonts"},
    "imagecorruptions": {"lurefs.data.corruptions"},
    "art": {"lurefs.stages.attacks"},
    "submitit": {"lurefs.sweeps.slurm"},
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each imported module's full name, and whether it is imported when the file is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef) or (isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test))
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in late
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) not in late


def wing(module: str) -> str:
    """Return the wing that a module, or a name in it, belongs to."""
    parts = module.removeprefix("lurefs.").split(".")
    known = {name for wings in ORDER for name in wings}
    return next((name for name in (".".join(parts[:2]), parts[0]) if name in known), "")


def height(module: str) -> int:
    return next((level for level, wings in enumerate(ORDER) if wing(module) in wings), -1)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_module_imports_only_from_its_own_wing_and_from_wings_below(path: Path) -> None:
    module = module_of(path)
    if module == "lurefs":
        return
    assert height(module) >= 0, f"{module} has no place in the order"
    for name, _ in imports(path):
        if name.startswith(("lurefs.", "episodes.")) and name != "lurefs.__version__":
            assert wing(name) == wing(module) or height(name) < height(module), f"{module} imports {name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {module_of(path) for path in FILES}
    imported = {
        module_of(path): {
            found
            for name, is_early in imports(path)
            for found in (name, name.rpartition(".")[0])
            if is_early and found in modules - {"lurefs", "episodes"}
        }
        for path in FILES
    }
    list(TopologicalSorter(imported).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_episodes_knows_nothing_of_lurefs_and_libraries_stay_at_home(path: Path) -> None:
    module = module_of(path)
    for name, _ in imports(path):
        top = name.split(".")[0]
        if module.startswith("episodes"):
            assert top not in ("lurefs", "timm", "wandb", "omegaconf"), f"{module} imports {name}"
        if top in HOMES:
            assert module in HOMES[top], f"{module} imports {name}"
