"""Few-shot accuracy after a chunk: the first episodes of every benchmark, with the first probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from episodes.bank import FeatureBank
from episodes.executors import serial
from episodes.manifest import Manifest
from episodes.summary import summarise
from episodes.transforms import needs_reference
from lurefs.config.fine_tuning import fixed_probes
from lurefs.config.identity import digest
from lurefs.learning import checkpoints
from lurefs.learning.backbones import Backbone
from lurefs.runs.outcomes import ChunkOutcome, FewShotScore
from lurefs.stages.cell import Cell, score_cell
from lurefs.stages.features import as_needed, make_bank
from lurefs.stages.plan import Benchmark, ImageSet
from lurefs.stages.stage import Stage, embed, make_probe, reference_images


def with_few_shot(
    stage: Stage, outcome: ChunkOutcome, backbone: Backbone, manifests: Mapping[str, Manifest]
) -> ChunkOutcome:
    """Measure few-shot accuracy of the current weights and add it to the outcome, if the run asks for it.

    Raises:
        UserError: The probe cannot be fitted on the features of these weights.
    """
    config, plan = stage.plan.config, stage.plan
    if not config.after_chunk.few_shot:
        return outcome
    after = f"after chunk {outcome.chunk_index + 1}"
    banks: dict[str, FeatureBank] = {}

    def bank_of(images: ImageSet) -> FeatureBank:
        images = as_needed(images, backbone)
        key = digest(images.identity)  # benchmarks on the same images share features
        if key not in banks:
            batches = embed(stage, backbone, images, f"{config.name}: features of {images.name} {after}")
            banks[key] = make_bank(images, batches, {})
        return banks[key]

    probe_name, probe_config = next(iter(fixed_probes(config).items()))
    is_fitted = needs_reference(probe_config.transform)
    probe = make_probe(probe_name, probe_config, bank_of(reference_images(plan)).features if is_fitted else None)
    few_shot = {}
    for name, benchmark in plan.benchmarks.items():
        support, query = (bank_of(images) for images in benchmark.sides)
        manifest = manifests[name].prefix(config.after_chunk.n_episodes)
        cell = Cell(
            benchmark=name,
            whose=after,
            way_out="set after_chunk.few_shot=false",
            manifest=manifest,
            probe=probe,
            banks=(support, query),
        )
        table = score_cell(cell, serial(), stage.device, audit_share=0)
        summary = summarise(table.accuracy, table.classes)
        few_shot[name] = FewShotScore(
            manifest=manifests[name].hash,
            probe=probe_name,
            n_episodes=summary.n,
            accuracy=summary.mean,
            ci95_episodes=summary.ci95_episodes,
            corrupt=_corrupt_words(benchmark),
            images=_images_of(benchmark, backbone),
            settings=digest(probe_config),
        )
    return replace(outcome, few_shot=few_shot)


def complete_few_shot(
    stage: Stage, outcomes: Sequence[ChunkOutcome], backbone: Backbone, manifests: Mapping[str, Manifest]
) -> list[ChunkOutcome]:
    """Measure few-shot accuracy again if benchmarks or the probe changed; drop outdated ones without checkpoint."""
    config = stage.plan.config
    n_episodes = {name: min(len(manifest), config.after_chunk.n_episodes) for name, manifest in manifests.items()}
    probe, settings = next(((name, digest(found)) for name, found in fixed_probes(config).items()), ("", ""))
    wanted = {
        name: (
            manifest.hash,
            probe,
            n_episodes[name],
            _corrupt_words(benchmark),
            _images_of(benchmark, backbone),
            settings,
        )
        for name, manifest in manifests.items()
        for benchmark in [stage.plan.benchmarks[name]]
    }
    completed = list(outcomes)
    for position, outcome in enumerate(outcomes):
        found = {
            name: (few.manifest, few.probe, few.n_episodes, few.corrupt, few.images, few.settings)
            for name, few in outcome.few_shot.items()
        }
        if not config.after_chunk.few_shot or found == wanted:
            continue
        path = stage.directory.checkpoint_path(outcome.chunk_index)
        if path.exists():
            checkpoints.load_checkpoint(path, backbone.model)
            completed[position] = with_few_shot(stage, outcome, backbone, manifests)
        else:
            still_wanted = {name: few for name, few in outcome.few_shot.items() if found[name] == wanted.get(name)}
            completed[position] = replace(outcome, few_shot=still_wanted)
        if completed[position] != outcome:
            stage.directory.write_outcomes(completed)
    return completed


def _corrupt_words(benchmark: Benchmark) -> str:
    return "" if benchmark.corrupt is None else benchmark.corrupt.words()


def _images_of(benchmark: Benchmark, backbone: Backbone) -> str:
    return digest([as_needed(images, backbone).identity for images in benchmark.sides])
