"""Client of wandb: opens, fills and ends W&B runs. The caller handles its errors.

wandb is imported when a run is opened. Its files on disk stay below the run directory's folder `wandb`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from episodes.files import write_text
from lurefs.records import Row
from lurefs.tracking.agent import AgentRun
from lurefs.tracking.labels import Card, fitting
from lurefs.tracking.records import Chart, Record, Table

START_SECONDS = 20.0
"""How long an online start may take before it counts as failed."""
FINISH_SECONDS = 60.0
"""How long the end of one W&B run may wait for its upload."""


class UploadError(Exception):
    """A W&B run arrived incomplete; sending it again completes it."""


class Client:
    """Opens the W&B runs of one run directory, and records which offline copies are complete.

    Args:
        home: Parent of the folder `wandb`.
        project: The project at W&B.
        entity: The user or team; None for the key's default.
        mode: Online or offline; it may change between two runs.
        agent: The run for which an agent's sweep waits.
    """

    def __init__(
        self,
        home: Path,
        *,
        project: str,
        entity: str | None,
        mode: Literal["online", "offline"],
        agent: AgentRun | None = None,
    ) -> None:
        self.mode = mode
        self.folder = home / "wandb"
        self.project = (agent and agent.project) or project
        self._entity = (agent and agent.entity) or entity
        self._home = home
        self._agent = agent
        self._marker_path = self.folder / "mirrored.json"
        self._sent: dict[str, str] = {}  # id -> digest of what this process sent
        self._written: dict[str, str] = {}  # the same for offline copies only

    def has(self, record: Record) -> bool:
        """Return whether this process sent the record, or a complete offline copy of it exists.

        Only the service knows what earlier processes sent online; it is asked when the run is opened.
        """
        run_id = self.id_of(record.card)
        if self._sent.get(run_id) == record.digest:
            return True
        kept = self.mode == "offline" and self._read_marker().get(run_id) == record.digest
        return kept and any(self.folder.glob(f"offline-run-*-{run_id}"))

    def id_of(self, card: Card) -> str:
        """Return the id at W&B: the agent's for the run of its sweep, otherwise the card's."""
        return self._agent.run_id if self._is_agents(card) and self._agent else card.id

    def open(self, card: Card, step_metric: str | None) -> Any:
        """Start or resume a W&B run; local copies from earlier processes are removed."""
        self.drop_local_copies(card)
        run = self._init(card)
        if step_metric is not None:
            run.define_metric(step_metric)
            run.define_metric("*", step_metric=step_metric)
        return run

    def send_rows(self, run: Any, rows: Sequence[Row], *, first: int) -> None:
        """Send the points of a run's curves from the number `first` on."""
        for step, row in list(enumerate(rows))[first:]:
            run.log(row, step=step)

    def fill(self, run: Any, record: Record) -> None:
        """Send everything in a record except its curves."""
        import wandb

        run.config.update(record.card.config, allow_val_change=True)
        content: Row = dict(record.summary)
        content |= {key: _table(table) for key, table in record.tables.items()}
        content |= {key: wandb.Html(page, inject=False) for key, page in record.pages.items()}
        content |= {key: wandb.Image(str(path)) for key, path in record.images.items()}
        run.summary.update(content)
        if run.starting_step == 0:  # a chart is a row of the history, and would appear twice
            for key, chart in record.charts.items():
                run.log({key: _chart(run, chart)})
        for weights in record.weights:
            artifact = wandb.Artifact(f"{record.card.id}-weights", type="model", metadata=weights.metadata)
            artifact.add_file(str(weights.path), policy="immutable", skip_cache=True)
            run.log_artifact(artifact, aliases=[weights.alias])  # wandb itself calls the newest one `latest`

    def finish(self, run: Any, record: Record) -> None:
        """End a W&B run; an incomplete one is marked as stopped, and can be resumed.

        Raises:
            TimeoutError: The upload took over `FINISH_SECONDS`.
            UploadError: The service rejected a part of it.
        """
        if record.is_complete:
            self._sent[run.id] = record.digest
        run.finish(exit_code=0 if record.is_complete else 1)
        if run.offline:
            if record.is_complete:
                self._written[run.id] = record.digest
        elif (error := _fatal_error(Path(run.settings.log_internal))) is not None:
            raise UploadError(error)

    def close(self) -> None:
        """Let wandb write its files, and record which offline copies are complete."""
        import wandb

        if wandb.run is not None:  # the caller's process has its own run, and shares the service
            return
        wandb.teardown()  # only now is the log on disk: finish() returns earlier
        if self._written:
            self._write_marker({**self._read_marker(), **self._written})
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        for link in self.folder.glob("*run-*/logs/*"):  # links into the cache: copies of a run would fail
            if link.is_symlink() and not link.exists():
                link.unlink()
        if self._marker_path.is_file():
            for staged in self.folder.glob("artifacts/staging/*"):  # wandb gives these to the owner alone
                staged.chmod(self._marker_path.stat().st_mode)
        if not any(self.folder.glob("offline-run-*")):  # offline copies need their staged artifacts
            shutil.rmtree(self.folder / "artifacts", ignore_errors=True)

    def forget_failed_start(self) -> None:
        """Stop wandb's service, which still holds the id of a run that did not start."""
        import wandb

        if wandb.run is None:
            wandb.teardown()

    def drop_local_copies(self, card: Card) -> None:
        """Remove local copies of a run from earlier processes: `wandb sync` of two copies would double the rows."""
        run_id = self.id_of(card)
        marker = self._read_marker()
        if marker.pop(run_id, None) is not None:
            self._write_marker(marker)
        for folder in self.folder.glob(f"*run-*-{run_id}"):
            if re.fullmatch(rf"(offline-)?run-\d+_\d+-{re.escape(run_id)}", folder.name):
                shutil.rmtree(folder, ignore_errors=True)

    def _is_agents(self, card: Card) -> bool:
        return self._agent is not None and self._agent.card_id == card.id

    def _init(self, card: Card) -> Any:
        import wandb

        agent = self._agent if self._is_agents(card) else None
        return wandb.init(
            project=self.project,
            entity=self._entity,
            dir=self._home,
            id=self.id_of(card),
            name=fitting(card.name),
            group=fitting(card.group),
            job_type=card.job_type,
            tags=card.tags,
            config={**card.config, **(agent.parameters if agent else {})},
            mode=self.mode,
            resume="allow" if self.mode == "online" else None,
            reinit="create_new",
            settings=_client_settings(agent.sweep_id if agent else None),
        )

    def _read_marker(self) -> dict[str, str]:
        """Return id -> digest of the content of each complete offline copy."""
        try:
            return {str(key): str(value) for key, value in json.loads(self._marker_path.read_text()).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def _write_marker(self, marker: Mapping[str, str]) -> None:
        write_text(self._marker_path, json.dumps(marker, indent=1) + "\n")


@contextmanager
def environment(folder: Path) -> Iterator[None]:
    """Set the environment variables of wandb while it is called, and restore them afterwards.

    Only variables set where artifacts are staged and cached, keep its first steps silent and without git, and turn off
    its error reports over the network, which it would send offline too. Its service inherits them. Empty variables are
    hidden, since they make wandb fail.
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


def one_line(error: Exception) -> str:
    """Return the name and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _table(table: Table) -> Any:
    import wandb

    return wandb.Table(list(table.columns), [list(row) for row in table.rows])


def _chart(run: Any, chart: Chart) -> Any:
    """Return a chart of a table, and store its specification with the entity if it is not there yet."""
    import wandb

    with suppress(wandb.Error):  # it is there already
        wandb.Api().create_custom_chart(
            entity=run.entity,
            name=chart.name,
            display_name=chart.title,
            spec_type="vega2",
            access="private",
            spec=dict(chart.spec),
        )
    fields = {column: column for column in chart.table.columns}
    return wandb.plot_table(f"{run.entity}/{chart.name}", _table(chart.table), fields, {"title": chart.title})


def _client_settings(sweep_id: str | None) -> Any:
    """Return wandb's settings: silent, no data beyond the records, limited waiting times."""
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
        **({"sweep_id": sweep_id} if sweep_id else {}),
    }
    known = wandb.Settings.model_fields  # they come and go with wandb's versions
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})


def _fatal_error(log_path: Path) -> str | None:
    """Return the error by which wandb gave up an upload, which `finish` does not raise; None if there is none."""
    try:
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    fatal = [line for line in lines if '"level":"ERROR+4"' in line]
    return str(json.loads(fatal[0]).get("msg")) if fatal else None
