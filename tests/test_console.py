from __future__ import annotations

import pytest

from lurefs.console import print_table

COLUMNS = ("run", "accuracy %", "± pool", "win/tie/loss")
ROWS = (("a-run-of-a-long-name", "74.07", "0.50", "996/215/789"), ("b", "–", "–", "–"))


@pytest.fixture
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


def printed(capsys: pytest.CaptureFixture[str], width: int, optional: tuple[int, ...] = (3,)) -> list[str]:
    print_table("A title", COLUMNS, ROWS, optional=optional)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    return lines


@pytest.mark.parametrize("width", [80], indirect=True)
def test_a_table_that_fits_stays_as_it_is(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    title, heads, rule, first, _ = printed(capsys, width)
    assert (title, set(rule)) == ("A title", {"─"})
    assert heads == "run                   accuracy %  ± pool  win/tie/loss"
    assert first == "a-run-of-a-long-name       74.07    0.50   996/215/789"


@pytest.mark.parametrize("width", [48], indirect=True)
def test_heads_are_folded_before_a_column_is_left_out(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, width)
    assert lines[1:3] == ["run                  accuracy    ± win/tie/loss", " " * 28 + "% pool"]
    assert lines[4] == "a-run-of-a-long-name    74.07 0.50  996/215/789"


@pytest.mark.parametrize("width", [40], indirect=True)
def test_columns_are_left_out_before_names_are_folded_and_that_is_said(
    width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, width)
    assert lines[4] == "a-run-of-a-long-name    74.07 0.50"
    assert " ".join(lines[6:]) == "columns left out to fit: win/tie/loss"


@pytest.mark.parametrize("width", [30], indirect=True)
def test_at_last_names_are_folded_and_none_of_their_letters_lost(
    width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, width)
    names = [line.split()[0] for line in lines[4:6]]
    assert "".join(names) == "a-run-of-a-long-name"


def test_a_name_that_looks_like_markup_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("[bold]", ("run",), (("[red]x",),))
    assert capsys.readouterr().out.splitlines()[::3] == ["[bold]", "[red]x"]
