from __future__ import annotations

import hashlib
import importlib.util
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lurefs.data.dataset import ImageDataset
from lurefs.data.fonts import find_faces, font_files
from lurefs.data.glyphs import glyphs
from lurefs.errors import UserError

EM = 1000


def squares(pattern: str) -> Any:
    """Draw a 4 x 4 pattern of squares of 175 units, the first four of `pattern` on top of a capital's height of 700."""
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for place, filled in enumerate(pattern):
        if filled == "x":
            left, top = 175 * (place % 4), 700 - 175 * (place // 4)
            pen.moveTo((left, top))
            for corner in ((left + 175, top), (left + 175, top - 175), (left, top - 175)):
                pen.lineTo(corner)
            pen.closePath()
    return pen.glyph()


def random_pattern(*key: str) -> str:
    """Return a pattern that reaches from top to bottom and fits no other key."""
    bits = int.from_bytes(hashlib.sha256("/".join(key).encode()).digest()[:2], "big")
    pattern = [("x" if bits >> place & 1 else ".") for place in range(16)]
    return "x" + "".join(pattern[1:15]) + "x"


def save_font(
    path: Path,
    patterns: Mapping[str, str],
    *,
    family: str = "Toy",
    style: str = "Regular",
    variable: bool = False,
) -> Path:
    """Write a font whose characters are patterns; H is added, as the measure of the capitals."""
    from fontTools.fontBuilder import FontBuilder

    patterns = {"H": random_pattern(family, style, "H"), **patterns}
    names = {character: f"u{ord(character):04X}" for character in patterns}
    drawn = {".notdef": squares("x" * 16), **{names[character]: squares(p) for character, p in patterns.items()}}
    font = FontBuilder(EM, isTTF=True)
    font.setupGlyphOrder(list(drawn))
    font.setupCharacterMap({ord(character): name for character, name in names.items()})
    font.setupGlyf(drawn)
    font.setupHorizontalMetrics({name: (800, 0) for name in drawn})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": family, "styleName": style, "fullName": f"{family} {style}"})
    if variable:
        font.setupFvar([("wght", 100, 400, 900, "Weight")], [])
    font.setupOS2()
    font.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    font.save(path)
    return path


def save_fonts(root: Path, characters: str, n_fonts: int = 3, **same: str) -> None:
    """Write fonts of different families that each draw all characters in their own way, but for those in `same`."""
    for number in range(n_fonts):
        family = f"Family{number}"
        patterns = {character: random_pattern(family, "Regular", character) for character in characters}
        patterns |= {character: patterns[other] for character, other in same.items()}
        save_font(root / f"{number}.ttf", patterns, family=family)


@pytest.fixture
def fonts(tmp_path: Path) -> Path:
    return tmp_path / "fonts"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUREFS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def toy(fonts: Path, **settings: Any) -> ImageDataset:
    return glyphs([str(fonts)], **{"image_size": 16, "min_faces": 2, **settings})


def test_a_class_is_a_character_and_a_source_a_face(fonts: Path) -> None:
    save_fonts(fonts, "3A")
    dataset = toy(fonts)
    assert dataset.class_names == ("digits/U+0033", "latin/U+0041", "latin/U+0048")
    assert sorted(dataset.source_names) == ["Family0 Regular", "Family1 Regular", "Family2 Regular"]
    assert dataset.n_per_class.tolist() == [3, 3, 3]
    assert set(dataset.image_ids) >= {"U+0041/Family0 Regular", "U+0033/Family2 Regular"}


def test_images_stand_on_the_baseline_in_one_size(fonts: Path) -> None:
    save_fonts(fonts, "A")
    images = toy(fonts, image_size=32).read(np.array([0, 1]))
    assert images.shape == (2, 32, 32, 1)
    for image in images[..., 0]:
        rows, columns = np.nonzero(image > 127)
        # 0.74 and 0.52 of 32: the baseline and the height of capitals, give or take the hinting.
        assert rows.min() in (6, 7)
        assert rows.max() in (22, 23)
        assert abs((columns.min() + columns.max()) - 31) <= 1


def test_characters_that_are_one_drawing_are_one_class(fonts: Path) -> None:
    save_fonts(fonts, "Ab", **{"ب": "b"})
    assert toy(fonts).class_names == ("latin/U+0041", "latin/U+0048", "latin/U+0062")


def test_known_look_alikes_are_one_class_though_drawn_differently(fonts: Path) -> None:
    save_fonts(fonts, "AΑА")
    dataset = toy(fonts)
    assert dataset.class_names == ("latin/U+0041", "latin/U+0048")
    assert dataset.n_per_class.tolist() == [3, 3]


def test_known_look_alikes_are_one_class_without_the_latin_one(fonts: Path) -> None:
    save_fonts(fonts, "ΑА")
    assert toy(fonts, alphabets=["cyrillic", "greek"]).class_names == ("greek/U+0391",)


def test_a_drawing_that_one_face_uses_twice_is_dropped_from_that_face(fonts: Path) -> None:
    save_fonts(fonts, "347")
    pattern = random_pattern("Same", "3")
    save_font(fonts / "same.ttf", {"3": pattern, "4": pattern, "7": random_pattern("Same", "7")}, family="Same")
    assert toy(fonts, alphabets=["digits"]).n_per_class.tolist() == [3, 3, 4]


def test_placeholders_stand_for_no_character(fonts: Path) -> None:
    save_fonts(fonts, "1")
    for number in range(2):
        pattern = random_pattern("Placeholder", str(number))
        save_font(fonts / f"p{number}.ttf", dict.fromkeys("23456", pattern), family=f"Placeholder{number}")
    assert toy(fonts, alphabets=["digits"]).class_names == ("digits/U+0031",)


def test_the_box_for_missing_characters_and_blanks_are_dropped(fonts: Path) -> None:
    save_fonts(fonts, "12")
    save_font(fonts / "box.ttf", {"1": "x" * 16, "2": "." * 16, "3": random_pattern("3")}, family="Box")
    dataset = toy(fonts, min_faces=1, alphabets=["digits"])
    assert dataset.n_per_class.tolist() == [3, 3, 1]


def test_small_letters_that_are_capitals_are_dropped(fonts: Path) -> None:
    save_fonts(fonts, "ABDEabde", A="A")
    capitals = {character: random_pattern("Caps", character) for character in "ABDE"}
    save_font(fonts / "caps.ttf", capitals | {key.lower(): p for key, p in capitals.items()}, family="Caps")
    dataset = toy(fonts)
    counts = dict(zip(dataset.class_names, dataset.n_per_class.tolist(), strict=True))
    assert (counts["latin/U+0041"], counts["latin/U+0061"]) == (4, 3)


def test_copies_within_a_class_are_dropped(fonts: Path) -> None:
    save_fonts(fonts, "12")
    patterns = {"1": random_pattern("Family0", "Regular", "1"), "2": random_pattern("Copy", "2")}
    save_font(fonts / "copy.ttf", patterns, family="Copy")
    assert toy(fonts, alphabets=["digits"]).n_per_class.tolist() == [3, 4]


def test_a_family_gives_two_faces_at_most(fonts: Path) -> None:
    for style in ("Regular", "Bold", "Italic"):
        save_font(fonts / f"{style}.ttf", {"1": random_pattern(style)}, style=style)
    assert len(find_faces(font_files([str(fonts)]), 2)) == 2
    assert len(find_faces(font_files([str(fonts)]), 3)) == 3


def test_a_re_release_under_the_same_name_is_left_out(fonts: Path) -> None:
    save_font(fonts / "1.0.ttf", {"1": random_pattern("old")})
    save_font(fonts / "1.1.ttf", {"1": random_pattern("new")})
    assert len(find_faces(font_files([str(fonts)]), 2)) == 1


@pytest.mark.parametrize("family", ["Awesome Icons", "Libre Barcode 39", "Noto Emoji", "Some Symbols"])
def test_fonts_without_letters_are_left_out(fonts: Path, family: str) -> None:
    save_font(fonts / "a.ttf", {"1": random_pattern("1")}, family=family)
    assert find_faces(font_files([str(fonts)]), 2) == []


def test_variable_and_damaged_fonts_are_left_out_and_said_to_be(fonts: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_font(fonts / "variable.ttf", {"1": random_pattern("1")}, variable=True)
    whole = save_font(fonts / "whole.ttf", {"1": random_pattern("2")})
    (fonts / "half.ttf").write_bytes(whole.read_bytes()[:400])
    with caplog.at_level(logging.INFO, "lurefs"):
        assert [face.path for face in find_faces(font_files([str(fonts)]), 9)] == [whole]
    assert "half.ttf left out" in caplog.text
    assert "1 faces of 3 font files" in caplog.text


def test_a_font_for_all_there_is_and_is_not_is_left_out(fonts: Path) -> None:
    save_font(fonts / "last_resort.ttf", {"1": random_pattern("1"), chr(0x10FFFF): random_pattern("2")})
    assert find_faces(font_files([str(fonts)]), 2) == []


def test_files_that_only_call_themselves_fonts_are_passed_over(fonts: Path) -> None:
    save_fonts(fonts, "1", n_fonts=1)
    (fonts / "page.ttf").write_text("<!DOCTYPE html>")
    assert [path.name for path in font_files([str(fonts)]).values()] == ["0.ttf"]


def test_places_and_names_of_the_fonts_do_not_matter(fonts: Path, tmp_path: Path) -> None:
    save_fonts(fonts, "12A")
    first = toy(fonts)
    for number, path in enumerate(sorted(fonts.iterdir())):
        (tmp_path / "b" / "deep").mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "b" / "deep" / f"z{9 - number}.TTF")
    second = toy(tmp_path / "b", cache_dir=str(tmp_path / "other"))
    assert second.identity == first.identity
    assert second.image_ids == first.image_ids
    rows = np.arange(len(first))
    np.testing.assert_array_equal(first.read(rows), second.read(rows))


def test_a_second_call_reads_the_cache(fonts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_fonts(fonts, "1")
    first = toy(fonts)
    assert [path.suffix for path in cache.iterdir()] == [".npz"]
    monkeypatch.setattr("lurefs.data.glyphs._render", None)
    assert toy(fonts).image_ids == first.image_ids


def test_a_damaged_cache_is_rendered_again(fonts: Path, cache: Path) -> None:
    save_fonts(fonts, "1")
    first = toy(fonts)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:300])
    assert toy(fonts).image_ids == first.image_ids


