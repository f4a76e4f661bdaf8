"""Learn, unlearn, relearn, as a generator over chunks; the caller stores the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from episodes import metrics
from episodes.arrays import IntArray
from lurefs.config.learning_schema import BackboneConfig, LearnerConfig
from lurefs.data.chunks import Chunk
from lurefs.learning.averaging import Average
from lurefs.learning.backbones import Backbone, build_twin, synchronise_batch_norm
from lurefs.learning.boundary import (
    apply_strategy,
    count_changes,
    effect,
    look,
    probe_images,
    share_of,
    with_new_statistics,
    without_effect,
)
from lurefs.learning.freezing import freeze_parameters, frozen_names, keep_statistics
from lurefs.learning.images import Images, augment, draw_moves
from lurefs.learning.mixing import mix, mixes
from lurefs.learning.optimizers import build_optimizer, clear_moments, pull_to, refuse_divergence, set_learning_rate
from lurefs.learning.predictions import accuracy, evenly, predict
from lurefs.learning.progress import Progress
from lurefs.learning.schedule import epoch_sizes, learning_rate_factor, n_batches
from lurefs.learning.unlearn.contract import UnlearnStrategy
from lurefs.ranks import ONE_PROCESS, Ranks
from lurefs.runs.outcomes import ChunkOutcome, UnlearnReport
from lurefs.seeding import seed_stream


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """Results of one epoch, and the progress of its chunk.

    Attributes:
        chunk_index: From 0.
        epoch: From 0.
        n_epochs: Number of epochs of the chunk.
        train_loss: Mean cross-entropy of the epoch's batches.
        val_accuracy: Validation accuracy after the epoch, fraction.
        progress: The state needed to resume the chunk after this epoch.
    """

    chunk_index: int
    epoch: int
    n_epochs: int
    train_loss: float
    val_accuracy: float
    progress: Progress


@dataclass(kw_only=True)
class Learner:
    """The backbone in training, whose weights change in place, and its optimizer.

    Attributes:
        backbone: The model that learns.
        build: Its configuration; twins are built alike.
        optimizer: Its optimizer; replaced if all of its state is cleared.
        forward: The forward pass in training, if it is another callable than the model.
        initial: The run's initial weights by parameter name, if `l2_init` needs them.
        ranks: The processes that learn together.
        frozen: Names of the parameters and buffers that do not change.
        average: The average of its weights over the chunk, if `ema_decay` is set.
    """

    backbone: Backbone
    build: BackboneConfig
    optimizer: torch.optim.Optimizer
    forward: Callable[[Tensor], Tensor] | None = None
    initial: Mapping[str, Tensor] = field(default_factory=dict)
    ranks: Ranks = ONE_PROCESS
    frozen: frozenset[str] = frozenset()
    average: Average | None = None

    @property
    def judged(self) -> Learner:
        """The learner with the weights that are validated and kept: the average, if there is one."""
        model = self.backbone.model if self.average is None else self.average.model
        return replace(self, backbone=replace(self.backbone, model=model))


@dataclass(frozen=True, kw_only=True)
class Course:
    """The inputs of `learn_online` that stay the same for all chunks; `test` holds positions of the test images."""

    images: Images
    chunks: Sequence[Chunk]
    test: Tensor
    settings: LearnerConfig
    seed: int

    def sizes(self, chunk_index: int) -> list[int]:
        """Return the number of training images of each epoch of a chunk."""
        return epoch_sizes([len(chunk.train) for chunk in self.chunks], chunk_index, self.settings)

    def predict(self, learner: Learner, positions: Tensor) -> Tensor:
        """Return the learner's class probabilities for images, (len(positions), n_classes) float32 on the CPU."""
        return predict(learner.backbone, self.images, positions, self.settings.eval_batch_size, learner.ranks)

    def accuracy(self, learner: Learner, positions: Tensor) -> float:
        """Return the share of images that the learner classifies correctly."""
        return accuracy(learner.backbone, self.images, positions, self.settings.eval_batch_size, learner.ranks)


