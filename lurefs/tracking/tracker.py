"""Tracker that mirrors the run directory to Weights & Biases; its errors never stop the run.

It sends the records of `lurefs.tracking.records`, read from the directory alone, so that a rerun resumes where the last
one stopped.
"""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lurefs.config.schema import RunConfig, WandbConfig
from lurefs.errors import UserError
from lurefs.interrupts import interruption_first
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import ChunkOutcome
from lurefs.tracking import records
from lurefs.tracking.agent import read_agent_run, take_agent_run, write_agent_run
from lurefs.tracking.client import FINISH_SECONDS, Client, UploadError, environment, one_line
from lurefs.tracking.labels import Card
from lurefs.tracking.records import Record

Mode = Literal["online", "offline", "disabled"]

AGENT_FILE = "wandb/agent.json"
"""File with the W&B run of a directory that belongs to a sweep."""
_MODE_OF_WORD: Mapping[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
_log = logging.getLogger(__name__)


class Tracker:
    """Tracker that discards all records.

    Args:
        note: One line for the user: where the records go, and why.
    """

    def __init__(self, note: str) -> None:
        self.note = note

    def log_chunk(self, outcome: ChunkOutcome) -> None:
        """Record a chunk whose outcome is on disk."""

    def finish_pretrain(self) -> None:
        """Record that all chunks are done."""

    def log_cell(self, benchmark: str, probe: str) -> None:
        """Record the summary and the per-episode results of one probe on one benchmark."""

    def log_transfer(self, name: str) -> None:
        """Record the summary and the fits of one transfer."""

    def log_report(self, path: Path) -> None:
        """Record a report page."""

    def close(self) -> None:
        """End tracking; a second call does nothing. Never raises."""


def start(config: RunConfig, directory: RunDirectory) -> Tracker:
    """Return the tracker for the configuration and the user's environment.

    Raises:
        UserError: `WANDB_MODE` has no known value; or tracking is strict and the online start failed.
    """
    settings = config.trackers.wandb
    mode, reason = usable_mode(settings)
    if mode == "disabled":
        return Tracker(f"W&B: disabled ({reason})")
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        if settings.strict and mode == "online":
            raise _no_online_start(one_line(error)) from error
        return Tracker("W&B: not installed; the records are only in the run directory")
    logging.raiseExceptions = False  # on a full disk W&B's own log would print a traceback per line
    tracker = WandbTracker(config, directory, mode, reason)
    tracker.start_pretrain()
    return tracker


def usable_mode(settings: WandbConfig) -> tuple[Mode, str]:
    """Return the mode as `choose_mode` does, but offline if there is no key.

    Raises:
        UserError: `WANDB_MODE` has no known value; or tracking is strict and online, and there is no key.
    """
    mode, reason = choose_mode(settings.mode, os.environ)
    if mode == "online" and not has_key(os.environ):
        if settings.strict:
            raise _no_online_start("no API key was found")
        return "offline", "no key found"
    return mode, reason


def choose_mode(configured: str, environment: Mapping[str, str]) -> tuple[Mode, str]:
    """Return the mode and the reason for it in a few words.

    A mode in the configuration wins; `auto` follows `WANDB_DISABLED`, then `WANDB_MODE`, then whether a key exists.
    Empty variables count as unset.

    Raises:
        UserError: `WANDB_MODE` has an unknown value.
    """
    if configured != "auto":
        return _MODE_OF_WORD[configured], f"trackers.wandb.mode={configured}"
    if environment.get("WANDB_DISABLED", "").strip().lower() not in ("", "0", "false", "no", "off"):
        return "disabled", "WANDB_DISABLED is set"
    word = environment.get("WANDB_MODE", "").strip().lower()
    if word and word not in _MODE_OF_WORD:
        raise UserError(
            f"the environment variable WANDB_MODE is {word!r}",
            f"one of {', '.join(_MODE_OF_WORD)}",
            "correct or unset it, or set trackers.wandb.mode in the config",
        )
    if word:
        return _MODE_OF_WORD[word], f"WANDB_MODE={word}"
    return ("online", "key found") if has_key(environment) else ("offline", "no key found")


def has_key(environment: Mapping[str, str]) -> bool:
    """Return whether the user has a key for W&B, in the environment or the netrc file."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    home = Path(environment.get("HOME") or Path.home())
    named = environment.get("NETRC")
    for path in [Path(named).expanduser()] if named else [home / ".netrc", home / "_netrc"]:
        try:
            entry = netrc.netrc(path).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            continue
        if entry and entry[2]:
            return True
    return False


class WandbTracker(Tracker):
    """Sends records to W&B, online or into the run directory's folder `wandb`.

    Errors of W&B become warnings. Only a strict tracker raises, if it cannot start online.

    Args:
        config: The run's configuration.
        directory: The run directory, from which all records are read.
        mode: Online or offline; it changes to offline if the service cannot be reached.
        reason: Why this mode.
    """

    def __init__(
        self, config: RunConfig, directory: RunDirectory, mode: Literal["online", "offline"], reason: str
    ) -> None:
        self._config = config
        self._directory = directory
        self._client = open_client(config, directory, mode)
        self._set_mode(mode, reason)
        self._is_started = False
        self._pretrain: Any = None  # the open W&B run of pre-training
        self._n_sent = 0  # number of chunks in it

    def start_pretrain(self) -> None:
        """Open the W&B run of pre-training if chunks are missing, so that a failure shows before the work.

        A frozen backbone has none.

        Raises:
            UserError: Tracking is strict and the online start failed.
        """
        record = records.pretrain_record(self._config, self._directory)
        if not self._config.frozen and not record.is_complete and not self._client.has(record):
            self._attempt(lambda: self._open_pretrain(record))
        self._is_started = True

    def log_chunk(self, outcome: ChunkOutcome) -> None:
        """Send the chunks on disk that W&B lacks; `outcome` is the last of them."""
        record = records.pretrain_record(self._config, self._directory)
        self._attempt(lambda: self._send_chunks(record))

    def finish_pretrain(self) -> None:
        """Send the missing chunks and the figures over all chunks, and end the W&B run."""
        record = records.pretrain_record(self._config, self._directory)
        if record.is_complete and not self._client.has(record):
            self._attempt(lambda: self._finish_pretrain(record))

    def log_cell(self, benchmark: str, probe: str) -> None:
        """Send one cell as a W&B run of its own: the flat summary, the running accuracy, the table of episodes."""
        self.finish_pretrain()
        self._send(records.cell_record(self._config, self._directory, benchmark, probe))

    def log_transfer(self, name: str) -> None:
        """Send one transfer as a W&B run of its own: accuracy by size, the table of fits."""
        self.finish_pretrain()
        self._send(records.transfer_record(self._config, self._directory, name))

    def log_report(self, path: Path) -> None:
        """Send a report page and its image sheets as a W&B run of its own."""
        self._send(records.report_record(self._config, self._directory, path))

    def close(self) -> None:
        """End the open run, let W&B write its files, and record complete offline copies. Never raises."""
        self._attempt(self._close)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            with interruption_first(), environment(self._client.folder):
                action()
        except UserError:
            raise
        except Exception as error:
            _log.warning("W&B: %s; the run goes on, its records are in %s", one_line(error), self._directory.path)

    def _send(self, record: Record) -> None:
        if not self._client.has(record):
            self._attempt(lambda: self._send_now(record))

    def _send_now(self, record: Record) -> None:
        run = self._open(record.card, record.step_metric)
        self._client.send_rows(run, record.rows, first=run.starting_step)
        self._finish(run, record)

    def _open_pretrain(self, record: Record) -> None:
        self._pretrain = self._open(record.card, record.step_metric)
        self._n_sent = self._pretrain.starting_step
        if self._n_sent > len(record.rows):
            _log.warning(
                "W&B: run %s already has %d chunks, from another run directory with the same configuration",
                self._pretrain.id,
                self._n_sent,
            )

    def _send_chunks(self, record: Record) -> None:
        if self._pretrain is None:
            self._open_pretrain(record)
        self._client.send_rows(self._pretrain, record.rows, first=self._n_sent)
        self._n_sent = max(self._n_sent, len(record.rows))

    def _finish_pretrain(self, record: Record) -> None:
        self._send_chunks(record)
        run, self._pretrain = self._pretrain, None
        self._finish(run, record)

    def _open(self, card: Card, step_metric: str | None) -> Any:
        """Start a W&B run, offline if it does not start online."""
        try:
            return self._client.open(card, step_metric)
        except Exception as error:
            if self._client.mode == "offline":
                raise
            if self._config.trackers.wandb.strict:
                raise _no_online_start(one_line(error)) from error
            self._go_offline(f"{one_line(error)}; {self._way_out()}")
            self._client.forget_failed_start()
            return self._client.open(card, step_metric)

    def _finish(self, run: Any, record: Record) -> None:
        self._client.fill(run, record)
        try:
            self._client.finish(run, record)
        except TimeoutError:
            self._go_offline(f"{run.name}: the upload took over {FINISH_SECONDS:g} s; {self._way_out()}")
        except UploadError as error:
            _log.warning("W&B: %s arrived incomplete, %s: %s", run.name, self._way_out(), error)

    def _way_out(self) -> str:
        """Return the command that completes an upload, since a finished run is not run again."""
        return f"'lurefs push {self._directory.path}' completes it"

    def _close(self) -> None:
        run, self._pretrain = self._pretrain, None
        if run is not None:
            run.finish(exit_code=1)
        self._client.close()

    def _set_mode(self, mode: Literal["online", "offline"], reason: str) -> None:
        self._client.mode = mode
        where = f"project {self._client.project}" if mode == "online" else f"files in {self._client.folder}"
        self.note = f"W&B: {mode} ({reason}); {where}"

    def _go_offline(self, reason: str) -> None:
        self._set_mode("offline", reason)
        if self._is_started:  # before, the caller has not shown the note
            _log.warning("%s", self.note)


def open_client(config: RunConfig, directory: RunDirectory, mode: Literal["online", "offline"]) -> Client:
    """Return the client for a run directory; it takes an agent's run from the environment."""
    path = directory.path / AGENT_FILE
    agent = take_agent_run(config, os.environ)
    if agent is not None:
        write_agent_run(path, agent)
    settings = config.trackers.wandb
    return Client(
        directory.path,
        project=settings.project,
        entity=settings.entity,
        mode=mode,
        agent=agent or read_agent_run(path),
    )


def _no_online_start(reason: str) -> UserError:
    return UserError(
        f"W&B did not start online: {reason}",
        "a server that answers and accepts the key, because trackers.wandb.strict is true",
        "run 'wandb login', or set trackers.wandb.mode=offline or trackers.wandb.strict=false",
    )
