"""Frozen dataclasses for the settings of learning: chunks, backbone, learner, checkpoints; `schema` has all others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lurefs.config.fields import Params, PluginConfig, number


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

    n_chunks: int | None = number(None, low=1)
    chunk_size: int | None = number(None, low=1)
    seed: int | None = number(None, low=0)
    replay: Literal["full", "buffer", "none"] = "full"
    buffer_size: int | None = number(None, low=1)
    chunk_by: Literal["random", "source"] = "random"
    schedule: Literal["equal", "growing", "large_first"] = "equal"
    first_share: float = number(0.5, above=0, below=1)
    class_order: Literal["random", "balanced", "skewed"] = "random"
    skew_alpha: float | None = number(None, above=0, high=1e6)
    images_per_class: int | None = number(None, low=2)
    label_noise: float = number(0.0, low=0, below=1)

    def seed_of(self, run_seed: int) -> int:
        """Return the seed of the chunk stream: its own, otherwise the run's."""
        return run_seed if self.seed is None else self.seed


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Which features of an image the probes get; by default those that the classifier gets.

    Learning uses the model's head as timm builds it: only the features that are measured change, and those of the
    untrained twin with them.

    `pool` names the pooling as timm's `global_pool` does: means or maxima over positions, the mean of both, both side
    by side, the class token, or attention pooling (`map`, if the model has it); null is the model's own. The norm
    layers of the head come after it.

    `layer` takes the output of a layer in place of the head's: a number from 0 (-1 is the last), or a name such as
    `layer3` or `blocks.6`, of those in timm's `feature_info`, or of any module inside, such as `layer3.0` or
    `blocks.6.mlp`, whose output is taken as it is. `n_layers` sets that many listed layers side by side, which end
    with `layer`, or with the last one. `norm` applies the model's final norm to them where timm does so. Here `pool:
    null` is the class token of models that classify by it, and otherwise the mean over positions. `token_avg` is the
    class token of each layer and the mean over the last layer's patches: with `n_layers: 4` the features of DINOv2's
    linear evaluation (Oquab et al. 2023, TMLR, arXiv 2304.07193).
    """

    layer: str | int | None = None
    n_layers: int = number(1, low=1)
    pool: Literal["avg", "max", "avgmax", "catavgmax", "token", "map", "token_avg"] | None = None
    norm: bool = True

    @property
    def of_layers(self) -> bool:
        """Whether layers inside the model give the features."""
        return self.layer is not None or self.n_layers > 1 or self.pool == "token_avg"

    def words(self) -> str:
        """Return in words which features these are; empty for those that the classifier gets."""
        pool = "" if self.pool is None else f"pooled by {self.pool}"
        if not self.of_layers:
            return pool
        last = "the last one" if self.layer is None else repr(self.layer)
        which = f"{self.n_layers} layers up to {last}" if self.n_layers > 1 else f"layer {last}"
        return ", ".join(filter(None, (which, pool, "" if self.norm else "without the final norm")))


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Any timm model by name, with timm's own keywords in `params`.

    `pretrained` loads timm's weights; `checkpoint_path` loads a safetensors or torch file of weights
    (`package:NAME/PATH` is a file of an installed package) in the forms that training codes leave: with prefixes such
    as `module.` or `backbone.`, under keys such as `state_dict` or `teacher`, without a classifier or with one of
    another size, for other image sizes, for colour where images are grey. If a file holds several copies, an average of
    the weights is taken first, as timm does; `checkpoint_copy` names another one. `checkpoint_match: order` ignores
    names and uses the order and shapes of the tensors. `checkpoint_sha256` is the digest of the file, or of a
    folder that `name: local-dir:PATH` names; a run notes it down, so that the bytes of the weights identify them and
    not their path. For weights of timm or its hub, a run directory holds the digest of what was loaded.

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
    image_size: int | None = number(None, low=1, high=16384)
    stem: Literal["default", "small"] = "default"
    features: FeaturesConfig = field(default_factory=FeaturesConfig)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random augmentation of training batches: shift by up to `crop_padding` pixels, mirror half of the images.

    `mixup` and `cutmix` mix every batch in pairs, with a share drawn per batch from a Beta distribution of this alpha
    (Zhang et al. 2018, ICLR; Yun et al. 2019, ICCV); if both are set, each is taken half of the time. Training accuracy
    then counts the label of the larger share.
    """

    crop_padding: int = number(2, low=0, high=1024)
    flip: bool = False
    mixup: float | None = number(None, above=0, high=1000)
    cutmix: float | None = number(None, above=0, high=1000)


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

    `freeze` keeps parts of the model as they start: `2` the first two of timm's coarse stages, `[stem, blocks.0]` the
    parameters or modules of these names or patterns. Their batch norm uses its stored statistics. No unlearn strategy
    changes them: a share of weights to reset counts those that learn, and `from_scratch` starts only these again. A
    strategy whose weights are all frozen is refused. `optimizer.params.layer_decay: 0.7` multiplies the learning rate
    of each of timm's fine layer groups by 0.7 once more for every group between it and the head.

    `ema_decay: 0.999` also keeps an exponential moving average of the weights over the steps of a chunk; this value is
    the most that it keeps of itself per step, and it rises to it from 0. The average is validated, chosen, stored and
    measured. At the end of a chunk it becomes the weights: the reset before the next chunk acts on these, training goes
    on from them, and a new average starts.

    `images: memory` keeps the base images on the device. With `loader`, `n_workers` processes read every batch from
    disk each time, with the same results to the bit. `auto` keeps up to 8 GiB in memory. `n_workers` processes also
    decode the images of a folder before anything is learned, and read them ahead of a GPU.
    """

    epochs: int = number(20, low=1, high=10**6)
    relearn_epochs: int | None = number(None, low=1, high=10**6)
    match_images_seen: bool = False
    batch_size: int = number(64, low=2, high=10**6)
    eval_batch_size: int = number(512, low=1, high=10**6)
    optimizer: PluginConfig = field(default_factory=_default_optimizer)
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    warmup_epochs: float = number(0.0, low=0)
    optimizer_state: Literal["keep", "clear_reset", "clear_all"] = "clear_reset"
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    select: Literal["best", "last"] = "best"
    l2_init: float = number(0.0, low=0, high=1e3)
    freeze: int | list[str] | None = number(None, low=1)
    ema_decay: float | None = number(None, above=0, below=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    channels_last: bool = True
    images: Literal["auto", "memory", "loader"] = "auto"
    n_workers: int = number(2, low=0, high=1024)


@dataclass(frozen=True, kw_only=True)
class CheckpointsConfig:
    """Which chunks' weights stay on disk, and how often the state within a chunk is stored.

    `keep: last` removes the weights of a chunk when the next one is done; `best` also keeps those with the highest
    validation accuracy. Few-shot accuracy of new benchmarks is only measured for chunks whose weights are on disk.
    States are stored after an epoch, at least `every_seconds` apart; 0 stores every epoch, null none.
    """

    keep: Literal["all", "last", "best"] = "all"
    every_seconds: float | None = number(60.0, low=0)
