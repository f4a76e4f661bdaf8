# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy==2.4.6", "pillow==13.0.0", "resvg-py==0.5.0"]
# ///
"""Build the `icons` image set (array, data card, notice) from the npm package `@iconify/json`.

A class is a concept ("calendar"), an image is that concept as one icon set draws it. From the repository's root:

    npm pack @iconify/json@2.2.535 && tar xzf iconify-json-2.2.535.tgz
    uv run --script tools/build_icons.py package lurefs/data/assets

The same package and the same pinned libraries give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


IMAGE_SIZE = 32
MIN_PER_CLASS = 20
MAX_PER_CLASS = 60
# Cosine of two drawings, blurred to 16 x 16 and centred, above which they count as the same outline.
SAME_DRAWING = 0.985
# A concept is a synonym of another if this share of its drawings also occurs under the other name.
SYNONYM_RATIO = 0.35
# Pixels at or below this ink (of 255) are left out when a drawing's box is measured.
FAINT_INK = 40

PERMISSIVE = frozenset({"MIT", "Apache-2.0", "ISC", "CC0-1.0", "BSD-3-Clause", "Unlicense", "OFL-1.1"})
NOT_DRAWN = frozenset({"svg-spinners", "line-md", "eos-icons"})  # animations
BRAND_SETS = frozenset({"devicon-plain", "file-icons"})  # beside those that the collection itself calls logos
BRAND_CATEGORY = re.compile(r"brand|logo|social media", re.IGNORECASE)
BRAND_WORDS = words("""
    airplay amazon android angular apple behance bitcoin bluetooth brand brands chrome codepen discord dribbble
    dropbox edge ethereum facebook figma firefox github gitlab google instagram javascript jira linkedin logo logos
    mastercard messenger microsoft netflix npm opera paypal pinterest playstation python react reddit safari skype
    slack snapchat soundcloud spotify steam stripe telegram tiktok tumblr twitch twitter usb vimeo visa vk vue
    wechat weibo whatsapp windows wordpress xbox yahoo yelp youtube zoom-us
""")
# Brand marks under an everyday name, found by eye.
BRAND_DRAWINGS = frozenset({("bi", "signal"), ("hugeicons", "signal"), ("picon", "robot")})
# Names that designers use for drawings of different things: no class can be made of them.
AMBIGUOUS = words("""
    album align-center-horizontal align-center-vertical chart circle cross delete export football fork forward
    import library pound scale switch
""")

STYLE_WORDS = words("""
    alt baseline bold broken bulk color colored duotone fill fill0 fill1 filled l light line linear lg o outline
    outlined outlineless regular round rounded s semibold sharp sided sm solid stroke thin tone two twotone xs
