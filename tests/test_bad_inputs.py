"""A short form of the battery of bad inputs; `tools/bad_inputs.py` runs all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lurefs.cli import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.filterwarnings("ignore")
def test_bad_inputs_are_refused_in_three_parts_or_read_rightly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import bad_inputs

    outcomes = list(bad_inputs.battery(tmp_path, 0, 32))
    assert [outcome for outcome in outcomes if outcome.verdict not in bad_inputs.GOOD] == []
    assert {outcome.kind for outcome in outcomes} == set(bad_inputs.KINDS)
    assert sum(outcome.verdict == "refused" for outcome in outcomes) > 16


@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_words_that_are_no_text_are_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["compare", word])
    assert caught.value.code == 2 and "is no text" in capsys.readouterr().err
