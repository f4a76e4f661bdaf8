"""Checks of a configuration: settings that contradict each other, unknown names, and unknown parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from episodes.specs import SpecError
from episodes.stopping import MIN_EPISODES
from episodes.transforms import parse_chain
from lurefs import plugins
from lurefs.config.bounds import check_drop_rates, check_optimizer_bounds, check_probe_bounds
from lurefs.config.choosing import all_params, check_choices, transforms_of
from lurefs.config.fine_tuning import check_fine_tunings, fine_tunings
from lurefs.config.learning_schema import BackboneConfig, ChunksConfig, FeaturesConfig, LearnerConfig
from lurefs.config.names import check_names
from lurefs.config.schema import (
    ATTACKS,
    CORRUPTIONS,
    FEATURES,
    BenchmarkConfig,
    ClassSplitConfig,
    ProbeConfig,
    RobustnessConfig,
    RunConfig,
    TransferConfig,
)
from lurefs.config.weight_files import LOCAL_DIR
from lurefs.errors import UserError, unknown_name, without_secrets
from lurefs.records import to_mapping

NOT_IN_PROJECTS, MAX_PROJECT = set("/\\#?%:"), 128
"""What W&B refuses in the name of a project, after the work has begun, and the length that it takes."""
WEIGHT_SOURCES = {"file", "url", "hf_hub_id", "hf_hub_filename", "state_dict"}
"""Keys of timm's cards of weights that name some."""


def check_config(config: RunConfig) -> None:
    """Check everything that needs neither the data nor timm.

    Raises:
        UserError: Settings contradict each other, or a plug-in does not exist or does not accept its parameters.
    """
    _check_secrets(to_mapping(config))
    _check_project(config.trackers.wandb.project)
    _check_plugins(config)
    check_settings(config)


def _check_plugins(config: RunConfig) -> None:
    """Import the plug-ins of a configuration, and check their parameters."""
    plugins.check("dataset", config.dataset.name, config.dataset.params, where="dataset")
    plugins.check("executor", config.executor.name, config.executor.params, where="executor")
    plugins.check("unlearn", config.unlearn.name, config.unlearn.params, where="unlearn")
    plugins.build("unlearn", config.unlearn.name, config.unlearn.params)  # checks the values, too
    parts = [(f"benchmarks.{name}.dataset", benchmark.dataset) for name, benchmark in config.benchmarks.items()]
    parts += [(f"transfer.{name}.dataset", transfer.dataset) for name, transfer in config.transfer.items()]
    for where, dataset in parts:
        if dataset is not None:
            plugins.check("dataset", dataset.name, dataset.params, where=where)
    probes = {f"probes.{name}": probe for name, probe in config.probes.items()}
    probes |= {f"transfer.{name}.probe": transfer.probe for name, transfer in config.transfer.items()}
    for where, probe in probes.items():
        for params in all_params(probe):
            plugins.check("probe", probe.name, params, where=where, chosen=tuple(probe.choose or ()))


def check_settings(config: RunConfig) -> None:
    """Check everything that needs neither the data nor timm nor plug-ins; no code that the settings name is run.

    Raises:
        UserError: Settings contradict each other.
    """
    check_names(config)
    _check_chunks(config.chunks)
    _check_backbone(config.backbone)
    _check_features(config.backbone.features)
    _check_learner(config.learner)
    _check_class_split(config.class_split)
    for name, benchmark in config.benchmarks.items():
        _check_benchmark(f"benchmarks.{name}", benchmark)
        _check_sources(f"benchmarks.{name}", benchmark, config)
    for name, probe in config.probes.items():
        _check_probe(f"probes.{name}", probe)
    check_fine_tunings(config)
    check_choices(config)
    _check_features_alone(config)
    if config.robustness is not None:
        if config.frozen:
            raise UserError(
                "robustness is set, but frozen is true: without training, no classifier knows the base classes",
                "corrupted episodes (benchmarks.NAME.corrupt), or frozen: false",
                "leave robustness out",
            )
        _check_robustness(config.robustness)
    for name, transfer in config.transfer.items():
        _check_transfer(f"transfer.{name}", transfer)
        if name in config.benchmarks:
            raise UserError(
                f"{name!r} is the name of a benchmark and of a transfer", "different names", f"rename transfer.{name}"
            )


