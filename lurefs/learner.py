"""Learn, unlearn, relearn: a generator over chunks. What is stored of it, and where, is the caller's business."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from episodes import metrics
from lurefs.backbones import Backbone, build_twin
from lurefs.config import AugmentConfig, BackboneConfig, LearnerConfig
from lurefs.data.chunks import Chunk
from lurefs.data.dataset import ImageDataset, IntArray
from lurefs.errors import UserError
from lurefs.optimizers import build_optimizer, clear_moments, learning_rate_factor, set_learning_rate
from lurefs.outcomes import ChunkOutcome, UnlearnReport
from lurefs.seeding import seed_stream
from lurefs.unlearn.contract import Changes, ProbeImages, ProbeSource, UnlearnStrategy

SALIENCY_BATCH_SIZE = 128


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """How far a chunk is.

    Attributes:
        chunk_index: From 0.
        epoch: From 0.
        n_epochs: Epochs of the chunk.
        train_loss: Mean cross-entropy of the epoch's batches.
        val_accuracy: After the epoch, fraction.
    """

    chunk_index: int
    epoch: int
    n_epochs: int
    train_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class LabelledImages:
    """Images in memory, on the device, addressed by their rows in the data set.

    Attributes:
        rows: (n,) int64, sorted.
        images: (n, n_channels, height, width) uint8.
        labels: (n,) int64 in 0..n_classes-1.
    """

    rows: IntArray
    images: Tensor
    labels: Tensor

    def positions(self, rows: IntArray) -> Tensor:
        """Return where the given rows stand, (len(rows),) int64 on the device."""
        return torch.from_numpy(np.searchsorted(self.rows, rows)).to(self.images.device)


@dataclass(kw_only=True)
class Learner:
    """What changes while chunks are learned: the weights (in place) and the optimizer.

    Attributes:
        backbone: The model that learns.
        build: What it was built from; twins are built alike.
        optimizer: Its optimizer; replaced where a strategy starts anew.
    """

    backbone: Backbone
    build: BackboneConfig
    optimizer: torch.optim.Optimizer


def load_images(dataset: ImageDataset, rows: IntArray, classes: IntArray, device: torch.device) -> LabelledImages:
    """Decode images once, and keep them as uint8 on the device.

    Args:
        dataset: Where from.
        rows: (n,) rows to load.
        classes: (n_classes,) sorted class indices; they become labels 0..n_classes-1.
        device: Where to.
    """
    rows = np.sort(rows)
    images = torch.from_numpy(np.ascontiguousarray(dataset.read(rows).transpose(0, 3, 1, 2)))
    labels = torch.from_numpy(np.searchsorted(classes, dataset.labels[rows]).astype(np.int64))
    return LabelledImages(rows, images.to(device), labels.to(device))


def learn_online(
    learner: Learner,
    images: LabelledImages,
    chunks: Sequence[Chunk],
    test: IntArray,
    settings: LearnerConfig,
    unlearn: UnlearnStrategy | None,
    *,
    strategy_name: str,
    seed: int,
    first: int = 0,
) -> Iterator[EpochRecord | ChunkOutcome]:
    """Learn chunk after chunk, unlearning before each one but the first; yield every epoch and every outcome.

    When an outcome is yielded, `learner` holds what the next chunk starts from. All randomness is a function of `seed`,
    chunk and epoch, so a run that goes on from chunk `first` equals one that was never interrupted.

    Args:
        learner: Changed in place.
        images: Holds all rows of `chunks` and `test`.
        chunks: The whole stream.
        test: Rows of the held-out test images.
        settings: Epochs, optimizer, schedule, augmentation.
        unlearn: The strategy; None is a warm start.
        strategy_name: Its name, for the reports.
        seed: The run's seed.
        first: Index of the first chunk to learn.

    Raises:
        UserError: Training diverged, or the strategy changed nothing.
    """
    for chunk in chunks[first:]:
        start = time.perf_counter()
        report = None
        if chunk.index > 0 and unlearn is not None:
            probe = probe_images(learner.backbone, images, chunks, chunk.index, seed)
            previous = images.positions(chunks[chunk.index - 1].validation)
            report = _unlearn(learner, unlearn, probe, images, previous, settings, strategy_name, chunk.index, seed)
        outcome = yield from _learn_chunk(learner, images, chunk, test, settings, seed, report, start)
        yield outcome


def probe_images(
    backbone: Backbone, images: LabelledImages, chunks: Sequence[Chunk], chunk_index: int, seed: int
) -> ProbeImages:
    """Return the images that a strategy may look at before chunk `chunk_index`."""
    of_source: dict[ProbeSource, Callable[[], IntArray]] = {
        "seen": lambda: np.union1d(chunks[chunk_index - 1].train, chunks[chunk_index].train),
        "new": lambda: np.intersect1d(chunks[chunk_index].new, chunks[chunk_index].train),
        "oldest": lambda: chunks[0].train,
    }

    def draw(source: ProbeSource, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed_stream(seed, "probe", chunk_index))
        positions = images.positions(of_source[source]())
        chosen = positions[torch.randperm(len(positions), generator=generator)[:n_images].to(positions.device)]
        for batch in chosen.split(SALIENCY_BATCH_SIZE):
            yield backbone.prepare(images.images[batch]), images.labels[batch]

    return ProbeImages(draw=draw)


def augment(batch: Tensor, settings: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `crop_padding` pixels with zeros behind it, and mirror half of them if `flip`.

    Args:
        batch: (n, channels, height, width).
        settings: What to do.
        generator: On the CPU, so that every device draws alike.
    """
    n, _, height, width = batch.shape
    padding = settings.crop_padding
    if padding:
        offsets = torch.randint(2 * padding + 1, (2, n), generator=generator).to(batch.device)
        padded = functional.pad(batch, (padding,) * 4)
        ys = (offsets[0, :, None] + torch.arange(height, device=batch.device))[:, None, :, None]
        xs = (offsets[1, :, None] + torch.arange(width, device=batch.device))[:, None, None, :]
        images = torch.arange(n, device=batch.device)[:, None, None, None]
        channels = torch.arange(batch.shape[1], device=batch.device)[None, :, None, None]
        batch = padded[images, channels, ys, xs]
    if settings.flip:
        mirrored = (torch.rand(n, generator=generator) < 0.5).to(batch.device)
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
    return batch


