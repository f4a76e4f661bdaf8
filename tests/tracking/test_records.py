from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from episodes.transfer.fits import TransferFit
from episodes.transfer.table import TransferTable, summarise_transfer
from lurefs.runs.summary import TransferSummary
from lurefs.tracking.records import records_of, transfer_record

BENCHMARK, PROBE = "novel-5way-1shot", "logistic_regression"


def fit(size: Any, repeat: int, n_train: int, correct: list[bool]) -> TransferFit:
    return TransferFit(
        size=size,
        repeat=repeat,
        n_train=n_train,
        n_validation=0,
        chosen=float("nan"),
        is_at_edge=False,
        accuracy=float(np.mean(correct)),
        macro_accuracy=float(np.mean(correct)),
        nll=float("nan"),
        ece=float("nan"),
        n_fits=1,
        n_not_converged=0,
        seconds=0.5,
        correct=np.array(correct),
    )


def add_transfer(run: Any) -> None:
    fits = (
        fit("all", 0, 7, [True, True, True, True]),
        fit(1, 0, 2, [True, False, True, False]),
        fit(1, 1, 2, [True, True, True, False]),
    )
    identity = {"images": "0123", "split": {"val": 0.1, "test": 0.3, "seed": 0}}
    table = TransferTable(fits=fits, test_labels=np.array([0, 0, 1, 1]), identity=identity)
    table.save(run.directory.transfer_path("novel-all"))
    sizes = {str(size): summary for size, summary in summarise_transfer(table).items()}
    described = TransferSummary(n_classes=2, probe="ridge", parameter=None, grid=None, choose_by=None, sizes=sizes)
    run.directory.write_summary(replace(run.directory.read_summary(), transfer={"novel-all": described}))


def test_transfer_is_a_curve_over_images_a_class_and_ends_at_the_largest_size(run: Any) -> None:
    run.with_wandb(mode="disabled").go()
    add_transfer(run)
    record = transfer_record(run.config, run.directory, "novel-all")
    assert record.step_metric == "images_per_class"
    assert [(row["images_per_class"], row["accuracy"]) for row in record.rows] == [(1, 0.625), (3.5, 1.0)]
    assert "nll" not in record.rows[0]
    assert record.summary["accuracy"] == 1.0
    assert record.tables["fits"].rows[1] == [1, 0, 2, 0.5, 0.5, None, None, None, 0.5]
    assert record.card.config["benchmark"] == "novel-all"


def test_offline_log_of_a_transfer_equals_the_run_directory(run: Any) -> None:
    run.with_wandb(mode="disabled").go()
    add_transfer(run)
    tracker = run.start()
    tracker.log_transfer("novel-all")
    tracker.close()
    log = run.read_log("transfer-novel-all")
    assert [run.sent(row) for row in log.history] == list(transfer_record(run.config, run.directory, "novel-all").rows)
    assert log.step_metrics["*"] == "images_per_class"
    assert log.exit_code == 0


def test_sheets_of_images_stand_beside_the_page(run: Any) -> None:
    from PIL import Image

    run.directory.figures_dir.mkdir()
    Image.new("L", (8, 8)).save(run.directory.figures_dir / "samples-base.png")
    run.go()
    picture = run.read_log("report").summary["samples_base"]
    assert (picture["_type"], picture["width"]) == ("image-file", 8)


def test_records_of_an_unfinished_run_are_its_chunks_alone(run: Any, outcome: Any) -> None:
    assert list(records_of(run.config, run.directory)) == []
    run.directory.write_outcomes([outcome(0)])
    (record,) = records_of(run.config, run.directory)
    assert (len(record.rows), record.is_complete, record.summary) == (1, False, {})


def test_cell_has_the_cost_of_its_backbone(run: Any) -> None:
    run.with_wandb(mode="disabled").go()
    cell = next(record for record in records_of(run.config, run.directory) if record.step_metric == "episode")
    assert cell.card.config["backbone_gmacs"] == 0.004
    assert (cell.card.config["device"], cell.card.config["n_threads"]) == ("cpu", 1)
    assert cell.summary["images_per_second"] == 500.0
    assert cell.summary["train_images_per_second"] == 250.0


def test_cell_has_the_accuracies_of_its_controls(run: Any) -> None:
    run.with_wandb(mode="disabled").go()
    cell = next(record for record in records_of(run.config, run.directory) if record.step_metric == "episode")
    found = {key: value for key, value in cell.summary.items() if key.startswith("control_")}
    assert found == {"control_untrained_twin": 0.25, "control_image_statistics": 0.375}