""")
STYLE_NUMBER = re.compile(r"[0-9]+(px)?|fill[0-9]+|stroke[0-9.]+")
WORD_SYNONYMS: Mapping[str, str] = {
    "add": "plus",
    "remove": "minus",
    "envelope": "mail",
    "email": "mail",
    "thumb": "thumbs",
    "pic": "image",
    "picture": "image",
    "photo": "image",
    "document": "file",
    "doc": "file",
    "person": "user",
    "tick": "check",
    "magnifier": "search",
}
SYNONYMS: Mapping[str, Sequence[str]] = {
    "alarm-clock": ("alarm",),
    "airplane": ("plane", "aeroplane"),
    "bar-chart": ("bar-graph",),
    "bell": ("notification", "notifications"),
    "bicycle": ("bike",),
    "briefcase": ("business",),
    "chat": ("comment", "comments", "message", "messages", "chat-bubble", "speech-bubble"),
    "close": ("times", "cancel"),
    "copy": ("duplicate",),
    "dollar-sign": ("dollar",),
    "expand": ("fullscreen", "maximize"),
    "eye-off": ("eye-closed", "eye-slash"),
    "filter": ("funnel",),
    "fire": ("flame",),
    "flask": ("beaker",),
    "globe": ("earth", "world"),
    "hashtag": ("hash",),
    "home": ("house",),
    "lightbulb": ("bulb", "light-bulb"),
    "lightning": ("bolt", "flash"),
    "mail-open": ("open-mail",),
    "map-pin": ("location", "map-marker", "location-pin", "location-marker"),
    "microphone": ("mic",),
    "merge": ("git-merge",),
    "monitor": ("desktop", "computer"),
    "music-note": ("music",),
    "package": ("box",),
    "paperclip": ("attachment",),
    "people": ("users", "group"),
    "pencil": ("pen", "edit"),
    "phone": ("telephone",),
    "pie-chart": ("pie-graph",),
    "pin": ("push-pin", "pushpin", "thumbtack"),
    "printer": ("print",),
    "question": ("help",),
    "refresh": ("reload", "sync"),
    "scissors": ("cut",),
    "search": ("magnifying-glass",),
    "settings": ("cog", "gear", "setting"),
    "shop": ("store",),
    "shopping-cart": ("cart",),
    "snowflake": ("snow",),
    "stopwatch": ("timer",),
    "tag": ("label",),
    "television": ("tv",),
    "translate": ("language",),
    "trash": ("trashcan", "trash-can", "bin"),
    "unlock": ("lock-open",),
    "user": ("profile",),
    "video": ("video-camera",),
    "volume-off": ("volume-mute", "mute"),
    "volume-up": ("volume",),
    "warning": (
        "alert",
        "alert-circle",
        "alert-triangle",
        "exclamation",
        "exclamation-circle",
        "exclamation-triangle",
        "warning-circle",
        "warning-triangle",
    ),
}

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class IconSet:
    """One icon set of the collection: who made it, on which terms, and its drawings by name."""

    prefix: str
    title: str
    author: str
    url: str
    licence: str
    version: str
    drawings: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Rendered candidates, one a concept and icon set.

    Attributes:
        images: (n_images, size, size) uint8, ink 255 on 0.
        concepts: (n_images,) index into `names`.
        sources: (n_images,) index into the list of icon sets.
        names: One name a concept.
    """

    images: Bytes
    concepts: Ints
    sources: Ints
    names: tuple[str, ...]

    def take(self, rows: Ints) -> Drawn:
        """Return these rows alone, with the same names."""
        return Drawn(
            images=self.images[rows], concepts=self.concepts[rows], sources=self.sources[rows], names=self.names
        )


@dataclass(frozen=True, kw_only=True)
class Guards:
    """Results of the duplicate checks: pairs of names that were merged, and numbers of dropped drawings by reason."""

    merged: tuple[tuple[str, str], ...]
    n_copies: int
    n_ambiguous: int


def read_collection(root: Path) -> list[IconSet]:
    """Read every monochrome, permissively licensed set that is not a set of logos, emoji or animations."""
    collections = json.loads((root / "collections.json").read_text(encoding="utf-8"))
    return [
        read_icon_set(root, prefix, info) for prefix, info in sorted(collections.items()) if is_usable(prefix, info)
    ]


def is_usable(prefix: str, info: Mapping[str, Any]) -> bool:
    """Tell whether a set's own entry in the collection allows its use here."""
    is_brand = prefix in BRAND_SETS or info.get("category") == "Logos"
    is_picture = bool(info.get("palette")) or "emoji" in prefix or prefix in NOT_DRAWN
    return not is_brand and not is_picture and info["license"].get("spdx") in PERMISSIVE


def read_icon_set(root: Path, prefix: str, info: Mapping[str, Any]) -> IconSet:
    """Read one set's drawings as SVG documents, without brand marks, animations and text."""
    data = json.loads((root / "json" / f"{prefix}.json").read_text(encoding="utf-8"))
    brands = brand_names(prefix, data)
    drawings = {
        name: svg(icon, data)
        for name, icon in sorted(data["icons"].items())
        if name not in brands and not re.search(r"<(animate|text|image)", icon["body"])
    }
    author = info["author"]
    return IconSet(
        prefix=prefix,
        title=info["name"],
        author=author["name"],
        url=author.get("url") or info["license"].get("url", ""),
        licence=info["license"]["spdx"],
        version=info.get("version", ""),
        drawings=drawings,
    )


def brand_names(prefix: str, data: Mapping[str, Any]) -> frozenset[str]:
    """Return the icons that a set files under a brand, whose name holds one, or that are known to show one."""
    declared = {
        name
        for category, names in data.get("categories", {}).items()
        if BRAND_CATEGORY.search(category)
        for name in names
    }
    named = {name for name in data["icons"] if BRAND_WORDS & set(name.split("-")) or (prefix, name) in BRAND_DRAWINGS}
    return frozenset(declared | named)


