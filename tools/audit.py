"""List known vulnerabilities of the dependencies: `pip-audit -r requirements.lock -f json | python tools/audit.py`.

The exit code is 1 if a direct dependency has one that a newer version corrects. What could not be looked up, all or
a part, is said to be not checked, and fails nothing.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Set
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def main() -> int:
    """Judge the report on the standard input, and print it."""
    lines, fails = judge(sys.stdin.read(), direct_dependencies(PYPROJECT.read_text(encoding="utf-8")))
    print(*lines, sep="\n")
    return int(fails)


def direct_dependencies(pyproject: str) -> set[str]:
    """Return the names of the packages that a pyproject.toml requires."""
    wanted = tomllib.loads(pyproject)["project"]["dependencies"]
    return {_normal(re.split(r"[^\w.-]", text.strip())[0]) for text in wanted}


def judge(report: str, direct: Set[str]) -> tuple[list[str], bool]:
    """Return what the JSON of pip-audit says, in lines, and whether it names something that must be updated."""
    try:
        dependencies: list[dict[str, Any]] = list(json.loads(report)["dependencies"])
    except (ValueError, KeyError, TypeError):
        return ["vulnerabilities: not checked: pip-audit gave no report in time, or none at all"], False
    lines, fails = [], False
    for dependency in dependencies:
        for found in dependency.get("vulns", ()):
            fixed = ", ".join(found["fix_versions"])
            must_update = bool(fixed) and _normal(dependency["name"]) in direct
            fails = fails or must_update
            lines.append(
                f"{'error' if must_update else 'warning'}: {dependency['name']} {dependency['version']} has "
                f"{found['id']}; {f'corrected in {fixed}' if fixed else 'no version corrects it'}"
            )
    skipped = [dependency["skip_reason"] for dependency in dependencies if "skip_reason" in dependency]
    if skipped:
        lines.append(f"vulnerabilities: not checked: {len(skipped)} of {len(dependencies)} packages, e.g. {skipped[0]}")
    n_checked = len(dependencies) - len(skipped)
    if n_checked and not lines:
        lines.append(f"vulnerabilities: none known in {n_checked} packages")
    return lines or ["vulnerabilities: not checked: no package is named"], fails


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