def test_other_settings_have_another_identity(fonts: Path) -> None:
    save_fonts(fonts, "1")
    identities = [toy(fonts).identity, toy(fonts, image_size=20).identity, toy(fonts, min_faces=1).identity]
    assert identities[0] != identities[1] != identities[2] != identities[0]


def test_a_cache_that_cannot_be_written_is_refused(fonts: Path, tmp_path: Path) -> None:
    save_fonts(fonts, "1")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cache .*file.* cannot be written[^\n]*\n.*\n.*LUREFS_CACHE"):
        toy(fonts, cache_dir=str(tmp_path / "file"))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"font_dirs: .*missing is not a folder"):
        toy(tmp_path / "missing")


def test_a_folder_without_fonts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.ttf").write_text("<!DOCTYPE html>")
    with pytest.raises(UserError, match=r"no font below .*\n.*\.otf, \.ttc, \.ttf"):
        toy(tmp_path)


def test_too_few_faces_are_refused_with_their_number(fonts: Path) -> None:
    save_fonts(fonts, "1")
    with pytest.raises(UserError, match=r"3 usable faces of 3 font files, but min_faces is 20\n.*\n.*lower min_faces"):
        toy(fonts, min_faces=20)


def test_an_alphabet_that_too_few_faces_draw_is_refused_with_what_is_possible(fonts: Path) -> None:
    save_fonts(fonts, "1")
    save_font(fonts / "thai.ttf", {"ก": random_pattern("ก")}, family="Thai")
    with pytest.raises(UserError, match=r"no character of thai is drawn by 2 faces\n.*min_faces of at most 1"):
        toy(fonts, alphabets=["thai"])


