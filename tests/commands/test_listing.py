"""What `lurefs list` finds, and in which words."""

from __future__ import annotations

import pytest

from lurefs.cli import main


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(["list", *arguments])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["recipes", "smoke"], "smoke  A complete run in seconds, for tests and people in a hurry: handwritten digits"),
        (["transforms", "pca"], "pca          the reference's first principal components (pca:64)"),
        (["transforms", "none"], "none         the features as they are"),
        (["corruptions", "fog"], "fog                weather: fog"),
        (["unlearn", "lure"], "by_saliency       Re-initialise the least salient weights (LURE;"),
        (["probes", "lda"], "lda                  linear discriminant analysis with a shrunk covariance"),
    ],
)
def test_a_list_has_one_line_for_each_name(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = listed(capsys, *arguments).splitlines()
    assert found.startswith(line.split("  ")[0])
    assert line.split("  ")[-1].strip() in found


def test_settings_are_found_by_their_names_and_texts(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys, "settings", "pretrained").splitlines()
    assert found[0] == "backbone"
    assert "| `pretrained` | true or false | `false` |" in found
    assert not any("`image_size`" in line for line in found if line.startswith("|"))
    assert "| `optimizer` |" in listed(capsys, "settings", "Weight_Decay")


def test_a_part_of_the_settings_is_printed_whole_by_its_title(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys, "settings", "image_split")
    assert "\nimage_split\n" in found and "| `val` |" in found and "| `test` |" in found
    assert "no settings contain 'xyzzy'" in listed(capsys, "settings", "xyzzy")
