"""Sentences of the report: the runs and their settings, captions of episodes, and notes on tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from lurefs.comparing.answers import Answers
from lurefs.comparing.data_words import data_notes, data_sentence
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.comparing.pairs import clean_benchmark
from lurefs.comparing.texts import constancy, count, counted, joined, percent, regime, replay, settings, strategy
from lurefs.comparing.verdict_words import not_above_controls, on_what
from lurefs.comparing.verdicts import Verdicts
from lurefs.config.fine_tuning import fine_tunings
from lurefs.reporting.charts.episode_sheets import MAX_QUERY, MAX_WAY, EpisodeRow, EpisodeSheet
from lurefs.runs.summary import BenchmarkSummary, known

MAX_LISTED = 5
"""If there are more runs, the facts in which they differ are only in the table of settings."""


def title(runs: Sequence[Run], groups: Sequence[Group]) -> str:
    """Return the title: the single label, or the number of runs or training procedures."""
    if len(groups) == 1:
        return groups[0].label
    pooled = any(group.is_pooled for group in groups)
    return f"{len(groups)} training procedures compared" if pooled else f"{len(runs)} runs compared"


def lead(runs: Sequence[Run], warnings: Sequence[str] = ()) -> str:
    """Return the lead: the warnings, then sentences on what was run."""
    trained, frozen = [run for run in runs if not run.config.frozen], [run for run in runs if run.config.frozen]
    said = [*warnings, _trained(trained) if trained else "", _frozen(frozen, also=bool(trained)) if frozen else ""]
    return " ".join(filter(None, said))


def _frozen(runs: Sequence[Run], *, also: bool) -> str:
    who, verb, _ = _backbones(runs)
    places = joined(_distinct(place for run in runs for place in _measured_on(run)))
    return (
        f"{who} {verb}{' also' if also else ''} measured as {'it is' if verb == 'was' else 'they are'}, without "
        f"training, on {places}, from a few labelled images per class."
    )


def _backbones(runs: Sequence[Run]) -> tuple[str, str, str]:
    """Return the backbones of runs, and the words `was` and `its`, or `were` and `their`, for them."""
    names = _distinct(run.config.backbone.name for run in runs)
    who = f"{len(names)} backbones" if len(names) > MAX_LISTED else joined(names)
    return (who, "was", "its") if len(names) == 1 else (who, "were", "their")


def _trained(runs: Sequence[Run]) -> str:
    trained, verb, whose = _backbones(runs)
    datasets = joined(_distinct(run.config.dataset.name for run in runs))
    split = runs[0].identity.get("split", {})
    classes = f"{counted(split['n_base_classes'], 'class')} of {datasets}" if "n_base_classes" in split else datasets
    n_chunks = {len(run.outcomes) for run in runs}
    arrival = (
        f", whose images arrived in {counted(n_chunks.pop(), 'chunk')}"
        if len(n_chunks) == 1 and 0 not in n_chunks
        else ""
    )
    times = f" in {len(runs)} runs" if len(runs) > 1 else ""
    places = joined(_distinct(place for run in runs for place in _measured_on(run)))
    return (
        f"{trained} {verb} trained{times} on {classes}{arrival}. Then the weights were frozen, and {whose} features "
        f"measured on {places}, with a few labelled images per class."
    )


def facts(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return facts about the runs as (name, values): one value if all agree, otherwise one per run or their number."""
    rows = []
    for name, describe in _FACTS.items():
        values = [describe(run) for run in runs]
        if len(set(values)) > 1 and len(runs) > MAX_LISTED:
            rows.append((name, [f"{len(set(values))} different ones"]))
        elif len(set(values)) > 1:
            values = [
                f"{run.label}: {value or ('none' if run.config.frozen else 'not recorded')}"
                for run, value in zip(runs, values, strict=True)
            ]
            rows.append((name, values))
        elif values[0]:
            rows.append((name, values[:1]))
    return rows


def form(runs: Sequence[Run], benchmark: str) -> str:
    """Return the form of a benchmark's episodes and its chance level."""
    found = next(found for run in runs if (found := run.benchmark(benchmark)) is not None)
    return f"{found.form}, chance {percent(found.chance)}\u00a0%{_stop(found)}"


def _stop(found: BenchmarkSummary) -> str:
    """Say at which width of the interval scoring stops; "" if it does not."""
    if found.target_ci95 is None:
        return ""
    return f"; until ± {percent(found.target_ci95)} on this pool, at most {counted(found.n_episodes, 'episode')}"