def make_learner(
    backbone: Backbone, build: BackboneConfig, settings: LearnerConfig, ranks: Ranks = ONE_PROCESS
) -> Learner:
    """Build the learner of a backbone that holds its initial weights.

    Raises:
        UserError: timm has no such optimizer, it does not take these parameters, or `freeze` does not suit the model.
    """
    model = backbone.model
    if ranks.world_size > 1:
        synchronise_batch_norm(model)
    frozen = frozen_names(model, settings.freeze)
    freeze_parameters(model, frozen)
    network = ranks.parallel(model)
    weights = model.named_parameters() if settings.l2_init else ()
    return Learner(
        backbone=backbone,
        build=build,
        optimizer=build_optimizer(model, settings.optimizer),
        forward=torch.compile(network) if settings.compile else network,
        initial={name: weight.detach().clone() for name, weight in weights},
        ranks=ranks,
        frozen=frozen,
    )


def learn_online(
    learner: Learner,
    images: Images,
    chunks: Sequence[Chunk],
    test: IntArray,
    settings: LearnerConfig,
    unlearn: UnlearnStrategy | None,
    *,
    strategy_name: str,
    seed: int,
    first: int = 0,
    progress: Progress | None = None,
) -> Iterator[EpochRecord | ChunkOutcome]:
    """Learn chunk after chunk, unlearning before each one but the first; yield every epoch and every outcome.

    At every yield `learner` holds the state from which the next epoch or chunk starts. All randomness is a function of
    `seed`, chunk and epoch, so a resumed run equals one that was never interrupted.

    Args:
        learner: Changed in place.
        images: All rows of `chunks` and `test`.
        chunks: The whole stream.
        test: Rows of the held-out test images.
        settings: Epochs, optimizer, schedule, augmentation.
        unlearn: The strategy; None is a warm start.
        strategy_name: Its name, for the reports.
        seed: The run's seed.
        first: Index of the first chunk to learn.
        progress: Progress of that chunk if it was begun; the learner then holds the weights of its last epoch.

    Raises:
        UserError: Training diverged, or the strategy changed nothing.
    """
    course = Course(images=images, chunks=chunks, test=images.positions(test), settings=settings, seed=seed)
    for chunk in chunks[first:]:
        begun = progress or _begin_chunk(learner, course, unlearn, strategy_name, chunk)
        learned = yield from _learn_epochs(learner, course, chunk, begun)
        progress = None
        yield _finish_chunk(learner, course, chunk, learned)


def _begin_chunk(
    learner: Learner, course: Course, strategy: UnlearnStrategy | None, strategy_name: str, chunk: Chunk
) -> Progress:
    """Record which test images are classified correctly before a chunk, and unlearn."""
    start = time.perf_counter()
    progress = Progress(chunk_index=chunk.index)
    if chunk.index > 0:
        progress = replace(progress, was_right=_is_right(course.predict(learner, course.test), course))
        if strategy is not None:
            report = _unlearn(learner, course, strategy, strategy_name, chunk)
            recovered = 0 if report.accuracy_after >= report.accuracy_before else None
            progress = replace(progress, unlearn=report, n_epochs_to_recover=recovered)
    return replace(progress, seconds=time.perf_counter() - start)


def _learn_epochs(
    learner: Learner, course: Course, chunk: Chunk, progress: Progress
) -> Generator[EpochRecord, None, Progress]:
    """Train the remaining epochs; return the progress after the last one, with the weights to keep."""
    settings, model = course.settings, learner.backbone.model
    if settings.ema_decay is not None:
        learner.average = Average(model, settings.ema_decay, progress.average)
    validation = course.images.positions(chunk.validation)
    val_labels = course.images.labels[validation].cpu().numpy()
    n_epochs = len(course.sizes(chunk.index))
    for epoch in range(progress.n_epochs, n_epochs):
        start = time.perf_counter()
        loss, train_accuracy = _train_epoch(learner, course, chunk.index, epoch)
        for network in dict.fromkeys((model, learner.judged.backbone.model)):
            learner.ranks.send(network.buffers())
        train_seconds = time.perf_counter() - start
        probabilities = course.predict(learner.judged, validation).numpy()
        val_accuracy, val_nll = metrics.accuracy(probabilities, val_labels), metrics.nll(probabilities, val_labels)
        refuse_divergence(model, loss, val_nll, chunk.index, epoch)
        is_better = (val_accuracy, -val_nll) > (progress.val_accuracy, -progress.val_nll) or not progress.weights
        if epoch == n_epochs - 1 if settings.select == "last" else is_better:
            progress = replace(
                progress,
                weights={name: tensor.clone() for name, tensor in learner.judged.backbone.model.state_dict().items()},
                best_epoch=epoch,
                train_loss=loss,
                train_accuracy=train_accuracy,
                val_accuracy=val_accuracy,
                val_nll=val_nll,
            )
        if progress.n_epochs_to_recover is None and progress.unlearn is not None:
            recovered = val_accuracy >= progress.unlearn.accuracy_before
            progress = replace(progress, n_epochs_to_recover=epoch + 1 if recovered else None)
        progress = replace(
            progress,
            n_epochs=epoch + 1,
            average={} if learner.average is None else learner.average.state(),
            train_seconds=progress.train_seconds + train_seconds,
            seconds=progress.seconds + time.perf_counter() - start,
        )
        yield EpochRecord(
            chunk_index=chunk.index,
            epoch=epoch,
            n_epochs=n_epochs,
            train_loss=loss,
            val_accuracy=val_accuracy,
            progress=progress,
        )
    return progress


