"""All commands under locales and terminals without UTF-8: they print what can be shown, and files stay UTF-8."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RECIPE = """
name: {name}
dataset: {{name: folder, params: {{path: photos, image_size: 32}}}}
class_split: {{base: 0.5, validation: 0.0, novel: 0.5}}
image_split: {{val: 0.2, test: 0.2}}
chunks: {{n_chunks: 1}}
backbone: {{name: test_vit, params: {{embed_dim: 16, depth: 1, num_heads: 1, patch_size: 8}}}}
learner: {{epochs: 1, batch_size: 4}}
benchmarks:
  {benchmark}: {{n_way: 2, n_shot: 1, n_query: 3, n_episodes: 20}}
after_chunk: {{n_episodes: 5}}
trackers: {{wandb: {{tags: [é, 漢字]}}}}
"""
VARIANTS = """
variants:
  {variant}: {{}}
  other: {{unlearn: {{name: nothing}}}}
"""
COMMANDS = """
import sys
from lurefs.cli import main
variant = sys.argv[1]
for command in (
    "run --config recipe.yaml --dry-run", "run --config recipe.yaml --run-dir out", "list settings",
    "compare out --output compared", "report out --output page", "plan out", "push out --dry-run",
    "views out --dry-run", f"reproduce out/{variant}", "init photos --way 3 --output own.yaml",
    "sweep --config recipe.yaml --dry-run", "evaluate photos --way 3 --backbone test_vit --pretrained",
    "sweep --config one.yaml seed=[0,1] --run-dir swept", "pretrain --config one.yaml --run-dir staged",
    "extract --config one.yaml --run-dir staged", "evaluate --config one.yaml --run-dir staged",
    "evaluate photos --way 3 --shots 1 --backbone test_byobnet backbone.pretrained=false --run-dir frozen",
    "episodes make --config recipe.yaml --output drawn.parquet", "episodes show drawn.parquet",
    "episodes verify drawn.parquet", "compare nowhere✓",
):
    try:
        main(command.split(" "))
        code = 0
    except SystemExit as error:
        code = error.code
    print(f"@@{code} {command}", file=sys.stderr)
"""
# The names of files are ASCII where the system's are.
UTF_8, ASCII = ("naïve 漢字 😀", "bénch−1 ✓", "größe"), ("plain", "bench", "one")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"PYTHONIOENCODING": "cp1252"}, UTF_8),
        ({"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ASCII),
    ],
    ids=["cp1252", "C"],
)
def test_all_commands_print_what_can_be_shown(
    settings: dict[str, str], names: tuple[str, str, str], environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("wandb_workspaces")
    rng = np.random.default_rng(0)
    for label in ("chat é", "犬", "emoji 😀", "−1", "dog", "cat"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(6):
            image = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
            image.save(tmp_path / "photos" / label / f"ü{number}.png")
    name, benchmark, variant = names
    recipe = RECIPE.format(name=name, benchmark=benchmark)
    (tmp_path / "one.yaml").write_text(recipe, "utf-8")
    (tmp_path / "recipe.yaml").write_text(recipe + VARIANTS.format(variant=variant), "utf-8")
    (tmp_path / "commands.py").write_text(COMMANDS, "utf-8")
    done = subprocess.run(
        [sys.executable, "commands.py", variant],
        env={**environment, "WANDB_MODE": "offline", "LUREFS_CACHE": str(tmp_path / "cache"), **settings},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode(settings["PYTHONIOENCODING"])
    assert "UnicodeEncodeError" not in said and "which it should not" not in said, said
    ended = [line for line in said.splitlines() if line.startswith("@@")]
    refused = [line for line in ended if not line.startswith("@@0 ")]
    assert len(ended) == COMMANDS.count('"') // 2 - 2, said
    assert [line.split(" ")[1] for line in refused] == ["sweep", "evaluate", "compare"], said
    for suffix in ("json", "csv", "md", "tex"):
        text = (tmp_path / "compared" / f"comparison.{suffix}").read_text("utf-8")
        assert "?" not in text
    for path in (tmp_path / "out" / variant).glob("*.json"):
        path.read_text("utf-8")
    pages = {"out/report.html": benchmark, "swept/report.html": benchmark, "frozen/report.html": "3way-1shot"}
    for path, expected in {**pages, "staged/summary.json": benchmark}.items():
        assert expected in (tmp_path / path).read_text("utf-8")
