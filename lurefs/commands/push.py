"""The command `lurefs push`: send run directories, finished or not, and comparisons to W&B.

Ids do not change between pushes. A second push changes nothing; after an interrupted one, it sends the rest.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lurefs import console
from lurefs.config.schema import RunConfig, WandbConfig
from lurefs.errors import UserError
from lurefs.interrupts import interruption_first
from lurefs.runs.directory import RunDirectory
from lurefs.runs.find import find_runs, runs_below
from lurefs.tracking import records, tracker
from lurefs.tracking.client import Client, UploadError, environment, one_line
from lurefs.tracking.comparison_record import FILE, compared_paths, comparison_record
from lurefs.tracking.records import Record


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """One folder to send.

    Attributes:
        path: The folder.
        config: Configuration of the run, or of a compared run, which names the project; None if it is not known.
        directory: The run directory; None for a comparison.
    """

    path: Path
    config: RunConfig | None
    directory: RunDirectory | None

    def records(self) -> Iterator[Record]:
        """Yield the records of the folder for W&B.

        Raises:
            UserError: A file in it is missing or damaged.
        """
        if self.directory is None:
            yield comparison_record(self.path)
        elif self.config is not None:
            yield from records.records_of(self.config, self.directory)


def add_parser(commands: Any) -> None:
    """Add the command `push` to an argument parser's commands."""
    text = "Send run directories and folders that 'lurefs compare' wrote to W&B; what is there is not sent again."
    parser = commands.add_parser("push", help="send finished or half finished runs to W&B", description=text)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run, a folder of runs, or a comparison's folder")
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send the named folders and print what was sent; return the exit code, 1 if a folder failed.

    Raises:
        UserError: A name leads to no run, there is no key, or the environment turns W&B off.
    """
    parcels = find_parcels(arguments.runs)
    if not arguments.dry_run:
        check_online(os.environ)
    failures = {}
    for parcel in parcels:
        try:
            with interruption_first():
                for line in describe(parcel) if arguments.dry_run else send(parcel):
                    print(line, flush=True)
        except Exception as error:  # one folder must not cost the others
            reason, way_out = one_line(error), "run the same command again to complete it"
            if isinstance(error, UserError):
                reason, way_out = error.problem, error.fix
            failures[parcel.path] = f"{reason}; {way_out}"
            console.note(f"failed: {parcel.path}: {failures[parcel.path]}")
    done = "would be sent" if arguments.dry_run else "sent"
    print(f"{len(parcels) - len(failures)} of {len(parcels)} folders {done}")
    for path, reason in failures.items():
        console.note(f"not completely sent: {path}: {reason}")
    return 1 if failures else 0


def find_parcels(names: Sequence[str]) -> list[Parcel]:
    """Find the run directories and comparisons that the names refer to, each once, runs first.

    Raises:
        UserError: A name leads to no run, or a run's configuration is damaged.
    """
    comparisons = list(dict.fromkeys(Path(name) for name in names if (Path(name) / FILE).is_file()))
    others = [name for name in names if Path(name) not in comparisons or any(runs_below(Path(name)))]
    directories = [RunDirectory(path) for path in find_runs(others)] if others else []
    parcels = [
        Parcel(path=directory.path, config=directory.read_config(), directory=directory) for directory in directories
    ]
    return [*parcels, *(Parcel(path=path, config=_config_of(path), directory=None) for path in comparisons)]


def check_online(environ: Mapping[str, str]) -> None:
    """Check that wandb is installed, has a key, and is online in this environment.

    Raises:
        UserError: wandb is not installed, there is no key, or the environment rules it out.
    """
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise UserError("wandb is not installed", "the client of W&B", "pip install wandb") from error
    mode, reason = tracker.choose_mode("auto", environ)
    if not tracker.has_key(environ):
        raise UserError("no API key for W&B was found", "a key to send with", "run 'wandb login' or set WANDB_API_KEY")
    if mode != "online":
        raise UserError(
            f"the environment says that W&B is {mode}: {reason}",
            "online",
            "unset that variable for this command, e.g. env -u WANDB_MODE lurefs push ...",
        )


def describe(parcel: Parcel) -> Iterator[str]:
    """Yield one line per W&B run that a folder would become."""
    yield f"{parcel.path}"
    for record in parcel.records():
        yield f"  {record.card.id}: {_words(record)}"


def send(parcel: Parcel) -> Iterator[str]:
    """Send a folder, and yield one line per W&B run that was sent.

    Raises:
        UserError: A file is damaged, or another process works in the run directory.
        Exception: An error of wandb; earlier W&B runs of the folder are sent.
    """
    with parcel.directory.locked() if parcel.directory else nullcontext(), _client(parcel) as client:
        yield f"{parcel.path}"
        for record in parcel.records():
            n_there = _send(client, record)
            before = f"; {n_there} of {len(record.rows)} rows were there before" if record.rows else ""
            yield f"  {client.id_of(record.card)}: {_words(record)}{before}"


def _config_of(comparison: Path) -> RunConfig | None:
    """Return the configuration of the first compared run that is on this disk; None if there is none."""
    for path in compared_paths(comparison):
        if (path / "config.yaml").is_file():
            return RunDirectory(path).read_config()
    return None


@contextmanager
def _client(parcel: Parcel) -> Iterator[Client]:
    """Open the upload client of a folder; comparisons use a temporary folder."""
    settings = parcel.config.trackers.wandb if parcel.config else WandbConfig()
    with tempfile.TemporaryDirectory(prefix="lurefs-push-") as scratch:
        if parcel.directory is not None and parcel.config is not None:
            client = tracker.open_client(parcel.config, parcel.directory, "online")
        else:
            client = Client(Path(scratch), project=settings.project, entity=settings.entity, mode="online")
        with environment(client.folder):
            try:
                yield client
            finally:
                client.close()


def _send(client: Client, record: Record) -> int:
    """Send the missing parts of a record; return how many of its rows were at W&B before."""
    run = client.open(record.card, record.step_metric)
    try:
        n_there: int = run.starting_step
        if n_there > len(record.rows) and record.step_metric is not None:
            raise UploadError(
                f"{run.name}: W&B holds {n_there} rows and this directory {len(record.rows)}; another directory of the "
                "same configuration was sent before"
            )
        client.send_rows(run, record.rows, first=n_there)
        client.fill(run, record)
    except Exception:
        with suppress(Exception):
            run.finish(exit_code=1)
        raise
    client.finish(run, record)
    return n_there


def _words(record: Record) -> str:
    parts = {
        "rows": record.rows,
        "figures": record.summary,
        "tables": record.tables,
        "charts": record.charts,
        "images": record.images,
        "weights": record.weights,
        "pages": record.pages,
    }
    named = {name: len(found) for name, found in parts.items() if found}
    return ", ".join(f"{n} {name if n > 1 else name.removesuffix('s')}" for name, n in named.items())
