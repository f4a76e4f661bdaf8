"""Card with the result of one benchmark: the best accuracy, its controls, its difference and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lurefs.comparing.data_words import data_notes, data_sentence
from lurefs.comparing.estimates import Estimate
from lurefs.comparing.texts import percent, plus_minus, points
from lurefs.comparing.verdict_words import (
    as_sentence,
    idle_resets,
    level_words,
    not_above_controls,
    not_compared,
    on_what,
    single_trainings,
    verdict_sentences,
)
from lurefs.comparing.verdicts import Verdicts
from lurefs.reporting.sections.narrative import form


@dataclass(frozen=True, kw_only=True)
class Headline:
    """Result of one benchmark.

    Attributes:
        benchmark: Its name.
        form: The form of its episodes and its chance level.
        warnings: One sentence per control that is not beaten, shown first.
        accuracy: The best accuracy, percent; the mean of several seeds.
        intervals: Its intervals, each with its scope.
        of_what: Its run or group, and its probe.
        data: Sentences on images that occur twice, and on sources that support or training share.
        controls: Accuracies of the controls; "" if there are none.
        difference: Its difference from the reference or the next best; "" for a single run or group.
        difference_intervals: The intervals of that difference; "" if there is none.
        verdict: Whether the two are told apart; "" if there is no difference.
    """

    benchmark: str
    form: str
    warnings: tuple[str, ...]
    accuracy: str
    intervals: str
    of_what: str
    data: tuple[str, ...]
    controls: str
    difference: str = ""
    difference_intervals: str = ""
    verdict: str = ""


def headline(verdicts: Verdicts) -> Headline | None:
    """Return the result of one benchmark by one probe; None if nothing was measured."""
    if not verdicts.groups:
        return None
    best, n_groups = verdicts.groups[0], len(verdicts.groups)
    accuracy = verdicts.accuracies[best.label]
    kind = "training procedures" if any(group.is_pooled for group in verdicts.groups) else "runs"
    among = f", the highest of {n_groups} {kind}" if n_groups > 1 else ""
    difference, intervals, verdict = _against_the_others(verdicts)
    return Headline(
        benchmark=verdicts.benchmark,
        form=form(best.runs, verdicts.benchmark),
        warnings=tuple(map(as_sentence, not_above_controls(verdicts))),
        accuracy=percent(accuracy.mean),
        intervals=_intervals(accuracy),
        of_what=f"{best.label}{among}, by {verdicts.probe}",
        data=tuple(map(data_sentence, data_notes(verdicts.groups, verdicts.benchmark))),
        controls=", ".join(f"{control.words} {level_words(control)}" for control in verdicts.controls),
        difference=difference,
        difference_intervals=intervals,
        verdict=verdict,
    )


def warnings(judged: Sequence[Verdicts]) -> list[str]:
    """Return sentences on groups that do not beat their controls, and on resets that changed no prediction."""
    said = []
    for verdicts in judged:
        said += [f"On {verdicts.benchmark}, {sentence}." for sentence in not_above_controls(verdicts)]
    groups = {group.label: group for verdicts in judged for group in verdicts.groups}
    return said + [f"{text}." for text in idle_resets(list(groups.values()))]


def _against_the_others(verdicts: Verdicts) -> tuple[str, str, str]:
    """Return the difference of the best from the reference or the next best, its intervals, and the verdict.

    The next best is taken if the reference is best or was not measured. Any pair may be picked, since all pairs are
    corrected together.
    """
    best, *others = (group.label for group in verdicts.groups)
    if not others or (verdicts.reference is None and not verdicts.has_all_pairs):
        return "", "", ""
    other = verdicts.reference if verdicts.reference in others else others[0]
    role = "" if len(others) == 1 else ", the reference" if other == verdicts.reference else ", the next best"
    verdict, one_training = verdicts.between(best, other), as_sentence(single_trainings(verdicts.groups))
    if verdict.difference is None:
        return as_sentence(not_compared(verdict)), "", one_training
    difference = f"{points(verdict.difference.mean)} points against {other}{role}, {on_what(verdict)}"
    said = f"{verdict_sentences(verdict, verdicts)} {one_training}"
    return difference, _intervals(verdict.difference), said.strip()


def _intervals(estimate: Estimate) -> str:
    """Return the intervals of an estimate, and the seeds that it leaves out."""
    return "; ".join(filter(None, [plus_minus(estimate), estimate.note]))
