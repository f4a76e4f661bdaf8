"""Settings that mean nothing, and plug-ins of every kind with odd paths and parameters."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from typing import Any

import yaml

from bad_input_kinds.damage import EXTREMES, places
from bad_input_kinds.worlds import Case, World

SETTINGS: dict[str, tuple[str, ...]] = {
    "learner": (
        "warmup_epochs=5", "warmup_epochs=.inf", "optimizer.params.momentum=5", "optimizer.params.lr=0",
        "optimizer.params.lr=1e30", "optimizer.params.lr=true", "optimizer.params.lr=-1", "batch_size=1000000000000",
        "eval_batch_size=1000000000000", "optimizer.params.weight_decay=x", "optimizer.params.weight_decay=1e30",
        "optimizer.params.nesterov=5", "optimizer.params.eps=x", "optimizer.name=no_such", "l2_init=1e30",
        "augment.crop_padding=1000000", "n_workers=1000000", "epochs=1000000000000", "freeze=['*']",
        "optimizer={name: adamw, params: {lr: 0.1, betas: [0.9]}}", "optimizer.params.dampening=5",
        "optimizer={name: adamw, params: {lr: 0.1, maximize: true}}",
        "optimizer={name: rmsprop, params: {lr: 0.1, alpha: 5}}", "optimizer={}", "optimizer.params={}",
    ),
    "chunks": ("n_chunks=1000000000000", "buffer_size=5", "label_noise=1", "first_share=0.9"),
    "probes.logistic_regression": (
        "transform=''", "transform='l2,,l2'", "transform='l2,none'", "transform=pca:1000000000000", "params.C=0",
        "params.C=-1", "params.C=.nan", "params.C=x", "params.max_iter=x", "params.max_iter=1.5", "params.no_such=1",
        "solver=other", "transform=power:1e300", "params.C=1e300", "params.C=1e-300", "params.max_iter=0",
        "params.tol=1e9", "choose=[]", "choose={}", "choose={C: []}", "choose={C: 1}", "choose={C: [[1]]}",
        "choose={C: [0]}", "choose={C: [1, 1.0]}", "choose={C: [1e300]}", "choose={C: [.nan]}", "choose={C: [x]}",
        "choose={C: [true]}", "choose={C: [null]}", "choose={name: [ridge]}", "choose={max_iter: [0]}",
        "choose={transform: [x]}", "choose_by=accuracy",
    ),
    "benchmarks.novel": (
        "n_episodes=1000000000000", "n_way=1000000", "n_shot=1000000000000", "n_query=true", "query_alpha=.nan",
        "query_alpha=1e300", "shots=[1]", "target_ci95=0.5", "seed=-1", "manifest=no_such_file.parquet",
    ),
    "transfer.all": ("sizes=[0]", "sizes=[]", "grid={C: [x]}", "grid={C: [0]}", "grid={no_such: [1]}",
                     "grid={C: [1e300]}", "val=0",
                     "n_repeats=1000000000000"),
    "unlearn": (
        "params.keep_ratio=a", "params.keep_ratio=2", "params.keep_ratio=0", "params.saliency_images=1.5",
        "params.keep_ratio=true", "params.no_such=1",
    ),
    "backbone": ("image_size=1000000000000", "name=no_such_model", "params.no_such=1", "params.drop_rate=x",
                 "params.drop_path_rate=1", "params.drop_rate=1.0", "params.attn_drop_rate=-0.1",
                 "params.act_layer=x", "params.norm_layer=x", "params.in_chans=7",
                 "features.layer=99", "features.n_layers=1000", "checkpoint_path=~nosuchuser/x", "name=''"),
    "after_chunk": ("n_episodes=1000000000000",),
    "calibrate": ("alpha=0", "alpha=1", "alpha=.nan", "alpha=x", "alpha=true", "alpha=[0.1]", "no_such=1"),
    "dataset": ("params.image_size=0", "params.image_size=1000000000", "params.path=[a]", "params={}"),
    "executor": ("name=Serial", "params.n_jobs=2", "params={n_workers: 2}"),
    "image_split": ("val=0.9", "test=0.99"),
}  # fmt: skip
"""Settings that mean nothing, by section; each is refused."""
WHOLE = (
    "trackers.wandb.project=a/b", "trackers.wandb.project=''", "++seed=1", "seed@x=1", "--multirun", "seed=1,2",
    "seed='range(3)'", "learner/optimizer=adam", "optimizer.lr=0.1", "backbone.name=timm/resnet18.a1_in1k",
    "a=", "=b", "a.b.c=1", "a[0]=1", "+seed=1", "~seed=1", "seed", "seed=", "seed==1", "seed =1", ".seed=1",
    "learner..epochs=1", "learner.=1", "learner.epochs[0]=1", "learner.epochs.x=1", "learner={}", "learner=null",
    "probes={}", "benchmarks={}", "benchmarks.novel=null", "transfer={}", "calibrate=yes", "calibrate=[]",
    "seed=!!bool maybe", "seed=!!timestamp x", "seed=!!python/name:os.system", "seed=${seed}", "seed=[1", "seed=1.0",
    "seed=0o10", "seed=1:30:x", "seed=.inf", "seeds=[0,0]", "variants.a.name=b", "device=meta", "device=''", "device=x",
    "robustness.severities=[0]", "robustness.attacks={fgsm: [2]}", "class_split.base=2", "class_split.file=/dev/zero",
)  # fmt: skip
"""Settings outside of the sections: odd forms, tags, and those of the whole run."""


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


def bad_settings(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield settings that mean nothing, then random numbers and words for random settings."""
    listed = [f"{section}.{text}" for section, texts in SETTINGS.items() for text in texts]
    listed += WHOLE
    rng.shuffle(listed)
    for text in listed:
        yield Case(name=text, commands=[world.dry_run({}, text)], is_meaningless=True)
    stored = yaml.safe_load((world.run / "config.yaml").read_text())
    while True:
        path = [str(key) for key in rng.choice(list(places(stored)))]
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
    for address in ("nonsense", "", "foo://x", "tcp://127.0.0.1:port"):
        cases.append((f"dask at {address!r}", {"executor": {"name": "dask", "params": {"address": address}}}))
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
