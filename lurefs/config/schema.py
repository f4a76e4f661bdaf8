"""The configuration of a run: frozen dataclasses with their defaults, and what identifies one.

`lurefs.config.load` reads them, `lurefs.config.checks` refuses what cannot be meant. What needs the data set's labels
to be checked is in `lurefs.stages.plan`; none of the three imports torch or timm.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from episodes.specs import EpisodeSpec, MetaDatasetSpec
from lurefs.records import to_mapping

Params = dict[str, Any]
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

    seed: int = _number(0, low=0)
    base: float | list[str] = _number(0.6, low=0, high=1)
    validation: float | list[str] = _number(0.15, low=0, high=1)
    novel: float | list[str] = _number(0.25, low=0, high=1)
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImageSplitConfig:
    """Shares of each base class's images that are held out: `val` selects the epoch, `test` measures the outcome."""

    seed: int = _number(0, low=0)
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
        """Return what the stream is drawn with: its own seed, or else the run's."""
        return run_seed if self.seed is None else self.seed


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Any timm model by name, with timm's own keywords in `params`.

    `pretrained` loads timm's weights; `checkpoint_path` a safetensors or torch file of them, in any of the forms that
    training codes leave: with prefixes such as `module.` or `backbone.`, below keys such as `state_dict` or `teacher`,
    without a classifier or with one of another size, of another image size, of colour for grey images. Of several
    copies in a file an average of the weights is taken first, as timm does; `checkpoint_copy` names another one.
    `checkpoint_match: order` ignores names and goes by the order and shapes of the tensors. `checkpoint_sha256` is
    what the file must be; a run notes it down, so that its weights are known by their bytes and not by their path.
    Images are resized to `image_size` where it is set, and keep the data set's size otherwise. `stem: small` makes the
    first convolution stride 1 and drops the max-pool, for images of about 32 pixels.
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
    """How one chunk is learned. The learning rate starts anew with every chunk.

    `optimizer.name` is a timm optimizer, of those that keep no copy of the weights. `schedule: step` multiplies the
    rate by 0.1 at 40 % and 80 % of the epochs. `optimizer_state` says what becomes of the optimizer's moments when
    weights are unlearned: `keep`; `clear_reset` sets those of the weights that changed to zero; `clear_all` begins with
    a new optimizer. `clear_reset` does not turn back what is counted for a whole tensor: Adam's number of steps, so
    that the changed weights take steps of up to 6.5 times the length that a new optimizer's would have (3.2 times in
    the first step, 6.5 in the 12th, 1.3 in the 1000th, after thousands of steps before), nor Adafactor's moments of
    rows and columns. `select: best` goes on with the epoch of the highest validation accuracy.

    `relearn_epochs` takes the place of `epochs` after the first chunk. With `match_images_seen` each chunk trains on
    as many images as all chunks up to it together: what a model that starts anew with every chunk needs in order to
    have seen as much as one that never did. `l2_init` pulls every parameter towards the run's initial one, with the
    gradient l2_init * (theta - theta_0); 0 is off. That includes norm scales and biases: its source regularises all
    parameters, of networks without norm layers. `precision: bfloat16` computes the training passes under autocast.
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
    seed: int = _number(0, low=0)


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases. `auto` follows the user's environment, and is offline where that says nothing.

    `checkpoints` also sends weights as model artifacts, those after the last chunk or after each. It is `none` since
    the run directory holds them already, and those of a large model by chunks take long to send.
    """

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "lurefs"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    checkpoints: Literal["none", "last", "all"] = "none"
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
    seed: int = _number(0, low=0)
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


def digest(values: Any) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 of a JSON-serialisable value."""
    text = json.dumps(to_mapping(values), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_identity(config: RunConfig) -> dict[str, Any]:
    """Return what the numbers of a run depend on: all but its name, machine, checkpoints, controls and trackers."""
    values: dict[str, Any] = to_mapping(config)
    left_out = ("name", "device", "num_threads", "checkpoints", "controls", "executor", "trackers")
    values["learner"] = {key: value for key, value in values["learner"].items() if key not in ("images", "n_workers")}
    values["backbone"]["checkpoint_path"] = None  # the digest of its bytes stands for it
    plain = BackboneConfig(name=config.backbone.name)
    for key in ("checkpoint_copy", "checkpoint_match", "checkpoint_sha256"):
        if values["backbone"][key] == getattr(plain, key):  # so that runs older than these settings are found again
            del values["backbone"][key]
    return {key: value for key, value in values.items() if key not in left_out}


def pretrain_identity(config: RunConfig) -> dict[str, Any]:
    """Return what a run's weights depend on, but for the images: its identity without what only measures them."""
    left_out = ("dataset", "benchmarks", "probes", "transfer", "after_chunk", "robustness")
    return {key: value for key, value in run_identity(config).items() if key not in left_out}
