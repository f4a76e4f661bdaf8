"""Frozen dataclasses for the settings of a run, with their defaults.

`lurefs.config.load` reads them, and `lurefs.config.checks` checks them. Checks that need the data set's labels are in
`lurefs.stages.plan`. None of the three imports torch or timm.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from episodes.specs import EpisodeSpec, MetaDatasetSpec

Params = dict[str, Any]
CORRUPTIONS = {
    "gaussian_noise": "noise: normal, as in poor light",
    "shot_noise": "noise: Poisson, by the number of photons",
    "impulse_noise": "noise: black and white pixels",
    "defocus_blur": "blur: out of focus",
    "glass_blur": "blur: behind frosted glass",
    "motion_blur": "blur: of a moving camera",
    "zoom_blur": "blur: of a camera that moves towards the object",
    "snow": "weather: snowfall",
    "frost": "weather: ice crystals on the lens",
    "fog": "weather: fog",
    "brightness": "weather: brighter light",
    "contrast": "digital: less contrast",
    "elastic_transform": "digital: small regions are stretched",
    "pixelate": "digital: a lower resolution, enlarged",
    "jpeg_compression": "digital: artefacts of compression",
}
"""The common corruptions of Hendrycks and Dietterich (2019) in their order, and what each does."""
ATTACKS = ("fgsm", "pgd")


def _number(default: Any, **bounds: float) -> Any:
    """Declare a numeric field with bounds (`low`, `high` inclusive; `above`, `below` exclusive)."""
    return field(default=default, metadata=bounds)


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """A name in the plug-in table, or `package.module:factory`, and the keyword arguments of its factory."""

    name: str
    params: Params = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClassSplitConfig:
    """The division of the classes into base, validation and novel classes.

    Each of the three is a share of all classes, drawn with `seed`, or a list of class names. `file` names a JSON or
    YAML file with the three lists, which replaces them.
    """

    seed: int = _number(0, low=0)
    base: float | list[str] = _number(0.6, low=0, high=1)
    validation: float | list[str] = _number(0.15, low=0, high=1)
    novel: float | list[str] = _number(0.25, low=0, high=1)
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImageSplitConfig:
    """Held-out shares of each base class's images: `val` selects the epoch, `test` measures the result."""

    seed: int = _number(0, low=0)
    val: float = _number(0.1, above=0, below=1)
    test: float = _number(0.2, above=0, below=1)


