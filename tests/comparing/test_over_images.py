from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import lurefs
from episodes.over_images import ImageError, correct_answers, error_over_images
from lurefs.comparing.finished_runs import read_runs
from lurefs.comparing.over_images import with_intervals_over_images
from lurefs.comparing.standings import standings
from lurefs.comparing.text_tables import legend, text_tables
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]


def with_answers(directory: RunDirectory, seed: int) -> RunDirectory:
    """Add answers to the results of a made-up run: right in 70 % of the queries."""
    table, spec = directory.read_episodes("novel", "centroid"), directory.read_manifest("novel").spec
    rng, labels = np.random.default_rng(seed), np.repeat(np.arange(spec.n_way), spec.n_query)
    is_wrong = rng.random((len(table), len(labels))) < 0.3
    predicted = ((labels + is_wrong) % spec.n_way).astype(np.int16)
    replace(table, predicted=predicted).save(directory.episodes_path("novel", "centroid"))
    return directory


def test_accuracies_and_differences_have_the_interval_over_images_of_their_answers(make_run: MakeRun) -> None:
    runs = read_runs([with_answers(make_run("lure"), 1), with_answers(make_run("warm", unlearn="nothing"), 2)])
    found = with_intervals_over_images(standings(runs), runs)
    row = next(row for row in found.groups if row.name == "lure")
    answers = [run.directory.read_episodes(row.benchmark, row.probe, with_predicted=True) for run in runs]
    manifest = runs[0].manifest(row.benchmark)
    correct = [correct_answers(table.predicted, manifest) for table in answers if table.predicted is not None]
    errors = [error_over_images(values, manifest) for values in (correct[0], correct[0] - correct[1])]
    widths = [error.half_width for error in errors if isinstance(error, ImageError)]
    assert [row.ci95_images, row.difference_ci95_images] == pytest.approx(widths)
    assert next(row for row in found.rows if row.name == "lure").ci95_images == row.ci95_images


def test_the_tables_have_a_column_and_say_what_it_is_over(make_run: MakeRun) -> None:
    runs = read_runs([with_answers(make_run("lure"), 1), with_answers(make_run("warm", unlearn="nothing"), 2)])
    plain = standings(runs)
    found = with_intervals_over_images(plain, runs)
    assert "± images" in text_tables(found)[0].columns
    assert "± images" not in text_tables(plain)[0].columns
    assert "with other images of the same classes (± images)" in legend(found)[0]
    assert any("lurefs compare --over images" in line for line in legend(plain))


def test_python_has_the_same_intervals_as_the_command(make_run: MakeRun) -> None:
    directories = [with_answers(make_run("lure"), 1), with_answers(make_run("warm", unlearn="nothing"), 2)]
    paths, runs = [directory.path for directory in directories], read_runs(directories)
    expected = with_intervals_over_images(standings(runs), runs)
    widths = {row.name: row.ci95_images for row in expected.groups}
    found = {row["name"]: row["ci95_images"] for row in lurefs.compare(paths, over="images").records("groups")}
    assert found["lure"] == widths["lure"] is not None
    assert not any(row["ci95_images"] for row in lurefs.compare(paths).records("groups"))
    with pytest.raises(UserError, match="over is 'classes'"):
        lurefs.compare(paths, over="classes")  # type: ignore[arg-type]


def test_runs_without_answers_say_why_they_have_no_interval(make_run: MakeRun) -> None:
    runs = read_runs([make_run("lure")])
    [row] = with_intervals_over_images(standings(runs), runs).groups
    assert row.ci95_images is None
    assert row.note == "no interval over images: the results are older than stored answers"
