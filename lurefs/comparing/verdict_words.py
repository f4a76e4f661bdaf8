"""Verdicts as sentences: whether groups are told apart, and which do not beat their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from episodes.comparison import is_apart
from lurefs.comparing.controls import ControlLevel
from lurefs.comparing.estimates import Scope
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import MAX_RANKED, Group
from lurefs.comparing.texts import count, joined, p_value, percent
from lurefs.comparing.verdicts import Verdict, Verdicts
from lurefs.runs.outcomes import reset_in_words

ONE_TRAINING = "these trained models, one training each: another seed may change the order"
ALONE = "this trained model: another seed of the same training gives another accuracy"
ALONE_UNTRAINED = "these random weights: another seed gives another accuracy"
ONE_SEED = "one seed each: another seed may change the order"
UNCORRECTED = "Each interval (±, 95 %) is that of one mean or difference by itself; none is widened for their number."
MAX_NAMED = 5
"""If more groups do not beat a control, only their number is given."""
_WHERE: Mapping[Scope, str] = MappingProxyType(
    {
        "pool": "on this pool of classes",
        "classes": "on average over new classes of this kind",
        "seeds": "with new seeds, on this pool of classes",
    }
)


def verdict_sentences(verdict: Verdict, verdicts: Verdicts) -> str:
    """Say whether two groups are told apart, one sentence per scope; "" if nothing was tested."""
    if verdict.paired is not None and verdict.paired.n_wins == verdict.paired.n_losses == 0:
        return "The two are equal on every episode."
    trained = {group.label for group in verdicts.groups if group.is_trained}
    who = "the two"
    if {verdict.group, verdict.less} <= trained:
        who = "the two trained models" if verdict.paired is not None else "the two training procedures"
    said = [_sentence(verdict, scope, verdicts.n_tested(scope), who) for scope in _WHERE if scope in verdict.p]
    if verdict.paired is not None and "classes" not in verdict.p:
        said.append("Nothing is known about new classes: there is no interval over them.")
    if "seeds" in verdict.p:
        said.append("Nothing is known about new classes.")
    return " ".join(said)


def on_what(verdict: Verdict) -> str:
    """Say how the two groups were paired."""
    if "seeds" in verdict.p:
        return "seed by seed"
    if verdict.paired is None or not verdict.is_cut:
        return "on the same episodes"
    return f"on the first {count(verdict.paired.difference.n)} episodes, which both met"


def not_compared(verdict: Verdict) -> str:
    """Say why two groups cannot be compared, without a full stop; "" if they can."""
    return f"not compared with {verdict.less}: {verdict.why_not}" if verdict.difference is None else ""


def correction_words(verdicts: Verdicts) -> str:
    """Say for how many pairs the p-values are corrected, and how; "" if fewer than two were tested."""
    n_pairs, n_tested = len(verdicts.pairs), sum(bool(pair.p) for pair in verdicts.pairs)
    if n_tested < 2:
        return ""
    which = f"all {n_pairs} pairs" if n_tested == n_pairs else f"the {n_tested} of {n_pairs} pairs that can be tested"
    if not verdicts.has_all_pairs:
        which = (
            f"{n_tested:,} differences from {verdicts.reference}; of more than {MAX_RANKED} {_kind(verdicts)} each is "
            "compared with the reference alone, so that they have no letters of ties"
        )
    return f"corrected for {which} ({verdicts.correction})"


def not_above_controls(verdicts: Verdicts) -> list[str]:
    """Say which groups do not beat each control, with its accuracy; without full stops."""
    return [
        _not_above(control, below, verdicts) for control in verdicts.controls if (below := verdicts.not_above(control))
    ]


def idle_resets(groups: Sequence[Group]) -> list[str]:
    """Say for each group how many resets changed no prediction, and in how many of its runs."""
    said = []
    for group in groups:
        found = [words for run in group.runs if (words := reset_in_words(run.outcomes))]
        share = f" (in {len(found)} of {len(group.runs)} runs)" if len(found) < len(group.runs) else ""
        said += [f"{group.label}{share}: {'; '.join(dict.fromkeys(found))}"] if found else []
    return said


def other_settings(runs: Sequence[Run]) -> str:
    """Say which runs have results beside a configuration that is not theirs; "" if none has."""
    found = [run.label for run in runs if run.has_other_settings]
    if not found:
        return ""
    which = joined(found) if len(found) <= MAX_NAMED else f"{len(found)} of {len(runs)} runs"
    return (
        f"{which}: config.yaml states other settings than those of these results; lurefs run was interrupted after "
        "they were changed, or is going on, or the file was edited"
    )


def single_trainings(groups: Sequence[Group]) -> str:
    """Say which groups are single trainings, whose accuracy and place may change with the seed; "" if none is.

    Frozen backbones with random weights have one seed, too; those with loaded weights do not depend on a seed.
    """
    singles = [group for group in groups if group.is_of_one_seed]
    if not singles:
        return ""
    is_trained = all(group.is_trained for group in singles)
    if len(groups) == 1:
        return ALONE if is_trained else ALONE_UNTRAINED
    if len(singles) == len(groups):
        return ONE_TRAINING if is_trained else ONE_SEED
    many = f"{len(singles)} of {len(groups)} {'training procedures' if is_trained else 'backbones'}"
    who = joined([group.label for group in singles]) if len(singles) <= MAX_NAMED else many
    if len(singles) == 1:
        return f"{who} is {'a single training' if is_trained else 'of one seed'}: another seed may change its place"
    return f"{who} are {'single trainings' if is_trained else 'of one seed'}: another seed may change their places"


def as_sentence(text: str) -> str:
    """Return a text as a sentence with a capital and a full stop; the name of a run keeps its first letter."""
    if not text:
        return ""
    is_ours = text.startswith(("none of the ", ONE_TRAINING, ONE_SEED, ALONE, ALONE_UNTRAINED, "not compared with "))
    return f"{text[0].upper() + text[1:] if is_ours else text}."


def level_words(control: ControlLevel, groups: Sequence[Group] = ()) -> str:
    """Return a control's accuracy in percent for some groups or all: one number, or the lowest and the highest."""
    chosen = {run.label for group in groups for run in group.runs} or control.by_run.keys()
    found = [mean for label, mean in control.by_run.items() if label in chosen]
    lowest, highest = percent(min(found)), percent(max(found))
    return f"{lowest}\u00a0%" if lowest == highest else f"{lowest} to {highest}\u00a0%"