@torch.inference_mode()
def predict(backbone: Backbone, images: LabelledImages, positions: Tensor, batch_size: int) -> Tensor:
    """Return class probabilities (len(positions), n_classes) float32 on the CPU, in evaluation mode."""
    backbone.model.eval()
    parts = [backbone.logits(images.images[batch]).softmax(1).cpu() for batch in positions.split(batch_size)]
    return torch.cat(parts)


def _learn_chunk(
    learner: Learner,
    images: LabelledImages,
    chunk: Chunk,
    test: IntArray,
    settings: LearnerConfig,
    seed: int,
    report: UnlearnReport | None,
    start: float,
) -> Generator[EpochRecord, None, ChunkOutcome]:
    model = learner.backbone.model
    train, validation = images.positions(chunk.train), images.positions(chunk.validation)
    val_labels = images.labels[validation].cpu().numpy()
    best: tuple[float, float] = (-1.0, 0.0)
    best_state: dict[str, Tensor] = {}
    best_epoch, best_loss, best_train_accuracy, train_seconds = 0, 0.0, 0.0, 0.0
    for epoch in range(settings.epochs):
        epoch_start = time.perf_counter()
        loss, train_accuracy = _train_epoch(learner, images, train, settings, chunk.index, epoch, seed)
        train_seconds += time.perf_counter() - epoch_start
        probabilities = predict(learner.backbone, images, validation, settings.eval_batch_size).numpy()
        val_accuracy = metrics.accuracy(probabilities, val_labels)
        quality = (val_accuracy, -metrics.nll(probabilities, val_labels))
        if settings.select == "last" or quality > best or not best_state:
            best, best_epoch, best_loss, best_train_accuracy = quality, epoch, loss, train_accuracy
            best_state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        yield EpochRecord(
            chunk_index=chunk.index,
            epoch=epoch,
            n_epochs=settings.epochs,
            train_loss=loss,
            val_accuracy=val_accuracy,
        )
    model.load_state_dict(best_state)
    positions = images.positions(test)
    probabilities = predict(learner.backbone, images, positions, settings.eval_batch_size).numpy()
    labels = images.labels[positions].cpu().numpy()
    return ChunkOutcome(
        chunk_index=chunk.index,
        phase="learn" if chunk.index == 0 else "relearn",
        n_new=len(chunk.new),
        n_train=len(chunk.train),
        n_images_seen=len(chunk.train) * settings.epochs,
        best_epoch=best_epoch,
        train_loss=best_loss,
        train_accuracy=best_train_accuracy,
        fit_accuracy=_accuracy(learner.backbone, images, _evenly(train, len(test)), settings),
        val_accuracy=best[0],
        n_test_errors=int((probabilities.argmax(1) != labels).sum()),
        n_test=len(test),
        test_ece=metrics.ece(probabilities, labels),
        test_nll=metrics.nll(probabilities, labels),
        unlearn=report,
        train_seconds=train_seconds,
        seconds=time.perf_counter() - start,
    )


