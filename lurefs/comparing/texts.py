"""Numbers, intervals and settings as texts for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from episodes.bank import NEARLY_CONSTANT
from episodes.comparison import PairedDifference
from lurefs import plugins
from lurefs.comparing.estimates import Estimate, Scope
from lurefs.config.fields import PluginConfig
from lurefs.config.learning_schema import ChunksConfig

MISSING = "–"
PERFECT = (
    "every answer is right, so no spread can be measured: one-sided 95\u00a0% bounds, about 3 / n, n is the number of "
    "episodes for this pool, of classes for new classes, of seeds for new seeds"
)
_SCOPES: Mapping[Scope, str] = MappingProxyType(
    {
        "pool": "on this pool of classes",
        "classes": "on average over new classes of this kind",
        "seeds": "on new seeds, on this pool of classes",
    }
)


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return a fraction as a percentage, without `%`."""
    return number(None if fraction is None else 100 * fraction, digits)


def points(difference: float, digits: int = 2) -> str:
    """Return a difference of fractions in percentage points, with its sign."""
    text = number(100 * difference, digits)
    return f"+{text}" if difference > 0 and text.strip("0.") else text


def number(value: float | None, digits: int) -> str:
    """Return a number with a true minus sign; a dash for None and NaN."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−") if text.strip("-0.,") else text.lstrip("-")


def p_value(p: float | None) -> str:
    """Return a p-value with three digits; a small one as a bound."""
    if p is None or not math.isfinite(p):
        return MISSING
    return "< 0.001" if p < 0.0005 else number(p, 3)


def count(value: int | None) -> str:
    """Return a whole number with thousands separators."""
    return MISSING if value is None else f"{value:,}"


def counted(value: int, noun: str) -> str:
    """Return `1 class`, `2 classes`, `2 queries`."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    return f"{count(value)} {noun if value == 1 else plural}"


def constancy(spread: float | None) -> str:
    """Say if features with this `FeatureBank.spread` are (nearly) the same for all images; "" if not or unknown."""
    if spread is None or not spread < NEARLY_CONSTANT:
        return ""
    differ = f"they differ between images by {spread:.0e} of their length" if spread else "all images have the same"
    if spread < np.finfo(np.float32).eps:
        return f"constant: {differ}, and no probe can tell classes apart by them"
    return f"nearly constant: {differ}, at the limit of single precision, and accuracies on them are mostly rounding"


def duration(seconds: float | None) -> str:
    """Return a time in seconds, minutes or hours."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def joined(texts: Sequence[str]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Return `seed 1 has` or `seeds 1 and 2 have`."""
    named = joined([str(seed) for seed in seeds])
    return f"seed {named} has" if len(seeds) == 1 else f"seeds {named} have"


def plus_minus(estimate: Estimate, digits: int = 2) -> str:
    """Return the half widths in percentage points, each with its scope, and why any is missing."""
    widths = ", ".join(
        f"{sign_of(estimate.mean)}\u00a0{percent(width, digits)} {_SCOPES[scope]}"
        for scope, width in estimate.half_widths.items()
    )
    if estimate.mean == 1:
        widths = f"{widths} ({PERFECT})"
    return "; ".join(filter(None, [widths, estimate.no_interval]))


def sign_of(mean: float | None) -> str:
    """Return `±`, or `−` for a mean of 1, whose bound is one-sided."""
    return "−" if mean == 1 else "±"


def half_width(mean: float | None, width: float | None) -> str:
    """Return the half width of an accuracy's interval in percent, with `−` if the accuracy is 1, see `PERFECT`."""
    text = percent(width)
    return f"−{text}" if mean == 1 and text != MISSING else text


def win_tie_loss(paired: PairedDifference) -> str:
    """Return the numbers of episodes in which the first is better, both are equal, and the second is better."""
    return f"{count(paired.n_wins)} / {count(paired.n_ties)} / {count(paired.n_losses)}"


def strategy(config: PluginConfig) -> str:
    """Say what an unlearn strategy does between chunks, with its parameters and keep ratio."""
    words = {
        "nothing": "nothing is unlearned (warm start)",
        "from_scratch": "all weights are re-initialised (from scratch)",
        "by_saliency": "the least salient weights are re-initialised (LURE)",
        "random_mask": "random weights are re-initialised",
        "by_magnitude": "the smallest weights are re-initialised",
        "inverse_saliency": "the most salient weights are re-initialised (control)",
        "last_layers": "the last layers are re-initialised",
        "head": "the classifier is re-initialised",
        "shrink_perturb": "all weights shrink and are perturbed",
        "dash": "weights shrink unless they point where the loss falls (DASH)",
        "fire": "weight matrices become orthogonal (FIRE)",
        "redo": "dormant units are re-initialised (ReDo)",
        "turn_back": "weights turn towards fresh ones, as far as the data require",
    }.get(config.name, config.name)
    known = plugins.own_parameters("unlearn", config.name)
    kept = {"keep_ratio": known["keep_ratio"].default} if "keep_ratio" in known else {}
    return words + settings({**kept, **config.params}, opening=", ", closing="")


def settings(params: Mapping[str, Any], *, opening: str = " (", closing: str = ")") -> str:
    """Return the parameters of a plug-in as `name value, …`, or nothing if there are none."""
    listed = ", ".join(f"{name} {value}" for name, value in params.items())
    return f"{opening}{listed}{closing}" if listed else ""


def replay(kind: str, buffer_size: int | None) -> str:
    """Say which old images are replayed with a chunk."""
    return {
        "full": "with all old images replayed",
        "none": "without replay",
        "buffer": f"with a replay buffer of {count(buffer_size)} images",
    }[kind]


def regime(config: ChunksConfig) -> str:
    """Say which settings of the arrival of images differ from the defaults, each after a comma."""
    parts = {
        "growing chunks": config.schedule == "growing",
        f"{100 * config.first_share:g}\u00a0% of the images in the first": config.schedule == "large_first",
        "whole sources per chunk": config.chunk_by == "source",
        "every class spread evenly": config.class_order == "balanced",
        f"classes spread unevenly (Dirichlet {config.skew_alpha})": config.class_order == "skewed",
        f"at most {config.images_per_class} images per class": config.images_per_class is not None,
        f"{100 * config.label_noise:g}\u00a0% of the labels wrong": config.label_noise > 0,
    }
    return "".join(f", {words}" for words, is_so in parts.items() if is_so)