def _check_secrets(values: Any, path: str = "") -> None:
    """Refuse settings that hold a password or key: a run stores its settings, and its page shows them."""
    entries = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else ()
    for key, entry in entries:
        _check_secrets(entry, f"{path}.{key}".lstrip("."))
    if isinstance(values, str) and without_secrets(values) != values:
        raise UserError(
            f"{path} holds a password or the key of a service",
            "settings without secrets, since a run stores them and its page shows them",
            "let the library read it from its environment variable or its own login",
        )


def _check_project(project: str) -> None:
    if not project or len(project) > MAX_PROJECT or set(project) & NOT_IN_PROJECTS:
        raise UserError(
            f"trackers.wandb.project is {project!r}",
            f"a name of W&B: 1 to {MAX_PROJECT} characters, none of {' '.join(sorted(NOT_IN_PROJECTS))}",
            "change trackers.wandb.project; the owner goes into trackers.wandb.entity",
        )


def _check_chunks(chunks: ChunksConfig) -> None:
    if chunks.n_chunks is not None and chunks.chunk_size is not None:
        raise UserError(
            f"chunks.n_chunks is {chunks.n_chunks} and chunks.chunk_size is {chunks.chunk_size}",
            "only one of the two",
            "leave one of them out, or set it to null",
        )
    if (chunks.replay == "buffer") != (chunks.buffer_size is not None):
        raise UserError(
            f"chunks.replay is {chunks.replay!r} and chunks.buffer_size is {chunks.buffer_size}",
            "a buffer_size with replay 'buffer', and none with any other replay",
            "set both, or neither",
        )
    _check_schedule(chunks)
    if (chunks.class_order == "skewed") != (chunks.skew_alpha is not None):
        raise UserError(
            f"chunks.class_order is {chunks.class_order!r} and chunks.skew_alpha is {chunks.skew_alpha}",
            "a skew_alpha with class_order 'skewed', and none with any other class_order",
            "set both, or neither",
        )
    for key, value, plain in (("schedule", chunks.schedule, "equal"), ("class_order", chunks.class_order, "random")):
        if value != plain and chunks.chunk_by == "source":
            raise UserError(
                f"chunks.{key} is {value!r} and chunks.chunk_by is 'source'",
                f"{key} {plain!r}, since sources arrive whole",
                f"set chunks.{key} to {plain}, or chunks.chunk_by to random",
            )
        if value != plain and chunks.chunk_size is not None:
            raise UserError(
                f"chunks.{key} is {value!r} and chunks.chunk_size is {chunks.chunk_size}",
                f"a number of chunks, since {key} {value!r} divides the images among them",
                f"set chunks.n_chunks instead of chunks.chunk_size, or set chunks.{key} to {plain}",
            )


def _check_backbone(backbone: BackboneConfig) -> None:
    check_drop_rates(backbone.params)
    if (
        backbone.checkpoint_sha256 is not None
        and backbone.checkpoint_path is None
        and not backbone.name.startswith(LOCAL_DIR)
    ):
        raise UserError(
            f"backbone.checkpoint_sha256 is {backbone.checkpoint_sha256!r}, but no file or folder of weights is named",
            f"a checkpoint_path, or name: {LOCAL_DIR}PATH, that it is the digest of",
            "leave backbone.checkpoint_sha256 out",
        )
    for key in ("pretrained_cfg", "pretrained_cfg_overlay"):
        card = backbone.params.get(key)
        sources = sorted(WEIGHT_SOURCES & card.keys()) if isinstance(card, Mapping) else []
        if sources and not backbone.pretrained:
            raise UserError(
                f"backbone.params.{key}.{sources[0]} names weights, but backbone.pretrained is false, so that "
                "timm would load none",
                "pretrained: true, or a checkpoint_path",
                "set backbone.pretrained=true, or name the file in backbone.checkpoint_path",
            )


