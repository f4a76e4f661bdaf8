"""Few-shot accuracy after a chunk: the first episodes of every benchmark, by the weights of the moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from episodes.bank import FeatureBank
from episodes.manifest import Manifest
from episodes.scoring import score
from episodes.summary import summarise
from episodes.table import collect
from episodes.transforms import needs_reference
from lurefs import console
from lurefs.config.schema import digest
from lurefs.learning import checkpoints
from lurefs.learning.backbones import Backbone
from lurefs.runs.outcomes import ChunkOutcome, FewShotScore
from lurefs.stages.features import make_bank
from lurefs.stages.plan import Benchmark
from lurefs.stages.stage import Stage, embed, make_probe, reference_images


def with_few_shot(
    stage: Stage, outcome: ChunkOutcome, backbone: Backbone, manifests: Mapping[str, Manifest]
) -> ChunkOutcome:
    """Add few-shot accuracy by the weights that `backbone` holds; benchmarks on the same images share features."""
    config = stage.plan.config
    if not config.after_chunk.few_shot:
        return outcome
    probe_name, probe_config = next(iter(config.probes.items()))
    reference = None
    if needs_reference(probe_config.transform):
        images = reference_images(stage.plan)
        reference = make_bank(images, embed(stage, backbone, images, f"{config.name}: base features"), {}).features
    probe = make_probe(probe_name, probe_config, reference)
    banks: dict[str, FeatureBank] = {}
    few_shot = {}
    for name, benchmark in stage.plan.benchmarks.items():
        keys = [digest([images.dataset.identity, images.images_digest]) for images in benchmark.sides]
        for key, images in zip(keys, benchmark.sides, strict=True):
            if key not in banks:
                batches = embed(stage, backbone, images, f"{config.name}: features after chunk")
                banks[key] = make_bank(images, batches, {})
        bank, query_bank = (banks[key] for key in keys)
        query = None if query_bank is bank else query_bank
        manifest = manifests[name].prefix(config.after_chunk.n_episodes)
        blocks = score(bank, manifest, probe, query_bank=query, device=str(stage.device), audit_share=0)
        blocks = console.track_blocks(blocks, len(manifest), f"{config.name}: {name} after chunk")
        table = collect(blocks, {})
        summary = summarise(table.accuracy, table.classes)
        few_shot[name] = FewShotScore(
            manifest=manifests[name].hash,
            probe=probe_name,
            n_episodes=summary.n,
            accuracy=summary.mean,
            ci95_episodes=summary.ci95_episodes,
            corrupt=_corrupt_words(benchmark),
        )
    return replace(outcome, few_shot=few_shot)


def complete_few_shot(
    stage: Stage, outcomes: list[ChunkOutcome], backbone: Backbone, manifests: Mapping[str, Manifest]
) -> list[ChunkOutcome]:
    """Measure chunks that were learned under other benchmarks, from their checkpoints as far as these were kept."""
    config = stage.plan.config
    n_episodes = {name: min(len(manifest), config.after_chunk.n_episodes) for name, manifest in manifests.items()}
    wanted = {
        name: (manifest.hash, next(iter(config.probes)), n_episodes[name], _corrupt_words(stage.plan.benchmarks[name]))
        for name, manifest in manifests.items()
    }
    completed = []
    for outcome in outcomes:
        found = {name: (few.manifest, few.probe, few.n_episodes, few.corrupt) for name, few in outcome.few_shot.items()}
        if config.after_chunk.few_shot and found != wanted:
            path = stage.directory.checkpoint_path(outcome.chunk_index)
            if path.exists():
                checkpoints.load_checkpoint(path, backbone.model)
                outcome = with_few_shot(stage, outcome, backbone, manifests)
            else:
                still_wanted = {name: few for name, few in outcome.few_shot.items() if found[name] == wanted.get(name)}
                outcome = replace(outcome, few_shot=still_wanted)
        completed.append(outcome)
    if completed != outcomes:
        stage.directory.write_outcomes(completed)
    return completed


def _corrupt_words(benchmark: Benchmark) -> str:
    return "" if benchmark.corrupt is None else benchmark.corrupt.words()
