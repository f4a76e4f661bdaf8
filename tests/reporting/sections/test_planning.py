"""The page's section on how much is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lurefs.comparing.groups import groups_of
from lurefs.reporting.charts.page_figures import PageFigures
from lurefs.reporting.sections.planning import section
from made_up_runs import benchmark, probe, run_in_memory


def with_episodes(name: str, seed: int) -> object:
    run = run_in_memory({"name": name}, {"novel": benchmark({"ridge": probe(0.5)})})
    rng = np.random.default_rng(0)
    classes = np.stack([rng.permutation(20)[:5] for _ in range(200)])
    accuracy = 0.5 + np.random.default_rng(seed).normal(0, 0.1, 200)
    found = run._accuracies["novel", "ridge"]
    run._accuracies["novel", "ridge"] = type(found)(
        index=np.arange(200), classes=classes, accuracy=accuracy, identity=found.identity
    )
    return run


def test_two_runs_have_a_row_per_scope_and_a_curve_over_the_number_of_classes(tmp_path: Path) -> None:
    runs = [with_episodes("a", 1), with_episodes("b", 2)]
    (found,) = section(groups_of(runs), [("novel", "ridge")], PageFigures(tmp_path))  # type: ignore[arg-type]
    assert [row["where"] for row in found["rows"]] == ["new classes", "this pool"]
    assert found["rows"][0]["name"] == "b − a" and found["rows"][0]["at_hand"] == "20 classes, 200 episodes"
    assert all(float(row["texts"][0]) > float(row["texts"][1]) > 0 for row in found["rows"])
    between = [row["between"] for row in found["rows"]]
    least, most = map(float, between[0].split(" to "))
    assert least <= float(found["rows"][0]["texts"][0]) < most and between[1] == ""
    assert "classes" in found["charts"][0]["caption"]
    assert section(groups_of(runs[:1]), [("novel", "ridge")], PageFigures(tmp_path)) == []  # type: ignore[arg-type]
