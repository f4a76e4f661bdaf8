"""What single trainings leave open about their procedures, and the commands that train with more seeds."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from episodes.over_seeds import MIN_SEEDS
from lurefs.comparing.groups import Group, without_seed
from lurefs.comparing.texts import counted

N_COMMANDS = 3
"""For more procedures, only the command of the first is said."""
COMMAND = "for seed in "
"""How each command starts; such lines must not be folded."""


def missing_seeds(groups: Sequence[Group]) -> list[str]:
    """Say how many seeds several trained procedures lack, and the commands that add them; empty if they lack none."""
    lacking = [group for group in groups if group.is_trained and len(group.runs) < MIN_SEEDS]
    if not lacking or len(groups) < 2:
        return []
    n_missing = MIN_SEEDS - min(len(group.runs) for group in lacking)
    shown = lacking if len(lacking) <= N_COMMANDS else lacking[:1]
    others = "" if shown == lacking else f", and likewise for the {len(lacking) - 1} others"
    said = (
        f"To compare the training procedures, each needs at least {MIN_SEEDS} seeds; up to "
        f"{counted(n_missing, 'seed')} per procedure are missing. These commands train with them{others}; then give "
        "'lurefs compare' the new folders, too:"
    )
    return [said, *(command(group) for group in shown)]


def command(group: Group) -> str:
    """Return a command for a shell that trains a group with the seeds that it lacks, each into a folder of its own."""
    known, run = {other.config.seed for other in group.runs}, group.runs[0]
    seeds = [seed for seed in range(2 * MIN_SEEDS) if seed not in known][: MIN_SEEDS - len(known)]
    name, path = (without_seed(text, run.config.seed) for text in (run.config.name, run.directory.path.name))
    folder = run.directory.path.with_name(path or run.directory.path.name)
    config, place, title = (shlex.quote(str(text)) for text in (run.directory.config_path, folder, name or "run"))
    return (
        f"{COMMAND}{' '.join(map(str, seeds))}; do lurefs run --config {config} "
        f"--run-dir {place}-seed-$seed seed=$seed name={title}-seed-$seed; done"
    )
