"""How much faster episodes are scored here than one by one, as ratios of CPU time within one run.

    OMP_NUM_THREADS=1 uv run python tools/benchmark_episodes.py [--rounds 5] [--only NAME ...]

Each comparison interleaves its two sides, `--rounds` times; the table shows the median ratio and its range. 10,000
episodes, 5-way 5-shot with 15 queries, on 20 classes of 600 images unless a row says otherwise; one thread each. Both
sides give the same predictions: the batched solver is audited against scikit-learn run to convergence.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from episodes import EpisodeSpec, FeatureBank, Manifest, Probe, collect, make_manifest, score, score_in_parallel
from episodes.executors import joblib, serial
from episodes.probes import logistic_regression
from episodes.scoring import SINGLE_RANGE, score_grid

N_CLASSES, N_PER_CLASS, N_EPISODES, N_QUERY = 20, 600, 10_000, 15
N_STEPS = 180
"""Steps that the backbone of the cold comparison is trained for beforehand."""
PROTOCOLS = ((5, 1), (5, 5), (20, 1), (20, 5))
"""Ways and shots of the cold comparison."""
N_TURNS = 24
"""How often extraction and two episodes of the loop take turns in a round: 12 episodes of each protocol."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: what is compared, the wanted ratio, and the ratio of each round."""

    name: str
    wanted: float
    ratios: list[float]
    note: str


def main() -> None:
    """Run the comparisons and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=COMPARISONS, default=list(COMPARISONS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("comparison", "at least", "median", "range", "note")
    console = Console(width=150)
    for name in arguments.only:
        for row in COMPARISONS[name](arguments.rounds):
            low, high = min(row.ratios), max(row.ratios)
            cells = (
                f"{row.wanted:g} x",
                f"{statistics.median(row.ratios):.3g} x",
                f"{low:.3g} .. {high:.3g}",
                row.note,
            )
            table.add_row(row.name, *cells)
            console.print(row.name, *cells)
    console.print(table)


def cpu_seconds(action: Callable[[], object]) -> float:
    """Return the CPU seconds of this process that a call takes."""
    start = time.process_time()
    action()
    return time.process_time() - start


def made_bank(n_features: int) -> FeatureBank:
    """Return features of classes that overlap, as those of a trained backbone do."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(N_CLASSES), N_PER_CLASS)
    centres = rng.normal(size=(N_CLASSES, n_features)) * 0.35
    return FeatureBank.from_arrays(rng.normal(size=(len(labels), n_features)) + centres[labels], labels)


def manifest_of(bank: FeatureBank, n_way: int = 5, n_shot: int = 5, n_episodes: int = N_EPISODES) -> Manifest:
    """Draw episodes with 15 queries."""
    spec = EpisodeSpec(n_way=n_way, n_shot=n_shot, n_query=N_QUERY, n_episodes=n_episodes)
    return make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)


def batched(bank: FeatureBank, manifest: Manifest, audit_share: float = 0.0) -> None:
    """Score all episodes with the default probe."""
    probe = Probe(name="probe", classifier=logistic_regression())
    table = collect(score(bank, manifest, probe, audit_share=audit_share), {})
    assert len(table) == len(manifest)


def one_by_one(bank: FeatureBank, manifest: Manifest, n_episodes: int) -> None:
    """Fit scikit-learn's estimator at tol 1e-6 on the first episodes, one after another."""
    probe = Probe(name="probe", classifier=logistic_regression(), solver="sklearn")
    list(score(bank, manifest.prefix(n_episodes), probe))


def compare_probe(rounds: int) -> Iterator[Row]:
    """Compare the probe alone, features and episodes at hand, 640 features."""
    bank = made_bank(640)
    for n_way, n_shot, wanted in ((5, 1, 50), (5, 5, 40), (20, 5, 10)):
        n_batched, n_single = (2048, 60) if n_way == 5 else (256, 30)
        manifest = manifest_of(bank, n_way, n_shot, n_batched)
        batched(bank, manifest.prefix(64))
        ratios = []
        for _ in range(rounds):
            fast = cpu_seconds(partial(batched, bank, manifest)) / n_batched
            slow = cpu_seconds(partial(one_by_one, bank, manifest, n_single)) / n_single
            ratios.append(slow / fast)
        note = f"{fast * 1000:.3f} ms against {slow * 1000:.2f} ms an episode"
        yield Row(name=f"probe alone, {n_way}-way {n_shot}-shot", wanted=wanted, ratios=ratios, note=note)


def compare_features_at_hand(rounds: int) -> Iterator[Row]:
    """Compare a whole evaluation, features at hand, with and without drawing the episodes."""
    bank = made_bank(512)
    manifest = manifest_of(bank)
    fresh, stored = [], []
    for _ in range(rounds):
        draw = cpu_seconds(lambda: manifest_of(bank))
        solve = cpu_seconds(lambda: batched(bank, manifest, audit_share=0.005))
        slow = cpu_seconds(lambda: one_by_one(bank, manifest, 100)) / 100 * N_EPISODES
        fresh.append(slow / (draw + solve))
        stored.append(slow / solve)
    note = f"{draw:.2f} s to draw, {solve:.2f} s to score and audit, against {slow:.0f} s (from 100 episodes)"
    yield Row(name="features at hand, fresh draws", wanted=20, ratios=fresh, note=note)
    yield Row(name="features at hand, stored manifest", wanted=35, ratios=stored, note=note)