def _check_features(features: FeaturesConfig) -> None:
    if not features.norm and not features.of_layers:
        raise UserError(
            "backbone.features.norm is false, but no layers are chosen",
            "norm: false with a layer or n_layers: it is the norm of layers inside the model",
            "set backbone.features.layer (-1 is the last), or leave backbone.features.norm out",
        )
    if features.of_layers and features.pool == "map":
        raise UserError(
            "backbone.features.pool is 'map', and layers are chosen",
            "avg, max, avgmax, catavgmax, token or token_avg for layers: attention pooling reads the last one alone",
            "change backbone.features.pool, or leave backbone.features.layer and n_layers out",
        )


def _check_features_alone(config: RunConfig) -> None:
    """Refuse settings of models and images in a run on features, and features in a run on images."""
    parts = {f"benchmarks.{name}": part.dataset for name, part in config.benchmarks.items()}
    parts |= {f"transfer.{name}": part.dataset for name, part in config.transfer.items()}
    for where, dataset in parts.items():
        if dataset is not None and (dataset.name == FEATURES) != config.brings_features:
            raise UserError(
                f"{where}.dataset is {dataset.name!r} and dataset is {config.dataset.name!r}",
                "features in all parts of a run, or images in all",
                f"leave {where}.dataset out, or make it a run of its own",
            )
    if not config.brings_features:
        return
    wrong = "frozen is false" if not config.frozen else ""
    if config.backbone != BackboneConfig(name=config.backbone.name):
        wrong = "backbone has settings other than its name"
    wrong = next((f"probes.{name} is fine-tuned" for name in fine_tunings(config)), wrong)
    corrupted = [name for name, benchmark in config.benchmarks.items() if benchmark.corrupt is not None]
    wrong = f"benchmarks.{corrupted[0]}.corrupt is set" if corrupted else wrong
    if wrong:
        raise UserError(
            f"{wrong}, but the data set is 'features', without a model and images",
            "frozen: true, and settings that need neither",
            "set frozen=true and leave the other out, or name the images and a backbone",
        )


def _check_learner(learner: LearnerConfig) -> None:
    epochs, where = learner.epochs, "learner.epochs"
    if learner.relearn_epochs is not None and learner.relearn_epochs < epochs:
        epochs, where = learner.relearn_epochs, "learner.relearn_epochs"
    if learner.warmup_epochs > epochs:
        raise UserError(
            f"learner.warmup_epochs is {learner.warmup_epochs:g} and {where} is {epochs}",
            "a warm-up that ends within each chunk",
            f"lower learner.warmup_epochs to {epochs} or less, or raise {where}",
        )
    if learner.freeze == []:
        raise UserError("learner.freeze is empty", "names or patterns, or a number of stages", "leave it out")
    check_optimizer_bounds(learner.optimizer.params)


def _check_schedule(chunks: ChunksConfig) -> None:
    if chunks.first_share != ChunksConfig().first_share and chunks.schedule != "large_first":
        raise UserError(
            f"chunks.first_share is {chunks.first_share} and chunks.schedule is {chunks.schedule!r}",
            "a first_share with schedule 'large_first', and none with any other schedule",
            "set chunks.schedule to large_first, or leave chunks.first_share out",
        )
    if chunks.schedule == "large_first" and chunks.n_chunks == 1:
        raise UserError(
            "chunks.schedule is 'large_first' and chunks.n_chunks is 1",
            "at least 2 chunks: the rest of the images comes after the first",
            "raise chunks.n_chunks to 2 or more, or set chunks.schedule to equal",
        )


def _check_robustness(robustness: RobustnessConfig) -> None:
    names = [] if robustness.corruptions == "all" else robustness.corruptions
    for kind, given, known in (("corruption", names, CORRUPTIONS), ("attack", list(robustness.attacks), ATTACKS)):
        for name in given:
            if name not in known:
                raise unknown_name(kind, name, known)
    bounds: dict[str, tuple[Sequence[float], int, int]] = {"severities": (robustness.severities, 1, 5)}
    bounds |= {f"attacks.{name}": (epsilons, 0, 1) for name, epsilons in robustness.attacks.items()}
    for key, (values, low, high) in bounds.items():
        if len(set(values)) < len(values) or not all(low <= value <= high for value in values):
            raise UserError(
                f"robustness.{key} is {values}",
                f"different numbers from {low} to {high}" + (", e.g. 0.0314 for 8/255" if high == 1 else ""),
                f"change robustness.{key}",
            )
    if not (robustness.corruptions and robustness.severities) and not any(robustness.attacks.values()):
        raise UserError(
            "robustness has nothing to measure", "corruptions with severities, or attacks with epsilons", "name some"
        )


