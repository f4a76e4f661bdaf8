from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from lurefs.config.load import load, recipes_dir
from lurefs.errors import UserError
from lurefs.sweeps.grid import Grid, cells_of, name_of, named_run, read_grid

COMMAND = ["${env}", "lurefs", "run", "--config", "smoke", "--run-root", "runs/mine", "${args_no_hyphens}"]
PARAMETERS = {"backbone.name": {"values": ["test_vit", "test_resnet"]}, "seed": {"values": [0, 1]}}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write(**changes: Any) -> str:
        path = tmp_path / "mine.yaml"
        plain = {"program": "lurefs", "method": "grid", "command": COMMAND, "parameters": PARAMETERS, **changes}
        path.write_text(yaml.safe_dump(plain))
        return str(path)

    return write


def names(grid: Grid) -> list[str]:
    return [cell.name for cell in cells_of(grid)]


def test_a_grid_has_a_cell_for_every_combination(write: Callable[..., str]) -> None:
    grid = read_grid(write())
    assert (grid.recipe, grid.run_root) == ("smoke", Path("runs/mine"))
    cells = cells_of(grid)
    assert [cell.name for cell in cells] == [
        "test_vit--seed-0",
        "test_vit--seed-1",
        "test_resnet--seed-0",
        "test_resnet--seed-1",
    ]
    assert (cells[1].backbone.name, cells[1].seed) == ("test_vit", 1)


def test_an_agent_of_wandb_starts_the_run_that_the_cell_is(write: Callable[..., str]) -> None:
    file = write(
        parameters={
            "backbone": {"values": ["{name: test_vit, params: {patch_size: 8}}"]},
            "unlearn": {"values": [{"name": "by_saliency", "params": {"keep_ratio": 0.5}}]},
            "learner.l2_init": {"values": [1e-05]},
            "pretrained": {"value": False},
        }
    )
    plain = yaml.safe_load(Path(file).read_text())
    plain["parameters"]["backbone.pretrained"] = plain["parameters"].pop("pretrained")
    Path(file).write_text(yaml.safe_dump(plain))
    chosen = {
        key: {"value": entry.get("values", [entry.get("value")])[0]} for key, entry in plain["parameters"].items()
    }
    (cell,) = cells_of(read_grid(file))
    given = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
    assert named_run("smoke", given) == cell
    assert cell.backbone.params == {"patch_size": 8}
    assert cell.unlearn.params == {"keep_ratio": 0.5}
    assert cell.learner.l2_init == 1e-05


def test_values_on_the_command_line_take_the_place_of_the_files(write: Callable[..., str]) -> None:
    assert names(read_grid(write(), ["seed=[7]", "backbone.name=test_convnext"])) == ["test_convnext--seed-7"]
    grid = read_grid(write(), ["seed=0", "parameters.unlearn.name.values=[nothing, head]", "backbone.name=test_vit"])
    assert names(grid) == ["test_vit--nothing--seed-0", "test_vit--head--seed-0"]


def test_other_settings_are_those_of_all_cells_and_part_of_their_names(write: Callable[..., str]) -> None:
    (cell,) = cells_of(read_grid(write(), ["seed=0", "backbone.name=test_vit", "learner.epochs=2", "device=cpu"]))
    assert cell.name == "test_vit--learner.epochs-2--seed-0"
    assert cell.learner.epochs == 2


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "smoke"),
        (("device=cpu", "trackers.wandb.mode=disabled"), "smoke"),
        (("seed=3", "backbone.name=test_vit"), "test_vit--seed-3"),
        (("backbone={name: test_vit, stem: small}",), "test_vit--backbone.stem-small"),
        (("backbone.stem=small", "backbone.name=test_vit"), "test_vit--backbone.stem-small"),
        (("backbone.name=resnet18.a1_in1k",), "resnet18.a1_in1k"),
    ],
)
def test_a_name_says_what_was_changed_whatever_the_order(overrides: tuple[str, ...], name: str) -> None:
    assert name_of(overrides, load("smoke").runs["smoke"]) == name


def test_names_are_those_of_files_and_different_where_settings_are() -> None:
    config = load("smoke").runs["smoke"]
    texts = ["dataset.name=a:b", "dataset.name=a/b", "dataset.name=a_b", "dataset.name=a--b", "dataset.name=a-b"]
    texts += [f"dataset.name={'x' * 300}{end}" for end in "ab"]
    found = [name_of([text], config) for text in texts]
    assert len(set(found)) == len(texts)
    assert found[2] == "a_b"
    assert all(len(name) < 140 and not set(name) & set("/:") for name in found)


