"""Measure the effect of the default reset on backbones of many families, as a table.

    OMP_NUM_THREADS=1 uv run python tools/reset_effect.py [BACKBONE ...] [key.sub=value ...]

Each backbone learns one chunk of icons at 32 pixels, then weights are reset before the second. The table has the share
of weights that no image can give a gradient, their share among those that were reset, the share of predictions that the
reset changed and the mean change of a logit on 512 images, and the accuracy on validation images before and after it.
Other settings of a run can be given as for `lurefs run`, e.g. `unlearn.params.keep_ratio=0.5`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from lurefs.config.documents import parse_overrides
from lurefs.config.load import merge, run_config
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import UnlearnReport
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage

BACKBONES: dict[str, dict[str, object]] = {
    "test_resnet": {"stem": "small"},
    "resnet10t": {"stem": "small"},
    "regnetx_002": {"stem": "small"},
    "test_byobnet": {},
    "test_efficientnet": {},
    "test_mambaout": {},
    "test_nfnet": {},
    "test_convnext": {},
    "test_convnext2": {},
    "test_coatnet": {},
    "test_vit": {"params": {"patch_size": 4}},
    "test_vit3": {"params": {"patch_size": 4}},
}
"""Twelve small models of timm, of different families, and how each reads images of 32 pixels."""
SETTINGS = {
    "class_split": {"base": 0.15, "validation": 0.1, "novel": 0.25},
    "chunks": {"n_chunks": 2},
    "learner": {
        "epochs": 8,
        "relearn_epochs": 1,
        "warmup_epochs": 1,
        "optimizer": {"name": "adamw", "params": {"lr": 2e-3, "weight_decay": 0.05}},
        "augment": {"crop_padding": 3},
    },
    "after_chunk": {"few_shot": False},
    "trackers": {"wandb": {"mode": "disabled"}},
}


def main(arguments: list[str]) -> None:
    """Print a row per backbone, as they are done."""
    overrides = parse_overrides([text for text in arguments if "=" in text])
    names = [text for text in arguments if "=" not in text] or list(BACKBONES)
    print(f"{'backbone':<24} zeros  among reset  predictions  logits  accuracy %        new statistics")
    for name in names:
        report = reset_of(name, overrides)
        after, renewed = report.accuracy_after, report.accuracy_after_new_statistics
        print(
            f"{name:<24} {report.structural_zeros:.3f}  {report.structural_zeros_reset:11.3f}  "
            f"{report.changed_predictions:11.3f}  {report.logit_change:6.3f}  "
            f"{100 * report.accuracy_before:5.1f} -> {100 * after:5.1f}    "
            f"{'-' if renewed is None else f'{100 * renewed:5.1f}'}",
            flush=True,
        )


def reset_of(name: str, overrides: dict[str, object]) -> UnlearnReport:
    """Return what the reset before the second chunk did to a backbone."""
    backbone = {"name": name, **BACKBONES.get(name, {})}
    config = run_config(merge({**SETTINGS, "name": name, "backbone": backbone}, overrides))
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        run_stage(make_plan(config), directory, "pretrain")
        report = directory.read_outcomes()[1].unlearn
    assert report is not None
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
