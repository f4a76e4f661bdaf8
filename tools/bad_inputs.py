"""Bad inputs of every kind, given to the commands: each must be refused in three parts, or read rightly.

    OMP_NUM_THREADS=1 uv run python tools/bad_inputs.py --cases 1000

Every kind has cases that are written out here, then an endless stream of valid configs, records, manifests and data
files that are damaged at random: entries dropped, of another type or extreme, files cut short, bytes flipped.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from lurefs.cli import main as command_line

Verdict = Literal["refused", "finished", "traceback", "accepted", "hung"]
GOOD: tuple[Verdict, ...] = ("refused", "finished")
TIME_LIMIT = 100.0
"""Seconds after which a command has hung."""
EXTREMES: tuple[Any, ...] = (
    None, True, [], {}, "", "x", "\u202e", "a\x1b[31m", 0, -1, 1.5, 10**12, 2**63, 10**400, float("nan"), float("inf"),
    1e308, [None], [[]], {"x": {"y": []}}, "1e999", "~nosuchuser", "x" * 300,
)  # fmt: skip


class Hung(BaseException):
    """A command did not end in time; no `Exception`, which a command could catch."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command met a bad input.

    Attributes:
        kind: The kind of input.
        name: The case.
        verdict: `refused` in three parts; `finished`; `traceback` (an error that nobody foresaw); `accepted` (a
            setting that means nothing was taken); or `hung`.
        detail: The first line that the command said about it.
    """

    kind: str
    name: str
    verdict: Verdict
    detail: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """One bad input.

    Attributes:
        name: In words.
        commands: The arguments of each command to try.
        is_meaningless: Whether a command that finishes has taken something that means nothing.
        folders: Runs that were made for it, deleted afterwards.
    """

    name: str
    commands: list[list[str]]
    is_meaningless: bool = False
    folders: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class World:
    """Valid files, from which the cases are made.

    Attributes:
        folder: Where the cases write.
        recipe: Settings of a small run.
        run: A finished run of it.
        images: Its data set.
        features: A file of features.
        photos: A folder of images.
        weights: A file of weights for its backbone.
    """

    folder: Path
    recipe: dict[str, Any]
    run: Path
    images: Path
    features: Path
    photos: Path
    weights: Path

    @property
    def manifest(self) -> Path:
        """Episodes of the run."""
        return next((self.run / "manifests").glob("*.parquet"))

    def fresh(self, name: str) -> Path:
        """Return a path that no other case has."""
        number = sum(1 for _ in self.folder.iterdir())
        return self.folder / f"{number}-{name}"

    def dry_run(self, changes: dict[str, Any] | None = None, *more: str) -> list[str]:
        """Return the arguments to check the recipe with changes of whole sections."""
        path = self.fresh("recipe.yaml")
        path.write_text(yaml.safe_dump(self.recipe | (changes or {}), allow_unicode=True))
        return ["run", str(path), "--run-dir", str(self.folder / "new"), "--dry-run", *more]


def make_world(folder: Path) -> World:
    """Write the valid files and do one small run."""
    import timm
    import torch
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 12)
    pixels = np.clip(labels[:, None, None] * 25 + rng.integers(0, 60, (len(labels), 8, 8)), 0, 255).astype(np.uint8)
    np.savez(folder / "images.npz", images=pixels, labels=labels)
    np.savez(folder / "features.npz", features=rng.normal(size=(len(labels), 6)).astype(np.float32), labels=labels)
    for row, label in enumerate(labels[:60]):
        file = folder / "photos" / f"class {label}" / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[row]).resize((16, 16)).save(file)
    torch.save(timm.create_model("test_byobnet", num_classes=10).state_dict(), folder / "weights.pth")
    recipe = {
        "name": "small",
        "dataset": {"name": "npz", "params": {"path": str(folder / "images.npz")}},
        "class_split": {"base": 0.5, "validation": 0.0, "novel": 0.5},
        "chunks": {"n_chunks": 2},
        "backbone": {"name": "test_byobnet", "image_size": 16},
        "learner": {"epochs": 1, "batch_size": 16},
        "benchmarks": {"novel": {"n_way": 3, "n_shot": 1, "n_query": 3, "n_episodes": 10}},
        "after_chunk": {"n_episodes": 5},
        "transfer": {"all": {"sizes": [1, "all"], "n_repeats": 2}},
        "controls": False,
        "trackers": {"wandb": {"mode": "disabled"}},
    }
    world = World(
        folder=folder / "cases", recipe=recipe, run=folder / "run", images=folder / "images.npz",
        features=folder / "features.npz", photos=folder / "photos", weights=folder / "weights.pth",
    )  # fmt: skip
    world.folder.mkdir(exist_ok=True)
    if not (world.run / "summary.json").exists():
        command = [word for word in world.dry_run() if word != "--dry-run"]
        code, said = say([*command, "--run-dir", str(world.run)], limit=600)
        assert code == 0, said
    return world


SETTINGS: dict[str, tuple[str, ...]] = {
    "learner": (
        "warmup_epochs=5", "warmup_epochs=.inf", "optimizer.params.momentum=5", "optimizer.params.lr=0",
        "optimizer.params.lr=1e30", "optimizer.params.lr=true", "optimizer.params.lr=-1", "batch_size=1000000000000",
        "eval_batch_size=1000000000000", "optimizer.params.weight_decay=x", "optimizer.params.weight_decay=1e30",
        "optimizer.params.nesterov=5", "optimizer.params.eps=x", "optimizer.name=no_such", "l2_init=1e30",
        "augment.crop_padding=1000000", "n_workers=1000000", "epochs=1000000000000", "freeze=['*']",
    ),
    "chunks": ("n_chunks=1000000000000", "buffer_size=5", "label_noise=1", "first_share=0.9"),
    "probes.logistic_regression": (
        "transform=''", "transform='l2,,l2'", "transform='l2,none'", "transform=pca:1000000000000", "params.C=0",
        "params.C=-1", "params.C=.nan", "params.C=x", "params.max_iter=x", "params.max_iter=1.5", "params.no_such=1",
        "solver=other", "transform=power:1e300",
    ),
    "benchmarks.novel": (
        "n_episodes=1000000000000", "n_way=1000000", "n_shot=1000000000000", "n_query=true", "query_alpha=.nan",
        "query_alpha=1e300", "shots=[1]", "target_ci95=0.5", "seed=-1", "manifest=no_such_file.parquet",
    ),
    "transfer.all": ("sizes=[0]", "sizes=[]", "grid={C: [x]}", "grid={C: [0]}", "grid={no_such: [1]}", "val=0",
                     "n_repeats=1000000000000"),
    "unlearn": (
        "params.keep_ratio=a", "params.keep_ratio=2", "params.keep_ratio=0", "params.saliency_images=1.5",
        "params.keep_ratio=true", "params.no_such=1",
    ),
    "backbone": ("image_size=1000000000000", "name=no_such_model", "params.no_such=1", "params.drop_rate=x",
                 "features.layer=99", "features.n_layers=1000", "checkpoint_path=~nosuchuser/x", "name=''"),
    "after_chunk": ("n_episodes=1000000000000",),
    "image_split": ("val=0.9", "test=0.99"),
}  # fmt: skip
"""Settings that mean nothing, by section; each is refused."""
OTHER_PROBES: dict[str, tuple[dict[str, Any], ...]] = {
    "knn": ({"n_neighbors": 0}, {"n_neighbors": "x"}, {"n_neighbors": 1.5}),
    "ridge": ({"alpha": -1}, {"alpha": "x"}),
    "linear_svm": ({"C": 0}, {"max_iter": "x"}),
    "sklearn.linear_model:LogisticRegression": ({"max_iter": "x"}, {"C": "x"}, {"penalty": "x"}, {"tol": -1}),
    "sklearn.neighbors:KNeighborsClassifier": ({"weights": "x"}, {"n_neighbors": 10**6}),
    "sklearn.linear_model:Ridge": ({},),
    "sklearn.preprocessing:StandardScaler": ({},),
    "lda": ({"solver": "x"}, {"shrinkage": "x"}),
    "fine_tuning": ({"steps": 1.5}, {"steps": 0}, {"lr": "x"}, {"no_such": 1}),
}
OTHER_STRATEGIES: dict[str, tuple[dict[str, Any], ...]] = {
    "redo": ({"tau": float("nan")}, {"tau": "x"}, {"tau": -1}),
    "shrink_perturb": ({"shrink": "x"}, {"shrink": 5}, {"as_released": "yes"}),
    "by_saliency": ({"as_released": "yes"}, {"keep_ratio": [0.5]}, {"keep_ratio": None}),
    "last_layers": ({"n_layers": 1.5}, {"n_layers": "x"}),
    "fire": ({"n_steps": 1.5}, {"no_such": 1}),
    "turn_back": ({"share": "x"},),
    "dash": ({"alpha": "x"},),
}
PATHS = (":", "..x:y", "math:pi", "builtins:exit", "x", "", "a:b:c", "os:system", "\x1b:y", "lurefs.cache:clear", "é:é")
NAMES = ("figures", "report.html", "x" * 300, "\ud800", "a\0b", "a\rb", "a\x1b[31mb", "..", "a/b", "", " ", "a--seed-1")


def bad_settings(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield settings that mean nothing, then random numbers and words for random settings."""
    listed = [(section, text) for section, texts in SETTINGS.items() for text in texts]
    rng.shuffle(listed)
    for section, text in listed:
        yield Case(name=f"{section}.{text}", commands=[world.dry_run({}, f"{section}.{text}")], is_meaningless=True)
    stored = yaml.safe_load((world.run / "config.yaml").read_text())
    while True:
        path = [str(key) for key in rng.choice(list(_places(stored)))]
        value = rng.choice(EXTREMES)
        text = json.dumps(value) if not isinstance(value, str) else value
        yield Case(name=f"{'.'.join(path)}={text[:40]}", commands=[world.dry_run({}, f"{'.'.join(path)}={text}")])


