"""Images in a tar or zip archive of folders, which is not unpacked."""

from __future__ import annotations

import io
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from lurefs.data.dataset import ImageDataset, View
from lurefs.data.encoded import Encoded, check_settings, dataset_of
from lurefs.data.layouts import Place, Tree, ending_of, is_image, is_skipped, list_images, listing_digest
from lurefs.data.paths import existing
from lurefs.data.pixels import printable
from lurefs.errors import UserError, first_line

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
"""The first two bytes of compressed files, of which no single image can be read."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in an archive.

    Attributes:
        archive: The archive's path.
        name: Its name there, without `./` at the start.
        size: Its size in bytes.
        start: Where its bytes start in a tar archive, or its header in a zip archive.
        n_packed: In a zip archive the number of bytes that are stored; None in a tar archive.
        is_deflated: Whether these are compressed.
    """

    archive: Path
    name: str
    size: int
    start: int
    n_packed: int | None = None
    is_deflated: bool = False

    def read(self) -> bytes:
        """Read its bytes.

        Raises:
            UserError: The archive is damaged or gone.
        """
        try:
            with self.archive.open("rb") as file:
                file.seek(self.start)
                if self.n_packed is None:
                    content = file.read(self.size)
                else:
                    n_name, n_extra = struct.unpack("<HH", file.read(30)[26:])
                    file.seek(n_name + n_extra, io.SEEK_CUR)
                    content = file.read(self.n_packed)
            content = zlib.decompress(content, -zlib.MAX_WBITS) if self.is_deflated else content
        except MemoryError:
            raise
        except Exception as error:  # a damaged file raises errors of many kinds
            raise _damaged(self.archive, f"{printable(self.name)}: {first_line(error)}") from error
        if len(content) != self.size:
            raise _damaged(self.archive, f"{printable(self.name)} is cut short")
        return content


def archive(
    path: str,
    image_size: int = 64,
    n_channels: int = 3,
    layout: str = "auto",
    use_split: bool = True,
    white_level: float | None = None,
) -> ImageDataset:
    """Return the images of a tar or zip archive with one folder per class as a data set; nothing is unpacked.

    The identity holds names and sizes of the images, not their bytes.

    Args:
        path: The file, `.tar` or `.zip`. A compressed tar archive has to be unpacked.
        image_size: Side length in pixels: the shorter side is resized, the centre cropped.
        n_channels: 1 (grey) or 3 (RGB).
        layout: As for `folder`.
        use_split: As for `folder`.
        white_level: As for `folder`.

    Raises:
        UserError: The file is missing, compressed or damaged, or its folders are refused as by `folder`.
    """
    check_settings("archive", image_size, n_channels, white_level)
    file = existing(path, "file")
    folders: dict[Place, list[tuple[str, int]]] = {(): []}
    endings: Counter[str] = Counter()
    member_of: dict[str, Member] = {}
    for member in members(file):
        *place, name = member.name.split("/")
        if any(map(is_skipped, place)) or name.startswith("."):
            continue
        if not is_image(name):
            endings[ending_of(name)] += 1
            continue
        if member.name in member_of:
            raise _damaged(file, f"{printable(member.name)} occurs twice")
        member_of[member.name] = member
        folders.setdefault(tuple(place), []).append((name, member.size))
    listing = list_images(Tree(where=str(file), folders=folders, endings=endings), layout, use_split=use_split)
    return dataset_of(
        Encoded(
            name="archive",
            labels=listing.labels,
            class_names=listing.class_names,
            image_ids=listing.image_ids,
            identity={
                "source": "archive",
                "files_sha256": listing_digest(listing),
                **({} if listing.layout == "class" else {"layout": listing.layout}),
            },
            open=partial(open_member, tuple(member_of[name] for name in listing.names)),
            files=partial(list, [file]),
            n_channels=n_channels,
            white_level=white_level,
            split=listing.split,
            notes=listing.notes,
        ),
        View(image_size=image_size),
    )


def open_member(found: tuple[Member, ...], row: int) -> tuple[Path | IO[bytes], str]:
    """Return the bytes of one of several members, and its name in messages."""
    member = found[row]
    return io.BytesIO(member.read()), f"{member.archive}: {member.name}"


def members(path: Path) -> Iterator[Member]:
    """Yield the regular files in a tar or zip archive.

    Raises:
        UserError: It is compressed as a whole, damaged, or no archive.
    """
    is_zip = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        start = file.read(2)
    if start in COMPRESSED and not is_zip:
        raise UserError(
            f"{path} is compressed with {COMPRESSED[start]}, so that single images cannot be read from it",
            "a .tar or .zip file, or a folder",
            f"unpack it, e.g. with: mkdir images && tar -xf {path.name} -C images",
        )
    try:
        yield from _in_zip(path) if is_zip else _in_tar(path)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged file raises errors of many kinds
        raise _damaged(path, f"no tar or zip archive, or cut short: {first_line(error)}") from error


def _in_tar(path: Path) -> Iterator[Member]:
    found: dict[str, Member] = {}
    end = path.stat().st_size
    with tarfile.open(path, "r:", errorlevel=2) as tar:
        for info in tar:
            name = posixpath.normpath(info.name)
            if info.islnk() and posixpath.normpath(info.linkname) in found:
                source = found[posixpath.normpath(info.linkname)]
                yield Member(archive=path, name=name, size=source.size, start=source.start)
            if not info.isreg() or info.issparse():
                continue
            if info.offset_data + info.size > end:
                raise tarfile.ReadError(f"{name} is cut short")
            found[name] = Member(archive=path, name=name, size=info.size, start=info.offset_data)
            yield found[name]
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all, to no use here


def _in_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    for info in infos:
        if info.is_dir():
            continue
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            how = "encrypted" if info.flag_bits & 1 else "compressed by a rare method"
            raise UserError(
                f"{path}: {printable(info.filename)} is {how}", "a plain .zip file", "unpack it, and name the folder"
            )
        yield Member(
            archive=path,
            name=posixpath.normpath(info.filename),
            size=info.file_size,
            start=info.header_offset,
            n_packed=info.compress_size,
            is_deflated=info.compress_type == zipfile.ZIP_DEFLATED,
        )


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(f"{path} is damaged: {problem}", "an intact .tar or .zip archive", "get or write it again")