def _check_benchmark(where: str, benchmark: BenchmarkConfig) -> None:
    try:
        benchmark.spec()
    except SpecError as error:
        raise UserError(f"{where}: {error.problem}", error.expected, error.fix) from error
    if benchmark.corrupt is not None and benchmark.corrupt.corruption not in CORRUPTIONS:
        raise unknown_name("corruption", benchmark.corrupt.corruption, CORRUPTIONS)
    if benchmark.target_ci95 is not None and benchmark.n_episodes <= MIN_EPISODES:
        raise UserError(
            f"{where}.target_ci95 is {benchmark.target_ci95:g} and {where}.n_episodes is {benchmark.n_episodes}",
            f"n_episodes above {MIN_EPISODES}, since the interval is first checked after that many",
            f"raise {where}.n_episodes, e.g. to 10000, or leave {where}.target_ci95 out",
        )


def _check_sources(where: str, benchmark: BenchmarkConfig, config: RunConfig) -> None:
    if benchmark.sources == "all":
        return
    if benchmark.dataset is not None:
        raise UserError(
            f"{where} has a data set of its own and sources {benchmark.sources!r}",
            "sources: all, since source_split is only for the run's data set",
            f"set {where}.sources to all",
        )
    if config.source_split is None:
        raise UserError(
            f"{where}.sources is {benchmark.sources!r}, but source_split is not set, so that no source is held back",
            "a share of the sources, or a list of them, that base training does not see",
            "set source_split, e.g. source_split.held_back=0.25",
        )


def _check_transfer(where: str, transfer: TransferConfig) -> None:
    if transfer.dataset is not None and transfer.classes != "all":
        raise UserError(
            f"{where} has a data set of its own and classes {transfer.classes!r}",
            "classes: all, since the class split is only for the run's data set",
            f"set {where}.classes to all",
        )
    _check_probe(f"{where}.probe", transfer.probe, transfer.grid)
    sizes = transfer.sizes
    if not sizes or len(set(sizes)) < len(sizes) or any(size != "all" and size < 1 for size in sizes):
        raise UserError(
            f"{where}.sizes is {sizes}", "different numbers of images per class, from 1, or all", "e.g. [1, 2, 4, all]"
        )
    grid = transfer.grid or {}
    if len(grid) > 1 or any(not values or sorted(set(values)) != values for values in grid.values()):
        raise UserError(
            f"{where}.grid is {grid}", "one setting with ascending values, {} or null", "e.g. {C: [0.1, 1, 10]}"
        )


def _check_probe(where: str, probe: ProbeConfig, grid: Mapping[str, list[Any]] | None = None) -> None:
    check_probe_bounds(where, probe, grid)
    for path, chain in transforms_of(where, probe).items():
        try:
            parse_chain(chain)
        except ValueError as error:
            raise UserError(
                f"{path} is {chain!r}: {error}",
                "steps separated by commas, e.g. l2, cl2n, power:0.5,l2, pca:64",
                f"change {path}",
            ) from error


def _check_class_split(split: ClassSplitConfig) -> None:
    groups = (split.base, split.validation, split.novel)
    shares = [group for group in groups if isinstance(group, float)]
    if split.file is None and 0 < len(shares) < len(groups):
        problem = "class_split mixes shares and lists of classes"
        raise UserError(problem, "three shares, or three lists", "use one of the two")
    if split.file is None and len(shares) == len(groups) and sum(shares) > 1 + 1e-9:
        raise UserError(
            f"the shares of class_split add up to {sum(shares):g}", "at most 1", "lower one of base, validation, novel"
        )
