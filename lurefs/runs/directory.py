"""Run directory: the names of its files, and reading and writing of the records in them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from episodes.accuracies import Accuracies
from episodes.bank import FeatureBank
from episodes.files import write_text
from episodes.manifest import Manifest
from episodes.table import EpisodeTable
from episodes.transfer.table import TransferTable
from lurefs import locks
from lurefs.config.documents import yaml_values
from lurefs.config.load import stored_config, to_yaml
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError, first_line
from lurefs.records import check_plain, convert, from_mapping, no_number, to_mapping, whole_number
from lurefs.runs.outcomes import ChunkOutcome
from lurefs.runs.summary import VERSION, RunSummary, as_mapping

T = TypeVar("T")
REFERENCE = "base--train"
"""Name of the feature bank on which feature transforms are fitted; no benchmark can have it."""


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run.

    Attributes:
        path: The directory; it need not exist yet.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))  # a text will do

    @property
    def config_path(self) -> Path:
        """The resolved configuration, YAML."""
        return self.path / "config.yaml"

    @property
    def identity_path(self) -> Path:
        """Everything that the weights depend on, JSON; written before the first chunk is learned."""
        return self.path / "identity.json"

    @property
    def chunks_path(self) -> Path:
        """One `ChunkOutcome` per line, JSON."""
        return self.path / "chunks.jsonl"

    @property
    def summary_path(self) -> Path:
        """The figures of the run, JSON."""
        return self.path / "summary.json"

    @property
    def duplicates_path(self) -> Path:
        """Images of the benchmarks that occur twice, JSON; missing in runs of earlier versions."""
        return self.path / "duplicates.json"

    @property
    def cost_path(self) -> Path:
        """Cost of using the backbone, JSON; missing in runs of earlier versions."""
        return self.path / "cost.json"

    @property
    def log_path(self) -> Path:
        """Output of a run in a process of its own, and why it failed; missing for other runs."""
        return self.path / "log.txt"

    @property
    def report_path(self) -> Path:
        """The report page; missing if the run is one of several, which share a page."""
        return self.path / "report.html"

    @property
    def figures_dir(self) -> Path:
        """The report's figures as files."""
        return self.path / "figures"

    def checkpoint_path(self, chunk_index: int) -> Path:
        """Weights after one chunk, safetensors; its JSON identity has the same name with `.json`."""
        return self.path / "checkpoints" / f"chunk-{chunk_index:03d}.safetensors"

    @property
    def progress_path(self) -> Path:
        """State of the unfinished chunk; deleted when the chunk is done."""
        return self.path / "checkpoints" / "progress.pt"

    def features_dir(self, benchmark: str) -> Path:
        """The feature bank of one benchmark, by the weights after the last chunk."""
        return self.path / "features" / benchmark

    def manifest_path(self, benchmark: str) -> Path:
        """The episodes of one benchmark."""
        return self.path / "manifests" / f"{benchmark}.parquet"

    def episodes_path(self, benchmark: str, probe: str) -> Path:
        """The per-episode results of one probe on one benchmark."""
        return self.path / "episodes" / f"{benchmark}--{probe}.parquet"

    def unfinished_path(self, benchmark: str, probe: str) -> Path:
        """The results of the first episodes, while a fine-tuned probe is scored on them; deleted at the end."""
        return self.path / "episodes" / "unfinished" / f"{benchmark}--{probe}.parquet"

    def transfer_path(self, name: str) -> Path:
        """The fits of one transfer."""
        return self.path / "transfer" / f"{name}.parquet"

    def control_path(self, benchmark: str, control: str, probe: str) -> Path:
        """The per-episode results of one probe on one control's features of a benchmark."""
        return self.path / "controls" / control / f"{benchmark}--{probe}.parquet"

    def control_card_path(self, benchmark: str, control: str) -> Path:
        """Facts about one control's features of a benchmark, JSON; missing in runs of earlier versions."""
        return self.path / "controls" / control / f"{benchmark}.json"

    def result_paths(self, config: RunConfig, n_chunks: int) -> list[Path]:
        """Return the files that a finished run must have; its page can be made from them.

        Of the weights only the last are required: `lurefs run` does not make earlier ones again.
        """
        weights = self.checkpoint_path(n_chunks - 1)
        return [
            self.identity_path,
            *([] if config.frozen else [self.chunks_path, weights, weights.with_suffix(".json")]),
            *(self.manifest_path(benchmark) for benchmark in config.benchmarks),
            *(self.episodes_path(benchmark, probe) for benchmark in config.benchmarks for probe in config.probes),
            *(self.transfer_path(name) for name in config.transfer),
            self.summary_path,
        ]

    def write_config(self, config: RunConfig) -> None:
        """Store the resolved configuration."""
        write_text(self.config_path, to_yaml(config))

    def read_config(self) -> RunConfig:
        """Return the stored configuration.

        Raises:
            UserError: This is not a run directory, or its configuration is damaged.
        """
        if not self.config_path.is_file():
            raise UserError(
                f"{self.path} is not a run directory: it has no config.yaml",
                "a directory that 'lurefs run' made",
                "check the path, or give --config to start a run there",
            )
        try:
            values = yaml_values(self.config_path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise _damaged_config(self.config_path, " ".join(str(error).split())) from error
        if not isinstance(values, dict):
            raise _damaged_config(self.config_path, "it holds no settings")
        try:
            return stored_config(values)
        except UserError as error:
            raise UserError(f"{self.config_path}: {error.problem}", error.expected, error.fix) from error

    def read_identity(self) -> dict[str, Any]:
        """Return the content of `identity.json`; empty before the first stage.

        Raises:
            UserError: The file is damaged.
        """
        found = read_json(self.identity_path) if self.identity_path.is_file() else {}
        if wrong := [name for name in ("backbone", "split", "versions") if not isinstance(found.get(name, {}), dict)]:
            raise damaged(self.identity_path, f"{wrong[0]} is not a mapping")
        return found

    def read_outcomes(self) -> list[ChunkOutcome]:
        """Return the outcomes of the finished chunks in order; empty before the first.

        Raises:
            UserError: A line is damaged, or the file has none.
        """
        if not self.chunks_path.is_file():
            return []
        outcomes = []
        for number, line in enumerate(self.chunks_path.read_bytes().splitlines(), start=1):
            try:
                outcomes.append(from_mapping(ChunkOutcome, _parse(line)))
            except (ValueError, UserError) as error:
                raise damaged(self.chunks_path, f"line {number}: {first_line(error)}") from error
        if not outcomes:
            raise damaged(self.chunks_path, "it is empty")
        return outcomes

    def write_outcomes(self, outcomes: Sequence[ChunkOutcome]) -> None:
        """Store the outcomes of all finished chunks."""
        lines = [json.dumps(to_mapping(outcome)) for outcome in outcomes]
        write_text(self.chunks_path, "".join(line + "\n" for line in lines))

    def read_summary(self) -> RunSummary:
        """Return the summary.

        Raises:
            UserError: The run has none yet, it is damaged, or another version of lurefs wrote it.
        """
        path = self.summary_path
        if not path.is_file():
            raise UserError(
                f"{self.path} has no summary.json",
                "a run that was evaluated",
                "finish it with 'lurefs run' or 'evaluate'",
            )
        values = read_json(path)
        if (version := values.get("version", VERSION)) != VERSION:
            raise UserError(
                f"{path} has the version {version!r}, which this lurefs does not know",
                f"version {VERSION}",
                f"read it with the lurefs that wrote it, or delete {path} and run again",
            )
        try:
            return from_mapping(RunSummary, values)
        except UserError as error:
            raise damaged(path, error.problem) from error

    def write_summary(self, summary: RunSummary) -> None:
        """Store the summary."""
        write_text(self.summary_path, json.dumps(as_mapping(summary), indent=2, ensure_ascii=False) + "\n")

    def read_cost(self) -> dict[str, Any]:
        """Return the content of `cost.json`; empty for runs of earlier versions.

        Raises:
            UserError: The file is damaged.
        """
        if not self.cost_path.is_file():
            return {}
        values = read_json(self.cost_path)
        try:
            check_plain(values)
            for name in values.keys() - {"device"}:
                convert(float | None, values[name], name)
        except UserError as error:
            raise damaged(self.cost_path, error.problem) from error
        return values

    def write_cost(self, cost: Mapping[str, Any]) -> None:
        """Store the cost of using the backbone."""
        write_text(self.cost_path, json.dumps(cost, indent=2) + "\n")

    def read_bank(self, benchmark: str) -> FeatureBank:
        """Return a benchmark's feature bank.

        Raises:
            UserError: It was not extracted yet, or it is damaged.
        """
        folder = self.features_dir(benchmark)
        try:
            return FeatureBank.load(folder)
        except FileNotFoundError as error:
            raise not_yet(folder, "extract") from error
        except MemoryError:
            raise
        except Exception as error:  # a damaged file raises errors of many kinds
            raise damaged(folder, str(error)) from error

    def read_manifest(self, benchmark: str) -> Manifest:
        """Return a benchmark's episodes.

        Raises:
            UserError: They were not drawn yet, or the file is damaged.
        """
        return _load(self.manifest_path(benchmark), Manifest.load)

    def read_episodes(self, benchmark: str, probe: str, *, with_predicted: bool = False) -> EpisodeTable:
        """Return the per-episode results of one probe on one benchmark, without predictions unless `with_predicted`.

        Raises:
            UserError: They were not computed yet, or the file is damaged.
        """
        return _load(self.episodes_path(benchmark, probe), partial(EpisodeTable.load, with_predicted=with_predicted))

    def read_accuracies(self, benchmark: str, probe: str) -> Accuracies:
        """Return only the accuracies of `read_episodes`.

        Raises:
            UserError: They were not computed yet, or the file is damaged.
        """
        return _load(self.episodes_path(benchmark, probe), Accuracies.load)

    def read_control_episodes(self, benchmark: str, control: str, probe: str) -> EpisodeTable:
        """Return the per-episode results of one probe on a control's features of a benchmark, without predictions.

        Raises:
            UserError: They are missing, or the file is damaged.
        """
        path = self.control_path(benchmark, control, probe)
        return _load(path, partial(EpisodeTable.load, with_predicted=False))

    def read_control_accuracies(self, benchmark: str, control: str, probe: str) -> Accuracies:
        """Return only the accuracies of `read_control_episodes`.

        Raises:
            UserError: They are missing, or the file is damaged.
        """
        return _load(self.control_path(benchmark, control, probe), Accuracies.load)

    def read_transfer(self, name: str) -> TransferTable:
        """Return the fits of one transfer.

        Raises:
            UserError: They were not computed yet, or the file is damaged.
        """
        return _load(self.transfer_path(name), TransferTable.load)

    def check_writable(self) -> None:
        """Raise if the directory cannot be made or written; nothing is made.

        Raises:
            UserError: A part of the path is a file, or is write-protected.
        """
        existing = next(place for place in (self.path.absolute(), *self.path.absolute().parents) if place.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise _unwritable(self.path, f"{existing} is not a writable folder")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory for this process, and create it if it is missing.

        Raises:
            UserError: It cannot be written, or another process has locked it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / ".lock").open("w")
        except OSError as error:
            raise _unwritable(self.path, error.strerror or str(error)) from error
        with handle:
            try:
                locks.flock(handle, locks.LOCK_EX | locks.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"another process is working in {self.path}",
                    "one process per run directory",
                    "wait for it to end, or give another --run-dir",
                ) from error
            handle.write(f"{os.getpid()}\n")
            handle.flush()
            self._remove_partial_files()
            yield

    def _remove_partial_files(self) -> None:
        """Remove partial files of a killed process."""
        for depth in ("", "*/", "*/*/"):
            for path in self.path.glob(f"{depth}.*.partial*"):
                path.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        UserError: The file is damaged.
    """
    try:
        return _parse(path.read_bytes())
    except ValueError as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, reason: str) -> UserError:
    """Return the error for a file that exists but cannot be used."""
    return UserError(f"{path} is damaged: {reason}", "the file as lurefs wrote it", f"delete {path} and run again")


def _parse(text: bytes) -> dict[str, Any]:
    """Return the object in a JSON text, or raise `ValueError`."""
    try:
        values = json.loads(text.decode("utf-8"), parse_int=whole_number, parse_constant=no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    return values


def _damaged_config(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is damaged: {reason}",
        "the file as lurefs wrote it",
        "correct it, or start 'lurefs run' with the same --config and --run-dir, which writes it again",
    )


def _load(path: Path, load: Callable[[Path], T]) -> T:
    """Read a file of the stage 'evaluate'."""
    if path.exists() and not path.is_file():  # opening a named pipe would wait for ever
        raise damaged(path, "it is not a file")
    try:
        return load(path)
    except FileNotFoundError as error:
        raise not_yet(path, "evaluate") from error
    except MemoryError:  # then the file may be whole
        raise
    except Exception as error:  # a damaged file raises errors of many kinds
        raise damaged(path, str(error)) from error


def _unwritable(path: Path, reason: str) -> UserError:
    return UserError(
        f"the run directory {path} cannot be written: {reason}",
        "a folder that can be created and written",
        "give another one with --run-dir, or --output of reproduce",
    )


def not_yet(path: Path, stage: str) -> UserError:
    """Build the error for a file or folder of a stage that was not done yet."""
    return UserError(f"there is no {path}", f"a run whose stage '{stage}' is done", f"run 'lurefs {stage}' first")