@pytest.mark.parametrize(
    ("changes", "overrides", "words"),
    [
        ({"method": "bayes"}, [], "method is 'bayes'"),
        ({"command": ["lurefs", "run"]}, [], "${args_no_hyphens}"),
        ({"parameters": {"seed": {"min": 0, "max": 3}}}, [], "parameters.seed is {'max': 3, 'min': 0}"),
        ({"parameters": {"seed": {"values": []}}}, [], "parameters.seed has no values"),
        ({"parameters": {"learner.relearn_epochs": {"values": [None, 2]}}}, [], "write it as text: 'null'"),
        ({}, ["seed=[0, 0]"], "two cells of the grid are the same"),
        ({}, ["name=mine"], "no setting 'name'"),
        ({}, ["learner.epoch=3"], "did you mean"),
        ({}, ["learner.epochs"], "has no 'key='"),
        (
            {"parameters": {"unlearn.name": {"value": "by_salience"}}},
            [],
            "run unlearn.name=by_salience: unknown unlearn",
        ),
    ],
)
def test_what_is_no_grid_is_refused(
    write: Callable[..., str], changes: dict[str, Any], overrides: list[str], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        cells_of(read_grid(write(**changes), overrides))
    assert words in str(caught.value)


def test_a_recipe_and_a_sweep_file_are_told_apart(write: Callable[..., str]) -> None:
    with pytest.raises(UserError, match="has no parameters"):
        read_grid("quickstart")
    with pytest.raises(UserError, match="lurefs sweep --config"):
        load(write())
    with pytest.raises(UserError, match="quickstart has variants"):
        named_run("quickstart", ["seed=1"])


def test_a_recipe_of_several_seeds_is_one_run_where_the_grid_gives_the_seed(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("seeds: [0, 1]\nworkers: 2\n")
    config = named_run(str(recipe), ["seed=1", "workers=3"])
    assert (config.name, config.seed) == ("seed-1", 1)
    with pytest.raises(UserError, match=r"mine.yaml has the seeds \[0, 1\]"):
        named_run(str(recipe), [])
    with pytest.raises(UserError, match="has only one seed"):
        named_run(str(recipe), ["seeds=[1]"])


def test_a_recipe_of_one_variant_is_a_recipe_of_one_run(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("variants: {small: {backbone: {name: test_resnet, image_size: 64}}}\n")
    cells = cells_of(read_grid(str(recipe), ["backbone.name=[test_resnet, test_vit]"]))
    assert [(cell.name, cell.backbone.name, cell.backbone.image_size) for cell in cells] == [
        ("test_resnet", "test_resnet", 64),
        ("test_vit", "test_vit", 64),
    ]
    assert named_run(str(recipe), []).name == "small"
    for override in ("variants.small.seed=1", "variants={}"):
        with pytest.raises(UserError, match="has no variants"):
            named_run(str(recipe), [override])
    recipe.write_text("seeds: [0, 1]\nvariants: {small: {}}\n")
    with pytest.raises(UserError, match=r"mine.yaml has the seeds \[0, 1\]"):
        named_run(str(recipe), [])


def test_every_grid_that_comes_with_the_package_can_be_planned() -> None:
    grids = [path for path in recipes_dir().glob("*.yaml") if "parameters" in yaml.safe_load(path.read_text())]
    assert [path.stem for path in grids] == ["compare_backbones"]
    for path in grids:
        assert len(cells_of(read_grid(str(path)))) == 24


def test_a_recipe_with_lists_is_a_grid_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nfrozen: true\ndataset: {name: digits}\n")
    overrides = ["backbone.name=[test_resnet, test_vit]", "seed=[0, 1]", "controls=false"]
    grid = read_grid(str(path), overrides)
    assert grid.run_root == Path("runs/mine")
    cells = cells_of(grid)
    assert [cell.name for cell in cells] == [
        "test_resnet--seed-0",
        "test_resnet--seed-1",
        "test_vit--seed-0",
        "test_vit--seed-1",
    ]
    assert all(cell.frozen and not cell.controls for cell in cells)
    with pytest.raises(UserError, match=r"no setting has several values(.*\n)*.*'backbone\.name=\["):
        read_grid(str(path), ["seed=1"])
    with pytest.raises(UserError, match=r"backbone\.name has no values"):
        read_grid(str(path), ["backbone.name=[]"])
