from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from lurefs import plugins
from lurefs.config.identity import digest, pretrain_identity, run_identity
from lurefs.config.load import find_recipe, load, merge, recipes_dir, run_config, to_yaml
from lurefs.config.schema import plugin_names
from lurefs.errors import UserError


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nlearner: {epochs: 3}\nunlearn: {name: by_saliency, params: {keep_ratio: 0.7}}\n")
    return path


def refusal(source: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(source, overrides)
    return str(caught.value)


def test_overrides_win_over_the_file_and_the_file_over_defaults(recipe: Path) -> None:
    config = load(str(recipe), ["learner.epochs=7"]).runs["mine"]
    assert (config.learner.epochs, config.unlearn.params, config.learner.batch_size) == (7, {"keep_ratio": 0.7}, 64)


def test_another_plugin_name_drops_the_parameters_of_the_old_one(recipe: Path) -> None:
    assert load(str(recipe), ["unlearn.name=nothing"]).runs["mine"].unlearn.params == {}


def test_variants_are_runs_of_their_own_and_overrides_reach_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "group.yaml"
    path.write_text("seed: 3\nvariants:\n  a: {unlearn: {name: nothing}}\n  b: {seed: 4}\n")
    group = load(str(path), ["learner.epochs=2", "variants.b.seed=5"])
    assert group.name == "group"
    assert {name: (run.name, run.seed, run.learner.epochs) for name, run in group.runs.items()} == {
        "a": ("a", 3, 2),
        "b": ("b", 5, 2),
    }


def test_seeds_make_a_run_of_each_variant_with_each_seed(tmp_path: Path) -> None:
    path = tmp_path / "group.yaml"
    path.write_text("seeds: [0, 7]\nvariants:\n  a: {unlearn: {name: nothing}}\n  b:\n")
    group = load(str(path))
    assert {name: (run.name, run.seed, run.unlearn.name) for name, run in group.runs.items()} == {
        "a--seed-0": ("a--seed-0", 0, "nothing"),
        "a--seed-7": ("a--seed-7", 7, "nothing"),
        "b--seed-0": ("b--seed-0", 0, "by_saliency"),
        "b--seed-7": ("b--seed-7", 7, "by_saliency"),
    }
    assert group.has_folders and group.name == "group"


def test_seeds_of_a_file_without_variants_are_runs_in_folders_of_their_own(recipe: Path) -> None:
    group = load(str(recipe), ["seeds=[0, 1]"])
    assert {name: run.seed for name, run in group.runs.items()} == {"mine--seed-0": 0, "mine--seed-1": 1}
    assert group.has_folders and not load(str(recipe)).has_folders


@pytest.mark.parametrize(
    ("overrides", "seeds"),
    [
        ((), {"mine--seed-0": 0, "mine--seed-1": 1}),
        (("seeds=[4]",), {"mine--seed-4": 4}),
        (("seed=3",), {"mine--seed-3": 3}),
        (("seeds=null",), {"mine": 0}),
        (("seeds=null", "seed=3"), {"mine": 3}),
    ],
)
def test_seeds_on_the_command_line_take_the_place_of_those_of_the_file(
    recipe: Path, overrides: tuple[str, ...], seeds: dict[str, int]
) -> None:
    recipe.write_text(recipe.read_text() + "seeds: [0, 1]\n")
    assert {name: run.seed for name, run in load(str(recipe), overrides).runs.items()} == seeds


def test_seeds_on_the_command_line_win_over_the_seed_of_the_file(recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "seed: 9\n")
    assert [run.seed for run in load(str(recipe), ["seeds=[4]"]).runs.values()] == [4]


def test_several_seeds_of_loaded_weights_that_do_not_learn_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("frozen: true\nseeds: [0, 1]\nbackbone: {name: test_resnet, pretrained: true}\n")
    with pytest.raises(UserError, match=r"seeds is \[0, 1\], but the weights are loaded(.*\n)*.*leave seeds out"):
        load(str(path))
    assert len(load(str(path), ["backbone.pretrained=false"]).runs) == 2  # each seed draws other weights
    assert len(load(str(path), ["frozen=false"]).runs) == 2
    assert len(load(str(path), ["seed=1"]).runs) == 1
    path.write_text(path.read_text() + "variants: {as_is: {}, trained: {frozen: false}}\n")
    assert len(load(str(path)).runs) == 4


def test_workers_are_no_part_of_any_run(recipe: Path) -> None:
    two = load(str(recipe), ["workers=2"])
    assert two.n_workers == 2 and two.runs == load(str(recipe)).runs


def test_contradicting_seeds_on_the_command_line_are_refused(recipe: Path) -> None:
    assert "for several write 'seeds=[0, 1]'" in refusal(str(recipe), "seed=[0, 1]")
    assert "seed is 2 and seeds is [0]" in refusal(str(recipe), "seed=2", "seeds=[0]")
    recipe.write_text(recipe.read_text() + "seeds: [0, 1]\n")
    assert "seed is 'x'" in refusal(str(recipe), "seed=x")


def test_resolved_config_reads_back_to_the_same_run(recipe: Path, tmp_path: Path) -> None:
    config = load(str(recipe)).runs["mine"]
    stored = tmp_path / "config.yaml"
    stored.write_text(to_yaml(config))
    assert load(str(stored)).runs["mine"] == config


def test_recipes_are_found_by_name_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("smoke") == find_recipe("configs/smoke.yaml") == recipes_dir() / "smoke.yaml"


RECIPES = [path for path in sorted(recipes_dir().glob("*.yaml")) if "\nparameters:" not in path.read_text()]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    assert load(str(path)).runs


def test_digest_of_a_run_does_not_depend_on_its_name_or_machine() -> None:
    one, other = run_config({"name": "a"}), run_config({"name": "b", "device": "cpu", "num_threads": 2})
    assert digest(run_identity(one)) == digest(run_identity(other))
    assert digest(run_identity(one)) != digest(run_identity(run_config({"name": "a", "seed": 1})))


def test_other_features_are_another_run_and_the_default_ones_spelled_out_are_not() -> None:
    plain, max_pool = run_config({"name": "a"}), run_config({"name": "a", "backbone": {"features": {"pool": "max"}}})
    spelled = run_config({"name": "a", "backbone": {"features": {"n_layers": 1, "pool": None}}})
    assert digest(run_identity(plain)) == digest(run_identity(spelled)) != digest(run_identity(max_pool))
    assert "features" not in run_identity(plain)["backbone"]  # runs older than this setting are found again


@pytest.mark.parametrize(
    "change", [{"freeze": 1}, {"ema_decay": 0.9}, {"augment": {"mixup": 0.2}}, {"augment": {"cutmix": 1.0}}], ids=str
)
def test_other_ways_to_learn_are_other_runs_and_are_no_part_of_older_ones(change: dict[str, object]) -> None:
    plain, other = (run_config({"name": "a", "learner": learner}) for learner in ({}, change))
    assert digest(pretrain_identity(plain)) != digest(pretrain_identity(other))
    learner = run_identity(plain)["learner"]
    assert not {"freeze", "ema_decay"} & learner.keys() and learner["augment"] == {"crop_padding": 2, "flip": False}


def test_weights_do_not_depend_on_what_only_measures_them() -> None:
    plain, asked = run_config({"name": "a"}), run_config({"name": "a", "robustness": {}})
    assert pretrain_identity(plain) == pretrain_identity(asked)
    assert digest(run_identity(plain)) != digest(run_identity(asked))


def test_merge_keeps_what_a_change_does_not_name() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}}) == {"a": {"b": 1, "c": 4}, "d": 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no settings"),
        ("# to be written", "holds no settings"),
        ("name: null", "name is None"),
        ("learner: {optimizer: {params: {lr: 1.0e+30}}}", "learner.optimizer.params.lr is 1e+30"),
        ("learner: {augment: {crop_padding: 1000000}}", "learner.augment.crop_padding is 1000000"),
        ("backbone: {image_size: 1000000000000}", "backbone.image_size is 1000000000000"),
        ("transfer: {all: {n_repeats: 1000000000000}}", "transfer.all.n_repeats is 1000000000000"),
        ("lerner: {epochs: 3}", "did you mean 'learner'?"),
        ("learner: {epochs: many}", "learner.epochs is 'many'"),
        ("chunks: {n_chunks: 3, chunk_size: 10}", "only one of the two"),
        ("backbone: {features: {pool: cls}}", "backbone.features.pool is 'cls'"),
        ("backbone: {features: {norm: false}}", "set backbone.features.layer (-1 is the last)"),
        ("backbone: {features: {layer: 3, pool: map}}", "attention pooling reads the last one alone"),
        ("backbone: {features: {n_layers: 0}}", "backbone.features.n_layers is 0"),
        ("learner: {relearn_epochs: 0}", "learner.relearn_epochs is 0"),
        ("learner: {l2_init: -1.0}", "learner.l2_init is -1.0"),
        ("learner: {ema_decay: 1.0}", "learner.ema_decay is 1.0"),
        ("learner: {augment: {mixup: 0}}", "learner.augment.mixup is 0"),
        ("learner: {augment: {cutmix: -1}}", "learner.augment.cutmix is -1"),
        ("learner: {freeze: 0}", "learner.freeze is 0"),
        ("learner: {freeze: []}", "learner.freeze is empty"),
        ("learner: {optimizer: {params: {layer_decay: 1.0}}}", "learner.optimizer.params.layer_decay is 1.0"),
        ("learner: {precision: float16}", "learner.precision is 'float16'"),
        ("learner: {images: disk}", "learner.images is 'disk'"),
        ("checkpoints: {keep: none}", "checkpoints.keep is 'none'"),
        ("checkpoints: {every_seconds: -1}", "checkpoints.every_seconds is -1"),
        ("chunks: {replay: buffer}", "a buffer_size with replay 'buffer'"),
        ("chunks: {schedule: grow}", "did you mean 'growing'?"),
        ("chunks: {schedule: growing, chunk_by: source}", "expected: schedule 'equal', since sources arrive whole"),
        ("chunks: {class_order: balanced, chunk_by: source}", "set chunks.class_order to random, or chunks.chunk_by"),
        ("chunks: {schedule: growing, chunk_size: 9}", "set chunks.n_chunks instead of chunks.chunk_size"),
        ("chunks: {class_order: balanced, chunk_size: 9}", "a number of chunks, since class_order 'balanced' divides"),
        ("chunks: {schedule: large_first, n_chunks: 1}", "raise chunks.n_chunks to 2 or more"),
        ("chunks: {schedule: large_first, first_share: 1.0}", "chunks.first_share is 1.0"),
        ("chunks: {first_share: 0.8}", "a first_share with schedule 'large_first', and none with any other"),
        ("chunks: {class_order: skewed}", "a skew_alpha with class_order 'skewed', and none with any other"),
        ("chunks: {skew_alpha: 0.5}", "chunks.class_order is 'random' and chunks.skew_alpha is 0.5"),
        ("chunks: {class_order: skewed, skew_alpha: 0}", "a number of more than 0"),
        ("chunks: {label_noise: 1.0}", "a number of less than 1"),
        ("chunks: {label_noise: -0.1}", "a number of at least 0"),
        ("chunks: {images_per_class: 1}", "a number of at least 2"),
        ("class_split: {base: 0.8, novel: 0.5}", "add up to 1.45"),
        ("class_split: {base: [a, b]}", "mixes shares and lists"),
        ("unlearn: {name: LURE}", "did you mean 'by_saliency'? It is the method of LURE"),
        ("unlearn: {name: warm_start}", "did you mean 'nothing'?"),
        ("unlearn: {name: by_salience}", "did you mean 'by_saliency'?"),
        ("unlearn: {params: {keep: 0.5}}", "did you mean 'keep_ratio'?"),
        ("unlearn: {params: {keep_ratio: 2.0}}", "keep_ratio is 2.0"),
        ("unlearn: {params: {keep_ratio: a}}", "unlearn.params.keep_ratio is 'a'"),
        ("unlearn: {params: {as_released: 'yes'}}", "unlearn.params.as_released is 'yes'"),
        ("unlearn: {name: fire, params: {steps: 1.5}}", "unlearn.params.steps is 1.5"),
        ("unlearn: {name: fire, params: {steps: true}}", "a whole number"),
        ("unlearn: {params: {probe: newest}}", "one of seen, new, oldest, previous"),
        ("dataset: {params: {image_size: big}}", "dataset.params.image_size is 'big'"),
        ("dataset: {name: glyphs, params: {font_dirs: /fonts}}", "a list, each entry a text"),
        ("dataset: {name: glyphs, params: {font_dirs: [/fonts], alphabets: [1]}}", "alphabets[0] is 1"),
        ("benchmarks: {b: {dataset: {name: digits, params: {image_size: 8.5}}}}", "benchmarks.b.dataset.params.image_"),
        (
            "transfer: {t: {dataset: {name: digits, params: {image_size: x}}, classes: all}}",
            "image_size is 'x'",
        ),
        ("probes: {p: {name: knn, params: {n_neighbors: 1.5}}}", "probes.p.params.n_neighbors is 1.5"),
        ("probes: {p: {name: lda, params: {shrinkage: [1]}}}", "a text or a number"),
        ("executor: {name: joblib, params: {n_workers: two}}", "executor.params.n_workers is 'two'"),
        ("unlearn: {name: 'math:pi'}", "unlearn 'math:pi' would run code of"),
        ("learner: {warmup_epochs: 21}", "learner.warmup_epochs is 21 and learner.epochs is 20"),
        ("learner: {warmup_epochs: 2, relearn_epochs: 1}", "learner.relearn_epochs is 1"),
        ("learner: {warmup_epochs: .inf}", "learner.warmup_epochs is inf"),
        ("learner: {optimizer: {params: {lr: 0}}}", "lr is 0.0"),
        ("learner: {optimizer: {params: {lr: true}}}", "learner.optimizer.params.lr is True"),
        ("learner: {optimizer: {params: {lr: -0.1}}}", "learner.optimizer.params.lr is -0.1"),
        ("learner: {optimizer: {params: {lr: fast}}}", "learner.optimizer.params.lr is 'fast'"),
        ("learner: {optimizer: {params: {momentum: 1}}}", "momentum is 1.0"),
        ("learner: {optimizer: {params: {momentum: -0.1}}}", "learner.optimizer.params.momentum is -0.1"),
        ("learner: {optimizer: {params: {betas: [0.9, .nan]}}}", "learner.optimizer.params.betas[1] is nan"),
        ("learner: {batch_size: 1000001}", "a number of at most 1000000"),
        ("learner: {eval_batch_size: 1000001}", "learner.eval_batch_size is 1000001"),
        ("num_threads: 1025", "a number of at most 1024"),
        ("benchmarks: {b: {n_episodes: 10000001}}", "a number of at most 10000000"),
        ("after_chunk: {n_episodes: 10000001}", "after_chunk.n_episodes is 10000001"),
        ("probes: {p: {transform: ''}}", "probes.p.transform is ''"),
        ("probes: {p: {transform: 'l2,,l2'}}", "it has an empty step"),
        ("probes: {p: {transform: 'l2,none'}}", "none is the chain without steps"),
        ("transfer: {t: {probe: {transform: 'l2,'}}}", "transfer.t.probe.transform is 'l2,'"),
        ("probes: {p: {params: {C: .inf}}}", "probes.p.params.C is inf"),
        ("variants: {a: {learner: {l2_init: .nan}}}", "learner.l2_init is nan"),
        ("dataset: {name: icon}", "did you mean 'icons'?"),
        ("dataset: {name: folder}", "missing a required argument: 'path'"),
        ("probes: {p: {name: nosuch.module:Thing}}", "cannot be imported"),
        ("probes: {}", "probes is empty"),
        ("benchmarks: {a/b: {}}", "cannot be the name of a file"),
        ("benchmarks: {a--b: {}}", "benchmarks has the name 'a--b'"),
        ("probes: {a-: {}}", "a name without '--' and without '-' at its ends"),
        ("benchmarks: {a: {}, A: {}}", "benchmarks has 'a' and 'A'"),
        (f"probes: {{{'p' * 101}: {{}}}}", "has 101 bytes"),
        (f"name: {'ü' * 101}", "has 202 bytes"),
        ("name: ../elsewhere\nvariants: {a: {}}", "the name '../elsewhere' cannot be the name of a file"),
        ("name: .hidden\nseeds: [0, 1]", "the name '.hidden' cannot be the name of a file"),
        ("variants: {a--seed-0: {}}", "the variant 'a--seed-0' has the name of another variant's run"),
        ("variants: {a: {}, a--seed-0: {}}\nseeds: [0, 1]", "write seeds: [0, 1, 2] for several seeds"),
        ("variants: {Figures: {}}", "the variant 'Figures' has the name of a file in the group's folder"),
        ("variants: {report.html: {}}", "a name other than figures, report.html"),
        ("variants: {lure: {}, LURE: {}}", "variants has 'lure' and 'LURE'"),
        ("variants: {a: {}, b: {}, c: {seed: 5}}", "the variants 'a' and 'b' are equal in all settings"),
        (
            "variants: {a: {}, b: {unlearn: {params: {keep_ratio: 0.5}}}, c: {}}\nseeds: [0, 1]",
            "variants 'a' and 'c' are equal",
        ),
        ("trackers: {wandb: {project: me/photos}}", "the owner goes into trackers.wandb.entity"),
        ("trackers: {wandb: {project: ''}}", "trackers.wandb.project is ''"),
        ("backbone: {params: {drop_path_rate: 1}}", "backbone.params.drop_path_rate is 1"),
        ("backbone: {params: {drop_rate: -0.1}}", "backbone.params.drop_rate is -0.1"),
        ("backbone: {params: {attn_drop_rate: 1.5}}", "a number of less than 1"),
        ("variants: {..: {}}", "the name '..' cannot be the name of a file"),
        ("variants: {a/b: {}}", "the name 'a/b' cannot be the name of a file"),
        ("variants: {' a': {}}", "the name ' a' cannot be the name of a file"),
        (f"variants: {{{'v' * 201}: {{}}}}", "has 201 bytes"),
        ("benchmarks: {b: {corrupt: {corruption: fogg}}}", "did you mean 'fog'?"),
        ("benchmarks: {b: {corrupt: {corruption: fog, severity: 6}}}", "benchmarks.b.corrupt.severity is 6"),
        ("benchmarks: {b: {corrupt: {corruption: fog, images: queries}}}", "did you mean 'query'?"),
        ("benchmarks: {b: {target_ci95: 0.3}}", "a number of at most 0.1"),
        ("benchmarks: {b: {target_ci95: 0}}", "a number of more than 0"),
        ("benchmarks: {b: {target_ci95: 0.01, n_episodes: 200}}", "raise benchmarks.b.n_episodes"),
        ("robustness: {corruptions: [fogg]}", "did you mean 'fog'?"),
        ("robustness: {attacks: {pdg: [0.1]}}", "did you mean 'pgd'?"),
        ("robustness: {severities: [0]}", "different numbers from 1 to 5"),
        ("robustness: {attacks: {fgsm: [8]}}", "0.0314 for 8/255"),
        ("robustness: {corruptions: [], attacks: {}}", "has nothing to measure"),
        ("seeds: 3", "a list of different whole numbers"),
        ("seeds: []", "seeds is []"),
        ("seeds: [0, 0]", "seeds is [0, 0]"),
        ("seeds: [0, true]", "seeds is [0, True]"),
        ("seeds: [0, 1.5]", "seeds is [0, 1.5]"),
        ("seed: 1\nseeds: [0, 2]", "seed is 1 and seeds is [0, 2]"),
        ("seeds: [0, 2]\nvariants: {a: {seed: 1}}", "variants.a.seed is 1 and seeds is [0, 2]"),
        ("variants: {a: {seeds: [1]}}", "did you mean 'seed'?"),
        ("workers: 0", "workers is 0"),
        ("workers: all", "a whole number from 1"),
        ("learner: {epochs: 1000000000000}", "at most 1000000"),
        ("workers: 99999", "a whole number from 1 to 1024"),
        ("- a list", "holds no settings"),
        ("a: " + "[" * 3000 + "]" * 3000, "cannot be read as YAML"),
        ("seed: " + "9" * 5000, "cannot be read as YAML"),
        ("learner: {warmup_epochs: " + "9" * 400 + "}", "learner.warmup_epochs is a number of 1329 bits"),
        ('dataset: {name: folder, params: {path: "a\\0b"}}', "a text without the character NUL"),
        ('name: "a\\eb"', "cannot be the name of a file"),
        ('benchmarks: {"a\\u202eb": {}}', "cannot be the name of a file"),
        ("a: [unclosed", "cannot be read as YAML"),
        ("seed: 1\nlearner: {epochs: 010}", "line 2: 010 is 8 in YAML"),
        ("chunks: {n_chunks: 1:30}", "1:30 is 90 in YAML, a number of base 60"),
        ("class_split: {novel: [01, 08]}", "01 is 1 in YAML"),
        ("benchmarks: {007: {}}", "write '007' with the quotes"),
        ("frozen: !!bool maybe", "a value does not suit its tag: 'maybe'"),
        ("seed: !!timestamp x", "a value does not suit its tag"),
        ("learner:\n\tepochs: 1", "indent by spaces"),
        ("name: a\n---\nname: b", "leave one document in the file"),
        (f"seeds: {list(range(20_000))}", "it holds more than 10,000 values"),
        ("variants: {a: {name: b}}", "variants.a.name is 'b'"),
        ("probes: {p: {params: {C: 1.0e+300}}}", "probes.p.params.C is 1e+300"),
        ("probes: {p: {params: {max_iter: 0}}}", "probes.p.params.max_iter is 0"),
        ("probes: {p: {choose: {C: [1, 0]}}}", "probes.p.choose.C is 0"),
        ("probes: {p: {choose: {C: [1, x]}}}", "probes.p.choose.C is 'x'"),
        ("probes: {p: {choose: {C: 1}}}", "expected: a list\n"),
        ("probes: {p: {name: ridge, choose: {alpha: [-1]}}}", "probes.p.choose.alpha is -1"),
        ("transfer: {all: {grid: {C: [0, 1]}}}", "transfer.all.grid.C is 0"),
    ],
)
def test_wrong_files_are_refused_in_useful_words(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    refused = refusal(str(path))
    assert words in refused
    assert "expected:" in refused
    assert "to fix:" in refused


def test_a_file_in_another_encoding_is_answered_with_the_right_one(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-16-le"):
        (tmp_path / "wrong.yaml").write_text("name: a\n", encoding=encoding)
        assert "save the file in UTF-8" in refusal(str(tmp_path / "wrong.yaml"))


def test_an_empty_override_that_would_clear_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("transfer: {all: {sizes: [1]}}")
    with pytest.raises(UserError, match=r"transfer=\{\} would change nothing: transfer keeps all"):
        load(path, ["transfer={}"])
    with pytest.raises(UserError, match=r"transfer\.all=\{\} would change nothing: transfer\.all keeps sizes"):
        load(path, ["transfer.all={}"])
    with pytest.raises(UserError, match=r"learner\.optimizer\.params=\{\} would change nothing: .* keeps lr, momentum"):
        load(path, ["learner.optimizer.params={}"])
    (run,) = load(path, ["unlearn={name: nothing, params: {}}"]).runs.values()
    assert run.unlearn.params == {}
    (run,) = load(path, ["calibrate={}", "transfer.other={}"]).runs.values()
    assert run.calibrate is not None and list(run.transfer) == ["all", "other"]


def test_parameters_without_plain_annotations_are_left_to_the_factory() -> None:
    params = {"solver": "saga", "random_state": 1}
    config = run_config({"name": "a", "probes": {"p": {"params": params}, "b": {"name": "sklearn.svm:SVC"}}})
    assert config.probes["p"].params == params
    assert run_config({"name": "a", "unlearn": {"name": "fire", "params": {"steps": 3}}}).unlearn.params["steps"] == 3


def test_a_variant_may_be_named_by_a_number(tmp_path: Path) -> None:
    path = tmp_path / "numbers.yaml"
    path.write_text("variants: {1: {learner: {epochs: 1}}, 2: {}}\nseeds: [0]\n")
    assert load(str(path)).variants == ("1", "2")


def test_missing_config_is_answered_with_the_recipes() -> None:
    text = refusal("smok")
    assert "did you mean 'smoke'?" in text
    assert "quickstart" in text


def test_override_without_a_key_is_refused(recipe: Path) -> None:
    assert "has no 'key='" in refusal(str(recipe), "learner.epochs")


def test_paths_are_anchored_where_the_config_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = run_config({"name": "a", "dataset": {"name": "folder", "params": {"path": "photos"}}})
    assert config.dataset.params["path"] == str(tmp_path / "photos")
    assert yaml.safe_load(to_yaml(config))["dataset"]["params"]["path"] == str(tmp_path / "photos")


def test_variants_on_the_command_line_join_those_of_the_file_or_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text("name: two\nvariants:\n  lure: {}\n  warm: {unlearn: {name: nothing}}\n")
    runs = load(str(path), ["variants={head: {unlearn: {name: head}}}"]).runs
    assert "head" in runs and runs["head"].unlearn.name == "head"
    with pytest.raises(UserError, match="variants is"):
        load(str(path), ["variants=[lure]"])
    assert not load(str(path), ["variants=null"]).variants


RELATIVE = """
dataset: {name: folder, params: {path: photos}}
class_split: {file: split.yaml}
benchmarks:
  own: {manifest: episodes.parquet}
  other: {dataset: {name: glyphs, params: {font_dirs: [fonts, /all/fonts], cache_dir: ../cache}}, classes: all}
transfer:
  t: {dataset: {name: npz, params: {path: other.npz}}, classes: all}
variants:
  plain: {}
  loaded: {backbone: {checkpoint_path: weights.pt, checkpoint_sha256: abc}}
"""


def test_relative_paths_of_a_config_file_start_at_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(RELATIVE)
    monkeypatch.chdir(tmp_path)
    config = load("recipes/mine.yaml").runs["loaded"]
    folder = tmp_path / "recipes"
    other, transfer = config.benchmarks["other"].dataset, config.transfer["t"].dataset
    assert other is not None and transfer is not None
    assert config.dataset.params["path"] == str(folder / "photos")
    assert config.class_split.file == str(folder / "split.yaml")
    assert config.benchmarks["own"].manifest == str(folder / "episodes.parquet")
    assert other.params == {"font_dirs": [str(folder / "fonts"), "/all/fonts"], "cache_dir": str(tmp_path / "cache")}
    assert transfer.params["path"] == str(folder / "other.npz")
    assert config.backbone.checkpoint_path == str(folder / "weights.pt")


def test_relative_paths_of_the_command_line_start_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(RELATIVE)
    monkeypatch.chdir(tmp_path)
    overrides = ["dataset.params.path=here", "variants.plain.class_split.file=mine.yaml", "benchmarks.own.manifest=m"]
    config = load("recipes/mine.yaml", overrides).runs["plain"]
    assert config.dataset.params["path"] == str(tmp_path / "here")
    assert config.class_split.file == str(tmp_path / "mine.yaml")
    assert config.benchmarks["own"].manifest == str(tmp_path / "m")


STRATEGY = """
def halve(factor: float = 0.5):
    def unlearn(model, twin, images, generator):
        raise NotImplementedError
    return unlearn
"""


def test_a_plug_in_module_beside_a_recipe_is_found_and_one_beside_a_stored_run_is_not(tmp_path: Path) -> None:
    before = list(sys.path)
    for folder in ("recipe", "stored"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"beside_{folder}.py").write_text(STRATEGY)
        (tmp_path / folder / "config.yaml").write_text(f"unlearn: {{name: 'beside_{folder}:halve'}}\n")
    (tmp_path / "stored" / "identity.json").write_text("{}")
    config = load(str(tmp_path / "recipe" / "config.yaml")).runs["config"]
    assert config.unlearn.name == "beside_recipe:halve"
    assert plugins.folders_of(plugin_names(config)) == (tmp_path / "recipe",)
    assert "factor is 'a'" in refusal(str(tmp_path / "recipe" / "config.yaml"), "unlearn.params.factor=a")
    assert "put the module beside the recipe" in refusal(str(tmp_path / "stored" / "config.yaml"))
    assert sys.path == before
