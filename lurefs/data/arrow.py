"""Images in Arrow and Parquet files, as the library `datasets` of Hugging Face stores them; it is not needed here."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from lurefs.data.dataset import PARTS, ImageDataset, View
from lurefs.data.encoded import PART_NAMES, Encoded, Split, check_settings, coded, dataset_of, given_split
from lurefs.data.table import COLUMNS
from lurefs.errors import UserError, first_line

ENDINGS = (".arrow", ".parquet")


def arrow(
    path: str,
    image_size: int = 64,
    n_channels: int = 3,
    image: str | None = None,
    label: str | None = None,
    use_split: bool = True,
    white_level: float | None = None,
) -> ImageDataset:
    """Return the images of a folder that `save_to_disk` wrote, or of Parquet files with image bytes, as a data set.

    The identity holds sizes and labels of the images, not their bytes.

    Args:
        path: The folder, or one `.arrow` or `.parquet` file.
        image_size: Side length in pixels: the shorter side is resized, the centre cropped.
        n_channels: 1 (grey) or 3 (RGB).
        image: The column of images, if there are several.
        label: The column of labels, if there are several.
        use_split: Whether splits such as train and test are used, see `docs/data.md`.
        white_level: As for `folder`.

    Raises:
        UserError: The folder is missing or damaged, or its columns are not clear.
    """
    root = Path(path).expanduser().absolute()
    return of_files(
        "arrow",
        str(root),
        _files_of_parts(root),
        image_size=image_size,
        n_channels=n_channels,
        image=image,
        label=label,
        use_split=use_split,
        white_level=white_level,
    )


def is_arrow(path: Path) -> bool:
    """Return whether a folder or file holds images for `arrow`, by its names and the columns of a Parquet file."""
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
        if names & {"dataset_dict.json", "state.json"}:
            return True
        path = next(iter(sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])), path)
    return path.suffix == ".arrow" or (path.suffix == ".parquet" and bool(_image_columns(_schema(path))))


def of_files(
    name: str,
    where: str,
    files_of: Mapping[str, Sequence[Path]],
    *,
    image_size: int,
    n_channels: int,
    image: str | None,
    label: str | None,
    use_split: bool,
    white_level: float | None,
) -> ImageDataset:
    """Return the images of Arrow or Parquet files as a data set.

    Args:
        name: The plug-in's name.
        where: The data, for error messages.
        files_of: The files of each part of a split, by the part's name.
        image_size: See `arrow`, as all that follow.
        n_channels: See `arrow`.
        image: See `arrow`.
        label: See `arrow`.
        use_split: See `arrow`.
        white_level: See `arrow`.

    Raises:
        UserError: See `arrow`.
    """
    check_settings(name, image_size, n_channels, white_level)
    schema = _schema(next(iter(files_of.values()))[0])
    features = _features(schema)
    image = _chosen("image", image, _image_columns(schema), schema.names, where)
    known = [column for column, feature in features.items() if feature.get("_type") == "ClassLabel"]
    usual = [column for column in schema.names if column.lower() in COLUMNS["label"]]
    label = _chosen("label", label, known or usual, schema.names, where)
    names = features.get(label, {}).get("names")
    places: list[_Place] = []
    values: list[str] = []
    codes: list[int] = []
    ids: list[str] = []
    for part, files in files_of.items():
        found = [_rows(file, image, label) for file in files]
        labels = [value for _, of_file in found for value in of_file]
        texts = [_class_of(value, names, where) for value in labels]
        places += [place for of_file, _ in found for place in of_file]
        values += texts
        codes += [PART_NAMES.get(part.lower(), -1)] * len(texts)
        ids += [f"{part}/{row:0{len(str(len(texts)))}d}" for row in range(len(texts))]
    if not values:
        raise UserError(f"{where} holds no images", "at least one row", "check the path")
    rows, class_names = coded(values)
    split = Split()
    if len(files_of) > 1:
        if min(codes) < 0:
            codes = [0] * len(codes)
            split = Split(notes=(f"the splits {', '.join(files_of)} of {where} are pooled",))
        else:
            split = given_split(np.array(codes), rows, class_names, use_split=use_split, where=where)
    digest = hashlib.sha256("\n".join(f"{a}\0{b}" for a, b in zip(ids, values, strict=True)).encode())
    for file in (file for files in files_of.values() for file in files):
        digest.update(f"{file.stat().st_size}\n".encode())
    return dataset_of(
        Encoded(
            name=name,
            labels=rows,
            class_names=class_names,
            image_ids=tuple(ids),
            identity={"source": name, "rows_sha256": digest.hexdigest(), "columns": [image, label]},
            open=partial(_open, tuple(places), tuple(ids), image),
            files=partial(list, [file for files in files_of.values() for file in files]),
            n_channels=n_channels,
            white_level=white_level,
            split=split,
        ),
        View(image_size=image_size),
    )


@dataclass(frozen=True)
class _Place:
    """Where a row is: a file, a row group of it (0 for Arrow files), and the row there."""

    file: Path
    group: int
    row: int


def _open(places: tuple[_Place, ...], ids: tuple[str, ...], image: str, row: int) -> tuple[Path | IO[bytes], str]:
    place = places[row]
    value = _column(place.file, place.group, image)[place.row].as_py()
    content = value.get("bytes") if isinstance(value, dict) else value
    if content is not None:
        return io.BytesIO(content), f"{place.file}: {ids[row]}"
    path = Path((value or {}).get("path") or "")
    found = path if path.is_absolute() else place.file.parent / path
    return found, str(found)


@lru_cache(maxsize=4)
def _column(file: Path, group: int, name: str) -> Any:
    """Return one column of a file, or of a row group of a Parquet file."""
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.ParquetFile(file).read_row_group(group, columns=[name]).column(name)
        return _arrow_table(file).column(name)
    except Exception as error:  # pyarrow raises many kinds
        raise _damaged(file, error) from error


def _rows(file: Path, image: str, label: str) -> tuple[list[_Place], list[Any]]:
    """Return the place and the label of each row of a file."""
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet

            opened = pyarrow.parquet.ParquetFile(file)
            sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
            labels = opened.read(columns=[label]).column(label).to_pylist()
        else:
            table = _arrow_table(file)
            sizes, labels = [table.num_rows], table.column(label).to_pylist()
    except Exception as error:
        raise _damaged(file, error) from error
    return [_Place(file, group, row) for group, size in enumerate(sizes) for row in range(size)], labels


def _arrow_table(file: Path) -> Any:
    import pyarrow

    source = pyarrow.memory_map(str(file))
    try:
        return pyarrow.ipc.open_stream(source).read_all()
    except pyarrow.ArrowInvalid:
        return pyarrow.ipc.open_file(pyarrow.memory_map(str(file))).read_all()


def _schema(file: Path) -> Any:
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_schema(file)
        return _arrow_table(file).schema
    except Exception as error:
        raise _damaged(file, error) from error


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """Return what `datasets` noted down about each column, such as the names of classes."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: feature for name, feature in info.items() if isinstance(feature, dict)}


