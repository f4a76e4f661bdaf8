"""Transfer of whole data sets, a part of the evaluate stage: from extracted features to stored fits and figures."""

from __future__ import annotations

from typing import Any

from episodes.bank import FeatureBank
from episodes.transfer.fits import transfer
from episodes.transfer.table import collect_fits, summarise_transfer
from lurefs import console
from lurefs.config.identity import digest
from lurefs.errors import UserError
from lurefs.records import through_json
from lurefs.runs.summary import TransferSummary
from lurefs.stages.stage import Stage, make_probe
from lurefs.stages.transfer_plan import Transfer, plan_transfers


def evaluate_transfers(stage: Stage) -> None:
    """Fit and measure every transfer; valid stored results are kept.

    Raises:
        UserError: A transfer's features were not extracted, or its probe cannot be fitted.
    """
    directory = stage.directory
    for name, planned in plan_transfers(stage.plan).items():
        bank = directory.read_bank(name)
        if bank.images_digest != planned.images.images_digest:
            raise UserError(
                f"the features and the configuration of transfer {name!r} are of different images",
                "features and transfer of one configuration",
                "run 'lurefs extract' first",
            )
        probe = make_probe(name, planned.config.probe)
        identity = _identity(planned, bank, probe.settings)
        if directory.transfer_path(name).exists() and directory.read_transfer(name).identity == identity:
            continue
        try:
            fits = transfer(bank, planned.split, probe, planned.spec)
            tracked = console.track(fits, len(planned.spec.fits), name)
            table = collect_fits(tracked, bank.labels[planned.split.test], identity)
        except ValueError as error:
            raise unfit(name, error) from error
        table.save(directory.transfer_path(name))


def summarise_transfers(stage: Stage) -> dict[str, TransferSummary]:
    """Return the figures of every transfer by size, from its stored fits."""
    return {name: _summarise(stage, planned) for name, planned in plan_transfers(stage.plan).items()}


def _identity(planned: Transfer, bank: FeatureBank, settings: dict[str, Any]) -> dict[str, Any]:
    config = planned.config
    identity: dict[str, Any] = through_json(
        {
            "images": bank.images_digest,
            "split": {"val": config.val, "test": config.test, "seed": config.seed},
            "spec": planned.spec,
            "probe": settings,
            "bank": digest(dict(bank.identity)),
        }
    )
    return identity


def _summarise(stage: Stage, planned: Transfer) -> TransferSummary:
    table = stage.directory.read_transfer(planned.name)
    return TransferSummary(
        n_classes=len(planned.images.class_names),
        probe=planned.config.probe.name,
        parameter=planned.spec.parameter,
        grid=list(planned.spec.grid) if planned.spec.parameter else None,
        choose_by=planned.spec.choose_by if planned.spec.parameter else None,
        sizes={str(size): summary for size, summary in summarise_transfer(table).items()},
    )


def unfit(name: str, error: Exception) -> UserError:
    """Build the error for a probe that cannot be fitted in a transfer."""
    return UserError(
        f"the probe of transfer {name!r} cannot be fitted: {error}",
        "a scikit-learn classifier, parameters and a grid that suit the transfer",
        f"change transfer.{name}.probe or transfer.{name}.grid",
    )
