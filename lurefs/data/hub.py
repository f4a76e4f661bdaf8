"""Data sets of the Hugging Face hub by name, from the cache of the library `datasets`."""

from __future__ import annotations

from pathlib import Path

from lurefs.data.arrow import of_files
from lurefs.data.dataset import ImageDataset
from lurefs.errors import UserError, first_line, not_installed


def hf(
    name: str,
    config: str | None = None,
    cache_dir: str | None = None,
    image_size: int = 64,
    n_channels: int = 3,
    image: str | None = None,
    label: str | None = None,
    download: bool = False,
    use_split: bool = True,
    white_level: float | None = None,
) -> ImageDataset:
    """Return the images of a data set of the Hugging Face hub; also written `hf:NAME`.

    Needs `pip install "lurefs[hf]"`. Folders that `save_to_disk` wrote and Parquet files need no library: see `arrow`.

    Args:
        name: The data set, e.g. `uoft-cs/cifar100`.
        config: The configuration, if the data set has several.
        cache_dir: The cache; by default that of `datasets`.
        image_size: Side length in pixels: the shorter side is resized, the centre cropped.
        n_channels: 1 (grey) or 3 (RGB).
        image: The column of images, if there are several.
        label: The column of labels, if there are several.
        download: Whether a data set that is not in the cache is downloaded.
        use_split: Whether splits such as train and test are used, see `docs/data.md`.
        white_level: As for `folder`.

    Raises:
        UserError: `datasets` is not installed, or the data set is not in the cache.
    """
    try:
        import datasets
    except ImportError as error:
        raise not_installed(f"the data set hf:{name}", "hf", error) from error
    cache = Path(cache_dir).expanduser().absolute() if cache_dir else Path(datasets.config.HF_DATASETS_CACHE)
    before = datasets.config.HF_HUB_OFFLINE
    try:
        datasets.config.HF_HUB_OFFLINE = before or not download  # otherwise it asks the hub, several times
        found = datasets.load_dataset(name, config, cache_dir=str(cache))
    except Exception as error:  # the library raises many kinds
        raise UserError(
            f"hf:{name} cannot be loaded: {first_line(error)}",
            f"the data set in the cache {cache}",
            "set dataset.params.download=true, or name the folder of a copy with dataset.params.cache_dir",
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = before
    files = {part: [Path(entry["filename"]) for entry in rows.cache_files] for part, rows in found.items()}
    return of_files(
        "hf",
        f"hf:{name}",
        files,
        image_size=image_size,
        n_channels=n_channels,
        image=image,
        label=label,
        use_split=use_split,
        white_level=white_level,
    )