def _finish_chunk(learner: Learner, course: Course, chunk: Chunk, progress: Progress) -> ChunkOutcome:
    """Load the weights to keep, and measure them on the test images."""
    start = time.perf_counter()
    learner.backbone.model.load_state_dict(progress.weights)
    probabilities = course.predict(learner, course.test)
    labels = course.images.labels[course.test].cpu().numpy()
    is_right = _is_right(probabilities, course)
    was_right = is_right if progress.was_right is None else progress.was_right
    sizes = course.sizes(chunk.index)
    fitted = evenly(course.images.positions(chunk.train), len(course.test))
    return ChunkOutcome(
        chunk_index=chunk.index,
        phase="learn" if chunk.index == 0 else "relearn",
        n_new=len(chunk.new),
        n_train=len(chunk.train),
        n_images_seen=sum(sizes),
        best_epoch=progress.best_epoch,
        train_loss=progress.train_loss,
        train_accuracy=progress.train_accuracy,
        fit_accuracy=course.accuracy(learner, fitted),
        val_accuracy=progress.val_accuracy,
        n_test_errors=int((~is_right).sum()),
        n_test=len(labels),
        test_ece=metrics.ece(probabilities.numpy(), labels),
        test_nll=metrics.nll(probabilities.numpy(), labels),
        n_forgotten=int((was_right & ~is_right).sum()),
        n_gained=int((~was_right & is_right).sum()),
        n_epochs_to_recover=progress.n_epochs_to_recover,
        unlearn=progress.unlearn,
        train_seconds=progress.train_seconds,
        seconds=progress.seconds + time.perf_counter() - start,
    )


def _train_epoch(learner: Learner, course: Course, chunk_index: int, epoch: int) -> tuple[float, float]:
    """Train one epoch; return the mean loss and the accuracy on its augmented batches.

    With several processes each draws the whole epoch, and takes its part of every batch.
    """
    images, settings, ranks = course.images, course.settings, learner.ranks
    sizes = course.sizes(chunk_index)
    n_steps = [n_batches(size, settings.batch_size) for size in sizes]
    generator = torch.Generator().manual_seed(seed_stream(course.seed, "epoch", chunk_index, epoch))
    train = images.positions(course.chunks[chunk_index].train)
    order = train[torch.randperm(len(train), generator=generator)[: sizes[epoch]].to(train.device)]
    batches = order.tensor_split(n_steps[epoch])
    moves = draw_moves([len(batch) for batch in batches], settings.augment, generator, train.device)
    parts = [batch[ranks.part(len(batch))] for batch in batches]
    sums = torch.zeros(2, device=train.device)
    learner.backbone.model.train()
    keep_statistics(learner.backbone.model, learner.frozen)
    n_done = 0
    with _seeded(_dropout_seed(course.seed, chunk_index, epoch, ranks), train.device):
        for number, (batch, labels) in enumerate(images.batches(parts)):
            step, n = sum(n_steps[:epoch]) + number, len(batches[number])
            factor = learning_rate_factor(step, sum(n_steps), sum(n_steps) / len(n_steps), settings)
            set_learning_rate(learner.optimizer, factor)
            moved = augment(batch, moves.of(ranks.part(n), start=n_done), settings.augment.crop_padding)
            mix_seed = seed_stream(course.seed, "mix", chunk_index, epoch, number)
            sums += _train_step(learner, moved, labels, n, settings, mix_seed)
            if learner.average is not None:
                learner.average.update(learner.backbone.model, step + 1)
            n_done += n
    loss_sum, n_correct = ranks.sum(sums).tolist()
    mean_loss = loss_sum / len(order)
    return mean_loss, n_correct / len(order)


