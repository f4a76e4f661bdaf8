"""The configuration of a run: frozen dataclasses, loaded as defaults <- YAML file <- variant <- `key=value`.

What needs the data set's labels to be checked is in `lurefs.plan`; nothing here imports torch or timm.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from episodes.specs import EpisodeSpec, MetaDatasetSpec, SpecError
from episodes.stopping import MIN_EPISODES
from episodes.transforms import parse_chain
from lurefs import plugins
from lurefs.errors import UserError, nearest, unknown_name
from lurefs.records import from_mapping, to_mapping

Params = dict[str, Any]
_LISTS = ("benchmarks", "probes")
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The common corruptions of Hendrycks and Dietterich (2019), in their order: noise, blur, weather, digital."""
ATTACKS = ("fgsm", "pgd")


def _number(default: Any, **bounds: float) -> Any:
    """Declare a numeric field with bounds (`low`, `high` inclusive; `above`, `below` exclusive)."""
    return field(default=default, metadata=bounds)


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """A name of the plug-in table, or `package.module:factory`, and the keywords its factory is called with."""

    name: str
    params: Params = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClassSplitConfig:
    """Which classes are base, validation and novel.

    Each of the three is a share of all classes, drawn by `seed`, or a list of class names; `file` names a JSON or YAML
    file that holds the three lists and takes their place.
    """

    seed: int = 0
    base: float | list[str] = _number(0.6, low=0, high=1)
    validation: float | list[str] = _number(0.15, low=0, high=1)
    novel: float | list[str] = _number(0.25, low=0, high=1)
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImageSplitConfig:
    """Shares of each base class's images that are held out: `val` selects the epoch, `test` measures the outcome."""

    seed: int = 0
    val: float = _number(0.1, above=0, below=1)
    test: float = _number(0.2, above=0, below=1)


@dataclass(frozen=True, kw_only=True)
class ChunksConfig:
    """How the base classes' training and validation images arrive, and which old ones come again.

    Give `n_chunks` or `chunk_size`; without either there are 5 chunks. `seed: null` draws all of this by the run's own
    seed. `replay: buffer` keeps `buffer_size` old images, drawn evenly over all that were seen.

    How much arrives when: `schedule: growing` makes the sizes of the chunks proportional to 1, 2, 3 and so on;
    `large_first` gives the first chunk the share `first_share` of all images, and the others equal parts of the rest.

    What arrives together: `chunk_by: source` lets whole sources (icon sets, fonts) arrive together. `class_order:
    balanced` divides every class over the chunks as evenly as its count and the schedule allow. `skewed` divides each
    class by shares of its own, drawn from a Dirichlet distribution of concentration `skew_alpha` times those of the
    schedule: at 100 nearly balanced, at 0.1 most of a class arrives with one or two chunks.

    How many, and under which names: of each class at most `images_per_class` images arrive, training and validation
    together. `label_noise` is the share of the arriving images that are given the name of another base class, all
    others equally likely: training, unlearning, the choice of the epoch and the accuracies on training and validation
    images go by the given names, while test images, benchmarks and transfers keep the true ones.
    """

    n_chunks: int | None = _number(None, low=1)
    chunk_size: int | None = _number(None, low=1)
    seed: int | None = None
    replay: Literal["full", "buffer", "none"] = "full"
    buffer_size: int | None = _number(None, low=1)
    chunk_by: Literal["random", "source"] = "random"
    schedule: Literal["equal", "growing", "large_first"] = "equal"
    first_share: float = _number(0.5, above=0, below=1)
    class_order: Literal["random", "balanced", "skewed"] = "random"
    skew_alpha: float | None = _number(None, above=0, high=1e6)
    images_per_class: int | None = _number(None, low=2)
    label_noise: float = _number(0.0, low=0, below=1)

    def seed_of(self, run_seed: int) -> int:
        """Return what the stream is drawn with: its own seed, or else the run's."""
        return run_seed if self.seed is None else self.seed


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Any timm model by name, with timm's own keywords in `params`.

    `pretrained` loads timm's weights; `checkpoint_path` a safetensors or torch file of them. Images are resized
    to `image_size` where it is set, and keep the data set's size where not. `stem: small` makes the first
    convolution stride 1 and drops the max-pool, for images of about 32 pixels.
    """

    name: str = "test_resnet"
    params: Params = field(default_factory=dict)
    pretrained: bool = False
    checkpoint_path: str | None = None
    image_size: int | None = _number(None, low=1)
    stem: Literal["default", "small"] = "default"


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random augmentation of training batches: shift by up to `crop_padding` pixels, mirror half of the images."""

    crop_padding: int = _number(2, low=0)
    flip: bool = False


