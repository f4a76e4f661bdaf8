"""Files that are no recipe, odd names, and recipes that are damaged at random."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import yaml

from bad_input_kinds.damage import damaged_bytes, damaged_values
from bad_input_kinds.worlds import Case, World

NAMES = ("figures", "report.html", "x" * 300, "\ud800", "a\0b", "a\rb", "a\x1b[31mb", "..", "a/b", "", " ", "a--seed-1")


def bad_configs(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield files that are no recipe, odd names, then damaged recipes."""
    texts: dict[str, bytes] = {
        "nested 3,000 deep": b"[" * 3000 + b"]" * 3000,
        "mappings 3,000 deep": "".join(" " * i + "a:\n" for i in range(3000)).encode(),
        "an integer of 5,000 digits": b"seed: " + b"9" * 5000,
        "an empty file": b"",
        "comments only": b"# nothing\n",
        "a list": b"- a\n- b\n",
        "null name": b"name: null\n",
        "a number": b"7\n",
        "bytes": bytes(range(256)),
        "an alias bomb": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(7)),
        "a merge of itself": b"a: &a\n  b: *a\n",
        "a tag of Python": b"name: !!python/object/apply:os.system ['true']\n",
        "one key twice": b"name: a\nname: b\n",
        "an interpolation to nowhere": b"name: ${nowhere}\n",
        "an interpolation to itself": b"name: ${name}\n",
        "a page of HTML": b"<html><body>Sign in</body></html>",
        "a truth value that is none": b"frozen: !!bool maybe\n",
        "a date that is none": b"seed: !!timestamp x\n",
        "a set": b"seeds: !!set {0, 1}\n",
        "bytes as a text": b"seed: !!binary aGk=\n",
        "tabs": b"learner:\n\tepochs: 1\n",
        "two documents": b"name: a\n---\nname: b\n",
        "20,000 seeds": b"seeds: [" + b",".join(b"%d" % i for i in range(20_000)) + b"]\n",
        "an undefined alias": b"name: *x\n",
        "a merge of a list": b"<<: [1]\nname: a\n",
        "a key that is a list": b"? [a, b]\n: 1\n",
        "a control character": b"name: a\x07b\n",
        "a variant's own name": b"variants: {a: {name: b}}\n",
        "variants in variants": b"variants: {a: {variants: {b: {}}}}\n",
        "equal variants": b"variants: {a: {}, b: {seed: 0}}\n",
        "UTF-16 without a BOM": "name: a\n".encode("utf-16-le"),
        "BOM and UTF-16": "name: a\n".encode("utf-16"),
        "dates as names": b"name: 2020-01-01\n",
        "keys of other types": b"1: 2\ntrue: 3\n",
        "a null key": b"? \n: 1\n",
    }
    for name, text in texts.items():
        path = world.fresh("text.yaml")
        path.write_bytes(text)
        is_wrong = name in ("an empty file", "comments only", "null name", "a number", "a list")
        is_wrong |= b"!!" in text or b"variants" in text or name in ("tabs", "two documents", "20,000 seeds")
        yield Case(name=name, commands=[["run", str(path), "--dry-run"]], is_meaningless=is_wrong)
    for name in NAMES:
        changes: dict[str, Any] = {"name": name}
        variants: dict[str, Any] = {"variants": {name: {}, "other": {}}}
        with contextlib.suppress(UnicodeError, ValueError):
            is_wrong = name not in ("figures", "report.html", "a--seed-1")  # of one run, without a page of a group
            yield Case(name=f"name {name[:9]!r}", commands=[world.dry_run(changes)], is_meaningless=is_wrong)
            yield Case(name=f"variant {name[:9]!r}", commands=[world.dry_run(variants)], is_meaningless=True)
    valid = yaml.safe_dump(world.recipe).encode()
    while True:
        path = world.fresh("damaged.yaml")
        if rng.random() < 0.3:
            path.write_bytes(damaged_bytes(valid, rng))
            words = "bytes"
        else:
            values, words = damaged_values(world.recipe, rng)
            try:
                path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
            except (ValueError, yaml.YAMLError):
                continue
        yield Case(name=words, commands=[["run", str(path), "--dry-run", "--run-dir", str(world.folder / "new")]])
