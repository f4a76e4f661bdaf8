"""What is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lurefs import plugins
from lurefs.cli import main
from lurefs.config.identity import probe_card
from lurefs.config.schema import ProbeConfig, RunConfig
from lurefs.errors import UserError
from lurefs.learning.weights import state_sha256
from lurefs.records import to_mapping
from lurefs.stages.checks import check, check_robustness, check_unlearn
from lurefs.stages.plan import make_plan
from lurefs.stages.stage import make_probe, plan_backbone

MakeConfig = Callable[..., RunConfig]


@pytest.mark.parametrize("command", [["run"], ["run", "--dry-run"], ["pretrain"]], ids=" ".join)
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("learner.optimizer.params.lr=-1", "learner.optimizer.params.lr is -1.0"),
        ("learner.optimizer.params.nonsense=1", "learner.optimizer.params {'lr': 0.1"),
        ("learner.warmup_epochs=3", "learner.warmup_epochs is 3 and learner.epochs is 2"),
        ("unlearn.params.saliency_images=1.5", "unlearn.params.saliency_images is 1.5"),
        ("learner.optimizer.name=sdg", "did you mean 'sgd'"),
        ("backbone.checkpoint_path=missing.pt", "missing.pt cannot be read: No such file"),
        ("backbone.params.nonsense=1", "unexpected keyword argument 'nonsense'"),
        ("unlearn={name: last_layers, params: {from_module: layer9}}", "ByobNet has no module 'layer9' with weights"),
        ("unlearn.params.keep_ratio=0.9999999", "the unlearn strategy 'by_saliency' changed no weight"),
        ("robustness={}", "corruptions need images of 32 pixels or more, and these have 8"),
        ("executor={name: joblib, params: {n_workers: 0}}", "n_workers is 0; it must be"),
        ("trackers.wandb={mode: online, strict: true}", "W&B did not start online: no API key was found"),
        ("device=cuda:99", "device 'cuda:99' cannot be used"),
        ("device=gpu", "device 'gpu' cannot be used"),
        ("probes.logistic_regression.params.solver=x", "cannot be fitted on benchmark"),
        ("probes.p.name=sklearn.linear_model:LinearRegression", "LinearRegression is no classifier"),
        ("probes.p.name=sklearn.cluster:KMeans", "KMeans is no classifier"),
        ("transfer.t.probe.name=sklearn.cluster:KMeans", "transfer.t.probe is 'sklearn.cluster:KMeans'"),
        ("transfer.t.probe.params.nonsense=1", "transfer.t.probe is 'logistic_regression' with {'nonsense': 1}"),
        ("seed=-1", "seed is -1"),
        ("seeds=[0,-1]", "seeds is [0, -1]"),
        ("benchmarks.novel-3way-1shot.seed=-2", "benchmarks.novel-3way-1shot.seed is -2"),
    ],
)
def test_what_cannot_be_run_leaves_no_file(
    make_config: MakeConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    override: str,
    words: str,
) -> None:
    config, run_dir = tmp_path / "small.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(to_mapping(make_config())))
    with pytest.raises(SystemExit) as caught:
        main([*command, "--config", str(config), "--run-dir", str(run_dir), override])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
    assert not run_dir.exists()


def test_a_probe_that_suits_the_backbone_but_not_a_control_is_refused(make_config: MakeConfig) -> None:
    probes = {"p": {"name": "nearest_centroid", "transform": "pca:67"}}
    check(make_plan(make_config(probes=probes)))
    with pytest.raises(UserError, match=r"'image_statistics': .*pca:67 needs more(.|\n)*set controls=false"):
        check(make_plan(make_config(probes=probes, controls=True)))


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        (
            {"name": "logistic_regression", "params": {"solver": "x"}},
            "cannot be fitted on benchmark 'novel-3way-1shot'",
        ),
        ({"name": "logistic_regression", "params": {"nonsense": 1}}, "nonsense"),
        ({"name": "knn", "params": {"n_neighbors": 50}}, "3-way 1-shot"),
        ({"name": "sklearn.linear_model:LogisticRegression", "params": {"max_iter": "x"}}, "'max_iter' parameter"),
        ({"name": "sklearn.linear_model:LogisticRegression", "params": {"l1_ratio": -1.0}}, "'l1_ratio' parameter"),
    ],
)
def test_probes_that_cannot_be_fitted_are_refused_before_the_work(
    make_config: MakeConfig, probe: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        check(make_plan(make_config(probes={"p": probe})))


@pytest.mark.parametrize(("chain", "words"), [("pca:5000", "more components"), ("l2,centre", "centre")])
def test_transforms_that_cannot_be_fitted_are_refused_before_the_work(
    make_config: MakeConfig, chain: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        check(make_plan(make_config(probes={"p": {"name": "knn", "transform": chain}})))


def test_a_batch_of_one_image_is_refused_before_the_work_where_batch_norm_cannot_learn_from_it(
    make_config: MakeConfig,
) -> None:
    n_train = len(make_plan(make_config()).images.train)

    def check_remainder(n_left: int, **changes: Any) -> None:
        chunks = {"chunk_size": n_train - n_left, "replay": "none", "n_chunks": None}
        check(make_plan(make_config(chunks=chunks, **changes)))

    with pytest.raises(UserError, match=r"one image for a training batch(.*\n)*.*change chunks\.chunk_size"):
        check_remainder(1)
    check_remainder(2)
    check_remainder(1, backbone={"name": "test_vit", "image_size": 32})
    check(make_plan(make_config(chunks={"chunk_size": n_train - 1, "n_chunks": None})))


class OnlyNorm(torch.nn.Module):
    """A model without layers that a strategy could change."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of 4 classes."""
        return self.norm(images).flatten(1)[:, :4]


