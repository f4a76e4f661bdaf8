"""Weights & Biases as a mirror of the run directory: a run never depends on its tracker, and can be sent again.

One W&B run holds the chunks of pre-training, one each a cell (benchmark and probe), one the report. Their ids follow
from the configuration and all that is sent is read from the directory, so that a rerun goes on where the last one was
stopped. wandb is imported when a tracker starts.
"""

from __future__ import annotations

import json
import logging
import netrc
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from episodes.files import write_text
from episodes.table import COLUMNS, EpisodeTable
from lurefs import mirror
from lurefs.config import RunConfig, digest
from lurefs.errors import UserError
from lurefs.mirror import Card, Row
from lurefs.outcomes import ChunkOutcome
from lurefs.results import RunDirectory, damaged

Mode = Literal["online", "offline", "disabled"]

START_SECONDS = 20.0
"""How long an online start may take before the run goes on offline."""
FINISH_SECONDS = 60.0
"""How long the end of one W&B run may wait for its upload."""

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
    """Receives the records of a run. This one keeps nothing.

    Args:
        note: One line for the user: where the records go, and why there.
    """

    def __init__(self, note: str) -> None:
        self.note = note

    def log_chunk(self, outcome: ChunkOutcome) -> None:
        """Take a chunk whose outcome is on disk."""

    def finish_pretrain(self) -> None:
        """Take note that all chunks are done."""

    def log_cell(self, benchmark: str, probe: str) -> None:
        """Take the summary and the per-episode results of one probe on one benchmark."""

    def log_report(self, path: Path) -> None:
        """Take a report page."""

    def close(self) -> None:
        """End the tracking; a second call does nothing. Never raises."""


def start(config: RunConfig, directory: RunDirectory) -> Tracker:
    """Return the tracker that the configuration and the user's environment ask for.

    Raises:
        UserError: `WANDB_MODE` has no known value; or tracking is strict and the online start failed.
    """
    settings = config.trackers.wandb
    mode, reason = choose_mode(settings.mode, os.environ)
    if mode == "disabled":
        return Tracker(f"W&B: disabled ({reason})")
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        if settings.strict and mode == "online":
            raise _no_online_start(_one_line(error)) from error
        return Tracker("W&B: not installed; the records are in the run directory alone")
    if mode == "online" and not has_key(os.environ):
        if settings.strict:
            raise _no_online_start("no API key was found")
        mode, reason = "offline", "no key found"
    tracker = WandbTracker(config, directory, mode, reason)
    tracker.start_pretrain()
    return tracker


