"""Who imports whom, read off the source: packages, rooms, and one home for each third-party library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for package in ("lurefs", "episodes") for path in (ROOT / package).rglob("*.py"))

ORDER = [
    {"episodes"},
    {"errors", "seeding", "records", "ranks", "find_runs"},
    {"plugins"},
    {"config"},
    {"config_checks"},
    {"config_file"},
    {"grid", "workers"},
    {"settings_page"},
    {"data"},
    {"structure"},
    {"outcomes", "plan", "saliency", "backbones", "optimizers", "images", "schedule"},
    {"unlearn", "features", "cost", "checkpoints", "progress", "transfer_plan", "predictions", "attacks", "padding"},
    {"boundary", "results"},
    {"learner"},
    {"mirror", "reporting"},
    {"tracking", "report", "console"},
    {"stage", "push", "views", "episode_commands", "compare", "sweep", "slurm"},
    {"reproduce"},
    {"controls"},
    {"robustness"},
    {"pretrain", "evaluate", "transfer_stage"},
    {"run"},
    {"cli"},
    {"__main__"},
]
"""From the bottom up: a room imports what stands before it, or beside it."""

HOMES = {
    "learn2learn": {"episodes.sampler"},
    "timm": {"lurefs.backbones", "lurefs.optimizers", "lurefs.stage"},
    "omegaconf": {"lurefs.config_file"},
    "wandb": {"lurefs.tracking", "lurefs.push", "lurefs.views", "lurefs.mirror.client"},
    "wandb_workspaces": {"lurefs.views"},
    "sklearn": {
        "episodes.probes",
        "episodes.projection",
        "episodes.scoring",
        "episodes.transfer",
        "lurefs.data.sources",
    },
    "matplotlib": {
        "lurefs.reporting.chart_style",
        "lurefs.reporting.confusion",
        "lurefs.reporting.figures",
        "lurefs.reporting.heat",
        "lurefs.reporting.pareto",
    },
    "jinja2": {"lurefs.report"},
    "rich": {"lurefs.console"},
    "fontTools": {"lurefs.data.fonts"},
    "imagecorruptions": {"lurefs.data.corruptions"},
    "art": {"lurefs.attacks"},
    "submitit": {"lurefs.slurm"},
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


def height(module: str) -> int:
    room = module.split(".")[1] if module.startswith("lurefs.") else module.split(".")[0]
    return next((level for level, rooms in enumerate(ORDER) if room in rooms), -1)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_room_imports_only_what_stands_below_or_beside_it(path: Path) -> None:
    module = module_of(path)
    if module == "lurefs":
        return
    assert height(module) >= 0, f"{module} has no place in the order"
    for name, is_early in imports(path):
        if name.startswith(("lurefs.", "episodes.")) and is_early:
            assert height(name) <= height(module) or name == "lurefs.__version__", f"{module} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_episodes_knows_nothing_of_lurefs_and_libraries_stay_at_home(path: Path) -> None:
    module = module_of(path)
    for name, _ in imports(path):
        top = name.split(".")[0]
        if module.startswith("episodes"):
            assert top not in ("lurefs", "timm", "wandb", "omegaconf"), f"{module} imports {name}"
        if top in HOMES:
            assert module in HOMES[top], f"{module} imports {name}"
