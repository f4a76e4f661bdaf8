from __future__ import annotations

from typing import NoReturn

import pytest

from lurefs.reporting.charts import style


@pytest.fixture
def undrawn() -> object:
    """The function that takes the place of a drawing that fails, also while `drawings_must_succeed`."""
    return style._undrawn


@pytest.fixture(autouse=True)
def drawings_must_succeed(undrawn: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: object, error: Exception) -> NoReturn:
        raise error

    monkeypatch.setattr(style, "_undrawn", fail)