def choose_mode(configured: str, environment: Mapping[str, str]) -> tuple[Mode, str]:
    """Return the mode and, in a few words, what decided it.

    A mode in the configuration wins; `auto` follows `WANDB_DISABLED`, then `WANDB_MODE`, then whether there is a key.
    Empty variables mean unset.

    Raises:
        UserError: `WANDB_MODE` has a value that W&B does not know.
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
    """Say whether the user has a key for W&B: in the environment, or in the netrc file for W&B's address."""
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
    """Feeds W&B, online or into the run directory's folder `wandb`.

    W&B's errors are told and cost the mirror, never the run; only a strict tracker raises, when it cannot start online.

    Args:
        config: The run's configuration.
        directory: The run directory, from which all is read that is sent.
        mode: Where to; it turns to `offline` when the service cannot be reached.
        reason: Why this mode.
    """

    def __init__(
        self, config: RunConfig, directory: RunDirectory, mode: Literal["online", "offline"], reason: str
    ) -> None:
        self._config = config
        self._directory = directory
        self._folder = directory.path / "wandb"
        self._marker_path = self._folder / "mirrored.json"
        self._set_mode(mode, reason)
        self._is_started = False
        self._pretrain: Any = None  # the open W&B run of pre-training
        self._n_sent = 0  # how many chunks it holds
        self._sent: dict[str, str] = {}  # by id, the digest of what this process sent
        self._written: dict[str, str] = {}  # the same, of offline copies alone

    def start_pretrain(self) -> None:
        """Open the W&B run of pre-training if chunks are still to come, so that a failure shows before the work.

        Raises:
            UserError: Tracking is strict and the online start failed.
        """
        outcomes = self._directory.read_outcomes()
        n_chunks = self._config.chunks.n_chunks
        is_complete = n_chunks is not None and len(outcomes) >= n_chunks
        if not is_complete and not self._is_mirrored(self._pretrain_card(outcomes).id, outcomes):
            self._attempt(lambda: self._open_pretrain(outcomes))
        self._is_started = True

    def log_chunk(self, outcome: ChunkOutcome) -> None:
        """Send the chunks on disk that W&B does not have yet; `outcome` is the last of them."""
        outcomes = self._directory.read_outcomes()
        self._attempt(lambda: self._send_outcomes(outcomes))

    def finish_pretrain(self) -> None:
        """Send what is missing, the figures over all chunks, and end the W&B run."""
        outcomes = self._directory.read_outcomes()
        if outcomes and not self._is_mirrored(self._pretrain_card(outcomes).id, outcomes):
            self._attempt(lambda: self._finish_pretrain(outcomes))

    def log_cell(self, benchmark: str, probe: str) -> None:
        """Send one cell as a W&B run of its own: the flat summary, the running accuracy, the table of episodes."""
        self.finish_pretrain()
        summary = self._directory.read_summary()
        table = self._directory.read_episodes(benchmark, probe)
        card = mirror.cell_card(self._config, self._read_identity(), summary, benchmark, probe)
        figures = mirror.cell_summary(summary, benchmark, probe, self._directory.read_outcomes())
        content = [figures, table.accuracy.tolist()]
        if not self._is_mirrored(card.id, content):
            self._attempt(lambda: self._send_cell(card, figures, table, content))

    def log_report(self, path: Path) -> None:
        """Send a report page as a W&B run of its own."""
        page = path.read_text(encoding="utf-8")
        card = mirror.report_card(self._config, self._read_identity())
        if not self._is_mirrored(card.id, page):
            self._attempt(lambda: self._send_report(card, page))

    def close(self) -> None:
        """End what is open, let W&B write its files, and note down which offline copies are complete. Never raises."""
        self._attempt(self._close)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            with _environment(self._folder):
                action()
        except UserError:
            raise
        except Exception as error:
            _log.warning("W&B: %s; the run goes on, its records are in %s", _one_line(error), self._directory.path)

    def _open_pretrain(self, outcomes: Sequence[ChunkOutcome]) -> None:
        self._pretrain = self._open(self._pretrain_card(outcomes), step_metric="chunk_index")
        self._n_sent = self._pretrain.starting_step
        if self._n_sent > len(outcomes):
            _log.warning(
                "W&B: run %s already holds %d chunks, of another run directory with the same configuration",
                self._pretrain.id,
                self._n_sent,
            )

    def _send_outcomes(self, outcomes: Sequence[ChunkOutcome]) -> None:
        if self._pretrain is None:
            self._open_pretrain(outcomes)
        for row in mirror.chunk_rows(outcomes)[self._n_sent :]:
            self._pretrain.log(row, step=row["chunk_index"])
        self._n_sent = max(self._n_sent, len(outcomes))

    def _finish_pretrain(self, outcomes: Sequence[ChunkOutcome]) -> None:
        self._send_outcomes(outcomes)
        run, self._pretrain = self._pretrain, None
        run.config.update(self._pretrain_card(outcomes).config, allow_val_change=True)
        run.summary.update(mirror.pretrain_summary(outcomes))
        self._finish(run, outcomes)

    def _send_cell(self, card: Card, figures: Row, table: EpisodeTable, content: object) -> None:
        import wandb

        episodes = wandb.Table(list(COLUMNS), mirror.episode_rows(table))
        curve = mirror.running_accuracy(table)
        run = self._open(card, step_metric="episode")
        for step, row in list(enumerate(curve))[run.starting_step :]:
            run.log(row, step=step)
        run.summary.update({**figures, "episodes": episodes})
        self._finish(run, content)

    def _send_report(self, card: Card, page: str) -> None:
        import wandb

        run = self._open(card)
        run.summary["report"] = wandb.Html(page, inject=False)
        self._finish(run, page)

    def _open(self, card: Card, *, step_metric: str | None = None) -> Any:
        """Start a W&B run in place of what earlier processes left of it on this disk."""
        import wandb

        self._drop_local_copies(card.id)
        try:
            run = self._init(card)
        except Exception as error:
            if self._mode == "offline":
                raise
            if self._config.trackers.wandb.strict:
                raise _no_online_start(_one_line(error)) from error
            self._go_offline(_one_line(error))
            if wandb.run is None:
                wandb.teardown()  # its service still holds the id of the run that did not start
            self._drop_local_copies(card.id)
            run = self._init(card)
        if step_metric is not None:
            run.define_metric(step_metric)
            run.define_metric("*", step_metric=step_metric)
        return run

    def _init(self, card: Card) -> Any:
        import wandb

        return wandb.init(
            project=self._config.trackers.wandb.project,
            entity=self._config.trackers.wandb.entity,
            dir=self._directory.path,
            id=card.id,
            name=card.name,
            group=card.group,
            job_type=card.job_type,
            tags=mirror.tags(self._config),
            config=card.config,
            mode=self._mode,
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",
            settings=_client_settings(),
        )

    def _finish(self, run: Any, content: object) -> None:
        self._sent[run.id] = digest(content)
        try:
            run.finish()
        except TimeoutError:
            self._go_offline(f"{run.name}: the upload took over {FINISH_SECONDS:g} s; run again to complete it")
            return
        if run.offline:
            self._written[run.id] = digest(content)
        elif (error := _fatal_error(Path(run.settings.log_internal))) is not None:
            _log.warning("W&B: %s did not arrive whole, run again to complete it: %s", run.name, error)

    def _close(self) -> None:
        import wandb

        run, self._pretrain = self._pretrain, None
        if run is not None:
            run.finish(exit_code=1)
        if wandb.run is not None:  # the caller's process has a run of its own, and the service belongs to both
            return
        wandb.teardown()  # only now is the log on disk: finish() returns earlier
        self._write_marker({**self._read_marker(), **self._written})
        shutil.rmtree(self._folder / "cache", ignore_errors=True)
        if not any(self._folder.glob("offline-run-*")):  # offline copies need what was staged for them
            shutil.rmtree(self._folder / "artifacts", ignore_errors=True)

    def _set_mode(self, mode: Literal["online", "offline"], reason: str) -> None:
        self._mode = mode
        where = f"project {self._config.trackers.wandb.project}" if mode == "online" else f"files in {self._folder}"
        self.note = f"W&B: {mode} ({reason}); {where}"

    def _go_offline(self, reason: str) -> None:
        self._set_mode("offline", reason)
        if self._is_started:  # before, the caller has not shown the note yet
            _log.warning("%s", self.note)

    def _pretrain_card(self, outcomes: Sequence[ChunkOutcome]) -> Card:
        return mirror.pretrain_card(self._config, self._read_identity(), outcomes)

    def _read_identity(self) -> dict[str, Any]:
        path = self._directory.identity_path
        try:
            identity: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except json.JSONDecodeError as error:
            raise damaged(path, str(error)) from error
        return identity

    def _drop_local_copies(self, run_id: str) -> None:
        """Remove what an earlier process left under this id: `wandb sync` of two copies would double the rows."""
        marker = self._read_marker()
        if marker.pop(run_id, None) is not None:
            self._write_marker(marker)
        for folder in self._folder.glob(f"*run-*-{run_id}"):
            if re.fullmatch(rf"(offline-)?run-\d+_\d+-{re.escape(run_id)}", folder.name):
                shutil.rmtree(folder, ignore_errors=True)

    def _is_mirrored(self, run_id: str, content: object) -> bool:
        """Say whether this process sent the content, or an offline copy of it is complete.

        What an earlier process sent online is known to the service alone, which is asked when the run is opened.
        """
        wanted = digest(content)
        if self._sent.get(run_id) == wanted:
            return True
        kept = self._mode == "offline" and self._read_marker().get(run_id) == wanted
        return kept and any(self._folder.glob(f"offline-run-*-{run_id}"))

    def _read_marker(self) -> dict[str, str]:
        """Return, by id, the digest of what a complete offline copy holds."""
        try:
            return {str(key): str(value) for key, value in json.loads(self._marker_path.read_text()).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def _write_marker(self, marker: Mapping[str, str]) -> None:
        write_text(self._marker_path, json.dumps(marker, indent=1) + "\n")


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Keep wandb's files together while it is called, and hide what it trips over; afterwards all is as it was.

    Only these variables say where artifacts are staged and cached, that its first steps are silent and call no git, and
    that it does not report on itself over the network, which it would do offline as well. Its service inherits them.
    An empty variable makes wandb fail.
    """
    hidden = [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value]
    chosen = {
        "WANDB_SILENT": "true",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_DATA_DIR": str(folder),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_ERROR_REPORTING": os.environ.get("WANDB_ERROR_REPORTING") or "false",
    }
    before = {name: os.environ.get(name) for name in (*hidden, *chosen)}
    for name in hidden:
        del os.environ[name]
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _client_settings() -> Any:
    """Return wandb's settings: silent, nothing gathered beside what is sent, no wait without end."""
    import wandb

    wanted: dict[str, Any] = {
        "silent": True,
        "console": "off",
        "disable_code": True,
        "disable_git": True,
        "x_disable_stats": True,
        "x_disable_machine_info": True,
        "x_disable_meta": True,
        "x_save_requirements": False,
        "x_graphql_retry_wait_min_seconds": 1,
        "x_file_stream_retry_wait_min_seconds": 1,
        "init_timeout": START_SECONDS,
        "login_timeout": START_SECONDS,
        "finish_timeout": FINISH_SECONDS,
        "finish_timeout_raises": True,
    }
    known = wandb.Settings.model_fields  # they come and go with wandb's versions
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})


def _fatal_error(log_path: Path) -> str | None:
    """Return what made wandb give up on an upload, of which `finish` says nothing; None if nothing did."""
    try:
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    fatal = [line for line in lines if '"level":"ERROR+4"' in line]
    return str(json.loads(fatal[0]).get("msg")) if fatal else None


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _no_online_start(reason: str) -> UserError:
    return UserError(
        f"W&B did not start online: {reason}",
        "a server that answers and a key that it accepts, because trackers.wandb.strict is true",
        "run 'wandb login', or set trackers.wandb.mode=offline or trackers.wandb.strict=false",
    )
