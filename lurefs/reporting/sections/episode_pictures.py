"""Images of the page: samples of the classes, a typical episode, and the hardest with their misclassified images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lurefs import plugins
from lurefs.comparing.answers import Answers, read_answers, shown_of
from lurefs.comparing.finished_runs import Run
from lurefs.config.fields import PluginConfig
from lurefs.config.schema import RunConfig
from lurefs.data.dataset import ImageDataset
from lurefs.data.decoded import stored
from lurefs.data.splits import split_classes
from lurefs.errors import UserError
from lurefs.reporting.charts import episode_sheets, image_sheets
from lurefs.reporting.charts.episode_sheets import EpisodeSheet
from lurefs.reporting.charts.page_figures import PageFigures
from lurefs.reporting.sections import narrative

Shown = dict[str, Any]


def section(runs: Sequence[Run], kept: PageFigures) -> Shown:
    """Return episodes of the best run on the first benchmark, or why they cannot be shown."""
    chosen = shown_of(runs, 1)
    if not chosen:
        return {}
    try:
        answers = read_answers(*chosen[0])
        run = answers.run
        dataset = build_dataset(run.config.benchmarks[answers.benchmark].dataset or run.config.dataset)
        [typical] = episode_sheets.draw_episodes(
            answers, [episode_sheets.typical_episode(answers)], dataset, only_wrong=False
        )
        hardest = episode_sheets.draw_episodes(
            answers, episode_sheets.hardest_episodes(answers), dataset, only_wrong=True
        )
    except (UserError, OSError) as error:
        kept.is_whole &= chosen[0][0].config.brings_features  # images may come back
        return {"missing": reason_of(error)}
    kept.sheet("episode", image_sheets.episode_sheet(typical))
    for place, sheet in enumerate(hardest, start=1):
        kept.sheet(f"hardest-{place}", image_sheets.episode_sheet(sheet))
    return {
        "missing": "",
        "typical": _shown(typical, narrative.typical_caption(typical, answers)),
        "hardest": [_shown(sheet, narrative.hardest_caption(sheet, place)) for place, sheet in enumerate(hardest, 1)],
        "whose": _whose(answers),
    }


def build_dataset(config: PluginConfig) -> ImageDataset:
    """Build the data set of a run.

    Raises:
        UserError: It cannot be built.
    """
    return stored(plugins.build("dataset", config.name, config.params))


def reason_of(error: Exception) -> str:
    """Return the problem of an error, without the fix."""
    return error.problem if isinstance(error, UserError) else str(error)


def _shown(sheet: EpisodeSheet, caption: str) -> Shown:
    rows = [
        {
            "row": row,
            "support": image_sheets.data_uris(row.support),
            "query": image_sheets.data_uris(row.query),
            "said": narrative.row_in_words(row),
        }
        for row in sheet.rows
    ]
    return {"rows": rows, "ink": sheet.is_ink, "caption": caption, "index": sheet.index}


def _whose(answers: Answers) -> str:
    return f"{answers.benchmark}, by {answers.run.label} and {answers.probe}"


def samples(config: RunConfig, kept: PageFigures) -> dict[str, Any]:
    """Return sample images of the classes, or why they cannot be read."""
    pictures: dict[str, Any] = {"samples": [], "missing": []}
    try:
        dataset = build_dataset(config.dataset)
        groups = split_classes(dataset, config.class_split)
        for title, group in (("Base classes", groups.base), ("Novel classes", groups.novel)):
            strips = episode_sheets.sample_strips(dataset, group)
            if strips:
                kept.sheet(f"samples-{title.split()[0].lower()}", image_sheets.samples_sheet(strips))
                shown = [{"name": strip.class_name, "images": image_sheets.data_uris(strip.images)} for strip in strips]
                pictures["samples"].append(
                    {"title": title, "n_classes": len(group), "strips": shown, "ink": strips[0].is_ink}
                )
    except (UserError, OSError) as error:
        kept.is_whole &= config.brings_features
        pictures["missing"].append(reason_of(error))
    return pictures
