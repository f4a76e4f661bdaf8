"""Features that another run of the machine made are copied, not computed; damaged ones are computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lurefs import cache
from lurefs.config.schema import RunConfig
from lurefs.learning.backbones import Backbone
from lurefs.runs.directory import RunDirectory
from lurefs.stages import feature_store
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage

FROZEN = {"frozen": True, "class_split": {"base": 0.0, "validation": 0.0, "novel": 1.0}}


@pytest.fixture
def extracted(
    make_config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[RunDirectory, int]]:
    """Extract the features of a run; return its directory, and how often the model embedded a batch."""
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "cache"))
    calls: list[int] = []
    embed = Backbone.embed

    def counted(self: Backbone, images: Any) -> Any:
        calls.append(len(images))
        return embed(self, images)

    monkeypatch.setattr(Backbone, "embed", counted)

    def extract(name: str, stage: str = "extract", **changes: Any) -> tuple[RunDirectory, int]:
        calls.clear()
        directory = RunDirectory(tmp_path / name)
        run_stage(make_plan(make_config(**FROZEN, **changes)), directory, stage, with_page=False)
        return directory, len(calls)

    return extract


def entry() -> Path:
    (found,) = (each.path for each in cache.entries() if each.kind == feature_store.KIND)
    return found


def first_bank(directory: RunDirectory) -> np.ndarray:
    (name, *_) = sorted(path.name for path in (directory.path / "features").iterdir())
    return np.array(directory.read_bank(name).features)


def test_a_second_run_takes_features_and_their_cost_from_the_store(
    extracted: Callable[..., tuple[RunDirectory, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    first, n_calls = extracted("first")
    assert n_calls > 0 and "from the store" not in capsys.readouterr().err
    second, n_calls = extracted("second")
    assert n_calls == 0 and "come from the store of this machine" in capsys.readouterr().err
    assert first_bank(first).tobytes() == first_bank(second).tobytes()
    assert first.read_cost() == second.read_cost() != {}
    cache.clear()
    assert np.isfinite(first_bank(second)).all()


def test_other_weights_or_batches_are_other_features(extracted: Callable[..., tuple[RunDirectory, int]]) -> None:
    extracted("first")
    assert extracted("seed", seed=1)[1] > 0
    assert extracted("batches", learner={"eval_batch_size": 7})[1] > 0


@pytest.mark.parametrize("name", ["features.npy", "card.json"])
def test_a_damaged_entry_is_made_again(name: str, extracted: Callable[..., tuple[RunDirectory, int]]) -> None:
    first, _ = extracted("first")
    content = (entry() / name).read_bytes()
    (entry() / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    second, n_calls = extracted("second")
    assert n_calls > 0 and first_bank(first).tobytes() == first_bank(second).tobytes()
    assert (entry() / name).read_bytes() == content or name == "card.json"
    assert extracted("third")[1] == 0


def test_what_a_killed_process_left_is_no_entry_and_goes(extracted: Callable[..., tuple[RunDirectory, int]]) -> None:
    extracted("first")
    (entry() / "card.json").unlink()
    left = entry() / ".features.1.partial.npy"
    left.write_bytes(b"half")
    assert extracted("second")[1] > 0
    assert not left.exists() and (entry() / "card.json").is_file()


def test_a_cache_of_no_size_stores_nothing_and_stops_nothing(
    extracted: Callable[..., tuple[RunDirectory, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.BOUND, "0")
    extracted("first")
    assert extracted("second")[1] > 0 and not cache.entries()


def test_the_controls_are_shared_too(extracted: Callable[..., tuple[RunDirectory, int]]) -> None:
    _, n_calls = extracted("first", stage="run", controls=True)
    assert n_calls > 0
    assert extracted("second", stage="run", controls=True)[1] == 0


def test_data_sets_of_a_user_s_code_are_not_shared(
    extracted: Callable[..., tuple[RunDirectory, int]], npz_path: Path
) -> None:
    extracted("first", dataset={"name": "lurefs.data.npz:npz", "params": {"path": str(npz_path)}})
    assert not cache.entries()