def test_an_alphabet_that_no_face_has_is_refused(fonts: Path) -> None:
    save_fonts(fonts, "1")
    with pytest.raises(UserError, match=r"no character of georgian is drawn by 2 faces"):
        toy(fonts, alphabets=["georgian"])


def test_an_unknown_alphabet_is_refused_with_the_nearest(fonts: Path) -> None:
    with pytest.raises(UserError, match=r"unknown alphabet 'greeek'\n(.|\n)*did you mean 'greek'"):
        toy(fonts, alphabets=["greeek"])


@pytest.mark.parametrize("name", ["min_faces", "max_faces_per_family", "image_size"])
def test_settings_below_one_are_refused(fonts: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is 0"):
        toy(fonts, **{name: 0})


def test_a_missing_font_reader_is_named(fonts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_fonts(fonts, "1")
    monkeypatch.setitem(sys.modules, "fontTools", None)
    with pytest.raises(UserError, match=r"fontTools, which is not installed\n.*fonttools"):
        toy(fonts)


def test_real_fonts_give_letters_that_differ_and_greek_that_is_not_latin() -> None:
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None and spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0], "mpl-data", "fonts", "ttf")
    dataset = glyphs([str(root)], image_size=16, min_faces=4, alphabets=["latin", "greek"])
    assert {"latin/U+0041", "latin/U+0067", "greek/U+03A9"} <= set(dataset.class_names)
    assert not {"greek/U+0391", "greek/U+039A"} & set(dataset.class_names)
    assert "DejaVu Sans" in " ".join(dataset.source_names)
    assert not [name for name in dataset.source_names if name.startswith("DejaVu Sans Display")]
    assert dataset.n_per_class.min() >= 4
    assert dataset.read(np.arange(len(dataset))).max(axis=(1, 2, 3)).min() > 60