@dataclass(frozen=True, kw_only=True)
class ChunksConfig:
    """How the base classes' training and validation images arrive in chunks, and which old images are replayed.

    Give `n_chunks` or `chunk_size`; without either there are 5 chunks. `seed: null` uses the run's seed for all draws
    of this section. `replay: buffer` keeps `buffer_size` old images, drawn evenly from all images seen.

    Chunk sizes: `schedule: growing` makes the sizes of the chunks proportional to 1, 2, 3 and so on. `large_first`
    gives the first chunk the share `first_share` of all images, and the others equal parts of the rest.

    Content of a chunk: with `chunk_by: source`, whole sources (icon sets, fonts) arrive together. `class_order:
    balanced` divides every class over the chunks as evenly as its count and the schedule allow. `skewed` divides each
    class by its own shares, drawn from a Dirichlet distribution with concentration `skew_alpha` times the schedule's
    shares: at 100 nearly balanced; at 0.1 most of a class arrives with one or two chunks.

    Number of images and labels: at most `images_per_class` images of each class arrive, training and validation
    together. `label_noise` is the share of the arriving images that get the label of another base class, all others
    equally likely. Training, unlearning, the choice of the epoch and the accuracies on training and validation images
    use these labels. Test images, benchmarks and transfers keep the true ones.
    """

    n_chunks: int | None = _number(None, low=1)
    chunk_size: int | None = _number(None, low=1)
    seed: int | None = _number(None, low=0)
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
        """Return the seed of the chunk stream: its own, otherwise the run's."""
        return run_seed if self.seed is None else self.seed


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Any timm model by name, with timm's own keywords in `params`.

    `pretrained` loads timm's weights; `checkpoint_path` loads a safetensors or torch file of weights
    (`package:NAME/PATH` is a file of an installed package) in the forms that training codes leave: with prefixes such
    as `module.` or `backbone.`, under keys such as `state_dict` or `teacher`, without a classifier or with one of
    another size, for other image sizes, for colour where images are grey. If a file holds several copies, an average of
    the weights is taken first, as timm does; `checkpoint_copy` names another one. `checkpoint_match: order` ignores
    names and uses the order and shapes of the tensors. `checkpoint_sha256` is the file's digest; a run notes it down,
    so that the bytes of the weights identify them and not their path.

    Images are resized to `image_size` if it is set. Otherwise they keep the data set's size, or have that of the
    model's card if weights are loaded. `stem: small` makes the first convolution stride 1 and drops the max-pool, for
    images of about 32 pixels.
    """

    name: str = "test_efficientnet"
    params: Params = field(default_factory=dict)
    pretrained: bool = False
    checkpoint_path: str | None = None
    checkpoint_copy: str | None = None
    checkpoint_match: Literal["names", "order"] = "names"
    checkpoint_sha256: str | None = None
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
    """How one chunk is learned. The learning rate schedule restarts with every chunk.

    `optimizer.name` is a timm optimizer that keeps no copy of the weights. `schedule: step` multiplies the rate by 0.1
    at 40 % and 80 % of the epochs. `optimizer_state` says what happens to the optimizer's moments when weights are
    unlearned: `keep` keeps them, `clear_reset` sets those of the changed weights to zero, and `clear_all` starts with a
    new optimizer. `clear_reset` keeps values that belong to a whole tensor. One is Adam's step count, so the
    changed weights take steps up to 6.5 times as long as with a new optimizer (after thousands of earlier steps: 3.2
    times in the first step, 6.5 in the 12th, 1.3 in the 1000th). Others are Adafactor's moments of rows and columns.
    `select: best` continues from the epoch with the highest validation accuracy.

    `relearn_epochs` replaces `epochs` after the first chunk. With `match_images_seen`, each chunk trains on as many
    images as all chunks up to it together, so that a model that restarts with every chunk sees as many images as one
    that never does. `l2_init` pulls every parameter towards the run's initial value, with the gradient
    l2_init * (theta - theta_0); 0 is off. That includes norm scales and biases: its source regularises all parameters,
    of networks without norm layers. `precision: bfloat16` computes the training passes under autocast. `compile` uses
    torch.compile for the training passes; it takes about a minute at the start and brought nothing on the CPU where it
    was measured. `channels_last` is the order of images and convolution weights in memory. The last three change how
    numbers are rounded, so they are part of a run's identity.

    `images: memory` keeps the base images on the device. With `loader`, `n_workers` processes read every batch from
    disk each time, with the same results to the bit. `auto` keeps up to 8 GiB in memory. `n_workers` processes also
    decode the images of a folder before anything is learned, and read them ahead of a GPU.
    """

    epochs: int = _number(20, low=1)
    relearn_epochs: int | None = _number(None, low=1)
    match_images_seen: bool = False
    batch_size: int = _number(64, low=2, high=10**6)
    eval_batch_size: int = _number(512, low=1, high=10**6)
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
    """Which chunks' weights stay on disk, and how often the state within a chunk is stored.

    `keep: last` removes the weights of a chunk when the next one is done; `best` also keeps those with the highest
    validation accuracy. Few-shot accuracy of new benchmarks is only measured for chunks whose weights are on disk.
    States are stored after an epoch, at least `every_seconds` apart; 0 stores every epoch, null none.
    """

    keep: Literal["all", "last", "best"] = "all"
    every_seconds: float | None = _number(60.0, low=0)


@dataclass(frozen=True, kw_only=True)
class AfterChunkConfig:
    """Few-shot accuracy after every chunk: the first `n_episodes` of each benchmark, with the first probe."""

    few_shot: bool = True
    n_episodes: int = _number(200, low=2, high=10**7)


def _default_attacks() -> dict[str, list[float]]:
    return {name: [0.00784, 0.0314] for name in ATTACKS}  # 2/255 and 8/255


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig:
    """Accuracy on `n_images` held-out images of the base classes, corrupted or attacked before preprocessing.

    Needs `pip install "lurefs[robustness]"`. `corruptions` are `all` of the 15 common ones of Hendrycks and Dietterich
    (2019) or a list of them, each measured at every severity in `severities` (1 to 5, those of ImageNet-C). `attacks`
    gives `fgsm` and `pgd` their epsilons: the largest change of each pixel in [0, 1]. `pgd` takes `pgd_steps` steps of
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
        """Return in words which images are corrupted, and how."""
        whose = {"query": "queries", "support": "support", "both": "support and queries"}[self.images]
        return f"{whose} under {self.corruption.replace('_', ' ')} of severity {self.severity}"

    def bank_names(self, benchmark: str) -> tuple[str, str]:
        """Return the names of a benchmark's two feature banks: for the support, and for the queries."""
        corrupted = f"{benchmark}--{self.corruption}-{self.severity}"
        return (
            benchmark if self.images == "query" else corrupted,
            benchmark if self.images == "support" else corrupted,
        )


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Episodes on one group of classes of the run's data set, or on `all` classes of another data set, `dataset`.

    Departures from fixed ways and shots, each off by default (see `episodes.specs.EpisodeSpec`): `shots: [1, 2, 4]`
    gives each of the n_way classes its own number of shots, `shot_range: [1, 10]` draws it. `query_alpha: 2` draws the
    shares of the n_way * n_query queries from a Dirichlet distribution. `meta_dataset: {max_way: 20}` draws ways and
    shots by the procedure of Meta-Dataset. With `disjoint: true`, no image is in two episodes. `manifest` names a file
    of episodes to use instead of drawing; its images must be among the benchmark's, and the file sets the form.

    `target_ci95: 0.003` stops scoring a probe once the 95 % interval of its mean accuracy, over episodes of this pool,
    is ± 0.3 points or less; `n_episodes` is then the maximum. The interval is checked every 100 episodes, from 200 on.

    `corrupt: {images: query, corruption: fog, severity: 3}` corrupts the images of the same episodes. If there is also
    a benchmark of the same form and seed without it, the report shows the loss of accuracy.
    """

    dataset: PluginConfig | None = None
    classes: Literal["novel", "validation", "base", "all"] = "novel"
    n_way: int = _number(5, low=2)
    n_shot: int = _number(1, low=1)
    n_query: int = _number(15, low=1)
    n_episodes: int = _number(2000, low=2, high=10**7)
    seed: int = _number(0, low=0)
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
            SpecError: The settings contradict each other.
        """
        values = {field.name: getattr(self, field.name) for field in fields(EpisodeSpec)}
        return EpisodeSpec(**values)


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """A scikit-learn classifier, by name or import path, on features after `transform`.

    `transform` is none, or a chain of l2, center, standardise, power:EXPONENT, pca:COMPONENTS, separated by commas;
    cl2n is short for center,l2. It is fitted on the training images of the base classes. `solver: auto` solves many
    episodes at once if the result is that of the converged estimator; `sklearn` fits the estimator per episode.
    """

    name: str = "logistic_regression"
    params: Params = field(default_factory=dict)
    transform: str = "l2"
    solver: Literal["auto", "sklearn"] = "auto"


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """A probe on a whole group of classes: fitted on `sizes` images per class, measured on all test images.

    Classes are chosen as for a benchmark. `val` and `test` are shares of each class's images, drawn with `seed`. Sizes
    other than `all` are drawn `n_repeats` times. `grid` names one setting of the probe and its candidate values; the
    validation images choose one by `choose_by`. null means C from 0.001 to 10000 if the probe has a C that
    `probe.params` does not set; {} chooses nothing. A transform that has to be fitted uses all training images.
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
    seed: int = _number(0, low=0)


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases. `mode: auto` follows the user's environment, and is offline if nothing is set there.

    `checkpoints` also sends weights as model artifacts, after the last chunk or after each. The default is `none`:
    the run directory already holds the weights, and those of large models take long to send.
    """

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "lurefs"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    checkpoints: Literal["none", "last", "all"] = "none"
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class TrackersConfig:
    """Services that mirror the records of a run."""

    wandb: WandbConfig = field(default_factory=WandbConfig)


