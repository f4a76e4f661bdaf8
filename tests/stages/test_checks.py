"""What is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lurefs.cli import main
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.records import to_mapping
from lurefs.stages.checks import check
from lurefs.stages.plan import make_plan

MakeConfig = Callable[..., RunConfig]


@pytest.mark.parametrize("stage", ["run", "pretrain"])
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("learner.optimizer.params.lr=-1", "learner.optimizer.params {'lr': -1"),
        ("learner.optimizer.name=sdg", "did you mean 'sgd'"),
        ("device=cuda:99", "device 'cuda:99' cannot be used"),
        ("device=gpu", "device 'gpu' cannot be used"),
        ("probes.logistic_regression.params.C=-1", "cannot be fitted on benchmark"),
        ("seed=-1", "seed is -1"),
        ("seeds=[0,-1]", "seeds is [0, -1]"),
        ("benchmarks.novel-3way-1shot.seed=-2", "benchmarks.novel-3way-1shot.seed is -2"),
    ],
)
def test_what_cannot_be_run_leaves_no_file(
    make_config: MakeConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    override: str,
    words: str,
) -> None:
    config, run_dir = tmp_path / "small.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(to_mapping(make_config())))
    with pytest.raises(SystemExit) as caught:
        main([stage, "--config", str(config), "--run-dir", str(run_dir), override])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
    assert not run_dir.exists()


def test_a_probe_that_suits_the_backbone_but_not_a_control_is_refused(make_config: MakeConfig) -> None:
    probes = {"p": {"name": "nearest_centroid", "transform": "pca:67"}}
    check(make_plan(make_config(probes=probes)))
    with pytest.raises(UserError, match=r"'image_statistics': .*pca:67 asks for more(.|\n)*set controls=false"):
        check(make_plan(make_config(probes=probes, controls=True)))
