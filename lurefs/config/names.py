"""Names that become names of files and folders: of runs, variants, benchmarks, probes and transfers."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable

from lurefs.config.schema import RunConfig
from lurefs.errors import UserError

GROUP_FILES = ("figures", "report.html", "comparison.json", "comparison.csv", "comparison.md", "comparison.tex")
"""Files in the folder of a group, beside the folders of its runs."""
MAX_RUN_NAME, MAX_PART_NAME = 200, 100
"""Bytes. A file system allows 255, and some file names hold two parts and an ending."""
DEVICES = ("CON", "PRN", "AUX", "NUL", *(f"{name}{number}" for name in ("COM", "LPT") for number in range(1, 10)))
"""Names that Windows keeps for devices."""


def check_names(config: RunConfig) -> None:
    """Refuse names of a run, its benchmarks, probes and transfers whose files would clash or could not be stored.

    Raises:
        UserError: A name clashes, cannot be the name of a file, or benchmarks or probes are missing.
    """
    check_name(config.name)
    for where in ("benchmarks", "probes", "transfer"):
        _check_case(where, getattr(config, where))
        for name in getattr(config, where):
            check_name(name, MAX_PART_NAME)
            if "--" in name or name != name.strip("-"):  # file names join two of them by '--'
                raise UserError(
                    f"{where} has the name {name!r}", "a name without '--' and without '-' at its ends", "rename it"
                )
    if not config.benchmarks or not config.probes:
        missing = "benchmarks" if not config.benchmarks else "probes"
        raise UserError(
            f"{missing} is empty", f"at least one entry under {missing}", f"leave {missing} out for the default"
        )


def check_variant_names(names: Collection[str]) -> None:
    """Refuse variant names whose folders would clash with each other, with folders of seeds, or with files.

    Raises:
        UserError: A name clashes, or cannot be the name of a folder.
    """
    _check_case("variants", names)
    for name in names:
        check_name(name)
        if "--seed-" in name:
            raise UserError(
                f"the variant {name!r} has the name of another variant's run with one seed",
                "a name without '--seed-', which joins a variant and its seed",
                "rename it, and write seeds: [0, 1, 2] for several seeds",
            )
        if name.casefold() in GROUP_FILES:
            raise UserError(
                f"the variant {name!r} has the name of a file in the group's folder",
                f"a name other than {', '.join(GROUP_FILES)}",
                f"rename variants.{name}",
            )


def check_name(name: str, max_bytes: int = MAX_RUN_NAME) -> None:
    """Refuse a name that cannot be the name of a file or folder.

    Raises:
        UserError: The name is empty, too long, of a device, starts or ends with a dot, or has a wrong character.
    """
    is_hidden = not name or name.startswith(".") or name != name.strip()
    is_hidden |= name.endswith(".") or name.partition(".")[0].upper() in DEVICES
    if is_hidden or not name.isprintable() or any(character in name for character in "/\\:;,#?'\"<>|*"):
        raise UserError(
            f"the name {name!r} cannot be the name of a file",
            "letters, digits, '-', '_', '.' and, between them, spaces",
            "choose another name",
        )
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise UserError(
            f"the name {name!r} cannot be the name of a file in the encoding {sys.getfilesystemencoding()}",
            "a locale with UTF-8, or ASCII letters",
            "set LC_ALL=C.UTF-8 and unset PYTHONUTF8, or choose another name",
        ) from error
    if (n_bytes := len(name.encode())) > max_bytes:
        raise UserError(
            f"the name {name[:20]!r}... has {n_bytes} bytes", f"at most {max_bytes}, for file names", "shorten it"
        )


def _check_case(where: str, names: Iterable[str]) -> None:
    known: dict[str, str] = {}
    for name in names:
        if (other := known.setdefault(name.casefold(), name)) != name:
            raise UserError(
                f"{where} has {other!r} and {name!r}",
                "names that differ in more than capital letters, since some disks ignore these",
                f"rename {where}.{name}",
            )