def _image_columns(schema: Any) -> list[str]:
    import pyarrow

    found = []
    for column in schema:
        is_struct = pyarrow.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0
        if is_struct or pyarrow.types.is_binary(column.type) or pyarrow.types.is_large_binary(column.type):
            found.append(column.name)
    return found


def _chosen(kind: str, given: str | None, candidates: Sequence[str], names: Sequence[str], where: str) -> str:
    if given is not None and given in names:
        return given
    if given is None and len(candidates) == 1:
        return candidates[0]
    problem = f"no column {given!r}" if given is not None else f"{len(candidates)} columns that could be the {kind}"
    raise UserError(
        f"{where} has {problem}; its columns are {', '.join(names)}",
        f"the name of the column of each {kind}",
        f"set {kind}, e.g. dataset.params.{kind}={(candidates or names)[0]}",
    )


def _class_of(value: Any, names: Sequence[str] | None, where: str) -> str:
    if isinstance(value, int) and names is not None and 0 <= value < len(names):
        return names[value]
    if isinstance(value, str | int) and value != "" and names is None:
        return str(value)
    raise UserError(f"{where} has an image of the class {value!r}", "a known class of each image", "leave it out")


def _files_of_parts(root: Path) -> dict[str, list[Path]]:
    """Return the data files of each part of a folder or file."""
    if root.is_file():
        return {_part_of(root): [root]}
    if (root / "dataset_dict.json").is_file():
        return {name: _saved(root / name) for name in _json(root / "dataset_dict.json")["splits"]}
    if (root / "state.json").is_file():
        return {"all": _saved(root)}
    found: dict[str, list[Path]] = {}
    for file in sorted([*root.glob("*.parquet"), *root.glob("*.arrow"), *root.glob("data/*.parquet")]):
        found.setdefault(_part_of(file), []).append(file)
    if not found:
        raise UserError(
            f"{root} holds no data set",
            "a folder that save_to_disk wrote, or .parquet files with image bytes",
            "correct the path",
        )
    return {part: found[part] for part in sorted(found, key=lambda part: PART_NAMES.get(part.lower(), len(PARTS)))}


def _saved(folder: Path) -> list[Path]:
    state = _json(folder / "state.json")
    files = [folder / entry["filename"] for entry in state["_data_files"]]
    if state.get("_indices_data_files"):
        raise UserError(
            f"{folder} is a selection of rows that was saved as numbers",
            "rows in the order of the file",
            "call flatten_indices() before save_to_disk",
        )
    return files


def _json(file: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error
    return values


def _part_of(file: Path) -> str:
    """Return the part that a file's name starts with, e.g. train of train-00000-of-00002.parquet."""
    return re.sub(r"[-_.]?\d+(-of-\d+)?$", "", file.stem) or "all"


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(f"{file} cannot be read: {first_line(error)}", "an intact file", "get or write it again")
