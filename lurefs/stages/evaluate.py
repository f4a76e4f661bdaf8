"""The third stage: scores of the probes on the benchmarks' episodes, and the figures of the run."""

from __future__ import annotations

from collections.abc import Iterator

from episodes.executors import Executor
from lurefs import plugins
from lurefs.config.fine_tuning import fixed_probes
from lurefs.config.identity import digest
from lurefs.errors import UserError
from lurefs.runs.calibration import write_calibration
from lurefs.runs.directory import REFERENCE
from lurefs.stages.calibrate import calibrate, calibration_identity, is_calibrated
from lurefs.stages.cell import Cell, score_cell
from lurefs.stages.choosing import choice_path, choose_probe
from lurefs.stages.controls import score_controls
from lurefs.stages.fine_tuning import score_fine_tuned
from lurefs.stages.identity import note_files, result_identity
from lurefs.stages.plan import Benchmark
from lurefs.stages.stage import Stage, make_probe, probes_need_reference, read_or_draw_manifest
from lurefs.stages.summary import write_summary
from lurefs.stages.transfer import evaluate_transfers
from lurefs.stages.validation import read_validation


def evaluate(stage: Stage) -> None:
    """Score every probe on every benchmark's episodes; valid stored results are kept.

    Raises:
        UserError: A benchmark's features were not extracted, or a probe cannot be fitted.
    """
    plan, directory = stage.plan, stage.directory
    executor = plugins.build("executor", plan.config.executor.name, plan.config.executor.params)
    for name, benchmark in plan.benchmarks.items():
        for cell in _cells(stage, benchmark, executor):
            path = directory.episodes_path(name, cell.probe.name)
            is_stored = path.exists() and directory.read_episodes(name, cell.probe.name).identity == cell.identity
            calibrated_by = calibration_identity(stage, benchmark, cell)
            if is_stored and is_calibrated(directory, cell, calibrated_by):
                continue
            table = score_cell(cell, executor, stage.device, with_values=calibrated_by is not None)
            if not is_stored:
                table.save(path)
            if calibrated_by is not None:
                calibration = calibrate(stage, benchmark, cell, table, executor, calibrated_by)
                write_calibration(directory, name, cell.probe.name, calibration)
    score_fine_tuned(stage)
    score_controls(stage, executor)
    evaluate_transfers(stage)
    write_summary(stage)
    note_files(plan, directory)
    for name in plan.benchmarks:
        for probe in plan.config.probes:
            stage.tracker.log_cell(name, probe)
    for name in plan.config.transfer:
        stage.tracker.log_transfer(name)


def _cells(stage: Stage, benchmark: Benchmark, executor: Executor) -> Iterator[Cell]:
    """Yield the cells of a benchmark, with the extracted features; settings to choose are chosen before."""
    plan, directory = stage.plan, stage.directory
    reference = directory.read_bank(REFERENCE).features if probes_need_reference(plan) else None
    read = {name: directory.read_bank(name) for name in {images.name for images in benchmark.sides}}
    bank, query_bank = (read[images.name] for images in benchmark.sides)
    manifest = read_or_draw_manifest(stage, benchmark)
    if {bank.images_digest, query_bank.images_digest} != {manifest.images_digest}:
        raise UserError(
            f"the features and the episodes of benchmark {benchmark.name!r} are of different images",
            "features and episodes of one configuration",
            "run 'lurefs extract' first",
        )
    digests = digest(dict(bank.identity)), digest(dict(query_bank.identity))
    for name, config in fixed_probes(plan.config).items():
        chosen = None
        if config.choose is not None:
            chosen = choose_probe(
                name,
                config,
                *read_validation(plan, directory, benchmark),
                path=choice_path(directory, benchmark.name, name),
                where=f"benchmark {benchmark.name!r}",
                reference=reference,
                executor=executor,
                device=stage.device,
            )
        probe = make_probe(name, config, reference) if chosen is None else chosen.probe
        yield Cell(
            benchmark=benchmark.name,
            manifest=manifest,
            probe=probe,
            banks=(bank, query_bank),
            identity=result_identity(benchmark, manifest, probe, digests, None if chosen is None else chosen.made_from),
            target_ci95=benchmark.target_ci95,
        )