def _default_optimizer() -> PluginConfig:
    return PluginConfig(name="sgd", params={"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4})


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """How one chunk is learned. The learning rate starts anew with every chunk.

    `optimizer.name` is any timm optimizer. `schedule: step` multiplies the rate by 0.1 at 40 % and 80 % of the epochs.
    `optimizer_state` says what becomes of the optimizer's moments when weights are unlearned. `select: best` goes on
    with the epoch of the highest validation accuracy.

    `relearn_epochs` takes the place of `epochs` after the first chunk. With `match_images_seen` each chunk trains on
    as many images as all chunks up to it together: what a model that starts anew with every chunk needs in order to
    have seen as much as one that never did. `l2_init` pulls every weight towards the run's initial one, with the
    gradient l2_init * (theta - theta_0); 0 is off. `precision: bfloat16` computes the training passes under autocast.
    `compile` hands the training passes to torch.compile, which takes a minute or so at the start and brought nothing on
    the CPU where it was measured.
    `channels_last` is the order of images and convolution weights in memory. The last three change how numbers are
    rounded, so they belong to what a run is made from.

    `images: memory` decodes the base images once and keeps them on the device; `loader` has `n_workers` processes read
    them batch by batch, each time anew, with the same results to the bit; `auto` keeps up to 8 GiB in memory.
    """

    epochs: int = _number(20, low=1)
    relearn_epochs: int | None = _number(None, low=1)
    match_images_seen: bool = False
    batch_size: int = _number(64, low=2)
    eval_batch_size: int = _number(512, low=1)
    optimizer: PluginConfig = field(default_factory=_default_optimizer)
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    warmup_epochs: float = _number(0.0, low=0)
    optimizer_state: Literal["keep", "clear_reset", "clear_all"] = "clear_reset"
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    select: Literal["best", "last"] = "best"
    l2_init: float = _number(0.0, low=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    channels_last: bool = True
    images: Literal["auto", "memory", "loader"] = "auto"
    n_workers: int = _number(2, low=0)


@dataclass(frozen=True, kw_only=True)
class CheckpointsConfig:
    """Which chunks' weights stay on disk, and how often a chunk's state is stored while it is learned.

    `keep: last` removes the weights of a chunk when the next one is done; `best` keeps those of the highest validation
    accuracy as well. Few-shot accuracy of new benchmarks is only measured for chunks whose weights are there.
    `every_seconds` is the least time between two states, which are stored after epochs; 0 stores every epoch's, null
    none.
    """

    keep: Literal["all", "last", "best"] = "all"
    every_seconds: float | None = _number(60.0, low=0)


@dataclass(frozen=True, kw_only=True)
class AfterChunkConfig:
    """Few-shot accuracy after every chunk: the first `n_episodes` of each benchmark, with the first probe."""

    few_shot: bool = True
    n_episodes: int = _number(200, low=2)


def _default_attacks() -> dict[str, list[float]]:
    return {name: [0.00784, 0.0314] for name in ATTACKS}  # 2/255 and 8/255


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig:
    """Accuracy on `n_images` held-out images of the base classes that are changed before the model prepares them.

    Needs `pip install "lurefs[robustness]"`. `corruptions` are `all` of the 15 common ones of Hendrycks and Dietterich
    (2019) or a list of them, each at every one of `severities` (1 to 5, those of ImageNet-C). `attacks` gives `fgsm`
    and `pgd` their epsilons: how far each pixel in [0, 1] may be moved. `pgd` takes `pgd_steps` steps of
    `pgd_step_size` epsilons from a random start. `after` says whether the `last` chunk or `every_chunk` is measured.
    """

    corruptions: list[str] | Literal["all"] = "all"
    severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    attacks: dict[str, list[float]] = field(default_factory=_default_attacks)
    pgd_steps: int = _number(10, low=1)
    pgd_step_size: float = _number(0.25, above=0, high=1)
    n_images: int = _number(500, low=1)
    after: Literal["last", "every_chunk"] = "last"


@dataclass(frozen=True, kw_only=True)
class CorruptConfig:
    """Which images of a benchmark's episodes are corrupted, and how.

    `corruption` is one of the 15 common ones of Hendrycks and Dietterich (2019), `severity` 1 (mild) to 5. Needs
    `pip install "lurefs[robustness]"`, and images of 32 pixels or more.
    """

    corruption: str
    severity: int = _number(3, low=1, high=5)
    images: Literal["query", "support", "both"] = "query"

    def words(self) -> str:
        """Say which images are corrupted, and how."""
        whose = {"query": "queries", "support": "support", "both": "support and queries"}[self.images]
        return f"{whose} under {self.corruption.replace('_', ' ')} of severity {self.severity}"

    def bank_names(self, benchmark: str) -> tuple[str, str]:
        """Return the names of the feature banks that support and queries of a benchmark are taken from."""
        corrupted = f"{benchmark}--{self.corruption}-{self.severity}"
        return (
            benchmark if self.images == "query" else corrupted,
            benchmark if self.images == "support" else corrupted,
        )


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Episodes on one group of classes of the run's data set, or on `all` of another one that `dataset` names.

    Departures from a fixed way and shot, each off by default (see `episodes.specs.EpisodeSpec`): `shots: [1, 2, 4]`
    gives each of the n_way classes its own number, `shot_range: [1, 10]` draws it; `query_alpha: 2` draws the shares of
    the n_way * n_query queries from a Dirichlet distribution; `meta_dataset: {max_way: 20}` draws way and shots by the
    procedure of Meta-Dataset; `disjoint: true` lets no image be in two episodes. `manifest` names a file of episodes
    that takes the place of drawing: its images must be among those of the benchmark, and the form is the file's.

    `target_ci95: 0.003` ends the scoring of a probe once its mean accuracy is known to within 0.3 points, as 95 %
    interval over episodes of this pool; `n_episodes` is then the most. The width is looked at after every 100 episodes,
    from 200 on.

    `corrupt: {images: query, corruption: fog, severity: 3}` changes images of the episodes, which stay the same: beside
    a benchmark of the same form and seed without it, the report says what the corruption costs.
    """

    dataset: PluginConfig | None = None
    classes: Literal["novel", "validation", "base", "all"] = "novel"
    n_way: int = _number(5, low=2)
    n_shot: int = _number(1, low=1)
    n_query: int = _number(15, low=1)
    n_episodes: int = _number(2000, low=2)
    seed: int = 0
    shots: tuple[int, ...] | None = None
    shot_range: tuple[int, ...] | None = None
    query_alpha: float | None = None
    meta_dataset: MetaDatasetSpec | None = None
    disjoint: bool = False
    manifest: str | None = None
    target_ci95: float | None = _number(None, above=0, high=0.1)
    corrupt: CorruptConfig | None = None

    def spec(self) -> EpisodeSpec:
        """Return the form of the episodes.

        Raises:
            SpecError: Its settings contradict each other.
        """
        values = {field.name: getattr(self, field.name) for field in fields(EpisodeSpec)}
        return EpisodeSpec(**values)


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """A scikit-learn classifier, by name or import path, on features after `transform`.

    `transform` is a chain of l2, center, standardise, power:EXPONENT, pca:COMPONENTS with commas between, or none, or
    cl2n for center,l2; what it is fitted on are the training images of the base classes. `solver: auto` solves many
    episodes at once where the answer is that of the converged estimator, `sklearn` fits it as it is, one by one.
    """

    name: str = "logistic_regression"
    params: Params = field(default_factory=dict)
    transform: str = "l2"
    solver: Literal["auto", "sklearn"] = "auto"


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """A probe on a whole group of classes: fitted on `sizes` images a class, measured on all test images.

    Classes are chosen as those of a benchmark. `val` and `test` are shares of each class's images, drawn by `seed`.
    Sizes other than `all` are drawn `n_repeats` times. `grid` names one setting of the probe and the values that the
    validation images choose from, by `choose_by`; null is C from 0.001 to 10000 where the probe has a C and
    `probe.params` sets none, {} chooses nothing. A transform that needs a reference is fitted on all training images.
    """

    dataset: PluginConfig | None = None
    classes: Literal["novel", "validation", "base", "all"] = "novel"
    sizes: list[int | Literal["all"]] = field(default_factory=lambda: [1, 2, 4, 8, "all"])
    n_repeats: int = _number(5, low=1)
    val: float = _number(0.1, above=0, below=1)
    test: float = _number(0.3, above=0, below=1)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    grid: dict[str, list[float]] | None = None
    choose_by: Literal["nll", "accuracy"] = "nll"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases. `auto` follows the user's environment, and is offline where that says nothing."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "lurefs"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class TrackersConfig:
    """Where the records of a run are mirrored to."""

    wandb: WandbConfig = field(default_factory=WandbConfig)


def _default_benchmarks() -> dict[str, BenchmarkConfig]:
    return {"novel-5way-1shot": BenchmarkConfig(n_shot=1), "novel-5way-5shot": BenchmarkConfig(n_shot=5)}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that one run is made from. `device: auto` takes a GPU where there is one.

    `controls` also measures what a backbone must beat: its untrained twin, and statistics of the images. `executor`
    says where episodes are scored: `serial`, `joblib` (n_workers processes), or `dask` (address of a cluster).
    `robustness: {}` also measures accuracy on changed images.
    """

    name: str
    seed: int = 0
    device: str = "auto"
    num_threads: int = _number(1, low=1)
    dataset: PluginConfig = field(default_factory=lambda: PluginConfig(name="icons"))
    class_split: ClassSplitConfig = field(default_factory=ClassSplitConfig)
    image_split: ImageSplitConfig = field(default_factory=ImageSplitConfig)
    chunks: ChunksConfig = field(default_factory=ChunksConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    unlearn: PluginConfig = field(default_factory=lambda: PluginConfig(name="by_saliency"))
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    after_chunk: AfterChunkConfig = field(default_factory=AfterChunkConfig)
    robustness: RobustnessConfig | None = None
    benchmarks: dict[str, BenchmarkConfig] = field(default_factory=_default_benchmarks)
    probes: dict[str, ProbeConfig] = field(default_factory=lambda: {"logistic_regression": ProbeConfig()})
    transfer: dict[str, TransferConfig] = field(default_factory=dict)
    controls: bool = True
    executor: PluginConfig = field(default_factory=lambda: PluginConfig(name="serial"))
    trackers: TrackersConfig = field(default_factory=TrackersConfig)


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """What one config file asks for: one run, or one run a variant (`runs` is keyed by the variant's name).

    Attributes:
        name: The file's `name`.
        runs: The runs; the single run of a file without variants has the group's own name.
        has_variants: Whether the runs stand in folders of their own below the group's.
    """

    name: str
    runs: Mapping[str, RunConfig]
    has_variants: bool


def load(source: str, overrides: Sequence[str] = ()) -> RunGroup:
    """Read a recipe, apply the overrides, and check all that needs neither data nor timm.

    Args:
        source: A path of a YAML file, or the name of a recipe that comes with the package.
        overrides: `key.sub=value` texts; they win over the file and over its variants.

    Raises:
        UserError: No such file, not YAML, an unknown key, a wrong value, or parameters that a plug-in does not take.
    """
    path = find_recipe(source)
    plain = _read_yaml(path)
    variants_first = [text for text in overrides if text.startswith("variants.")]
    plain = merge(plain, _parse_overrides(variants_first))
    rest = _parse_overrides([text for text in overrides if text not in variants_first])
    variants = plain.pop("variants", None)
    name = str(rest.get("name", plain.get("name", path.stem)))
    plain = {**plain, "name": name}
    if variants is None:
        config = run_config(merge(with_defaults(plain), rest))
        return RunGroup(name=name, runs={config.name: config}, has_variants=False)
    _check_variants(variants)
    runs = {
        variant: run_config({**merge(merge(with_defaults(plain), changes or {}), rest), "name": variant})
        for variant, changes in variants.items()
    }
    return RunGroup(name=name, runs=runs, has_variants=True)


def run_config(values: Mapping[str, Any]) -> RunConfig:
    """Build and check one run's configuration from plain containers.

    Raises:
        UserError: See `load`.
    """
    config = from_mapping(RunConfig, with_defaults(values))
    config = _absolute_paths(config)
    _check_names(config)
    _check_chunks(config.chunks)
    if config.chunks.n_chunks is None and config.chunks.chunk_size is None:
        config = replace(config, chunks=replace(config.chunks, n_chunks=5))
    _check_class_split(config.class_split)
    plugins.check("dataset", config.dataset.name, config.dataset.params, where="dataset")
    plugins.check("executor", config.executor.name, config.executor.params, where="executor")
    plugins.check("unlearn", config.unlearn.name, config.unlearn.params, where="unlearn")
    plugins.build("unlearn", config.unlearn.name, config.unlearn.params)  # its settings are checked, nothing is done
    for name, benchmark in config.benchmarks.items():
        _check_benchmark(f"benchmarks.{name}", benchmark)
    for name, probe in config.probes.items():
        plugins.check("probe", probe.name, probe.params, where=f"probes.{name}")
        _check_transform(f"probes.{name}", probe)
    if config.robustness is not None:
        _check_robustness(config.robustness)
    for name, transfer in config.transfer.items():
        _check_transfer(f"transfer.{name}", transfer)
        if name in config.benchmarks:
            raise UserError(
                f"{name!r} is the name of a benchmark and of a transfer", "two names", f"rename transfer.{name}"
            )
    return config


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lay values over the defaults, so that a part of a default can be changed (`unlearn.params.keep_ratio=0.5`).

    `benchmarks` and `probes` are lists by name: where they are given, the default ones are not added to them.
    """
    defaults: dict[str, Any] = to_mapping(RunConfig(name=""))
    return merge({key: value for key, value in defaults.items() if key not in _LISTS or key not in values}, values)


def recipes_dir() -> Path:
    """Return the folder of the package's recipes: `lurefs/recipes` of a wheel, `configs` of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "configs"


def find_recipe(source: str) -> Path:
    """Return the file that `source` means: a path, or a recipe's name with or without `.yaml`.

    Raises:
        UserError: There is no such file.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    recipes = {recipe.stem: recipe for recipe in sorted(recipes_dir().glob("*.yaml"))}
    if path.stem in recipes and path.parent in (Path(), Path("configs")):
        return recipes[path.stem]
    guess = nearest(path.stem, recipes)
    raise UserError(
        f"there is no config {source!r}",
        f"the path of a YAML file, or a recipe: {', '.join(recipes)}",
        f"did you mean {guess!r}?" if guess else "check the path",
    )


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, mapping by mapping.

    Where a change gives a mapping another `name`, the old `params` go with the old name.
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            renamed = "name" in value and value["name"] != old.get("name")
            kept = {name: entry for name, entry in old.items() if not (renamed and name == "params")}
            merged[key] = merge(kept, value)
        else:
            merged[key] = value
    return merged


def digest(values: Any) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 of a JSON-serialisable value."""
    text = json.dumps(to_mapping(values), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_identity(config: RunConfig) -> dict[str, Any]:
    """Return what the numbers of a run depend on: all but its name, machine, checkpoints, controls and trackers."""
    values: dict[str, Any] = to_mapping(config)
    left_out = ("name", "device", "num_threads", "checkpoints", "controls", "executor", "trackers")
    values["learner"] = {key: value for key, value in values["learner"].items() if key not in ("images", "n_workers")}
    return {key: value for key, value in values.items() if key not in left_out}


def pretrain_identity(config: RunConfig) -> dict[str, Any]:
    """Return what a run's weights depend on, but for the images: its identity without what only measures them."""
    left_out = ("dataset", "benchmarks", "probes", "transfer", "after_chunk", "robustness")
    return {key: value for key, value in run_identity(config).items() if key not in left_out}


def to_yaml(config: RunConfig) -> str:
    """Return the resolved configuration as a YAML document that `load` reads back."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=True, width=120)


def _read_yaml(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as YAML: {error}", "a YAML mapping of settings", "correct the file"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings", "a YAML mapping such as 'name: my-run'", "write one")
    return {str(key): value for key, value in values.items()}


def _parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for text in texts:
        if "=" not in text or text.startswith("="):
            raise UserError(f"override {text!r} has no 'key='", "key.sub=value", "write e.g. learner.epochs=5")
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist(list(texts)), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"an override cannot be read: {error}", "key.sub=value with a YAML value", "quote the value"
        ) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _check_variants(variants: Any) -> None:
    if not isinstance(variants, Mapping) or not variants:
        raise UserError(
            f"variants is {variants!r}", "a mapping from a run's name to its changes", "see configs/quickstart.yaml"
        )
    for variant, changes in variants.items():
        if changes is not None and not isinstance(changes, Mapping):
            raise UserError(
                f"variants.{variant} is {changes!r}", "a mapping of settings", "indent the changes below it"
            )


def _check_names(config: RunConfig) -> None:
    names = [config.name, *config.benchmarks, *config.probes, *config.transfer]
    for name in names:
        if not name or name.startswith(".") or any(character in name for character in "/\\:;,#?'\"<>|*\n\t"):
            raise UserError(
                f"the name {name!r} cannot be a file's name",
                "letters, digits, '-', '_', '.' and spaces",
                "choose another name",
            )
        if "--" in name:
            raise UserError(f"the name {name!r} holds '--'", "a name without it", "use '-'")
    if not config.benchmarks or not config.probes:
        missing = "benchmarks" if not config.benchmarks else "probes"
        raise UserError(
            f"{missing} is empty", f"at least one entry under {missing}", f"leave {missing} out for the default"
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
            "a buffer_size with replay 'buffer', and only there",
            "set both, or neither",
        )
    _check_schedule(chunks)
    if (chunks.class_order == "skewed") != (chunks.skew_alpha is not None):
        raise UserError(
            f"chunks.class_order is {chunks.class_order!r} and chunks.skew_alpha is {chunks.skew_alpha}",
            "a skew_alpha with class_order 'skewed', and only there",
            "set both, or neither",
        )
    for key, value, plain in (("schedule", chunks.schedule, "equal"), ("class_order", chunks.class_order, "random")):
        if value != plain and chunks.chunk_by == "source":
            raise UserError(
                f"chunks.{key} is {value!r} and chunks.chunk_by is 'source'",
                f"{key} {plain!r} where sources arrive whole",
                f"set chunks.{key} to {plain}, or chunks.chunk_by to random",
            )
        if value != plain and chunks.chunk_size is not None:
            raise UserError(
                f"chunks.{key} is {value!r} and chunks.chunk_size is {chunks.chunk_size}",
                f"a number of chunks for {key} {value!r} to divide the images over",
                f"give chunks.n_chunks in place of chunks.chunk_size, or set chunks.{key} to {plain}",
            )


def _check_schedule(chunks: ChunksConfig) -> None:
    if chunks.first_share != ChunksConfig().first_share and chunks.schedule != "large_first":
        raise UserError(
            f"chunks.first_share is {chunks.first_share} and chunks.schedule is {chunks.schedule!r}",
            "a first_share with schedule 'large_first', and only there",
            "set chunks.schedule to large_first, or leave chunks.first_share out",
        )
    if chunks.schedule == "large_first" and chunks.n_chunks == 1:
        raise UserError(
            "chunks.schedule is 'large_first' and chunks.n_chunks is 1",
            "a chunk after the first for the rest of the images",
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
            "robustness asks for nothing", "corruptions with severities, or attacks with epsilons", "name some"
        )


def _check_benchmark(where: str, benchmark: BenchmarkConfig) -> None:
    if benchmark.dataset is not None:
        plugins.check("dataset", benchmark.dataset.name, benchmark.dataset.params, where=f"{where}.dataset")
    try:
        benchmark.spec()
    except SpecError as error:
        raise UserError(f"{where}: {error.problem}", error.expected, error.fix) from error
    if benchmark.corrupt is not None and benchmark.corrupt.corruption not in CORRUPTIONS:
        raise unknown_name("corruption", benchmark.corrupt.corruption, CORRUPTIONS)
    if benchmark.target_ci95 is not None and benchmark.n_episodes <= MIN_EPISODES:
        raise UserError(
            f"{where}.target_ci95 is {benchmark.target_ci95:g} and {where}.n_episodes is {benchmark.n_episodes}",
            f"more than {MIN_EPISODES} episodes at most, since the width is not looked at before",
            f"raise {where}.n_episodes, e.g. to 10000, or leave {where}.target_ci95 out",
        )


def _check_transfer(where: str, transfer: TransferConfig) -> None:
    if transfer.dataset is not None:
        plugins.check("dataset", transfer.dataset.name, transfer.dataset.params, where=f"{where}.dataset")
        if transfer.classes != "all":
            raise UserError(
                f"{where} has a data set of its own and classes {transfer.classes!r}",
                "classes: all, since the class split is that of the run's own data set",
                f"set {where}.classes to all",
            )
    plugins.check("probe", transfer.probe.name, transfer.probe.params, where=f"{where}.probe")
    sizes = transfer.sizes
    if not sizes or len(set(sizes)) < len(sizes) or any(size != "all" and size < 1 for size in sizes):
        raise UserError(
            f"{where}.sizes is {sizes}", "different numbers of images a class, from 1, or all", "e.g. [1, 2, 4, all]"
        )
    grid = transfer.grid or {}
    if len(grid) > 1 or any(not values or sorted(set(values)) != values for values in grid.values()):
        raise UserError(
            f"{where}.grid is {grid}", "one setting with ascending values, {} or null", "e.g. {C: [0.1, 1, 10]}"
        )


def _check_transform(where: str, probe: ProbeConfig) -> None:
    try:
        parse_chain(probe.transform)
    except ValueError as error:
        raise UserError(
            f"{where}.transform is {probe.transform!r}: {error}",
            "steps with commas between, e.g. l2, cl2n, power:0.5,l2, pca:64",
            f"change {where}.transform",
        ) from error


def _check_class_split(split: ClassSplitConfig) -> None:
    groups = (split.base, split.validation, split.novel)
    shares = [group for group in groups if isinstance(group, float)]
    if split.file is None and 0 < len(shares) < len(groups):
        raise UserError(
            "class_split mixes shares and lists of classes", "three shares, or three lists", "make all three alike"
        )
    if split.file is None and len(shares) == len(groups) and sum(shares) > 1 + 1e-9:
        raise UserError(
            f"the shares of class_split add up to {sum(shares):g}", "at most 1", "lower one of base, validation, novel"
        )


def _absolute_paths(config: RunConfig) -> RunConfig:
    """Anchor the paths of a config to the working directory it was read in, so that a rerun elsewhere finds them."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).expanduser().resolve())

    params = dict(config.dataset.params)
    if "path" in params:
        params["path"] = absolute(str(params["path"]))
    if isinstance(params.get("font_dirs"), list):
        params["font_dirs"] = [absolute(str(font_dir)) for font_dir in params["font_dirs"]]
    benchmarks = {
        name: replace(benchmark, manifest=absolute(benchmark.manifest)) for name, benchmark in config.benchmarks.items()
    }
    return replace(
        config,
        benchmarks=benchmarks,
        dataset=replace(config.dataset, params=params),
        backbone=replace(config.backbone, checkpoint_path=absolute(config.backbone.checkpoint_path)),
        class_split=replace(config.class_split, file=absolute(config.class_split.file)),
    )
