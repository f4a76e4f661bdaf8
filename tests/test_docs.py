"""The code in the documentation runs, and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from episodes import FeatureBank
from lurefs.config.load import load
from lurefs.config.settings_page import settings_page

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_library_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 40)
    features = rng.normal(size=(480, 16)) + rng.normal(size=(12, 16))[labels]
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "library.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    other_bank = FeatureBank.from_arrays(features + rng.normal(size=features.shape), labels)
    names = {"features": features, "labels": labels, "other_bank": other_bank}
    for block in blocks:
        exec(block.replace("n_episodes=2000", "n_episodes=60"), names)
    first, second = capsys.readouterr().out.splitlines()
    shape = r"\d+\.\d\d% ± \d+\.\d\d% on this pool of classes \(new classes of this kind: ± \d+\.\d\d%\), 60 episodes"
    assert re.fullmatch(shape, first)
    assert re.match(r"-?\d+\.\d\d% ± .* 60 episodes \d\S*", second)


@pytest.mark.parametrize(("page", "n_lines"), [("README.md", 1), ("docs/python.md", 1)])
def test_the_python_on_a_page_runs(
    page: str, n_lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    blocks = re.findall(r"```python\n(.*?)```", (DOCS.parent / page).read_text(), flags=re.DOTALL)
    names = {
        "images": np.random.default_rng(0).integers(0, 256, (120, 32, 32, 3), dtype=np.uint8),
        "labels": np.repeat(np.arange(6), 20),
    }
    for block in blocks:
        exec(block.replace("n_episodes=2000", "n_episodes=20").replace('"n_query": 10', '"n_episodes": 20'), names)
    said = [line for line in capsys.readouterr().out.splitlines() if "on this pool of classes (new classes" in line]
    assert len(blocks) and len(said) == n_lines


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md", "docs/evaluating.md", "docs/robustness.md"])
def test_the_settings_on_a_page_are_accepted(page: str, tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS.parent / page).read_text(), flags=re.DOTALL)
    path = tmp_path / "recipe.yaml"
    path.write_text(block)
    assert load(str(path)).runs


def test_the_page_of_settings_is_that_of_the_code() -> None:
    """If not: `python -c "from lurefs.config.settings_page import settings_page; print(settings_page(), end='')"`."""
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == settings_page()


def test_every_setting_and_plug_in_has_its_place_on_the_page() -> None:
    page = settings_page()
    epochs = "| `epochs` | a whole number, at least 1, at most 1000000 | `20` |"
    for words in (epochs, "## benchmarks.NAME", "### by_saliency"):
        assert words in page
    assert "Defaults: `{shrink: 0.4, perturb: 0.1}`" in page