def control_label(control: ControlLevel) -> str:
    """Return the name of a control's row."""
    return f"control: {control.words}"


def control_note(control: ControlLevel) -> str:
    """Explain the row of a control that differs between runs; "" if all share it."""
    if control.is_shared:
        return ""
    return f"{control_label(control)}: each run has its own; the mean over runs, from {level_words(control)}"


def _kind(verdicts: Verdicts) -> str:
    return "training procedures" if any(group.is_pooled for group in verdicts.groups) else "runs"


def _not_above(control: ControlLevel, below: Sequence[Group], verdicts: Verdicts) -> str:
    n_groups, kind = len(verdicts.groups), _kind(verdicts)
    who, verb, whose = joined([group.label for group in below]), "do not beat", "their own untrained twins"
    if len(below) == 1:
        verb, whose = "does not beat", "its own untrained twin"
    elif len(below) == n_groups:
        who, verb, whose = f"none of the {n_groups} {kind}", "beats", "its own untrained twin"
    elif len(below) > MAX_NAMED:
        who = f"{len(below)} of {n_groups} {kind}"
    plain = {"untrained_twin": whose, "image_statistics": "plain image statistics"}
    return f"{who} {verb} {plain.get(control.name, f'the control {control.words}')} ({level_words(control, below)})"


def _sentence(verdict: Verdict, scope: Scope, n_pairs: int, who: str) -> str:
    p, difference = verdict.p[scope], verdict.difference
    width = None if difference is None else difference.half_widths.get(scope)
    told = "told apart" if is_apart(p) else "not told apart"
    corrected = f"p {_equals(p)}" + (f", corrected for {n_pairs} pairs" if n_pairs > 1 else "")
    where = _WHERE[scope]
    sentence = f"{where[0].upper()}{where[1:]} {who} are {told} ({corrected})"
    is_wide = difference is not None and width is not None and abs(difference.mean) > width
    if not is_apart(p) and is_wide and n_pairs > 1:
        sentence += f": by itself the interval excludes zero, but among {n_pairs} pairs one such can occur by chance"
    return f"{sentence}."


def _equals(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"
