"""The decision of `tools/audit.py` on reports of pip-audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOLE = {"id": "PYSEC-2026-1", "fix_versions": ["11.1", "12.0"], "aliases": [], "description": "a hole"}
UNFIXED = HOLE | {"id": "PYSEC-2026-2", "fix_versions": []}


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import audit

    return audit


def report(*dependencies: dict[str, Any]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def package(name: str, *vulnerabilities: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": list(vulnerabilities)}


def test_a_direct_dependency_must_be_updated_if_a_version_corrects_it(audit: Any) -> None:
    lines, fails = audit.judge(report(package("Pillow", HOLE), package("numpy")), {"pillow", "numpy"})
    assert lines == ["error: Pillow 1.0 has PYSEC-2026-1; corrected in 11.1, 12.0"]
    assert fails


def test_other_vulnerabilities_are_listed_and_fail_nothing(audit: Any) -> None:
    lines, fails = audit.judge(report(package("pillow", UNFIXED), package("urllib3", HOLE)), {"pillow"})
    assert lines == [
        "warning: pillow 1.0 has PYSEC-2026-2; no version corrects it",
        "warning: urllib3 1.0 has PYSEC-2026-1; corrected in 11.1, 12.0",
    ]
    assert not fails


def test_an_unfixed_vulnerability_does_not_hide_a_fixed_one(audit: Any) -> None:
    assert audit.judge(report(package("pillow", HOLE, UNFIXED), package("urllib3", UNFIXED)), {"pillow"})[1]


def test_packages_without_vulnerabilities_are_counted(audit: Any) -> None:
    found = audit.judge(report(package("pillow"), package("numpy")), {"pillow"})
    assert found == (["vulnerabilities: none known in 2 packages"], False)


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}", "null", '{"dependencies": null}', report()])
def test_no_report_is_said_to_be_not_checked(audit: Any, text: str) -> None:
    (line,), fails = audit.judge(text, {"pillow"})
    assert line.startswith("vulnerabilities: not checked: ")
    assert not fails


def test_what_the_service_does_not_know_is_said_to_be_not_checked(audit: Any) -> None:
    unknown = {"name": "numpy", "skip_reason": "Dependency not found on PyPI"}
    lines, fails = audit.judge(report(package("urllib3", UNFIXED), unknown), {"numpy"})
    assert lines[1] == "vulnerabilities: not checked: 1 of 2 packages, e.g. Dependency not found on PyPI"
    assert not fails


def test_direct_dependencies_are_those_of_the_project_without_extras_and_versions(audit: Any) -> None:
    text = '[project]\ndependencies = ["Typing_Extensions>=4", "a[b]~=1; python_version < \'4\'", "c.d", "e @ file:e"]'
    assert audit.direct_dependencies(text) == {"typing-extensions", "a", "c-d", "e"}
    assert {"torch", "scikit-learn"} <= audit.direct_dependencies((ROOT / "pyproject.toml").read_text())
