"""Frozen dataclasses for the settings of a run, with their defaults.

`lurefs.config.load` reads them, and `lurefs.config.checks` checks them. Checks that need the data set's labels are in
`lurefs.stages.plan`. None of the three imports torch or timm.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from episodes.specs import EpisodeSpec, MetaDatasetSpec
from lurefs.config.fields import Params, PluginConfig, number
from lurefs.config.learning_schema import BackboneConfig, CheckpointsConfig, ChunksConfig, LearnerConfig

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
FEATURES = "features"
"""Name of the data set that brings features in place of images."""


@dataclass(frozen=True, kw_only=True)
class ClassSplitConfig:
    """The division of the classes into base, validation and novel classes.

    Each of the three is a share of all classes, drawn with `seed`, or a list of class names. `file` names a JSON, YAML
    or CSV file with the three lists, which replaces them. Without any of these, a split that the data bring is used.
    """

    seed: int = number(0, low=0)
    base: float | list[str] = number(0.6, low=0, high=1)
    validation: float | list[str] = number(0.15, low=0, high=1)
    novel: float | list[str] = number(0.25, low=0, high=1)
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImageSplitConfig:
    """Held-out shares of each base class's images: `val` selects the epoch, `test` measures the result.

    A part that the data bring takes the place of the share.
    """

    seed: int = number(0, low=0)
    val: float = number(0.1, above=0, below=1)
    test: float = number(0.2, above=0, below=1)


@dataclass(frozen=True, kw_only=True)
class SourceSplitConfig:
    """Sources (icon sets, cameras, fonts) whose images base training does not see.

    `held_back` is a share of the sources, drawn with `seed`, or a list of their names. Benchmarks choose images by it:
    see their setting `sources`.
    """

    seed: int = number(0, low=0)
    held_back: float | list[str] = number(0.25, above=0, below=1)


@dataclass(frozen=True, kw_only=True)
class AfterChunkConfig:
    """Few-shot accuracy after every chunk: the first `n_episodes` of each benchmark, with the first probe."""

    few_shot: bool = True
    n_episodes: int = number(200, low=2, high=10**7)


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
    pgd_steps: int = number(10, low=1, high=10**5)
    pgd_step_size: float = number(0.25, above=0, high=1)
    n_images: int = number(500, low=1)
    after: Literal["last", "every_chunk"] = "last"


@dataclass(frozen=True, kw_only=True)
class CorruptConfig:
    """Which images of a benchmark's episodes are corrupted, and how.

    `corruption` is one of the 15 common ones of Hendrycks and Dietterich (2019), `severity` 1 (mild) to 5. Needs
    `pip install "lurefs[robustness]"`, and images of 32 pixels or more.
    """

    corruption: str
    severity: int = number(3, low=1, high=5)
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

    `sources: held_back` takes only images of the sources that `source_split` holds back from base training, of the same
    `classes`; of `base` classes then all such images. `seen` takes only images of the other sources. Support and query
    of an episode come from the same pool of images.

    `corrupt: {images: query, corruption: fog, severity: 3}` corrupts the images of the same episodes. If there is also
    a benchmark of the same form and seed without it, the report shows the loss of accuracy.
    """

    dataset: PluginConfig | None = None
    classes: Literal["novel", "validation", "base", "all"] = "novel"
    sources: Literal["all", "held_back", "seen"] = "all"
    n_way: int = number(5, low=2)
    n_shot: int = number(1, low=1)
    n_query: int = number(15, low=1)
    n_episodes: int = number(2000, low=2, high=10**7)
    seed: int = number(0, low=0)
    shots: tuple[int, ...] | None = None
    shot_range: tuple[int, ...] | None = None
    query_alpha: float | None = number(None, above=0, high=1e6)
    meta_dataset: MetaDatasetSpec | None = None
    disjoint: bool = False
    manifest: str | None = None
    target_ci95: float | None = number(None, above=0, high=0.1)
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

    `choose: {C: [0.01, 0.1, 1, 10, 100, 1000]}` gives parameters, or `transform`, several values. For each benchmark
    the run chooses one on episodes of the same form of the validation classes of the run's own data set, by the lowest
    NLL or the highest accuracy (`choose_by`; accuracy for a probe without probabilities). The first of equally good
    ones wins. The controls choose likewise. The accuracy after each chunk is that of `params`, without a choice.
    """

    name: str = "logistic_regression"
    params: Params = field(default_factory=dict)
    transform: str = "l2"
    solver: Literal["auto", "sklearn"] = "auto"
    choose: dict[str, list[Any]] | None = None
    choose_by: Literal["nll", "accuracy"] = "nll"


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
    n_repeats: int = number(5, low=1, high=10**5)
    val: float = number(0.1, above=0, below=1)
    test: float = number(0.3, above=0, below=1)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    grid: dict[str, list[float]] | None = None
    choose_by: Literal["nll", "accuracy"] = "nll"
    seed: int = number(0, low=0)


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


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig:
    """A temperature and prediction sets for the answers of each probe on fixed features, on each benchmark.

    They are fitted on 300 episodes of the same form of the run's validation classes, never on the classes of the
    benchmark. A set misses the correct class of at most a share `alpha` of the queries; see docs/calibration.md for
    what is guaranteed. The controls have neither.
    """

    alpha: float = number(0.1, above=0, below=1)


def _default_benchmarks() -> dict[str, BenchmarkConfig]:
    return {"novel-5way-1shot": BenchmarkConfig(n_shot=1), "novel-5way-5shot": BenchmarkConfig(n_shot=5)}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of one run. `device: auto` uses a GPU if there is one.

    `frozen: true` measures the backbone as it is: nothing is learned, so the settings of chunks, learner and unlearning
    do not matter, and without `class_split` all classes are novel. `controls` also measures what a backbone must beat:
    its untrained twin, and statistics of the images. `on_bad_image` says what happens if image files cannot be read:
    `refuse` names them before anything is learned, `skip` leaves them out. The files left out are in `identity.json`;
    those of base classes make another run. With the data set `features` there is no model: `frozen` must be true,
    `backbone.name` only says in tables what made the features, and there are no controls. `executor` says where
    episodes are scored: `serial`, `joblib` (n_workers processes), or `dask` (address of a cluster). `robustness: {}`
    also measures accuracy on corrupted and attacked images, `calibrate: {}` the calibration of answers. Images of a
    benchmark with the pixels of a base image, or of another image of the benchmark, are counted; `near_duplicates: 4`
    also counts those whose 64-bit difference hashes (dHash) differ in at most 4 bits.
    """

    name: str
    seed: int = number(0, low=0)
    frozen: bool = False
    device: str = "auto"
    num_threads: int = number(1, low=1, high=1024)
    dataset: PluginConfig = field(default_factory=lambda: PluginConfig(name="icons"))
    class_split: ClassSplitConfig = field(default_factory=ClassSplitConfig)
    source_split: SourceSplitConfig | None = None
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
    calibrate: CalibrateConfig | None = None
    controls: bool = True
    near_duplicates: int | None = number(None, low=0, high=7)
    on_bad_image: Literal["refuse", "skip"] = "refuse"
    executor: PluginConfig = field(default_factory=lambda: PluginConfig(name="serial"))
    trackers: TrackersConfig = field(default_factory=TrackersConfig)

    @property
    def brings_features(self) -> bool:
        """Whether the data set brings features, so that there is neither a model nor an image."""
        return self.dataset.name == FEATURES

    @property
    def is_as_loaded(self) -> bool:
        """Whether nothing is trained or drawn at random, so that the seed changes none of the accuracies."""
        is_loaded = self.backbone.pretrained or self.backbone.checkpoint_path is not None
        return self.frozen and (self.brings_features or is_loaded)


def plugin_names(config: RunConfig) -> list[str]:
    """Return the names of all plug-ins of a run."""
    probes = [*config.probes.values(), *(transfer.probe for transfer in config.transfer.values())]
    own = [config.unlearn.name, config.executor.name]
    return [*dataset_names(config), *own, *(probe.name for probe in probes)]


def dataset_names(config: RunConfig) -> list[str]:
    """Return the names of all data sets of a run."""
    datasets = [benchmark.dataset for benchmark in config.benchmarks.values()]
    datasets += [transfer.dataset for transfer in config.transfer.values()]
    return [config.dataset.name, *(dataset.name for dataset in datasets if dataset is not None)]
