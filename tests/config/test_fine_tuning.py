"""Settings of fine-tuned probes that are refused before anything runs, and the words that say why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lurefs.config.fine_tuning import FineTuningConfig, fine_tunings, fixed_probes
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError

MakeConfig = Callable[..., RunConfig]


def probe(**changes: Any) -> dict[str, Any]:
    return {"linear": {"name": "ridge"}, "tuned": {"name": "fine_tuning", **changes}}


def test_probes_are_divided_into_fine_tuned_ones_and_those_on_fixed_features(make_config: MakeConfig) -> None:
    config = make_config(probes=probe(params={"train": "full", "lr": 1, "n_episodes": 7}))
    assert fine_tunings(config) == {"tuned": FineTuningConfig(train="full", lr=1.0, n_episodes=7)}
    assert list(fixed_probes(config)) == ["linear"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"params": {"train": "last"}}, "did you mean 'last_stage'"),
        ({"params": {"step": 3}}, "did you mean 'steps'"),
        ({"params": {"lr": 0}}, "probes.tuned.params.lr is 0.0"),
        ({"params": {"steps": -1}}, "at least 0"),
        ({"params": {"n_episodes": 1}}, "at least 2"),
        ({"params": {"flip": "yes"}}, "true or false"),
        ({"transform": "cl2n"}, "leave probes.tuned.transform out"),
        ({"solver": "sklearn"}, "leave probes.tuned.solver out"),
    ],
)
def test_wrong_settings_are_refused_by_their_names(
    make_config: MakeConfig, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_config(probes=probe(**changes))
    assert words in str(caught.value)


def test_parts_of_a_run_that_need_fixed_features_are_refused(make_config: MakeConfig) -> None:
    alone = {"tuned": {"name": "fine_tuning"}}
    with pytest.raises(UserError, match="all probes are fine-tuned: tuned"):
        make_config(probes=alone)
    assert make_config(probes=alone, after_chunk={"few_shot": False}).probes
    assert make_config(probes=alone, frozen=True).probes
    with pytest.raises(UserError, match=r"transfer\.curve\.probe is 'fine_tuning'"):
        make_config(transfer={"curve": {"probe": {"name": "fine_tuning"}}})
