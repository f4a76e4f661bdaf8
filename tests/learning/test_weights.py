"""Files of weights in the forms that training codes leave: each loads as in timm or is refused with the true reason."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.weight_files import with_digest
from lurefs.errors import UserError
from lurefs.learning.weights import State, check_loaded, load_into, read_weights, watched_loading

NAME = "test_byobnet"


@pytest.fixture(scope="module")
def weights() -> State:
    """The state of a model of 1,000 classes whose values are all unlike fresh ones, batch statistics included."""
    torch.manual_seed(3)
    state: State = timm.create_model(NAME, num_classes=1000).state_dict()
    return {
        name: tensor + torch.rand_like(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


def load(
    path: Path, name: str = NAME, copy: str | None = None, match: Any = "names", **params: Any
) -> tuple[nn.Module, str]:
    params = {"num_classes": 10, **params}

    def rebuild(state: State) -> nn.Module:
        model: nn.Module = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay={"state_dict": state}, **params
        )
        return model

    return load_into(timm.create_model(name, **params), read_weights(path, copy), rebuild, match)


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def as_timm(path: Path, name: str = NAME, **params: Any) -> State:
    params = {"num_classes": 10, **params}
    state: State = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **params
    ).state_dict()
    return state


def assert_loaded(model: nn.Module, expected: State, *, head: str = "head.fc") -> None:
    for name, tensor in model.state_dict().items():
        if not name.startswith(head):
            assert torch.equal(tensor, expected[name]), name


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def headless(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.fc")}


FORMS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "ddp": lambda state: {"state_dict": prefixed(state, "module.")},
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled in ddp": lambda state: prefixed(state, "module._orig_mod."),
    "lightning": lambda state: {"state_dict": prefixed(state, "model."), "epoch": 1},
    "timm": lambda state: {"state_dict": state, "args": argparse.Namespace(lr=0.1), "version": 2, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{}]}},
    "average": lambda state: {"state_dict_ema": state},
    "model_ema": lambda state: {"model": prefixed(state, "module."), "model_ema": state},
    "teacher": lambda state: {
        "student": prefixed({name: tensor + 1 for name, tensor in headless(state).items()}, "module.backbone."),
        "teacher": {**prefixed(headless(state), "module.backbone."), "module.head.mlp.0.weight": torch.ones(3, 3)},
    },
    "teacher in one state": lambda state: {
        **prefixed({name: tensor + 1 for name, tensor in headless(state).items()}, "student.backbone."),
        **prefixed(headless(state), "teacher.backbone."),
    },
    "headless": headless,
    "own key": lambda state: {"net": prefixed(state, "encoder.")},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_classes", [10, 1000])
def test_each_form_gives_the_tensors_that_were_stored(
    tmp_path: Path, weights: State, form: str, n_classes: int
) -> None:
    model, words = load(saved(FORMS[form](weights), tmp_path / "w.pth"), num_classes=n_classes)
    assert_loaded(model, weights)
    assert "tensors but the classifier's" in words


@pytest.mark.parametrize(
    "form", ["plain", "ddp", "compiled", "compiled in ddp", "timm", "model", "average", "model_ema"]
)
def test_what_timm_can_read_is_what_timm_reads(tmp_path: Path, weights: State, form: str) -> None:
    path = saved(FORMS[form](weights), tmp_path / "w.pth")
    assert_loaded(load(path)[0], as_timm(path))


def test_the_classifier_comes_along_where_it_fits(tmp_path: Path, weights: State) -> None:
    model, _ = load(saved(weights, tmp_path / "w.pth"), num_classes=1000)
    assert torch.equal(model.state_dict()["head.fc.weight"], weights["head.fc.weight"])


def test_the_copy_taken_is_said_and_can_be_chosen(tmp_path: Path, weights: State) -> None:
    average = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    path = saved({"state_dict": weights, "state_dict_ema": average}, tmp_path / "w.pth")
    model, words = load(path)
    assert_loaded(model, average)
    assert "state_dict_ema of w.pth" in words and "not taken: state_dict" in words
    assert_loaded(load(path, copy="state_dict")[0], weights)
    with pytest.raises(UserError, match=r"checkpoint_copy 'ema'\n.*'state_dict', 'state_dict_ema'"):
        load(path, copy="ema")


def test_unknown_copies_side_by_side_must_be_chosen_from(tmp_path: Path, weights: State) -> None:
    path = saved({"actor": weights, "critic": weights}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"several keys: actor, critic\n(.*\n)*.*checkpoint_copy=actor"):
        load(path)
    assert_loaded(load(path, copy="critic")[0], weights)


def test_a_stem_of_three_colours_is_summed_for_grey_images_as_timm_does(tmp_path: Path, weights: State) -> None:
    path = saved(weights, tmp_path / "w.pth")
    assert_loaded(load(path, in_chans=1)[0], as_timm(path, in_chans=1))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "swin_tiny_patch4_window7_224"])
def test_position_embeddings_are_resized_as_timm_does(tmp_path: Path, name: str) -> None:
    path = saved(timm.create_model(name).state_dict(), tmp_path / "w.pth")
    size = {"swin_tiny_patch4_window7_224": 112}.get(name, 96)
    assert_loaded(load(path, name, img_size=size)[0], as_timm(path, name, img_size=size), head="head")


def test_names_of_older_codes_are_translated_by_timm(tmp_path: Path) -> None:
    """ConvNeXt's authors number their stages otherwise; timm's own filter knows both."""
    state = timm.create_model("convnext_atto", num_classes=1000).state_dict()
    old = {}
    for name, tensor in state.items():
        name = name.replace("stem.", "downsample_layers.0.").replace("head.norm.", "norm.").replace("head.fc.", "head.")
        for stage in range(4):
            name = name.replace(f"stages.{stage}.downsample.", f"downsample_layers.{stage}.")
            name = name.replace(f"stages.{stage}.blocks.", f"stages.{stage}.")
        old[name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")] = tensor
    model, _ = load(saved({"model": old}, tmp_path / "w.pth"), "convnext_atto")
    assert_loaded(model, state)


def test_tensors_in_the_model_s_order_load_whatever_they_are_called(tmp_path: Path, weights: State) -> None:
    named = {f"layer{place}": tensor for place, tensor in enumerate(weights.values())}
    path = saved(named, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"does not fit(.*\n)*.*checkpoint_match=order"):
        load(path)
    assert_loaded(load(path, match="order")[0], weights)
    grey, _ = load(path, match="order", in_chans=1)
    plain = saved(weights, tmp_path / "p.pth")
    assert_loaded(grey, as_timm(plain, in_chans=1))
    swapped = dict(reversed(named.items()))
    with pytest.raises(UserError, match=r"tensor 0 of .* has shape \(1000,\)"):
        load(saved(swapped, tmp_path / "s.pth"), match="order")
    with pytest.raises(UserError, match=r"tensor 5 of .* is missing"):
        load(saved(dict(list(named.items())[:5]), tmp_path / "s.pth"), match="order")


def test_a_safetensors_file_loads(tmp_path: Path, weights: State) -> None:
    save_file(prefixed(weights, "module."), tmp_path / "w.safetensors")
    assert_loaded(load(tmp_path / "w.safetensors")[0], weights)


def test_weights_that_leave_tensors_out_are_refused(tmp_path: Path, weights: State) -> None:
    part = {name: tensor for name, tensor in weights.items() if not name.startswith("stages.0")}
    with pytest.raises(UserError, match=r"tensors of the model are not in it \(stages\.0"):
        load(saved(part, tmp_path / "w.pth"))


def test_weights_of_another_model_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = timm.create_model("test_resnet").state_dict()
    with pytest.raises(UserError, match=r"does not fit the model: \d+ tensors of the model .*have no place"):
        load(saved(state, tmp_path / "w.pth"))
    assert not caplog.records, "timm lists all names"


class Settings:
    """Something that only its author's code can load."""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>Sign in</html>", "page of HTML"),
        (b"\n <!DOCTYPE html>", "page of HTML"),
        (b"hello\n", "no file of torch"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n", "pointer of Git LFS"),
        (b"PK\x03\x04 cut off", "cut off"),
    ],
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_files_that_are_no_weights_are_refused_for_what_they_are(
    tmp_path: Path, content: bytes, reason: str, ending: str
) -> None:
    path = tmp_path / f"w.{ending}"
    path.write_bytes(content)
    words = "cut off" if ending == "safetensors" and reason == "no file of torch" else reason
    with pytest.raises(UserError, match=f"cannot be read: .*{words}"):
        read_weights(path)


