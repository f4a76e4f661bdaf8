from __future__ import annotations

from pathlib import Path

from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import groups_of
from lurefs.comparing.more_seeds import command, missing_seeds
from lurefs.runs.directory import RunDirectory
from tests.made_up_runs import outcome, run_in_memory


def run_of(name: str, seed: int = 0, **config: object) -> Run:
    unlearn = {"name": "nothing" if name.startswith("warm") else "by_saliency"}
    return run_in_memory(
        {"name": name, "seed": seed, "unlearn": unlearn, **config},
        outcomes=() if config.get("frozen") else (outcome(),),
        directory=RunDirectory(Path("my runs") / name),
    )


def test_each_single_training_has_a_command_with_the_seeds_that_it_lacks() -> None:
    said = missing_seeds(groups_of([run_of("lure"), run_of("warm--seed-1", seed=1)]))
    assert "needs at least 3 seeds" in said[0]
    assert said[1:] == [
        "for seed in 1 2; do lurefs run --config 'my runs/lure/config.yaml' --run-dir 'my runs/lure'-seed-$seed "
        "seed=$seed name=lure-seed-$seed; done",
        "for seed in 0 2; do lurefs run --config 'my runs/warm--seed-1/config.yaml' --run-dir "
        "'my runs/warm'-seed-$seed seed=$seed name=warm-seed-$seed; done",
    ]


def test_two_seeds_lack_one() -> None:
    [group] = groups_of([run_of("lure-seed-0"), run_of("lure-seed-1", seed=1)])
    assert command(group).startswith("for seed in 2; do ")


def test_many_procedures_have_one_command() -> None:
    runs = [run_of(f"lure{letter}", learner={"epochs": n}) for n, letter in enumerate("abcd", start=1)]
    said = missing_seeds(groups_of(runs))
    assert len(said) == 2
    assert "likewise for the 3 others" in said[0]


def test_enough_seeds_a_single_procedure_and_frozen_backbones_lack_none() -> None:
    three = [run_of(f"{name}-seed-{seed}", seed=seed) for name in ("lure", "warm") for seed in range(3)]
    assert missing_seeds(groups_of(three)) == []
    assert missing_seeds(groups_of([run_of("lure")])) == []
    frozen = [run_of(f"frozen{seed}", seed=seed, frozen=True, backbone={"name": f"test_{seed}"}) for seed in range(2)]
    assert missing_seeds(groups_of(frozen)) == []
