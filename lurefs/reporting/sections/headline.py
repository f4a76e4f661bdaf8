"""What came of one benchmark, in the sentences of a card: the best, what it must be above, and what may be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """What came of one benchmark.

    Attributes:
        benchmark: Its name.
        form: The form of its episodes and its chance level.
        warnings: What does not beat its controls, a sentence a control; said before anything else.
        accuracy: The best accuracy, percent; of several seeds their mean.
        intervals: Its intervals, each with its scope.
        of_what: Whose accuracy it is, and by which probe.
        controls: What the controls reach; "" if there are none.
        difference: How far it is from the reference or the next best; "" for a single run or group.
        difference_intervals: The intervals of that difference; "" if there is none.
        verdict: What may be said of it; "" if there is none.
    """

    benchmark: str
    form: str
    warnings: tuple[str, ...]
    accuracy: str
    intervals: str
    of_what: str
    controls: str
    difference: str = ""
    difference_intervals: str = ""
    verdict: str = ""


def headline(verdicts: Verdicts) -> Headline | None:
    """Return what came of one benchmark by one probe; None if nothing was measured.

    Runs that differ only by their seed are judged by their mean, so that no lucky seed stands for all.
    """
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
        controls=", ".join(f"{control.words} {level_words(control)}" for control in verdicts.controls),
        difference=difference,
        difference_intervals=intervals,
        verdict=verdict,
    )


def warnings(judged: Sequence[Verdicts]) -> list[str]:
    """Say of each benchmark, by the first probe of those given, what does not beat its controls, and of idle resets."""
    said = []
    for verdicts in judged:
        said += [f"On {verdicts.benchmark}, {sentence}." for sentence in not_above_controls(verdicts)]
    groups = {group.label: group for verdicts in judged for group in verdicts.groups}
    return said + [f"{text}." for text in idle_resets(list(groups.values()))]


def _against_the_others(verdicts: Verdicts) -> tuple[str, str, str]:
    """Return the difference from the reference, or from the next best if the reference is best or was not measured.

    Its intervals and what may be said of it come after it. Any pair may be picked: all pairs are corrected together.
    """
    best, *others = (group.label for group in verdicts.groups)
    if not others:
        return "", "", ""
    other = verdicts.reference if verdicts.reference in others else others[0]
    role = "" if len(others) == 1 else ", the reference" if other == verdicts.reference else ", the next best"
    verdict = verdicts.between(best, other)
    if verdict.difference is None:
        return as_sentence(not_compared(verdict)), "", _one_training(verdicts)
    difference = f"{points(verdict.difference.mean)} points against {other}{role}, {on_what(verdict)}"
    said = f"{verdict_sentences(verdict, verdicts)} {_one_training(verdicts)}"
    return difference, _intervals(verdict.difference), said.strip()


def _intervals(estimate: Estimate) -> str:
    """Return the intervals of an estimate, and which seeds are not in it."""
    return "; ".join(filter(None, [plus_minus(estimate), estimate.note]))


def _one_training(verdicts: Verdicts) -> str:
    words = single_trainings(verdicts.groups)
    return as_sentence(words) if words else ""