def notes(runs: Sequence[Run], benchmark: str, judged: Sequence[Verdicts]) -> list[str]:
    """Return the notes on a benchmark's table: missing values and their reasons, controls that are not beaten."""
    found = _constant_features(runs, benchmark)
    if any(run.is_corrupted(benchmark) and not clean_benchmark(run, benchmark) for run in runs):
        found.append("The loss by the corruption is unknown: no benchmark of the same form and seed has clean images.")
    found += [data_sentence(words) for words in data_notes(judged[0].groups, benchmark)] if judged else []
    for verdicts in judged:
        probe = verdicts.probe
        summaries = [summary for run in runs if (summary := run.accuracy(benchmark, probe)) is not None]
        gaps = [summary.no_ci95_classes or "not computed" for summary in summaries if summary.ci95_classes is None]
        found += [f"{probe} has no interval over new classes: {reason}." for reason in _distinct(gaps)]
        results = [result for run in runs if (result := run.result(benchmark, probe)) is not None]
        if any(known(result.nll) is None for result in results):
            found.append(f"{probe} gives no probabilities, so it has no NLL, Brier score and ECE.")
        found += [f"By {probe}, {sentence}." for sentence in not_above_controls(verdicts)]
        found += [f"By {probe}, {label}: {mean.note}." for label, mean in verdicts.accuracies.items() if mean.note]
        found += _too_wide(runs, benchmark, probe)
    return found


def cut_pairs(judged: Sequence[Verdicts]) -> list[str]:
    """Say which groups were paired with the reference on only some of their episodes or seeds."""
    return [
        f"By {verdicts.probe}, {verdict.group} and {verdict.less} are paired {on_what(verdict)}."
        for verdicts in judged
        for group in verdicts.groups
        if (verdict := verdicts.against_reference(group.label)) is not None and verdict.is_cut
    ] + [
        f"By {verdicts.probe}, {verdict.group} minus {verdict.less}: {verdict.difference.note}."
        for verdicts in judged
        for group in verdicts.groups
        if (verdict := verdicts.against_reference(group.label)) and verdict.difference and verdict.difference.note
    ]


def row_in_words(row: EpisodeRow) -> str:
    """Describe a row of the episode, for screen readers."""
    wrong = [letter for letter in row.taken_for if letter]
    taken = joined([f"{wrong.count(letter)} for {letter}" for letter in _distinct(sorted(wrong))]) if wrong else ""
    said = f"{row.letter}, {row.class_name}: {row.n_right} of {counted(row.n_query, 'image')} classified correctly"
    return f"{said}; taken {taken}" if taken else said


def typical_caption(sheet: EpisodeSheet, answers: Answers) -> str:
    """Return the caption of the typical episode."""
    median = percent(sheet.median_accuracy)
    return (
        f"Episode {sheet.index} of {answers.benchmark}, by {answers.run.label} and {answers.probe}: {_right(sheet)}. "
        f"It is the first of those nearest to the median of all episodes ({median}\u00a0%).{_cut_images(sheet)}"
    )


def hardest_caption(sheet: EpisodeSheet, place: int) -> str:
    """Return the caption of a hard episode; `place` is 1 for the hardest."""
    rank = ("the lowest", "the second lowest", "the third lowest")[place - 1]
    return f"Episode {sheet.index}, with {rank} accuracy: {_right(sheet)}.{_cut_images(sheet)}"


def _right(sheet: EpisodeSheet) -> str:
    share = percent(sheet.n_right / sheet.n_query)
    return f"{sheet.n_right} of {sheet.n_query} images classified correctly ({share}\u00a0%)"


def _cut_images(sheet: EpisodeSheet) -> str:
    """Say which part of an episode is not shown, after a space; "" if all of it is shown."""
    text = ""
    if sheet.n_way > MAX_WAY:
        text += f" The first {MAX_WAY} of {sheet.n_way} classes are shown."
    most = max(row.n_query - row.n_right if sheet.only_wrong else row.n_query for row in sheet.rows)
    if most > MAX_QUERY:
        text += f" At most {MAX_QUERY} of the {most} images per class are shown."
    return text