def bad_plugins(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield paths and parameters of plug-ins of every kind."""
    cases: list[tuple[str, dict[str, Any]]] = []
    for kind, parts in (("probes", OTHER_PROBES), ("unlearn", OTHER_STRATEGIES)):
        for name, all_params in parts.items():
            for params in all_params:
                plugin = {"name": name, "params": params}
                changes = {"probes": {"p": plugin}} if kind == "probes" else {"unlearn": plugin}
                cases.append((f"{kind} {plugin}", changes))
    for name in PATHS:
        plugin = {"name": name}
        for kind in ("dataset", "unlearn", "executor"):
            cases.append((f"{kind} {name!r}", {kind: plugin}))
        cases.append((f"probe {name!r}", {"probes": {"p": plugin}}))
        cases.append((f"optimizer {name!r}", {"learner": {"optimizer": plugin}}))
    for params in ({"n_jobs": "x"}, {"n_jobs": 0}, {"n_workers": 0}, {"no_such": 1}):
        cases.append((f"joblib {params}", {"executor": {"name": "joblib", "params": params}}))
        cases.append((f"dask {params}", {"executor": {"name": "dask", "params": params}}))
    rng.shuffle(cases)
    for name, changes in cases:
        yield Case(name=name, commands=[world.dry_run(changes)], is_meaningless=True)
    while True:
        kind, parts = rng.choice((("probes", OTHER_PROBES), ("unlearn", OTHER_STRATEGIES)))
        name = rng.choice([name for name in parts if ":" not in name])
        key = rng.choice(list(rng.choice(parts[name]) or {"x": 1}))
        plugin = {"name": name, "params": {key: rng.choice(EXTREMES[:-1])}}
        changes = {"probes": {"p": plugin}} if kind == "probes" else {"unlearn": plugin}
        with contextlib.suppress(ValueError):
            yield Case(name=f"{kind} {str(plugin)[:80]}", commands=[world.dry_run(changes)])


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
        "BOM and UTF-16": "name: a\n".encode("utf-16"),
        "dates as names": b"name: 2020-01-01\n",
        "keys of other types": b"1: 2\ntrue: 3\n",
        "a null key": b"? \n: 1\n",
    }
    for name, text in texts.items():
        path = world.fresh("text.yaml")
        path.write_bytes(text)
        is_wrong = name in ("an empty file", "comments only", "null name", "a number", "a list")
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


EVERYTHING: dict[str, Any] = {
    "class_split": {"base": 0.5, "validation": 0.25, "novel": 0.25},
    "probes": {"lr": {"choose": {"C": [0.1, 1]}}},
    "calibrate": {},
    "controls": True,
    "benchmarks": {"novel": {"n_way": 2, "n_shot": 1, "n_query": 3, "n_episodes": 10}},
}
"""Settings of a run that has every file of a run directory."""


def bad_records(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield finished runs, one file of which is damaged, and runs that were stopped before their last chunk."""
    whole = world.folder.parent / "everything"
    recipe = world.folder.parent / "everything.yaml"
    recipe.write_text(yaml.safe_dump(world.recipe | EVERYTHING))
    code, said = say(["run", str(recipe), "--run-dir", str(whole)], limit=600)
    assert code == 0, said
    records = [path.relative_to(whole) for path in sorted(whole.rglob("*.*")) if path.name not in (".lock", "log.txt")]
    records = [name for name in records if name.parts[0] not in ("figures", "report.html")]
    progress = Path("checkpoints/progress.pt")
    while True:
        name = rng.choice([*records, progress])
        run = world.fresh("run")
        shutil.copytree(whole, run)
        if name == progress:
            (run / "chunks.jsonl").unlink()
            shutil.copy(run / "checkpoints/chunk-001.resume.pt", run / name)
        words = _damage_record(run / name, rng)
        reads = [
            ["compare", str(run), "--over", "images", "--output", str(run / "numbers")],
            *(["report", str(run), "--output", str(run / "page")], ["plan", str(run)]),
            ["episodes", "show", str(run / "manifests/novel.parquet")],
            ["run", str(recipe), "--run-dir", str(run)],
        ]
        yield Case(name=f"{name}: {words}", commands=reads, folders=(run,))


def _damage_record(path: Path, rng: random.Random) -> str:
    """Damage a file of a run by its form, or its bytes; return in words how."""
    content = path.read_bytes()
    if rng.random() < 0.8:
        if path.suffix == ".parquet":
            return _damage_parquet(path, rng)
        if path.suffix == ".npy":
            return _damage_array(path, rng)
        with contextlib.suppress(ValueError, yaml.YAMLError):
            if path.suffix == ".yaml":
                values, words = damaged_values(yaml.safe_load(content), rng)
                path.write_text(yaml.safe_dump(values), errors="surrogatepass")
                return words
            if path.suffix in (".json", ".jsonl"):
                first, *rest = content.splitlines() if path.suffix == ".jsonl" else [content]
                values, words = damaged_values(json.loads(first), rng)
                path.write_bytes(b"\n".join([json.dumps(values).encode(), *rest, b""]))
                return words
    path.write_bytes(damaged_bytes(content, rng))
    return "bytes"


def bad_manifests(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield episodes with a right hash that no draw gives: each must be refused."""
    from episodes.manifest import Manifest

    manifest = Manifest.load(world.manifest)

    def changed(**arrays: Any) -> Callable[[Path], None]:
        return lambda path: replace(manifest, **arrays).save(path)

    def at(array: Any, value: int) -> Any:
        copied = array.copy()
        copied[rng.randrange(len(copied)), 0] = value
        return copied

    other_class = manifest.support.copy()
    other_class[0] = np.roll(other_class[0], 1)
    twice = manifest.classes.copy()
    twice[0, 1] = twice[0, 0]
    changes = {
        "support among the queries": changed(query=np.hstack([manifest.support[:, :1], manifest.query[:, 1:]])),
        "a negative row": changed(support=at(manifest.support, -1)),
        "a row that is too large": changed(query=at(manifest.query, 10**6)),
        "one class twice": changed(classes=twice),
        "a class that does not exist": changed(classes=at(manifest.classes, 99)),
        "a negative class": changed(classes=at(manifest.classes, -2)),
        "support of other classes": changed(support=other_class),
        "one query twice": changed(query=np.hstack([manifest.query[:, 1:2], manifest.query[:, 1:]])),
    }
    cards: dict[str, Callable[[dict[str, Any]], Any]] = {
        "a card that is a list": lambda card: [card],
        "a card that is null": lambda card: None,
        "a key of a newer version": lambda card: card | {"spec": card["spec"] | {"weather": "fine"}},
        "a spec that is a list": lambda card: card | {"spec": []},
        "a seed in words": lambda card: card | {"seed": "one"},
        "a hash that is a number": lambda card: card | {"hash": 7},
        "10^12 episodes": lambda card: card | {"spec": card["spec"] | {"n_episodes": 10**12}},
        "half an episode": lambda card: card | {"spec": card["spec"] | {"n_episodes": 9.5}},
        "shots in words": lambda card: card | {"spec": card["spec"] | {"n_shot": "one"}},
        "a seed of 5,000 digits": lambda card: card | {"seed": 10**4000},
        "no images digest": lambda card: {key: value for key, value in card.items() if key != "images_digest"},
    }
    for name, write in changes.items():
        path = world.fresh("episodes.parquet")
        try:
            write(path)
        except IndexError:
            continue
        yield _manifest_case(world, name, path)
    for name, change in cards.items():
        path = world.fresh("episodes.parquet")
        shutil.copy(world.manifest, path)
        _change_metadata(path, b"manifest", partial(_changed_card, change))
        yield _manifest_case(world, name, path)
    for name, text in {
        "names that are no base64": b"!!!", "names that are no zlib": b"AAAA", "names that expand": _bomb(),
        "names of another form": _packed([1, 2]), "labels in words": _packed([["a"], ["b"], ["c"]]),
        "labels out of range": _packed([[5], ["b"], ["c"]]), "no names": b"",
    }.items():  # fmt: skip
        path = world.fresh("episodes.parquet")
        shutil.copy(world.manifest, path)
        _change_metadata(path, b"images", partial(_replaced, text))
        yield _manifest_case(world, name, path)
    while True:
        path = world.fresh("episodes.parquet")
        shutil.copy(world.manifest, path)
        if rng.random() < 0.6:
            words = _damage_parquet(path, rng)
        else:
            path.write_bytes(damaged_bytes(path.read_bytes(), rng))
            words = "bytes"
        case = _manifest_case(world, words, path)
        yield replace(case, is_meaningless=False)


def bad_data(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield files of images and features, and folders, that are damaged or lie about their content."""
    images, features = (dict(np.load(path)) for path in (world.images, world.features))

    def npz(name: str, **arrays: Any) -> Path:
        path = world.fresh(f"{name}.npz")
        np.savez(path, **arrays)
        return path

    f, labels = features["features"], features["labels"]
    arrays = {
        "neither images nor features": npz("none", x=labels),
        "zeros": npz("zeros", features=f * 0, labels=labels),
        "complex features": npz("complex", features=f.astype(complex), labels=labels),
        "NaN": npz("nan", features=np.where(f > 1, np.nan, f), labels=labels),
        "features in words": npz("words", features=f.astype(str), labels=labels),
        "boolean features": npz("bools", features=f > 0, labels=labels),
        "times": npz("times", features=f.astype("m8[s]"), labels=labels),
        "structured": npz("struct", features=np.zeros(len(f), dtype=[("a", "f4")]), labels=labels),
        "labels of half numbers": npz("half", features=f, labels=labels + 0.5),
        "huge labels": npz("huge", features=f, labels=labels.astype(np.uint64) + np.uint64(2**63)),
        "complex labels": npz("clabel", features=f, labels=labels.astype(complex)),
        "too few labels": npz("few", features=f, labels=labels[:5]),
        "no rows": npz("empty", features=f[:0], labels=labels[:0]),
        "scalars": npz("scalars", features=np.float32(1), labels=np.int64(1)),
        "five dimensions": npz("five", features=f.reshape(len(f), 1, 1, 1, -1), labels=labels),
        "objects": npz("objects", features=np.array([{}] * len(f)), labels=labels),
        "images of floats": npz("floats", images=images["images"].astype(float), labels=labels),
        "names with escapes": npz("escapes", features=f, labels=np.array([f"\x1b[3{v}m" for v in labels])),
        "names with NUL": npz("nul", features=f, labels=np.array([f"a\0{v}" for v in labels])),
        "names of surrogates": npz("surrogates", features=f, labels=np.array([f"a\ud800{v}" for v in labels])),
        "empty names": npz("emptynames", features=f, labels=np.array(["" if v == 0 else str(v) for v in labels])),
        "pages as names": npz("pages", features=f, labels=np.array([f"<script>{v}" for v in labels])),
        "long names": npz("long", features=f, labels=np.array([f"{v}" * 3000 for v in labels])),
    }
    fine = {"names with escapes", "names with NUL", "names of surrogates", "empty names", "pages as names",
            "long names", "huge labels", "boolean features"}  # fmt: skip
    for name, path in arrays.items():
        yield Case(name=name, commands=[_evaluate(path)], is_meaningless=name not in fine)
    odd: dict[str, Callable[[Path], Any]] = {
        "10^13 labels": lambda path: _lying_npz(path, "labels", (10**13,)),
        "features of 10^13 rows": lambda path: _lying_npz(path, "features", (10**13, 8)),
        "images of 10^13 rows": lambda path: _lying_npz(path, "images", (10**13, 8, 8)),
        "members outside": lambda path: _lying_npz(path, "../../labels", (3,)),
        "a named pipe": os.mkfifo,
        "a link to itself": lambda path: path.symlink_to(path),
        "a dangling link": lambda path: path.symlink_to("no such file"),
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a folder": lambda path: path.mkdir(),
        "an empty file": lambda path: path.write_bytes(b""),
    }
    for name, write in odd.items():
        for ending in (".npz", ".npy", ".parquet", ".zip", ".csv", ".tar"):
            path = world.fresh(f"odd{ending}")
            write(path)
            yield Case(name=f"{name} as {ending}", commands=[_evaluate(path)], is_meaningless=True)
    folders: dict[str, Callable[[Path], Any]] = {
        "a pipe": lambda folder: os.mkfifo(folder / "class 0" / "p.png"),
        "a device": lambda folder: (folder / "class 0" / "d.png").symlink_to("/dev/zero"),
        "a dangling link": lambda folder: (folder / "class 0" / "d.png").symlink_to("nowhere"),
        "a circle": lambda folder: (folder / "class 0" / "c").symlink_to("..", target_is_directory=True),
        "a loop": lambda folder: (folder / "class 0" / "l").symlink_to("l"),
        "bytes as a name": lambda folder: os.rename(folder / "class 0", os.fsencode(folder) + b"/caf\xe9"),
        "an escape as a name": lambda folder: os.rename(folder / "class 0", folder / "\x1b[31m"),
        "a page as a name": lambda folder: os.rename(folder / "class 0", folder / "<script>"),
        "a text as an image": lambda folder: (folder / "class 0" / "t.png").write_text("text"),
        "no images": lambda folder: _remove(*folder.iterdir()),
        "one class": lambda folder: _remove(*sorted(folder.iterdir())[1:]),
    }
    for name, write_in in folders.items():
        folder = world.fresh("photos")
        shutil.copytree(world.photos, folder)
        write_in(folder)
        yield Case(name=f"{name} in a folder", commands=[_evaluate(folder)])
    while True:
        source = rng.choice((world.images, world.features))
        path = world.fresh(source.name)
        path.write_bytes(damaged_bytes(source.read_bytes(), rng))
        yield Case(name=f"bytes of {source.name}", commands=[_evaluate(path)])


def bad_weights(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield files of weights that are damaged, or hold something else."""
    import torch

    state = torch.load(world.weights, weights_only=True)
    first = next(name for name, tensor in state.items() if tensor.ndim == 4)
    contents: dict[str, Any] = {
        "integers": {**state, first: state[first].to(torch.int64)},
        "complex numbers": {**state, first: state[first].to(torch.complex64)},
        "a sparse tensor": {**state, first: state[first].to_sparse()},
        "a meta tensor": {**state, first: state[first].to("meta")},
        "NaN": {**state, first: state[first] * float("nan")},
        "a list": [1, 2],
        "a number": 7,
        "no tensors": {"epoch": 3},
        "nothing": {},
        "null": None,
        "one tensor": state[first],
        "names that are numbers": dict(enumerate(state.values())),
        "texts as weights": dict.fromkeys(state, "x"),
        "nested deeply": {"a": {"b": {"c": state}}},
        "other shapes": {name: tensor[..., None] for name, tensor in state.items()},
        "numbers of eight bits": {**state, first: state[first].to(torch.float8_e4m3fn)},
    }
    for name, content in contents.items():
        path = world.fresh("weights.pth")
        torch.save(content, path)
        yield _weights_case(world, name, path)
    for name, text in {
        "a text": b"hello\n",
        "a page": b"<html>",
        "nothing": b"",
        "LFS": b"version https://git",
    }.items():
        for ending in (".pth", ".safetensors", ".bin"):
            path = world.fresh(f"weights{ending}")
            path.write_bytes(text)
            yield _weights_case(world, f"{name} as {ending}", path)
    odd: dict[str, Callable[[Path], Any]] = {
        "a pipe": os.mkfifo, "a folder": Path.mkdir, "a device": lambda path: path.symlink_to("/dev/zero"),
        "a loop": lambda path: path.symlink_to(path),
    }  # fmt: skip
    for name, write in odd.items():
        path = world.fresh("weights.pth")
        write(path)
        yield _weights_case(world, name, path)
    valid = world.weights.read_bytes()
    while True:
        path = world.fresh("weights.pth")
        path.write_bytes(damaged_bytes(valid, rng))
        yield replace(_weights_case(world, "bytes", path), is_meaningless=False)


def bad_commands(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield options, paths and orders that no command takes."""
    lines = [
        "plan --assume way=2.5,class=3,pair=5,episode=5 --classes 20 --episodes 100",
        "plan --assume class=3,class=4,pair=5,episode=5 --classes 20 --episodes 100",
        "plan --assume class=nan,pair=5,episode=5 --classes 20 --episodes 100",
        "plan --assume class --classes 20 --episodes 100",
        "plan --assume class=3,pair=5,episode=5 --classes 0 --episodes 100",
        "plan --assume class=3,pair=5,episode=5 --classes 20 --episodes 1000000000000",
        "plan --assume class=3,pair=5,episode=5 --classes 20 --episodes 100 --difference nan",
        "plan --assume class=3,pair=5,episode=5 --classes 20 --episodes 100 --power 2",
        "compare /nowhere", "report /dev/null", "plan /nowhere", "push /nowhere",
        "episodes show /dev/null", "episodes show /nowhere", "episodes verify /dev/zero",
        "run --config /nowhere.yaml", "run --config /dev/null", "run --config ''", "run --run-dir /nowhere",
        "run ~nosuchuser/x.yaml", "evaluate ~nosuchuser/x --backbone test_resnet", "evaluate /dev/zero",
        "evaluate /dev/null", "evaluate ''", "init /nowhere", "init /dev/zero", "list nothing", "cache nothing",
        "sweep --config /nowhere", "sweep --config quickstart learner.epochs=[]", "reproduce /nowhere",
        "run --config quickstart --workers 0 --dry-run", "run --config quickstart --workers 1000000 --dry-run",
        "run --config quickstart seeds=[] --dry-run", "run --config quickstart seeds=[0,0] --dry-run",
        "run --config quickstart a=b --dry-run", "run --config quickstart = --dry-run",
        "run --config quickstart 'learner=5' --dry-run", "run --config quickstart learner.epochs.x=5 --dry-run",
    ]  # fmt: skip
    import shlex

    rng.shuffle(lines)
    for line in lines:
        yield Case(name=line, commands=[shlex.split(line)], is_meaningless=True)
    places = (*NAMES, "~nosuchuser/x", "/dev/null/x", "/proc/x", "x/" * 300, "/" + "x" * 300, "a\nb")
    for place in places:
        if place not in ("figures", "report.html", " ", "a--seed-1", "a/b", "a\rb", "a\x1b[31mb", "a\nb", ".."):
            yield Case(
                name=f"run into {place[:20]!r}",
                commands=[[*world.dry_run()[:2], "--dry-run", "--run-dir", place]],
                is_meaningless=place in ("\ud800", "a\0b"),
            )
        for words in (["compare"], ["run", "--dry-run"], ["evaluate"], ["episodes", "show"]):
            is_wrong = bool(place.strip())  # an empty path is the current folder
            if place != "..":  # all that others have in the temporary folder
                yield Case(name=f"{words[0]} {place[:20]!r}", commands=[[*words, place]], is_meaningless=is_wrong)
    options = ("--config", "--run-dir", "--workers", "--shots", "--way", "--backbone", "--weights", "--difference",
               "--classes", "--benchmark", "--probe", "--output", "--reference")  # fmt: skip
    names = ("run", "evaluate", "compare", "report", "plan", "episodes", "init", "list", "sweep", "reproduce")
    while True:
        words = [rng.choice(names), *rng.choices([str(world.run), "", "x", "a=b", "--dry-run", "-1"], k=2)]
        for option in rng.sample(options, 2):
            words += [option, str(rng.choice(EXTREMES))[:400]]
        if words[0] in ("run", "evaluate", "sweep", "reproduce", "init"):
            words.append("--dry-run")
        yield Case(name=" ".join(words)[:90], commands=[words])


KINDS: dict[str, Callable[[World, random.Random], Iterator[Case]]] = {
    "settings": bad_settings,
    "plug-ins": bad_plugins,
    "configs": bad_configs,
    "records": bad_records,
    "manifests": bad_manifests,
    "data": bad_data,
    "weights": bad_weights,
    "commands": bad_commands,
}


def battery(folder: Path, seed: int = 0, n: int = 1000, *, kinds: tuple[str, ...] = tuple(KINDS)) -> Iterator[Outcome]:
    """Yield the outcomes of `n` bad inputs, one of each kind in turn.

    Args:
        folder: Where to write the inputs.
        seed: Of all choices.
        n: Number of cases.
        kinds: Keys of `KINDS`.
    """
    world = make_world(folder.resolve())
    streams = {kind: KINDS[kind](world, random.Random(f"{seed} {kind}")) for kind in kinds}
    for number in range(n):
        kind = kinds[number % len(kinds)]
        case = next(streams[kind])
        with contextlib.chdir(folder):  # some commands write where they are
            outcome = meet(kind, case)
        yield outcome
        for made in case.folders:
            shutil.rmtree(made, ignore_errors=True)


def meet(kind: str, case: Case) -> Outcome:
    """Return the worst outcome of a case's commands."""
    found = [_verdict(words, case) for words in case.commands]
    order: tuple[Verdict, ...] = ("finished", "refused", "accepted", "hung", "traceback")
    verdict, detail = max(found, key=lambda each: order.index(each[0]))
    return Outcome(kind=kind, name=case.name, verdict=verdict, detail=detail)


def _verdict(words: list[str], case: Case) -> tuple[Verdict, str]:
    try:
        code, said = say(words)
    except Hung:
        return "hung", f"lurefs {' '.join(words)}"[:300]
    lines = said.splitlines() or [""]
    detail = f"{words[0]}: {next((line for line in lines if 'error:' in line), '')}"[:300]
    if code == 0:
        return ("accepted" if case.is_meaningless else "finished"), detail
    is_told = ("expected:" in said and "to fix:" in said) or said.startswith("usage:")
    if code == 2 and is_told and "Traceback" not in said:
        return "refused", detail
    return "traceback", f"exit {code}, {detail}"


def say(words: list[str], limit: float = TIME_LIMIT) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it said.

    Raises:
        Hung: It did not end in time.
    """
    out, err = io.StringIO(), io.StringIO()

    def stop(*_: Any) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    folder = os.getcwd()
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            signal.setitimer(signal.ITIMER_REAL, limit)
            command_line(words)
    except SystemExit as ended:
        code = ended.code or 0
    except Hung:
        raise
    except BaseException as error:
        code, said = 70, f"error: {type(error).__name__}: {error}"
        err.write(said)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.chdir(folder)
    said = err.getvalue()
    if code == 70 and (saved := re.search(r"please report it with (\S+)", said)):
        path = Path(saved[1])
        places = re.findall(r'File "([^"]+)", line (\d+)', path.read_text(errors="replace"))
        ours = [f"{Path(file).name}:{line}" for file, line in places if "lurefs/" in file or "episodes/" in file]
        said = said.replace("which it should not", " < ".join(ours[:-4:-1]))
        path.unlink(missing_ok=True)
    return int(code), said


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return bytes cut short, emptied, or with some of them flipped."""
    way = rng.randrange(4)
    if way == 0:
        return content[: rng.randrange(len(content) + 1)]
    if way == 1:
        return content[: len(content) // 2] + bytes(rng.randrange(256) for _ in range(64))
    flipped = bytearray(content)
    for _ in range(1 if way == 2 else 20):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def damaged_values(values: Any, rng: random.Random) -> tuple[Any, str]:
    """Return plain values with one entry dropped, renamed or replaced, and in words how."""
    changed = copy.deepcopy(values)
    places = list(_places(changed))
    if not places or rng.random() < 0.05:
        value = rng.choice(EXTREMES)
        return value, f"all is {str(value)[:20]}"
    *above, last = rng.choice(places)
    inner = changed
    for key in above:
        inner = inner[key]
    way = rng.randrange(4)
    where = ".".join(map(str, [*above, last]))
    if way == 0:
        del inner[last]
        return changed, f"{where} dropped"
    if way == 1 and isinstance(inner, dict):
        inner[f"{last}_2"] = inner.pop(last)
        return changed, f"{where} renamed"
    inner[last] = rng.choice(EXTREMES)
    return changed, f"{where} is {str(inner[last])[:20]!r}"


def _places(values: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every entry of nested mappings, and of lists with few entries."""
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in list(entries)[:30]:
        yield (*above, key)
        yield from _places(value, (*above, key))


def _evaluate(path: Path) -> list[str]:
    words = ["evaluate", str(path), "--way", "2", "--shots", "1", "--dry-run", "--run-dir", str(path) + "-run"]
    return (
        words
        if path.suffix in (".npz", ".npy") and "photos" not in path.name
        else [*words, "--backbone", "test_resnet"]
    )


def _manifest_case(world: World, name: str, path: Path) -> Case:
    shape = {"n_way": 3, "n_shot": 1, "n_query": 3, "n_episodes": 10, "manifest": str(path)}
    return Case(name=name, commands=[world.dry_run({"benchmarks": {"novel": shape}})], is_meaningless=True)


def _weights_case(world: World, name: str, path: Path) -> Case:
    backbone = world.recipe["backbone"] | {"checkpoint_path": str(path)}
    is_wrong = name not in ("integers", "numbers of eight bits", "nested deeply")
    return Case(name=name, commands=[world.dry_run({"backbone": backbone})], is_meaningless=is_wrong)


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def _lying_npz(path: Path, member: str, shape: tuple[int, ...]) -> None:
    import zipfile

    header = io.BytesIO()
    descr = "<i8" if member.endswith("labels") else "|u1" if member == "images" else "<f4"
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    other = "labels" if member != "labels" else "features"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{member}.npy", header.getvalue() + b"\0" * 64)
        rest = io.BytesIO()
        np.save(rest, np.zeros(3, dtype=np.int64) if other == "labels" else np.ones((3, 2), dtype=np.float32))
        archive.writestr(f"{other}.npy", rest.getvalue())


def _changed_card(change: Callable[[dict[str, Any]], Any], text: bytes) -> bytes:
    return json.dumps(change(json.loads(text))).encode()


def _replaced(text: bytes, _: bytes) -> bytes:
    return text


def _packed(values: Any) -> bytes:
    import base64
    import zlib

    return base64.b64encode(zlib.compress(json.dumps(values).encode()))


def _bomb() -> bytes:
    import base64
    import zlib

    packer = zlib.compressobj(9)
    parts = [packer.compress(b'"' + b"a" * 2**20) for _ in range(1500)]
    return base64.b64encode(b"".join(parts) + packer.flush())


def _change_metadata(path: Path, key: bytes, change: Callable[[bytes], bytes]) -> None:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        table, metadata = file.read(), dict(file.metadata.metadata or {})
    metadata.pop(b"ARROW:schema", None)
    metadata[key] = change(metadata.get(key, b"null"))
    table = table.replace_schema_metadata(None)
    with pyarrow.parquet.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)


def _damage_parquet(path: Path, rng: random.Random) -> str:
    """Damage a column or the metadata of a Parquet file; return in words how."""
    import pyarrow
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        table, metadata = file.read(), dict(file.metadata.metadata or {})
    metadata.pop(b"ARROW:schema", None)
    keys = [key for key, value in metadata.items() if value[:1] in (b"{", b"[")]
    way = rng.randrange(4)
    words = ""
    if way == 0 and keys:
        key = rng.choice(keys)
        values, words = damaged_values(json.loads(metadata[key]), rng)
        with contextlib.suppress(ValueError):
            metadata[key] = json.dumps(values).encode()
    elif way == 1:
        name = rng.choice(table.column_names)
        table, words = table.drop_columns([name]), f"column {name} dropped"
    elif way == 2:
        name = rng.choice(table.column_names)
        value: Any = rng.choice(("text", None, -1, 10**12, float("nan"), [[]], [None], [1]))
        column = pyarrow.array([value] * len(table))
        table = table.set_column(table.column_names.index(name), name, column)
        words = f"column {name} is {value}"
    else:
        table, words = table.slice(0, rng.randrange(len(table))), "fewer rows"
    table = table.replace_schema_metadata(None)
    with pyarrow.parquet.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)
    return words


def _damage_array(path: Path, rng: random.Random) -> str:
    """Replace the content of a NumPy file; return in words how."""
    array = np.load(path)
    ways: dict[str, Callable[[], Any]] = {
        "zeros": lambda: array * 0,
        "complex": lambda: array.astype(complex),
        "whole numbers": lambda: array.astype(np.int64) + 10**9,
        "NaN": lambda: array * float("nan"),
        "fewer rows": lambda: array[:3],
        "flat": lambda: array.ravel(),
        "texts": lambda: array.astype(str),
        "another row": lambda: np.concatenate([array[1:], array[:1]]),
    }
    name = rng.choice(list(ways))
    np.save(path, ways[name]())
    return name


def main() -> None:
    """Run the battery, print what went wrong, and a table of verdicts by kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    arguments = parser.parse_args()
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    kinds = tuple(arguments.kinds.split(","))
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("LUREFS_CACHE", f"{folder}/cache")
        for outcome in battery(Path(folder), arguments.seed, arguments.cases, kinds=kinds):
            counts[outcome.kind, outcome.verdict] += 1
            if outcome.verdict not in GOOD:
                print(f"{outcome.verdict}  {outcome.kind}: {outcome.name!r}: {outcome.detail!r}", flush=True)
    verdicts = ("refused", "finished", "traceback", "accepted", "hung")
    print(f"{'kind':<10}" + "".join(f"{verdict:>10}" for verdict in verdicts))
    for kind in kinds:
        print(f"{kind:<10}" + "".join(f"{counts[kind, verdict]:>10}" for verdict in verdicts))
    if any(verdict not in GOOD for _, verdict in counts):
        sys.exit(1)


if __name__ == "__main__":
    main()