def _default_benchmarks() -> dict[str, BenchmarkConfig]:
    return {"novel-5way-1shot": BenchmarkConfig(n_shot=1), "novel-5way-5shot": BenchmarkConfig(n_shot=5)}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of one run. `device: auto` uses a GPU if there is one.

    `frozen: true` measures the backbone as it is: nothing is learned, so the settings of chunks, learner and unlearning
    do not matter, and without `class_split` all classes are novel. `controls` also measures what a backbone must beat:
    its untrained twin, and statistics of the images. `on_bad_image` says what happens if image files cannot be read:
    `refuse` names them before anything is learned, `skip` leaves them out. The files left out are in `identity.json`,
    and make another run. `executor` says where episodes are scored: `serial`, `joblib` (n_workers processes), or `dask`
    (address of a cluster). `robustness: {}` also measures accuracy on corrupted and attacked images.
    """

    name: str
    seed: int = _number(0, low=0)
    frozen: bool = False
    device: str = "auto"
    num_threads: int = _number(1, low=1, high=1024)
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
    on_bad_image: Literal["refuse", "skip"] = "refuse"
    executor: PluginConfig = field(default_factory=lambda: PluginConfig(name="serial"))
    trackers: TrackersConfig = field(default_factory=TrackersConfig)


def plugin_names(config: RunConfig) -> list[str]:
    """Return the names of all plug-ins of a run."""
    transfers = config.transfer.values()
    datasets = [each.dataset for each in config.benchmarks.values()] + [each.dataset for each in transfers]
    probes = [*config.probes.values(), *(transfer.probe for transfer in transfers)]
    own = [config.dataset, config.unlearn, config.executor]
    return [part.name for part in (*own, *datasets, *probes) if part is not None]