def _constant_features(runs: Sequence[Run], benchmark: str) -> list[str]:
    """Say whose features are (nearly) the same for all images."""
    whose: dict[str, list[str]] = {}
    for run in runs:
        if (described := run.benchmark(benchmark)) is None:
            continue
        whose.setdefault(constancy(described.feature_spread), []).append(run.label)
        for name, control in described.controls.items():
            words = constancy(control.feature_spread)
            whose.setdefault(words, []).append(f"the control “{name.replace('_', ' ')}” of {run.label}")
    return [f"The features of {joined(names)} are {words}." for words, names in whose.items() if words]


def _too_wide(runs: Sequence[Run], benchmark: str, probe: str) -> list[str]:
    """Say which runs met all their episodes and still have an interval above `target_ci95`.

    Fine-tuned probes have no target.
    """
    said = []
    for run in runs:
        if probe in fine_tunings(run.config):
            continue
        accuracy, described = run.accuracy(benchmark, probe), run.benchmark(benchmark)
        target = None if described is None else described.target_ci95
        if accuracy is not None and target is not None and accuracy.ci95_episodes > target:
            said.append(
                f"By {probe}, {run.label} was still at ± {percent(accuracy.ci95_episodes)} on this pool after all "
                f"{counted(accuracy.n, 'episode')}, above the target of ± {percent(target)}."
            )
    return said


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _measured_on(run: Run) -> list[str]:
    """Return the classes from which the benchmarks draw, in words."""
    split = run.identity.get("split", {})
    places = []
    for benchmark in run.config.benchmarks.values():
        if benchmark.classes == "all":
            places.append(f"all classes of {(benchmark.dataset or run.config.dataset).name}")
        elif benchmark.classes == "base":
            places.append("held-out images of the same classes")
        else:
            n_classes = split.get(f"n_{benchmark.classes}_classes")
            which = f"of {run.config.dataset.name}" if run.config.frozen else "never seen in training"
            places.append(f"{f'{count(n_classes)} ' if n_classes else ''}{benchmark.classes} classes {which}")
    return places


def _dataset(run: Run) -> str:
    return run.config.dataset.name + settings(run.config.dataset.params)


def _classes(run: Run) -> str:
    split = run.identity.get("split", {})
    groups = [(group, split.get(f"n_{group}_classes")) for group in ("base", "validation", "novel")]
    is_of_novel_alone = run.config.frozen and not split.get("n_base_classes")
    return ", ".join(f"{count(n)} {group}" for group, n in groups if n or (n == 0 and not is_of_novel_alone))


def _images(run: Run) -> str:
    split = run.identity.get("split", {})
    if run.config.frozen and not split.get("n_base_classes"):
        return ""
    parts = [(name, split.get(f"n_{key}_images")) for name, key in _IMAGE_PARTS.items()]
    return ", ".join(f"{count(n_images)} {name}" for name, n_images in parts if n_images is not None)


def _backbone(run: Run) -> str:
    config, known = run.config.backbone, run.identity.get("backbone", {})
    details = [f"{count(known['n_parameters'])} weights"] if "n_parameters" in known else []
    details += [f"{count(known['n_features'])} features"] if "n_features" in known else []
    if run.config.brings_features:
        details += ["features of a file, so there is no model and no control"]
    details += [config.features.words()] if config.features.words() else []
    if config.pretrained or config.checkpoint_path:
        known_weights = run.identity.get("weights", "those of another training")
        details += [f"{'its weights are' if run.config.frozen else 'its first weights were'} {known_weights}"]
    return f"{config.name} ({', '.join(details)})" if details else config.name


def _arrival(run: Run) -> str:
    if not run.outcomes:
        return ""
    config = run.config.chunks
    return f"{counted(len(run.outcomes), 'chunk')}, {replay(config.replay, config.buffer_size)}{regime(config)}"


def _learning(run: Run) -> str:
    config = run.config.learner
    if run.config.frozen:
        return "none (frozen)"
    return f"{counted(config.epochs, 'epoch')} per chunk, batches of {config.batch_size}, {config.optimizer.name}"


_IMAGE_PARTS = MappingProxyType({"for training": "train", "for validation": "val", "for test": "test"})
_FACTS: Mapping[str, Callable[[Run], str]] = MappingProxyType(
    {
        "Images": _dataset,
        "Classes": _classes,
        "Base images": _images,
        "Backbone": _backbone,
        "Arrival": _arrival,
        "Learning": _learning,
        "Between chunks": lambda run: "" if run.config.frozen else strategy(run.config.unlearn),
        "Seed": lambda run: str(run.config.seed),
    }
)