def test_code_in_a_file_is_never_run(tmp_path: Path, weights: State) -> None:
    with pytest.raises(UserError, match=r"may run code when they are loaded: \S*Settings"):
        read_weights(saved({"state_dict": weights, "config": Settings()}, tmp_path / "w.pth"))


def test_other_pickles_and_archives_of_code_are_named(tmp_path: Path) -> None:
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"conv": np.zeros(3)}, protocol=4))
    with pytest.raises(UserError, match=r"may run code|no file of torch\.save") as refused:
        read_weights(tmp_path / "w.pkl")
    assert "weights_only" not in str(refused.value)
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/constants.pkl", b"")
        archive.writestr("w/version", b"3")
    with pytest.raises(UserError, match="TorchScript archive"):
        read_weights(tmp_path / "w.pt")


def test_weights_of_a_training_that_diverged_are_refused(tmp_path: Path, weights: State) -> None:
    name = next(iter(weights))
    with pytest.raises(UserError, match=rf"holds NaN or infinite numbers, in 1 tensors of the model \({name}"):
        load(saved({**weights, name: weights[name] * torch.nan}, tmp_path / "w.pth"))


def test_weights_of_zeros_are_refused(tmp_path: Path, weights: State) -> None:
    without = {name: tensor * (tensor.ndim < 2) for name, tensor in weights.items()}
    with pytest.raises(UserError, match=r"all weights of the model in \S+ are zero"):
        load(saved(without, tmp_path / "w.pth"))


def test_complex_numbers_and_named_pipes_are_no_weights(tmp_path: Path, weights: State) -> None:
    name = next(iter(weights))
    with pytest.raises(UserError, match=f"{name} holds complex numbers"):
        read_weights(saved({**weights, name: weights[name].to(torch.complex64)}, tmp_path / "w.pth"))
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match="it is not a file"):
        read_weights(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match="it is not a file"):
        with_digest(BackboneConfig(checkpoint_path=str(tmp_path / "pipe.pth")))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.ones(3)])
def test_files_without_a_state_are_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="holds no state dict"):
        read_weights(saved(content, tmp_path / "w.pth"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pth cannot be read: No such file"):
        read_weights(tmp_path / "none.pth")


def test_pretrained_weights_with_wrong_names_never_end_as_random_ones() -> None:
    """timm only logs what it found no weights for where the classifier is replaced."""
    state: dict[str, Tensor] = {"wrong.weight": torch.ones(1)}
    with watched_loading() as loads:
        model = timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay={"state_dict": state}, num_classes=10)
    with pytest.raises(UserError, match=r"leave (\d+) of \1 tensors at random"):
        check_loaded(model, loads[-1], NAME)
    assert nn.Module.load_state_dict.__name__ == "load_state_dict"