def compare_grid(rounds: int) -> Iterator[Row]:
    """Compare six values of C, each alone, with all of them in one pass, 640 features."""
    bank = made_bank(640)
    probes = [Probe(name="probe", classifier=logistic_regression(C=10.0**power)) for power in range(-2, 4)]
    for n_shot in (1, 5):
        manifest = manifest_of(bank, n_shot=n_shot, n_episodes=300)

        def in_one_pass(manifest: Manifest = manifest) -> None:
            list(score_grid(bank, manifest, probes, serial()))

        def alone(chosen: list[Probe], manifest: Manifest = manifest) -> None:
            for probe in chosen:
                list(score(bank, manifest, probe, audit_share=0))

        ratios = []
        for _ in range(rounds):
            together = cpu_seconds(in_one_pass)
            one = cpu_seconds(partial(alone, [probes[2]]))
            ratios.append(cpu_seconds(partial(alone, probes)) / together)
        note = f"all in one pass cost {together / one:.1f} x one value (C = 1) alone"
        yield Row(name=f"six values of C, 5-way {n_shot}-shot", wanted=1, ratios=ratios, note=note)


def icons_in_colour() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the icons at 64 pixels in colour, (n, 3, 64, 64) uint8, and their concepts, the most drawn ones first."""
    from lurefs.data.icons import icons

    dataset = icons(64)
    images = torch.from_numpy(dataset.read(np.arange(len(dataset)))).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
    place = np.argsort(np.argsort(-np.bincount(dataset.labels), kind="stable"))
    return images, torch.from_numpy(place[dataset.labels])


def made_pool(images: torch.Tensor, concepts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return 600 images each of the first 20 concepts, every drawing moved by some pixels, and their labels."""
    rng, pool = np.random.default_rng(0), []
    for concept in range(N_CLASSES):
        rows = torch.nonzero(concepts == concept)[:, 0].tolist()
        for number in range(N_PER_CLASS):
            down, right = rng.integers(-6, 7, size=2).tolist()
            pool.append(images[rows[number % len(rows)]].roll((down, right), dims=(1, 2)))
    return torch.stack(pool), torch.arange(N_CLASSES).repeat_interleave(N_PER_CLASS)


def prepared(batch: torch.Tensor) -> torch.Tensor:
    """Return what a model is given of (n, 3, 64, 64) uint8 images."""
    return (batch.float() / 255 - 0.5).contiguous(memory_format=torch.channels_last)


def trained(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.nn.Module:
    """Train a model a little on images (n, 3, 64, 64) uint8: features of a fresh one are all but equal."""
    torch.manual_seed(0)
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for rows in torch.randperm(len(images))[: 64 * N_STEPS].split(64):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(prepared(images[rows])), labels[rows]).backward()
        optimizer.step()
    return model.eval()


