"""The later stages: embed the benchmarks' images, and score the probes on their episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from episodes.bank import FeatureBank
from episodes.manifest import Manifest
from episodes.scoring import score, score_in_parallel
from episodes.table import collect
from lurefs import console, plugins
from lurefs.config.schema import digest
from lurefs.errors import UserError
from lurefs.learning import checkpoints
from lurefs.ranks import Ranks
from lurefs.records import through_json
from lurefs.runs.directory import REFERENCE, RunDirectory
from lurefs.stages.controls import score_controls
from lurefs.stages.cost import Speed, cost_card
from lurefs.stages.features import feature_identity, make_bank
from lurefs.stages.plan import Plan
from lurefs.stages.stage import (
    Stage,
    backbone_card,
    embed,
    make_probe,
    plan_backbone,
    probes_need_reference,
    read_or_draw_manifest,
    reference_images,
    result_identity,
    tell_if_constant,
)
from lurefs.stages.summary import write_summary
from lurefs.stages.transfer import check_transfers, evaluate_transfers
from lurefs.stages.transfer_plan import transfer_images


def extract(stage: Stage, ranks: Ranks | None = None) -> None:
    """Embed the images of benchmarks and transfers with the last chunk's weights; banks that fit are read.

    What it cost is stored where anything was embedded.

    Args:
        stage: Whose images, and with whose weights.
        ranks: The processes that divide the images; the first one writes the banks.

    Raises:
        UserError: The run has no checkpoint of its last chunk.
    """
    plan, directory = stage.plan, stage.directory
    path = directory.checkpoint_path(len(plan.chunks) - 1)
    if not path.exists():
        raise UserError(
            f"there is no checkpoint of the last chunk, {path}",
            f"a run whose {len(plan.chunks)} chunks are learned",
            "run 'lurefs pretrain' first, with the same --config and --run-dir",
        )
    weights = checkpoints.read_identity(path)["sha256"]
    backbone = plan_backbone(plan)
    ranks = ranks or Ranks()
    banks: dict[str, FeatureBank] = {}
    speed = Speed()
    wanted = {images.name: images for benchmark in plan.benchmarks.values() for images in (benchmark, *benchmark.sides)}
    wanted |= transfer_images(plan)
    if probes_need_reference(plan):
        wanted[REFERENCE] = reference_images(plan)
    for name, benchmark in wanted.items():
        identity = through_json(feature_identity(benchmark, backbone_card(backbone), weights))
        bank = _stored_bank(directory, name, identity)
        if bank is None:
            bank = next((other for other in banks.values() if other.identity == identity), None)
            if bank is None:
                checkpoints.load_checkpoint(path, backbone.model)
                backbone.model.to(stage.device)
                batches = speed.watch(embed(stage, backbone, benchmark, f"features of {name}", ranks))
                none = np.empty((0, backbone.n_features), dtype=np.float32)
                features = ranks.join(np.concatenate([none, *batches]), directory.features_dir(name))
                bank = None if features is None else make_bank(benchmark, iter([features]), identity)
                if bank is not None and ranks.rank == 0:
                    tell_if_constant(bank, benchmark, plan.config.name)
            if bank is not None and ranks.rank == 0:
                bank.save(directory.features_dir(name))
            ranks.wait()
        banks[name] = bank or directory.read_bank(name)
    if speed.batches and ranks.rank == 0:
        directory.write_cost(cost_card(backbone, speed, stage.device))


def evaluate(stage: Stage) -> None:
    """Score every probe on every benchmark's episodes; results that are there and fit are kept.

    Raises:
        UserError: A benchmark's features were not extracted, or a probe cannot be fitted.
    """
    plan, directory = stage.plan, stage.directory
    executor = plugins.build("executor", plan.config.executor.name, plan.config.executor.params)
    reference = directory.read_bank(REFERENCE) if probes_need_reference(plan) else None
    for name, benchmark in plan.benchmarks.items():
        bank, query_bank = (directory.read_bank(images.name) for images in benchmark.sides)
        manifest = read_or_draw_manifest(stage, benchmark)
        if {bank.images_digest, query_bank.images_digest} != {manifest.images_digest}:
            raise UserError(
                f"the features of benchmark {name!r} are of other images than its episodes",
                "features and episodes of one configuration",
                "run 'lurefs extract' first",
            )
        bank_digests = digest(dict(bank.identity)), digest(dict(query_bank.identity))
        for probe_name, probe_config in plan.config.probes.items():
            probe = make_probe(probe_name, probe_config, None if reference is None else reference.features)
            identity = result_identity(benchmark, manifest, probe, bank_digests)
            if _is_scored(directory, name, probe_name, identity):
                continue
            blocks = score_in_parallel(
                bank,
                manifest,
                probe,
                executor,
                query_bank=query_bank if bank_digests[0] != bank_digests[1] else None,
                device=str(stage.device),
                target_ci95=benchmark.target_ci95,
            )
            table = collect(console.track_blocks(blocks, len(manifest), f"{name}, {probe_name}"), identity)
            table.save(directory.episodes_path(name, probe_name))
    score_controls(stage)
    evaluate_transfers(stage)
    write_summary(stage)
    for name in plan.benchmarks:
        for probe_name in plan.config.probes:
            stage.tracker.log_cell(name, probe_name)
    for name in plan.config.transfer:
        stage.tracker.log_transfer(name)


def check_probes(plan: Plan) -> None:
    """Fit every probe on a made-up episode of every benchmark's form, so that a wrong setting is told before the work.

    Raises:
        UserError: scikit-learn refuses the probe.
    """
    check_transfers(plan)
    rng = np.random.default_rng(0)
    n_features = plan_backbone(plan).n_features
    reference = rng.normal(size=(min(len(plan.images.train), n_features + 1), n_features)).astype(np.float32)
    for probe_name, config in plan.config.probes.items():
        for name, benchmark in plan.benchmarks.items():
            spec = benchmark.spec.smallest_uniform()
            n_images = spec.n_way * (spec.n_shot + 1)
            bank = FeatureBank.from_arrays(rng.normal(size=(n_images, n_features)), np.arange(n_images) % spec.n_way)
            manifest = Manifest(
                spec=replace(spec, n_query=1),
                seed=0,
                images_digest=bank.images_digest,
                classes=np.arange(spec.n_way)[None],
                support=np.argsort(bank.labels, kind="stable").reshape(spec.n_way, -1)[:, :-1].reshape(1, -1),
                query=np.argsort(bank.labels, kind="stable").reshape(spec.n_way, -1)[:, -1:].reshape(1, -1),
            )
            try:
                list(score(bank, manifest, make_probe(probe_name, config, reference)))
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"probe {probe_name!r} cannot be fitted on benchmark {name!r} "
                    f"({spec.n_way}-way {spec.n_shot}-shot): {error}",
                    "a scikit-learn classifier and parameters that suit the benchmark's form",
                    f"change probes.{probe_name}, or the n_way and n_shot of the benchmark",
                ) from error


def _stored_bank(directory: RunDirectory, name: str, identity: Mapping[str, Any]) -> FeatureBank | None:
    if not (directory.features_dir(name) / "bank.json").exists():
        return None
    bank = directory.read_bank(name)
    return bank if bank.identity == identity else None


def _is_scored(directory: RunDirectory, benchmark: str, probe: str, identity: Mapping[str, Any]) -> bool:
    if not directory.episodes_path(benchmark, probe).exists():
        return False
    return directory.read_episodes(benchmark, probe).identity == identity