def _train_epoch(
    learner: Learner,
    images: LabelledImages,
    train: Tensor,
    settings: LearnerConfig,
    chunk_index: int,
    epoch: int,
    seed: int,
) -> tuple[float, float]:
    """Train one epoch; return the mean loss and the accuracy on its augmented batches."""
    generator = torch.Generator().manual_seed(seed_stream(seed, "epoch", chunk_index, epoch))
    order = train[torch.randperm(len(train), generator=generator).to(train.device)]
    batches = order.tensor_split(max(1, len(order) // settings.batch_size))
    n_steps = len(batches) * settings.epochs
    losses, n_correct = torch.zeros((), device=train.device), torch.zeros((), device=train.device)
    learner.backbone.model.train()
    with torch.random.fork_rng():  # dropout and stochastic depth draw from the global generator
        torch.manual_seed(seed_stream(seed, "dropout", chunk_index, epoch))
        for step, positions in enumerate(batches, start=epoch * len(batches)):
            set_learning_rate(learner.optimizer, learning_rate_factor(step, n_steps, len(batches), settings))
            batch, labels = augment(images.images[positions], settings.augment, generator), images.labels[positions]
            logits = learner.backbone.logits(batch)
            loss = functional.cross_entropy(logits, labels)
            learner.optimizer.zero_grad()
            loss.backward()
            learner.optimizer.step()
            losses += loss.detach() * len(positions)
            n_correct += (logits.detach().argmax(1) == labels).sum()
    mean_loss = float(losses) / len(order)
    if not np.isfinite(mean_loss):
        raise UserError(
            f"training diverged: the loss is {mean_loss} in chunk {chunk_index}, epoch {epoch}",
            "a finite loss",
            "lower learner.optimizer.params.lr, or add learner.warmup_epochs",
        )
    return mean_loss, float(n_correct) / len(order)


def _unlearn(
    learner: Learner,
    strategy: UnlearnStrategy,
    probe: ProbeImages,
    images: LabelledImages,
    validation: Tensor,
    settings: LearnerConfig,
    strategy_name: str,
    chunk_index: int,
    seed: int,
) -> UnlearnReport:
    model = learner.backbone.model
    before = _accuracy(learner.backbone, images, validation, settings)
    start = time.perf_counter()
    twin = build_twin(learner.backbone, learner.build, seed=seed_stream(seed, "twin", chunk_index))
    generator = torch.Generator().manual_seed(seed_stream(seed, "unlearn", chunk_index))
    old = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    changes = strategy(model, twin, probe, generator)
    _reset_optimizer(learner, changes, settings)
    seconds = time.perf_counter() - start
    unchanged = all(torch.equal(old[name], parameter) for name, parameter in model.named_parameters())
    if unchanged and not changes.may_be_empty:
        raise UserError(
            f"the unlearn strategy {strategy_name!r} changed no weight",
            "a strategy that changes some, or 'nothing' for a warm start",
            "change unlearn.params (e.g. a keep_ratio below 1), or set unlearn.name=nothing",
        )
    counts = [mask.sum() for mask in changes.masks.values()]
    n_reset = dict.fromkeys(old, 0)
    if counts:  # one transfer from the device
        n_reset.update(zip(changes.masks, torch.stack(counts).tolist(), strict=True))
    return UnlearnReport(
        strategy=strategy_name,
        n_kept=sum(tensor.numel() for tensor in old.values()) - sum(n_reset.values()),
        n_reset=sum(n_reset.values()),
        reset_share={name: n_reset[name] / old[name].numel() for name in old},
        accuracy_before=before,
        accuracy_after=_accuracy(learner.backbone, images, validation, settings),
        seconds=seconds,
    )


def _reset_optimizer(learner: Learner, changes: Changes, settings: LearnerConfig) -> None:
    model = learner.backbone.model
    if changes.is_new_model or settings.optimizer_state == "clear_all":
        learner.optimizer = build_optimizer(model, settings.optimizer)
    elif settings.optimizer_state == "clear_reset":
        clear_moments(learner.optimizer, model, dict(changes.masks))


def _evenly(positions: Tensor, n: int) -> Tensor:
    """Return n of the positions, or all if there are fewer, at equal distances."""
    chosen = torch.linspace(0, len(positions) - 1, min(n, len(positions)), dtype=torch.float64).round().long()
    return positions[chosen.to(positions.device)]


def _accuracy(backbone: Backbone, images: LabelledImages, positions: Tensor, settings: LearnerConfig) -> float:
    probabilities = predict(backbone, images, positions, settings.eval_batch_size).numpy()
    return metrics.accuracy(probabilities, images.labels[positions].cpu().numpy())
