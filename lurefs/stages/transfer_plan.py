"""The plan of each transfer, made from the configuration and checked against the labels before any work."""

from __future__ import annotations

from dataclasses import dataclass

from episodes.transfer.fits import C_GRID, TransferSpec
from episodes.transfer.split import RowSplit, smallest_class, split_rows
from lurefs import plugins
from lurefs.config.schema import TransferConfig
from lurefs.errors import UserError
from lurefs.stages.plan import ImageSet, Plan, choose_images


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The plan of one transfer.

    Attributes:
        config: Its configuration.
        images: Its images.
        split: Train, validation and test rows of the bank.
        spec: The training sizes, repeats and grid of the fits.
    """

    config: TransferConfig
    images: ImageSet
    split: RowSplit
    spec: TransferSpec

    @property
    def name(self) -> str:
        """Name of the transfer, its key in the config."""
        return self.images.name


def plan_transfers(plan: Plan) -> dict[str, Transfer]:
    """Choose and divide the images of each transfer.

    Raises:
        UserError: The data cannot be read, or do not suit the configuration.
    """
    return {name: _plan(name, config, plan) for name, config in plan.config.transfer.items()}


def _plan(name: str, config: TransferConfig, plan: Plan) -> Transfer:
    where = f"transfer.{name}"
    images = choose_images(name, config, plan.dataset, plan.classes, plan.images, plan.config)
    n_classes = len(images.class_names)
    if n_classes < 2:
        of_split = config.classes != "all"
        raise UserError(
            f"{where} is on {n_classes} {config.classes if of_split else images.dataset.name} classes",
            "at least 2",
            f"raise class_split.{config.classes}" if of_split else "take a data set of more classes",
        )
    try:
        split = split_rows(images.labels, images.class_names, validation=config.val, test=config.test, seed=config.seed)
    except ValueError as error:
        raise UserError(
            f"{where}: {error}",
            "at least one image per class for training, validation and test",
            f"lower {where}.val or {where}.test, or leave the class out",
        ) from error
    transfer = Transfer(config=config, images=images, split=split, spec=_spec(config))
    _check_sizes(where, transfer)
    return transfer


def _spec(config: TransferConfig) -> TransferSpec:
    if config.grid is not None:
        parameter, grid = next(((name, tuple(values)) for name, values in config.grid.items()), (None, ()))
    else:
        classifier = plugins.build("probe", config.probe.name, config.probe.params)
        has_free_c = "C" not in config.probe.params and "C" in classifier.get_params()
        parameter, grid = ("C", C_GRID) if has_free_c else (None, ())
    return TransferSpec(
        sizes=tuple(config.sizes),
        n_repeats=config.n_repeats,
        parameter=parameter,
        grid=grid,
        choose_by=config.choose_by,
        seed=config.seed,
    )


def _check_sizes(where: str, transfer: Transfer) -> None:
    label, n_images = smallest_class(transfer.images.labels, transfer.split.train)
    largest = max((size for size in transfer.spec.sizes if size != "all"), default=0)
    if largest > n_images:
        raise UserError(
            f"{where}.sizes asks for {largest} training images per class, but class "
            f"{transfer.images.class_names[label]!r} has {n_images} after validation and test",
            f"sizes of at most {n_images}, or all",
            f"lower the largest of {where}.sizes, the shares val or test, or leave the class out",
        )
