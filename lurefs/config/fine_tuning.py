"""Settings of fine-tuning as a probe, and which probes of a run are fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lurefs.config.schema import ProbeConfig, RunConfig
from lurefs.errors import UserError
from lurefs.records import from_mapping

NAME = "fine_tuning"
"""Name of the probe in a configuration."""
TRANSFORMS = ("l2", "none")
"""Transforms that gradients can pass through."""


def _number(default: Any, **bounds: float) -> Any:
    return field(default=default, metadata=bounds)


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """Fine-tune the backbone on each episode's support, starting from logistic regression on its features.

    Method: LP-FT (Kumar, Raghunathan, Jones, Ma and Liang 2022, ICLR, section 3). The head starts as logistic
    regression with `C` on the features after the probe's `transform` (`l2` or `none`). Then head and backbone take
    `steps` steps of Adam with the rate `lr` on the mean cross-entropy of the whole support, as in Dhillon, Chaudhari,
    Ravichandran and Soatto (2020, ICLR, section 3). A head that starts at random, or as class means with another
    scale, would first distort the features, by the analysis of Kumar et al.

    `train: full` trains the whole backbone; `last_stage` the last of timm's layer groups that has weight matrices (in a
    vision transformer the last block); `bias_and_norm` all parameters that are vectors: biases, scales and shifts of
    norm layers (after BitFit; Ben Zaken, Ravfogel and Goldberg 2022, ACL). For `full`, a smaller `lr` such as 1e-4 is
    safer. Batch norm uses its stored statistics, and dropout is off. `crop_padding` and `flip` draw new shifts and
    mirrorings of the support for each step, as in `learner.augment`; by default there are none.

    The first `n_episodes` of each benchmark are scored, one after another in the run's own process (under torchrun the
    first one's); `executor` and `target_ci95` do not matter. The weights are restored after each episode. Controls, the
    accuracy after chunks and transfers only use probes on fixed features.
    """

    train: Literal["full", "last_stage", "bias_and_norm"] = "last_stage"
    steps: int = _number(20, low=0, high=100_000)
    lr: float = _number(1e-3, above=0)
    C: float = _number(1.0, above=0)
    crop_padding: int = _number(0, low=0)
    flip: bool = False
    n_episodes: int = _number(100, low=2, high=10**7)

    def words(self) -> str:
        """Return in words what is trained, and on how many episodes."""
        what = {"full": "the whole backbone", "last_stage": "the last stage", "bias_and_norm": "biases and norms"}
        return f"{self.steps} steps on {what[self.train]}, first {self.n_episodes:,} episodes"


def fine_tunings(config: RunConfig) -> dict[str, FineTuningConfig]:
    """Return the settings of a run's fine-tuned probes by their names."""
    return {name: read_settings(f"probes.{name}", probe) for name, probe in config.probes.items() if probe.name == NAME}


def fixed_probes(config: RunConfig) -> dict[str, ProbeConfig]:
    """Return a run's probes on fixed features."""
    return {name: probe for name, probe in config.probes.items() if probe.name != NAME}


def read_settings(where: str, probe: ProbeConfig) -> FineTuningConfig:
    """Return the settings of a fine-tuned probe; `where` is its dotted path in the configuration.

    Raises:
        UserError: A parameter is unknown or out of bounds, or the transform or the solver is for other probes.
    """
    settings = from_mapping(FineTuningConfig, probe.params, where=f"{where}.params")
    if probe.transform not in TRANSFORMS:
        raise UserError(
            f"{where}.transform is {probe.transform!r}, and {where} is fine-tuned",
            f"{' or '.join(TRANSFORMS)}, through which gradients pass",
            f"leave {where}.transform out",
        )
    if probe.solver != ProbeConfig().solver:
        raise UserError(
            f"{where}.solver is {probe.solver!r}, and {where} is fine-tuned",
            "no solver: it is for probes on fixed features",
            f"leave {where}.solver out",
        )
    return settings


def check_fine_tunings(config: RunConfig) -> None:
    """Check the settings of fine-tuned probes, and that no part of the run uses them that needs fixed features.

    Raises:
        UserError: A setting is wrong, or a part of the run needs a probe on fixed features.
    """
    found = fine_tunings(config)
    if found and not fixed_probes(config) and not config.frozen and config.after_chunk.few_shot:
        raise UserError(
            f"after_chunk.few_shot is true, and all probes are fine-tuned: {', '.join(found)}",
            "a probe on fixed features for the accuracy after each chunk",
            "add e.g. probes.logistic_regression={}, or set after_chunk.few_shot=false",
        )
    for name, transfer in config.transfer.items():
        if transfer.probe.name == NAME:
            raise UserError(
                f"transfer.{name}.probe is {NAME!r}",
                "a probe on fixed features: only episodes are fine-tuned",
                f"set transfer.{name}.probe.name to logistic_regression, or leave it out",
            )
