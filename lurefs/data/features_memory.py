"""Features in memory, checked as those of a file, and written as one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from episodes.bank import FeatureBank
from episodes.files import atomic_path
from lurefs.config.names import check_name
from lurefs.data.features_file import checked_classes, checked_features
from lurefs.errors import UserError


def banks_of(data: Any, labels: Any) -> dict[str, FeatureBank]:
    """Return features in any form as banks by name.

    Args:
        data: A `FeatureBank`, banks by name, or an array (n_images, n_features) with labels.
        labels: (n_images,) labels of an array; None for banks.

    Raises:
        UserError: They have another form, or features or labels are wrong.
    """
    banks = {"features": data} if isinstance(data, FeatureBank) else data
    if labels is not None and not isinstance(data, FeatureBank | Mapping):
        return {"features": bank_of_arrays(data, labels)}
    are_banks = isinstance(banks, Mapping) and all(isinstance(bank, FeatureBank) for bank in banks.values())
    if labels is not None or not are_banks or not banks:
        raise UserError(
            f"the data are a {type(data).__name__} {'without' if labels is None else 'with'} labels",
            "a path, a list of paths, a FeatureBank, FeatureBanks by name, or an array of features with labels",
            "write e.g. lurefs.evaluate(features, labels=labels)",
        )
    for name, bank in banks.items():
        check_name(str(name))
        checked_features(Path(f"the bank {name!r}"), {"features": bank.features})
    return {str(name): bank for name, bank in banks.items()}


def bank_of_arrays(numbers: Any, labels: Any) -> FeatureBank:
    """Return features and labels in memory as a bank, checked as those of a file.

    Raises:
        UserError: One of them has the wrong type, shape or values.
    """
    where, loaded = Path("the array"), {"features": np.asarray(numbers), "label": np.asarray(labels)}
    found = checked_features(where, loaded)
    indices, class_names = checked_classes(where, loaded, len(found))
    return FeatureBank(
        features=np.array(found, np.float32),
        labels=indices,
        image_ids=tuple(f"{row:0{len(str(len(found) - 1))}d}" for row in range(len(found))),
        class_names=class_names,
    )


def write_features(file: Path, bank: FeatureBank) -> None:
    """Write a bank as an `.npz` file that `features` reads."""
    with atomic_path(file) as temporary:
        np.savez(
            temporary,
            features=bank.features,
            labels=np.array(bank.class_names)[bank.labels],
            image_ids=np.array(bank.image_ids),
        )
