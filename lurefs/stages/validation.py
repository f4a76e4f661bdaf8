"""Episodes of the validation classes, on which settings are chosen: never on those of the classes that are measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from episodes.bank import FeatureBank
from episodes.manifest import Manifest, draw_manifest
from episodes.specs import SpecError, check_fits
from lurefs.config.choosing import choosing_probes
from lurefs.config.schema import BenchmarkConfig, RunConfig
from lurefs.data.encoded import GROUPS
from lurefs.data.splits import DEFAULTS
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory
from lurefs.seeding import seed_stream
from lurefs.stages.plan import Benchmark, ImageSet, Plan, choose_images

VALIDATION = "validation--all"
"""Name of the feature bank of the validation classes; no benchmark can have it."""
N_EPISODES = 300
"""Episodes of each benchmark's twin."""
GOOD_SHARE = 0.15
"""Share of validation classes that an error recommends if there are enough classes."""


def wants_validation(config: RunConfig) -> bool:
    """Return whether a run needs features of the validation classes."""
    return bool(choosing_probes(config)) or config.calibrate is not None


def validation_images(plan: Plan) -> ImageSet:
    """Return all images of the validation classes of the run's own data set."""
    of_classes = BenchmarkConfig(classes="validation")
    return choose_images(VALIDATION, of_classes, plan.dataset, plan.classes, plan.images, plan.config)


def validation_twin(plan: Plan, benchmark: Benchmark) -> Benchmark:
    """Return a benchmark's validation twin: `N_EPISODES` episodes of its form on the run's validation classes.

    A benchmark on another data set has the same twin: the validation classes are always those of the run's own data
    set. The twin has a seed of its own, which does not depend on the run's, so that runs choose on the same episodes.
    It is on clean images, whatever `corrupt` says, since a corruption is what nobody could prepare for. Its episodes
    may share images, and `sources` does not matter: base training saw none of them.

    Raises:
        UserError: There are too few validation classes, or too few images in one of them.
    """
    images = validation_images(plan)
    spec = replace(benchmark.spec, n_episodes=N_EPISODES, disjoint=False)
    n_classes = len(images.class_names)
    if spec.min_way > n_classes:
        name = "n_way" if spec.meta_dataset is None else "meta_dataset.min_way"
        what = "settings are chosen" if choosing_probes(plan.config) else "temperatures are fitted"
        raise UserError(
            f"{what} on validation classes, and there are {n_classes or 'none'}",
            f"at least {spec.min_way}, for the episodes of benchmarks.{benchmark.name}",
            ", or ".join(
                filter(
                    None,
                    [_more_classes(plan, spec.min_way), f"lower benchmarks.{benchmark.name}.{name}", _without(plan)],
                )
            ),
        )
    try:
        check_fits(spec, np.bincount(images.labels, minlength=n_classes), images.class_names)
    except SpecError as error:
        raise UserError(
            f"benchmarks.{benchmark.name} cannot have episodes on the validation classes: {error.problem}",
            error.expected,
            f"{error.fix}, or {_without(plan)}",
        ) from error
    return Benchmark(images=images, spec=spec, seed=seed_stream(benchmark.seed, "validation"))


def validation_episodes(twin: Benchmark) -> Manifest:
    """Return the episodes of a validation twin; they are drawn again whenever they are needed."""
    return draw_manifest(twin.images, twin.spec, seed=twin.seed)


def read_validation(plan: Plan, directory: RunDirectory, benchmark: Benchmark) -> tuple[FeatureBank, Manifest]:
    """Return the extracted features of the validation classes, and the episodes of a benchmark's twin.

    Raises:
        UserError: The features were not extracted, or they are of other images.
    """
    bank, manifest = directory.read_bank(VALIDATION), validation_episodes(validation_twin(plan, benchmark))
    if bank.images_digest != manifest.images_digest:
        raise UserError(
            "the features of the validation classes are of other images than the run's validation classes",
            "features of one configuration",
            "run 'lurefs extract' first",
        )
    return bank, manifest


def check_validation(plan: Plan) -> None:
    """Check that each benchmark can have its validation twin, if the run needs them.

    Raises:
        UserError: See `validation_twin`.
    """
    for benchmark in plan.benchmarks.values() if wants_validation(plan.config) else ():
        validation_twin(plan, benchmark)


def _more_classes(plan: Plan, n_needed: int) -> str:
    """Return in words how to have at least some number of validation classes."""
    split = plan.config.class_split
    if split in DEFAULTS and plan.dataset.class_split is not None:
        return "put more classes into the validation part of the data's split, or set class_split"
    if split.file is not None:
        return f"name more validation classes in {split.file}"
    if isinstance(split.validation, list):
        return "name more classes in class_split.validation"
    shares = _more_validation(plan, n_needed)
    return "set " + " and ".join(f"class_split.{name}={share:g}" for name, share in shares.items()) if shares else ""


def _more_validation(plan: Plan, n_needed: int) -> dict[str, float]:
    """Return shares of classes that suffice for validation and for all benchmarks; empty if there are none."""
    n_all = len(plan.dataset.class_names)
    counts = {group: len(getattr(plan.classes, group)) for group in GROUPS}
    needed = {"base": 0 if plan.config.frozen else 2, "novel": 0}
    for name, benchmark in plan.benchmarks.items():
        group = plan.config.benchmarks[name].classes
        needed[group] = max(needed.get(group, 0), benchmark.spec.min_way)
    n_unused = n_all - sum(counts.values())
    while counts["validation"] < max(n_needed, round(GOOD_SHARE * n_all)):
        if n_unused > 0:
            n_unused -= 1
        else:
            richest = max(("novel", "base"), key=lambda group: counts[group] - needed[group])
            if counts[richest] == needed[richest]:
                break
            counts[richest] -= 1
        counts["validation"] += 1
    if counts["validation"] < n_needed:
        return {}
    return {group: count * 10**6 // n_all / 10**6 for group, count in counts.items()}


def _without(plan: Plan) -> str:
    users = [f"probes.{name}.choose" for name in choosing_probes(plan.config)]
    users += ["calibrate"] if plan.config.calibrate is not None else []
    return " and ".join(f"leave {user} out" for user in users)