def svg(icon: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Wrap an icon's body into a document of 128 x 128 pixels in black."""
    left, top, width, height = (
        icon.get(key, defaults.get(key, fallback))
        for key, fallback in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000" '
        f'width="128" height="128" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def plain_words(name: str) -> list[str]:
    """Split an icon's name into words without those of style and size, each in its canonical spelling."""
    kept = [word for word in name.split("-") if word and word not in STYLE_WORDS and not STYLE_NUMBER.fullmatch(word)]
    return [WORD_SYNONYMS.get(word, word) for word in kept]


def word_key(parts: Iterable[str]) -> str:
    """Return a key that the order of words does not change: `chart-bar` is `bar-chart`."""
    return "-".join(sorted(parts))


def synonym_keys() -> dict[str, str]:
    """Map the key of every listed synonym, and of the name itself, to the name."""
    return {word_key(plain_words(synonym)): name for name, others in SYNONYMS.items() for synonym in (name, *others)}


def candidates(icon_sets: Sequence[IconSet]) -> dict[str, dict[int, list[str]]]:
    """Group drawings by concept.

    Returns:
        Concept name -> index of the icon set -> its drawings of that concept; concepts of too few sets left out.
    """
    synonyms = synonym_keys()
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    found: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for index, icon_set in enumerate(icon_sets):
        for name in icon_set.drawings:
            parts = plain_words(name)
            key = synonyms.get(word_key(parts), word_key(parts))
            spellings[key]["-".join(parts)] += 1
            found[key][index].append(name)
    named = {
        key if key in SYNONYMS else commonest(spellings[key]): by_set
        for key, by_set in found.items()
        if len(by_set) >= MIN_PER_CLASS and len(key) > 1
    }
    return {name: named[name] for name in sorted(named) if name not in AMBIGUOUS}


def commonest(spellings: Counter[str]) -> str:
    """Return the spelling that occurs most often, the first by alphabet of equals."""
    return min(spellings, key=lambda spelling: (-spellings[spelling], spelling))


def hashed(*parts: str) -> int:
    """Return a hash of the words as a number, for draws that do not depend on the rest of the collection."""
    return int.from_bytes(hashlib.sha256("/".join(parts).encode()).digest()[:8], "big")


def draw_all(icon_sets: Sequence[IconSet], concepts: Mapping[str, Mapping[int, Sequence[str]]]) -> Drawn:
    """Render one drawing, drawn by lot among its styles, for each concept and icon set."""
    images, labels, sources = [], [], []
    for label, (concept, by_set) in enumerate(concepts.items()):
        for source, names in sorted(by_set.items()):
            icon_set = icon_sets[source]
            name = names[hashed(concept, icon_set.prefix) % len(names)]
            image = render(icon_set.drawings[name])
            if image is not None:
                images.append(image)
                labels.append(label)
                sources.append(source)
    return Drawn(images=np.stack(images), concepts=np.array(labels), sources=np.array(sources), names=tuple(concepts))


def render(document: str) -> Bytes | None:
    """Render, crop to the ink, centre in a square with a margin of 1/16, and shrink.

    Returns:
        (IMAGE_SIZE, IMAGE_SIZE) uint8, ink 255 on 0; None for a document that is broken or all but blank.
    """
    import resvg_py  # type: ignore[import-not-found, unused-ignore]

    try:
        png = resvg_py.svg_to_bytes(svg_string=document, background="white", skip_system_fonts=True)
    except ValueError:
        return None
    ink = 255 - np.asarray(Image.open(io.BytesIO(bytes(png))).convert("L"))
    rows, columns = np.where(ink > FAINT_INK)
    if len(rows) < 20:
        return None
    ink = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    margin = IMAGE_SIZE // 16
    side = IMAGE_SIZE - 2 * margin
    # Twice the size first: a Lanczos step straight to the final size would ring along thin strokes.
    doubled = Image.fromarray(centred(ink)).resize((2 * side, 2 * side), Image.Resampling.LANCZOS)
    small = np.asarray(doubled.resize((side, side), Image.Resampling.BOX))
    return np.pad(small, margin)


def centred(ink: Bytes) -> Bytes:
    """Pad a drawing with blank to a square."""
    height, width = ink.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return np.pad(ink, ((top, side - height - top), (left, side - width - left)))


def same_drawings(images: Bytes) -> Ints:
    """Find pairs of drawings that are all but equal.

    Returns:
        (n_pairs, 2) rows, the later one first, ordered.
    """
    n_images, size, _ = images.shape
    cells = images.reshape(n_images, 16, size // 16, 16, size // 16).mean((2, 4), dtype=np.float32)
    features = cells.reshape(n_images, -1)
    features -= features.mean(1, keepdims=True)
    features /= np.linalg.norm(features, axis=1, keepdims=True) + 1e-6
    blocks = []
    for start in range(0, n_images, 1000):
        cosine = features[start : start + 1000] @ features[: start + 1000].T
        pairs = np.argwhere(cosine > SAME_DRAWING) + np.array([start, 0])
        blocks.append(pairs[pairs[:, 1] < pairs[:, 0]])
    return np.concatenate(blocks)


def synonyms_by_drawing(drawn: Drawn, pairs: Ints) -> list[tuple[int, int]]:
    """Return pairs of concepts (synonym, other) where many drawings of the first also occur under the other's name.

    Both sides are counted, or one stray dash in a concept would match every drawing of `minus`.
    """
    shared: dict[tuple[int, int], set[int]] = defaultdict(set)
    for row, other in pairs.tolist():
        first, second = int(drawn.concepts[row]), int(drawn.concepts[other])
        if first != second:
            shared[first, second].add(row)
            shared[second, first].add(other)
    n_drawings = np.bincount(drawn.concepts, minlength=len(drawn.names))
    n_shared = {(first, second): min(len(rows), len(shared[second, first])) for (first, second), rows in shared.items()}
    return sorted(pair for pair, count in n_shared.items() if count >= SYNONYM_RATIO * n_drawings[pair[0]])


def merge_concepts(drawn: Drawn, pairs: Iterable[tuple[int, int]]) -> Drawn:
    """Give synonyms one concept, under the name that has more drawings."""
    n_drawings = np.bincount(drawn.concepts, minlength=len(drawn.names))
    parent = list(range(len(drawn.names)))

    def root(concept: int) -> int:
        while parent[concept] != concept:
            concept = parent[concept]
        return concept

    for first, second in pairs:
        small, large = sorted((root(first), root(second)), key=lambda concept: (n_drawings[concept], -concept))
        parent[small] = large
    concepts = np.array([root(int(concept)) for concept in drawn.concepts])
    return Drawn(images=drawn.images, concepts=concepts, sources=drawn.sources, names=drawn.names)


def distinct(drawn: Drawn, pairs: Ints) -> tuple[Ints, int, int]:
    """Drop drawings that occur in two concepts, copies within a concept, and second ones of an icon set.

    Returns:
        Rows that stay; how many were copies or seconds; how many were ambiguous.
    """
    across = drawn.concepts[pairs[:, 0]] != drawn.concepts[pairs[:, 1]]
    ambiguous = set(pairs[across].ravel().tolist())
    earlier = defaultdict(list)
    for row, other in pairs[~across].tolist():
        earlier[row].append(other)
    kept: set[int] = set()
    seen: set[tuple[int, int]] = set()
    for row in range(len(drawn.concepts)):
        place = (int(drawn.concepts[row]), int(drawn.sources[row]))
        if row not in ambiguous and place not in seen and kept.isdisjoint(earlier[row]):
            kept.add(row)
            seen.add(place)
    return np.array(sorted(kept)), len(drawn.concepts) - len(kept) - len(ambiguous), len(ambiguous)


def balance(drawn: Drawn, icon_sets: Sequence[IconSet]) -> Drawn:
    """Drop concepts of fewer than 20 drawings, draw 60 by lot of the larger ones, and number what is left by name."""

    def lot(row: int) -> int:
        return hashed(drawn.names[drawn.concepts[row]], icon_sets[drawn.sources[row]].prefix, "lot")

    chosen: list[Ints] = []
    names: list[str] = []
    for concept, name in enumerate(drawn.names):
        rows = np.flatnonzero(drawn.concepts == concept).tolist()
        if len(rows) >= MIN_PER_CLASS:
            chosen.append(np.sort(np.array(sorted(rows, key=lot)[:MAX_PER_CLASS])))
            names.append(name)
    taken = drawn.take(np.concatenate(chosen))
    labels = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
    return Drawn(images=taken.images, concepts=labels, sources=taken.sources, names=tuple(names))


def build(icon_sets: Sequence[IconSet]) -> tuple[Drawn, Guards]:
    """Make the image set of these icon sets."""
    drawn = draw_all(icon_sets, candidates(icon_sets))
    pairs = same_drawings(drawn.images)
    synonyms = synonyms_by_drawing(drawn, pairs)
    merged = merge_concepts(drawn, synonyms)
    rows, n_copies, n_ambiguous = distinct(merged, pairs)
    guards = Guards(
        merged=tuple((drawn.names[first], drawn.names[second]) for first, second in synonyms),
        n_copies=n_copies,
        n_ambiguous=n_ambiguous,
    )
    return balance(merged.take(rows), icon_sets), guards


def pack(images: Bytes) -> tuple[Bytes, int]:
    """Round to 16 grey values, two pixels a byte, the left one in the high half.

    Returns:
        (n_images, n_pixels // 2) uint8, and the largest rounding error in grey values of 255.
    """
    nibbles = ((images.astype(np.int16) + 8) // 17).astype(np.uint8)
    error = int(np.abs(nibbles.astype(np.int16) * 17 - images).max())
    flat = nibbles.reshape(len(images), -1)
    packed: Bytes = np.left_shift(flat[:, 0::2], 4, dtype=np.uint8) | flat[:, 1::2]
    return packed, error


def used_sets(drawn: Drawn, icon_sets: Sequence[IconSet]) -> tuple[Drawn, list[IconSet]]:
    """Number the icon sets anew, without those that gave no image."""
    used, sources = np.unique(drawn.sources, return_inverse=True)
    renumbered = Drawn(images=drawn.images, concepts=drawn.concepts, sources=sources, names=drawn.names)
    return renumbered, [icon_sets[index] for index in used]


def notice(drawn: Drawn, icon_sets: Sequence[IconSet]) -> str:
    """List every icon set with its terms, its author and its number of images."""
    counts = np.bincount(drawn.sources, minlength=len(icon_sets))
    lines = [
        "The images in icons.npz were rendered from the icon sets below, each under its own licence, as the collection",
        "@iconify/json declares them; the standard texts of the licences are in LICENSES. One line a set:",
        "name | title | version | SPDX identifier | author | address | images",
        "",
    ]
    for icon_set, count in zip(icon_sets, counts, strict=True):
        address = icon_set.url.partition("/tree/")[0] or "-"
        fields = (icon_set.title, icon_set.version or "-", icon_set.licence, icon_set.author, address)
        lines.append(" | ".join((icon_set.prefix, *fields, str(count))))
    return "\n".join(lines) + "\n"


def card_numbers(drawn: Drawn, icon_sets: Sequence[IconSet]) -> Iterator[str]:
    """Yield the card's table of counts, by class and by licence."""
    per_class = np.bincount(drawn.concepts)
    by_licence: Counter[str] = Counter()
    n_sets = Counter(icon_set.licence for icon_set in icon_sets)
    for source in drawn.sources:
        by_licence[icon_sets[source].licence] += 1
    yield f"| images | {len(drawn.images):,} |\n| classes | {len(drawn.names)} |\n| icon sets | {len(icon_sets)} |"
    yield f"| images a class | {per_class.min()} to {per_class.max()}, median {int(np.median(per_class))} |"
    for licence, count in by_licence.most_common():
        yield f"| {licence} | {count:,} images, sets: {n_sets[licence]} |"


CARD = """# icons

Grey images of {size} x {size} pixels, ink 255 on 0. A class is a concept ("calendar", "bicycle"); an image is that
concept as one icon set draws it, so the images of a class come from as many icon sets as there are images.

| | |
|---|---|
{numbers}

## How it was made

From the npm package `@iconify/json` {version}, rendered with resvg-py {resvg}, Pillow {pillow} and NumPy {numpy}:

    npm pack @iconify/json@{version} && tar xzf iconify-json-{version}.tgz
    uv run --script tools/build_icons.py package lurefs/data/assets

An icon's concept is its name without words of style and size, in any order of words, with listed synonyms merged.
Where a set draws a concept in several styles, one is drawn by lot. Each drawing is cropped to its ink, centred in a
square with a margin of 1/16, and shrunk. Classes of more than {most} images are cut to {most} by lot.

`icons.npz` holds `pixels` (n_images, {half}) uint8, two pixels a byte, the left one in the high half, a pixel being 17
times its four bits; `labels` and `sources` (n_images,); `class_names`, `source_names`, `licences` (one a set). Rounding
to four bits moves a grey value by at most {error} of 255.

## Guards

- Licences: {licences}, as the collection declares them; they
  were not checked with each set's author. `NOTICE` lists every set.
- Sets of logos, icons that a set files under a brand, and icons named after one are left out: a free drawing is no
  licence of a trademark.
- A concept that shares {ratio:.0%} or more of its drawings with another one is its synonym and was merged
  ({n_merged} pairs):
{merged}.
- Drawings that are all but equal (cosine above {cosine} of centred 16 x 16 means): {n_ambiguous:,} that occurred in two
  classes were dropped, both of them; {n_copies:,} copies within a class, or second drawings of one set, likewise.
- Names that designers use for different things make no class:
{ambiguous}.
- A class has one image a set, and {least} or more.

## Known limits

- Sets fork and imitate one another. Copies that differ a little more than the guard sees remain, so a split by icon set
  does not make the designs independent, and a split by image within a class less so.
- Labels are names that designers chose. A few classes are broad, a few per cent of the drawings are of something else,
  and some classes are near relatives that no picture tells apart for certain (`redo` and `refresh`).
- Brand marks were looked for by category, by name and by eye; one under an everyday name may have been missed.
- Classes whose drawings are nearly all alike, such as `plus` or `minus`, have fewer than {least} distinct ones and are
  missing.
- Drawings are cropped to their ink: size and position within the icon's frame are lost.
- Concepts are those of user interfaces in the 2010s and 2020s, named in English.
"""


def indented(text: str) -> str:
    """Wrap a text as the continuation of a list item."""
    return textwrap.fill(text, 118, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def card(drawn: Drawn, icon_sets: Sequence[IconSet], guards: Guards, *, package_version: str, error: int) -> str:
    """Write the data card."""
    merged = ", ".join(f"{first} = {second}" for first, second in guards.merged)
    return CARD.format(
        size=IMAGE_SIZE,
        half=IMAGE_SIZE * IMAGE_SIZE // 2,
        numbers="\n".join(card_numbers(drawn, icon_sets)),
        version=package_version,
        resvg=version("resvg-py"),
        pillow=version("pillow"),
        numpy=version("numpy"),
        least=MIN_PER_CLASS,
        most=MAX_PER_CLASS,
        error=error,
        licences=", ".join(sorted(PERMISSIVE)),
        ratio=SYNONYM_RATIO,
        cosine=SAME_DRAWING,
        n_merged=len(guards.merged),
        merged=indented(merged),
        n_ambiguous=guards.n_ambiguous,
        n_copies=guards.n_copies,
        ambiguous=indented(", ".join(sorted(AMBIGUOUS))),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the unpacked package, and write the array, the card and the notice."""
    parser = argparse.ArgumentParser(description="Build the icons image set.")
    parser.add_argument("package", type=Path, help="the unpacked npm package @iconify/json")
    parser.add_argument("output_dir", type=Path, help="folder for icons.npz, ICONS.md and NOTICE")
    options = parser.parse_args(arguments)
    collection = read_collection(options.package)
    everything, guards = build(collection)
    drawn, icon_sets = used_sets(everything, collection)
    pixels, error = pack(drawn.images)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        options.output_dir / "icons.npz",
        pixels=pixels,
        labels=drawn.concepts.astype(np.int16),
        sources=drawn.sources.astype(np.int16),
        class_names=np.array(drawn.names),
        source_names=np.array([icon_set.prefix for icon_set in icon_sets]),
        licences=np.array([icon_set.licence for icon_set in icon_sets]),
    )
    package_version = json.loads((options.package / "package.json").read_text(encoding="utf-8"))["version"]
    text = card(drawn, icon_sets, guards, package_version=package_version, error=error)
    (options.output_dir / "ICONS.md").write_text(text, encoding="utf-8")
    (options.output_dir / "NOTICE").write_text(notice(drawn, icon_sets), encoding="utf-8")


if __name__ == "__main__":
    main()