def _train_step(
    learner: Learner, batch: Tensor, labels: Tensor, n_images: int, settings: LearnerConfig, mix_seed: int
) -> Tensor:
    """Take one optimizer step on the mean loss of a batch, of which this process has a part.

    Args:
        learner: Changed in place.
        batch: Raw images of this process's part.
        labels: Labels of these images.
        n_images: Number of images of the whole batch.
        settings: Precision, regularisation and mixing.
        mix_seed: Seed for mixing the batch.

    Returns:
        (2,) float32 on the device: the sum of the losses and the number of correct answers of this part.
    """
    model = learner.backbone.model
    forward = model if learner.forward is None else learner.forward
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
        images, targets = learner.backbone.prepare(batch), labels
        if mixes(settings.augment):
            images, targets = mix(images, labels, learner.backbone.n_classes, settings.augment, mix_seed)
            labels = targets.argmax(1)
        logits = forward(images)
    logits = logits.float()
    loss = functional.cross_entropy(logits, targets, reduction="sum")
    learner.optimizer.zero_grad()
    (loss * (learner.ranks.world_size / n_images)).backward()  # gradients are averaged over processes
    if settings.l2_init:
        pull_to(model, learner.initial, settings.l2_init)
    learner.optimizer.step()
    return torch.stack([loss.detach(), (logits.detach().argmax(1) == labels).sum()])


def _dropout_seed(seed: int, chunk_index: int, epoch: int, ranks: Ranks) -> int:
    """Return the seed of dropout and stochastic depth; each process has another."""
    return seed_stream(seed, "dropout", chunk_index, epoch, *(() if ranks.is_first else (ranks.rank,)))


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators, which dropout and stochastic depth draw from, and restore them afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _unlearn(
    learner: Learner, course: Course, strategy: UnlearnStrategy, strategy_name: str, chunk: Chunk
) -> UnlearnReport:
    backbone, settings = learner.backbone, course.settings
    validation = course.images.positions(chunk.validation)
    probe = probe_images(backbone, course.images, course.chunks, chunk.index, course.seed, learner.ranks)
    accuracy_before, before = course.accuracy(learner, validation), look(backbone.model, probe)
    start = time.perf_counter()
    twin = build_twin(backbone, learner.build, seed=seed_stream(course.seed, "twin", chunk.index))
    probe = replace(probe, structural_zeros=without_effect(backbone, twin, before))
    seed = seed_stream(course.seed, "unlearn", chunk.index)
    changes = apply_strategy(strategy, strategy_name, backbone.model, twin, probe, seed, learner.frozen)
    learner.ranks.send(backbone.model.state_dict().values())
    if changes.is_new_model or settings.optimizer_state == "clear_all":
        learner.optimizer = build_optimizer(backbone.model, settings.optimizer)
    elif settings.optimizer_state == "clear_reset":
        clear_moments(learner.optimizer, backbone.model, changes.masks)
    counts = count_changes(backbone.model, changes)
    seconds = time.perf_counter() - start
    n_reset = sum(n for n, _ in counts.values())
    after = look(backbone.model, probe)
    moved = effect(before, after, probe.ranks)
    renewed = with_new_statistics(backbone, probe, learner.frozen)
    zeros = probe.structural_zeros
    return UnlearnReport(
        strategy=strategy_name,
        n_kept=sum(size for _, size in counts.values()) - n_reset,
        n_reset=n_reset,
        reset_share={name: n / size for name, (n, size) in counts.items()},
        accuracy_before=accuracy_before,
        accuracy_after=course.accuracy(learner, validation),
        accuracy_after_new_statistics=None
        if renewed is None
        else course.accuracy(replace(learner, backbone=renewed), validation),
        seconds=seconds,
        n_images=moved.n_images,
        changed_predictions=moved.changed_predictions,
        logit_change=moved.logit_change,
        silent_before=share_of(before.is_silent),
        silent_after=share_of(after.is_silent),
        structural_zeros=share_of(zeros),
        structural_zeros_reset=share_of({n: zeros[n][mask] for n, mask in changes.masks.items() if n in zeros}),
    )


def _is_right(probabilities: Tensor, course: Course) -> Tensor:  # (n_test,) bool on the CPU
    return probabilities.argmax(1) == course.images.labels[course.test].cpu()
