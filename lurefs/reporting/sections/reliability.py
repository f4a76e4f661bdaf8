"""Whether a probe is as often right as it is sure: its queries over all episodes of a benchmark, by confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from episodes.metrics import N_BINS, Reliability, empty_reliability
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.comparing.texts import count, percent
from lurefs.errors import UserError
from lurefs.records import Row
from lurefs.reporting.charts.curves import Line


def measured(runs: Sequence[Run], benchmark: str, probe: str) -> dict[str, Reliability]:
    """Return the counts by confidence of each run whose probe has probabilities, by the run's label."""
    found = {}
    for run in runs:
        try:
            pooled = run.directory.read_episodes(benchmark, probe).reliability
        except UserError:
            continue
        if pooled.n.sum():
            found[run.label] = pooled
    return found


def curves(found: Mapping[str, Reliability], groups: Sequence[Group]) -> list[Line]:
    """Return accuracy against mean confidence, both in percent, of the bins that hold any query.

    A group of several seeds is one curve, of the queries of all its runs.
    """
    lines = []
    for group in groups:
        pooled = sum((found[run.label] for run in group.runs if run.label in found), start=empty_reliability())
        filled = pooled.n > 0
        n = pooled.n[filled]
        if len(n):
            lines.append(
                Line(
                    label=group.label,
                    x=100 * pooled.confidence[filled] / n,
                    y=100 * pooled.correct[filled] / n,
                    style=group.style,
                )
            )
    return lines


def sentences(found: Mapping[str, Reliability]) -> list[str]:
    """Say for each run how often it is right, how sure it is, and how far the two are apart."""
    return [_sentence(label, pooled) for label, pooled in found.items()]


def table(found: Mapping[str, Reliability]) -> dict[str, Any]:
    """Return a row a bin that holds any query: of each run how many, how sure, how many right."""
    rows = []
    for place in range(N_BINS):
        if any(pooled.n[place] for pooled in found.values()):
            edges = f"{100 * place / N_BINS:.0f} to {100 * (place + 1) / N_BINS:.0f}"
            rows.append({"bin": edges, "cells": [_cell(pooled, place) for pooled in found.values()]})
    return {"columns": list(found), "rows": rows}


def _sentence(label: str, pooled: Reliability) -> str:
    n = int(pooled.n.sum())
    accuracy, confidence = pooled.correct.sum() / n, pooled.confidence.sum() / n
    gaps = pooled.correct - pooled.confidence
    share = float(np.abs(gaps[gaps > 0]).sum() / max(np.abs(gaps).sum(), 1e-12))
    tendency = (
        "it is less sure than it should be"
        if share > 0.9
        else "it is surer than it should be"
        if share < 0.1
        else "at some confidences it is too sure, at others not sure enough"
    )
    return (
        f"{label}: right on {percent(accuracy, 1)}\u00a0% of {count(n)} answers, sure of {percent(confidence, 1)}\u00a0"
        f"% on average; bin by bin the two are {percent(pooled.ece, 1)} points apart (ECE), and {tendency}."
    )


def _cell(pooled: Reliability, place: int) -> Row:
    n = int(pooled.n[place])
    if n == 0:
        return {"n": "0", "confidence": "–", "accuracy": "–"}
    return {
        "n": count(n),
        "confidence": percent(float(pooled.confidence[place]) / n, 1),
        "accuracy": percent(int(pooled.correct[place]) / n, 1),
    }
