"""Scoring of a *cell*: one probe on the episodes of one benchmark, from features to results.

The last weights, the weights after each chunk, and the controls are all scored here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from episodes.bank import FeatureBank
from episodes.executors import Executor
from episodes.fitting import ProbeError
from episodes.manifest import Manifest
from episodes.probes import Probe
from episodes.scoring import AUDIT_SHARE, AUDIT_TOLERANCE, AuditError, score_in_parallel
from episodes.table import EpisodeTable, collect
from lurefs import console
from lurefs.errors import UserError, first_line


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One probe, with the episodes of one benchmark and their features.

    Attributes:
        benchmark: The benchmark's name.
        whose: Source of the features, in words; empty for the run's last weights.
        way_out: How to fix a probe that does not suit these features, other than to change it.
        manifest: The episodes.
        probe: The probe to fit.
        banks: The features for support and for query; one bank twice if they are the same.
        identity: Everything that the results depend on; stored with them.
        target_ci95: Half width of the interval at which scoring stops; None scores all episodes.
    """

    benchmark: str
    whose: str = ""
    way_out: str = ""
    manifest: Manifest
    probe: Probe
    banks: tuple[FeatureBank, FeatureBank]
    identity: dict[str, Any] = field(default_factory=dict)
    target_ci95: float | None = None


def score_cell(
    cell: Cell,
    executor: Executor,
    device: torch.device,
    *,
    audit_share: float = AUDIT_SHARE,
    with_values: bool = False,
) -> EpisodeTable:
    """Score a cell, with a progress bar.

    Args:
        cell: The cell to score.
        executor: Runs the scoring, in this process or in others.
        device: Device of the batched solver.
        audit_share: See `episodes.scoring.score`.
        with_values: Likewise.

    Raises:
        UserError: The probe cannot be fitted on these features, its solver is wrong, or the executor cannot be
            used.
    """
    bank, query_bank = cell.banks
    blocks = score_in_parallel(
        bank,
        cell.manifest,
        cell.probe,
        executor,
        query_bank=None if query_bank is bank else query_bank,
        device=str(device),
        audit_share=audit_share,
        target_ci95=cell.target_ci95,
        with_values=with_values,
    )
    words = ", ".join(filter(None, [cell.benchmark, cell.whose, cell.probe.name]))
    try:
        return collect(console.track_blocks(blocks, len(cell.manifest), words), cell.identity)
    except ProbeError as error:
        raise _refusal(
            cell,
            first_line(error),
            "a scikit-learn classifier, parameters and a transform that suit these features",
            " or ".join(filter(None, [f"change probes.{cell.probe.name}", cell.way_out])),
        ) from error
    except AuditError as error:
        raise _refusal(
            cell,
            first_line(error).partition(";")[0],
            f"the predictions of scikit-learn, and its probabilities to within {AUDIT_TOLERANCE:g}",
            f"set probes.{cell.probe.name}.solver=sklearn, and report the error",
        ) from error
    except OSError as error:
        raise _refusal(
            cell,
            f"the executor cannot be used: {first_line(error)}",
            "a cluster that answers, or processes of this machine",
            "check executor.params, or set executor.name=serial",
        ) from error


def _refusal(cell: Cell, reason: str, expected: str, fix: str) -> UserError:
    whose = f", {cell.whose}" if cell.whose else ""
    kept = "finished work is kept, and the same command resumes"
    return UserError(
        f"probe {cell.probe.name!r} on benchmark {cell.benchmark!r}{whose}: {reason}", expected, f"{fix}; {kept}"
    )
