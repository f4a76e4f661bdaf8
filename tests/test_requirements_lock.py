"""The committed lock: where it fails, `uv export` makes it again (CONTRIBUTING has the command)."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = [Requirement(line.removesuffix(" \\")) for line in LOCK.splitlines() if not line.startswith("    --hash=")]
HERE = {canonicalize_name(pin.name): pin.specifier for pin in PINS if pin.marker is None or pin.marker.evaluate()}


def test_the_tests_run_with_the_locked_versions() -> None:
    assert {name: str(specifier) for name, specifier in HERE.items()} == {name: f"=={version(name)}" for name in HERE}


def test_every_dependency_is_locked_at_a_version_that_it_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        (pin,) = HERE[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin.version, prereleases=True), requirement


def test_the_lock_has_a_hash_for_every_pin_and_names_no_host_and_no_folder() -> None:
    blocks = re.split(r"\n(?! )", LOCK.strip())
    assert len(blocks) == len(PINS)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)
    assert not re.search(r"[/@]|\bfile:", LOCK)