def compare_cold(rounds: int) -> Iterator[Row]:
    """Compare extraction and evaluation with the loop that embeds each episode's images, resnet10t at 64 pixels."""
    import timm
    from learn2learn.data import MetaDataset, Taskset
    from learn2learn.data.transforms import FusedNWaysKShots, LoadData
    from sklearn.linear_model import LogisticRegression
    from torch.utils.data import TensorDataset

    drawings, concepts = icons_in_colour()
    is_base, n_base = concepts >= N_CLASSES, int(concepts.max()) + 1 - N_CLASSES
    fresh = timm.create_model("resnet10t", num_classes=n_base)
    model = trained(fresh, drawings[is_base], concepts[is_base] - N_CLASSES)
    fresh.reset_classifier(0)  # of the same model, which timm's type does not name
    images, labels = made_pool(drawings, concepts)

    @torch.inference_mode()
    def embed(batch: torch.Tensor) -> np.ndarray:
        features: np.ndarray = model(prepared(batch)).numpy()
        return features

    def extract(share: torch.Tensor, parts: list[np.ndarray]) -> None:
        parts.extend(embed(batch) for batch in share.split(100))

    dataset = MetaDataset(TensorDataset(images, labels))

    def tasks_of(n_way: int, n_shot: int) -> Taskset:
        return Taskset(dataset, [FusedNWaysKShots(dataset, n=n_way, k=n_shot + N_QUERY), LoadData(dataset)])

    tasks = {protocol: tasks_of(*protocol) for protocol in PROTOCOLS}

    def loop_once(n_way: int, n_shot: int) -> None:
        batch, targets = tasks[n_way, n_shot].sample()
        features = embed(batch)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        rows = np.arange(len(batch)).reshape(n_way, -1)
        support, query = rows[:, :n_shot].reshape(-1), rows[:, n_shot:].reshape(-1)
        fitted = LogisticRegression(max_iter=1000, tol=1e-6).fit(features[support], targets[support])
        fitted.score(features[query], targets[query])

    def alternate() -> tuple[dict[tuple[int, int], float], float, FeatureBank]:
        """Return seconds of all episodes of the loop, seconds of the extraction, and its bank; they take turns.

        An extraction takes long, and what else runs on the machine comes and goes meanwhile.
        """
        looping, extracting = dict.fromkeys(PROTOCOLS, 0.0), 0.0
        parts: list[np.ndarray] = []
        for turn, share in enumerate(images.chunk(N_TURNS)):
            extracting += cpu_seconds(partial(extract, share, parts))
            for protocol in (PROTOCOLS[turn % 4], PROTOCOLS[(turn + 2) % 4]):
                looping[protocol] += cpu_seconds(partial(loop_once, *protocol))
        n_looped = 2 * N_TURNS / len(PROTOCOLS)
        of_all = {protocol: seconds / n_looped * N_EPISODES for protocol, seconds in looping.items()}
        return of_all, extracting, FeatureBank.from_arrays(np.concatenate(parts), labels.numpy())

    def evaluated(bank: FeatureBank, protocols: tuple[tuple[int, int], ...]) -> None:
        for n_way, n_shot in protocols:
            batched(bank, manifest_of(bank, n_way, n_shot), audit_share=0.005)

    for protocol in PROTOCOLS:
        loop_once(*protocol)
    one, four = [], []
    for _ in range(rounds):
        slow, extracting, bank = alternate()
        fast = extracting + cpu_seconds(partial(evaluated, bank, ((5, 5),)))
        others = cpu_seconds(partial(evaluated, bank, ((5, 1), (20, 1), (20, 5))))
        one.append(slow[5, 5] / fast)
        four.append(sum(slow.values()) / (fast + others))
    rates = f"{len(images) / extracting:.0f} img/s alone, {N_EPISODES * 100 / slow[5, 5]:.0f} in the loop"
    note = f"{fast:.1f} s against {slow[5, 5]:.0f} s; {rates}"
    yield Row(name="cold, resnet10t at 64", wanted=80, ratios=one, note=note)
    note = f"{fast + others:.1f} s against {sum(slow.values()):.0f} s"
    yield Row(name="cold, four protocols on one extraction", wanted=500, ratios=four, note=note)


def compare_sampler(rounds: int) -> Iterator[Row]:
    """Compare the set-up of the sampler at 1,000,000 rows with learn2learn's own."""
    from learn2learn.data import MetaDataset
    from learn2learn.data.transforms import FusedNWaysKShots
    from torch.utils.data import TensorDataset

    from episodes import EpisodeSampler

    labels = np.repeat(np.arange(1000), 1000)
    spec = EpisodeSpec(n_way=5, n_shot=5, n_query=N_QUERY, n_episodes=1)

    def naive() -> None:
        dataset = MetaDataset(TensorDataset(torch.from_numpy(labels), torch.from_numpy(labels)))
        FusedNWaysKShots(dataset, n=5, k=20)

    ratios = []
    for _ in range(max(2, rounds // 2)):
        slow, fast = cpu_seconds(naive), cpu_seconds(lambda: EpisodeSampler(labels, spec, seed=0)[0])
        ratios.append(slow / fast)
    note = f"{fast:.2f} s against {slow:.1f} s, first episode included"
    yield Row(name="set-up of the sampler, 1,000,000 rows", wanted=20, ratios=ratios, note=note)


def compare_workers(rounds: int) -> Iterator[Row]:
    """Compare the CPU time of one process with that of two workers: their efficiency, without their start."""
    from joblib.externals.loky import get_reusable_executor

    bank = made_bank(512)
    manifest = manifest_of(bank, n_episodes=2048)
    probe = Probe(name="probe", classifier=logistic_regression(), solver="sklearn")

    def children_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def in_workers(n_episodes: int) -> float:
        before, start = children_seconds(), time.process_time()
        list(score_in_parallel(bank, manifest.prefix(n_episodes), probe, joblib(n_workers=2)))
        get_reusable_executor().shutdown(wait=True)
        return children_seconds() - before + time.process_time() - start

    ratios, n_first = [], 2 * SINGLE_RANGE  # so that both workers start
    for _ in range(rounds):
        serial = cpu_seconds(lambda: list(score(bank, manifest, probe)))
        start_up = in_workers(n_first)
        workers = in_workers(2048) - start_up
        ratios.append(serial * (2048 - n_first) / 2048 / workers)
    in_two = workers / (2048 - n_first)
    note = f"{serial / 2048 * 1000:.2f} ms an episode in one process, {in_two * 1000:.2f} ms in two workers"
    yield Row(name="loky workers, CPU efficiency", wanted=0.9, ratios=ratios, note=note)


COMPARISONS: dict[str, Callable[[int], Iterator[Row]]] = {
    "probe": compare_probe,
    "features": compare_features_at_hand,
    "grid": compare_grid,
    "sampler": compare_sampler,
    "workers": compare_workers,
    "cold": compare_cold,
}

if __name__ == "__main__":
    main()