@pytest.mark.parametrize(
    ("unlearn", "words"),
    [
        ("by_saliency", "no weight that could be unlearned"),
        ("random_mask", "no weight that could be unlearned"),
        ("head", "no classifier that timm knows of"),
        ("last_layers", "timm does not divide OnlyNorm into stages"),
        ("dash", "neither convolutions nor linear maps to shrink"),
        ("fire", "could be made orthogonal"),
        ("redo", "followed by an activation function"),
    ],
)
def test_strategies_that_do_not_suit_the_model_are_refused_before_the_work(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, unlearn: str, words: str
) -> None:
    plan = make_plan(make_config(unlearn={"name": unlearn}))
    backbone = replace(plan_backbone(plan), model=OnlyNorm())
    monkeypatch.setattr("lurefs.stages.checks.build_twin", lambda *_, **__: OnlyNorm())
    before = backbone.model.state_dict()["norm.weight"].clone()
    with pytest.raises(UserError, match=words):
        check_unlearn(plan, backbone)
    assert torch.equal(backbone.model.state_dict()["norm.weight"], before)


@pytest.mark.parametrize("name", [name for name in plugins.names("unlearn") if name != "nothing"])
def test_the_check_of_a_strategy_leaves_the_model_and_the_generator_alone(make_config: MakeConfig, name: str) -> None:
    plan = make_plan(make_config(unlearn={"name": name}))
    backbone = plan_backbone(plan)
    before, state = state_sha256(backbone.model), torch.random.get_rng_state()
    check_unlearn(plan, backbone)
    assert state_sha256(backbone.model) == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_strategy_that_is_never_used_is_not_checked(make_config: MakeConfig) -> None:
    unlearn = {"name": "last_layers", "params": {"from_module": "layer9"}}
    check(make_plan(make_config(unlearn=unlearn, chunks={"n_chunks": 1})))
    with pytest.raises(UserError, match="no module 'layer9'"):
        check(make_plan(make_config(unlearn=unlearn)))


def test_small_images_are_refused_before_any_work(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match="these have 8"):
        check_robustness(make_plan(make_config(robustness={})))
    check_robustness(make_plan(make_config(robustness={"corruptions": []})))


def test_the_settings_of_a_probe_name_the_seed_that_it_would_lack_and_those_of_named_probes_do_not() -> None:
    forest = make_probe("p", ProbeConfig(name="sklearn.ensemble:RandomForestClassifier"))
    assert forest.settings["random_state"] == forest.classifier.random_state == 0
    seeded = make_probe("p", ProbeConfig(name="sklearn.ensemble:RandomForestClassifier", params={"random_state": 3}))
    assert "random_state" not in seeded.settings and seeded.classifier.random_state == 3
    for name in ("logistic_regression", "ridge", "knn"):
        assert make_probe("p", ProbeConfig(name=name)).settings == probe_card(ProbeConfig(name=name))
