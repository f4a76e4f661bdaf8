from __future__ import annotations

from pathlib import Path

import pytest

from lurefs.errors import UserError
from lurefs.runs.find import find_runs


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run, two groups of runs, and files that a run leaves beside its config."""
    monkeypatch.chdir(tmp_path)
    for name in ("alone", "quickstart/lure", "quickstart/warm", "sweep/resnet/lure", "sweep/resnet/scratch"):
        (tmp_path / "runs" / name / "wandb" / "files").mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").touch()
        (tmp_path / "runs" / name / "wandb" / "files" / "config.yaml").touch()
    (tmp_path / "runs" / ".cache" / "old" / "empty").mkdir(parents=True)
    (tmp_path / "runs" / ".cache" / "old" / "config.yaml").touch()
    return Path("runs")


def found(*names: str) -> list[str]:
    return [path.relative_to("runs").as_posix() for path in find_runs(names)]


@pytest.mark.usefixtures("runs")
class TestFindRuns:
    def test_a_directory_is_a_run_or_holds_runs_at_any_depth(self) -> None:
        assert found("runs/quickstart/warm") == ["quickstart/warm"]
        assert found("runs/quickstart") == ["quickstart/lure", "quickstart/warm"]
        assert found("runs") == [
            "alone",
            "quickstart/lure",
            "quickstart/warm",
            "sweep/resnet/lure",
            "sweep/resnet/scratch",
        ]

    def test_a_pattern_may_match_runs_and_folders(self) -> None:
        assert found("runs/*/warm") == ["quickstart/warm"]
        assert found("runs/s*") == ["sweep/resnet/lure", "sweep/resnet/scratch"]

    def test_a_name_is_looked_for_below_runs(self) -> None:
        assert found("quickstart") == ["quickstart/lure", "quickstart/warm"]
        assert found("alone", "scratch") == ["alone", "sweep/resnet/scratch"]
        assert found("resnet/lure") == ["sweep/resnet/lure"]

    def test_a_name_is_looked_for_beside_another_run(self) -> None:
        Path("runs").rename("elsewhere")
        paths = find_runs(["elsewhere/quickstart/lure", "warm"])
        assert paths == [Path("elsewhere/quickstart/lure"), Path("elsewhere/quickstart/warm")]

    def test_a_run_that_is_named_twice_is_one(self) -> None:
        assert found("runs/quickstart/lure", "runs/quickstart") == ["quickstart/lure", "quickstart/warm"]

    def test_a_link_in_a_circle_ends(self) -> None:
        Path("runs/sweep/again").symlink_to(Path("runs").resolve())
        assert found("runs/sweep")[-2:] == ["sweep/resnet/lure", "sweep/resnet/scratch"]

    def test_a_name_of_several_runs_is_refused_with_all_of_them(self) -> None:
        with pytest.raises(UserError, match="'lure' is the name of 2 runs: runs/quickstart/lure, runs/sweep/resnet/"):
            find_runs(["lure"])

    def test_an_unknown_name_is_answered_with_the_nearest(self) -> None:
        with pytest.raises(UserError, match="did you mean 'scratch'"):
            find_runs(["scrach"])

    @pytest.mark.parametrize("name", ["runs/.cache/old/empty", "runs/nothing-*"])
    def test_a_place_without_runs_is_refused(self, name: str) -> None:
        with pytest.raises(UserError, match="holds no run"):
            find_runs([name])
