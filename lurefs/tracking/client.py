"""How wandb is called: where its files go, how a W&B run is opened, filled and ended. Errors are the caller's to judge.

wandb is imported when a run is opened. What it leaves on disk stays below the run directory's folder `wandb`.
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
from lurefs.tracking.labels import Card
from lurefs.tracking.records import Chart, Record, Table

START_SECONDS = 20.0
"""How long an online start may take before it counts as failed."""
FINISH_SECONDS = 60.0
"""How long the end of one W&B run may wait for its upload."""


class UploadError(Exception):
    """A W&B run did not arrive whole; to send it again completes it."""


class Client:
    """Opens W&B runs of one run directory, and knows which offline copies of them are complete.

    Args:
        home: Where the folder `wandb` is or will be.
        project: At W&B.
        entity: The user or team; None for the key's default.
        mode: Where to; it may be changed between two runs.
        agent: The run that an agent's sweep waits for.
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
        self._sent: dict[str, str] = {}  # by id, the digest of what this process sent
        self._written: dict[str, str] = {}  # the same, of offline copies alone

    def has(self, record: Record) -> bool:
        """Say whether this process sent the record, or an offline copy of it is complete.

        What an earlier process sent online is known to the service alone, which is asked when the run is opened.
        """
        run_id = self.id_of(record.card)
        if self._sent.get(run_id) == record.digest:
            return True
        kept = self.mode == "offline" and self._read_marker().get(run_id) == record.digest
        return kept and any(self.folder.glob(f"offline-run-*-{run_id}"))

    def id_of(self, card: Card) -> str:
        """Return the id at W&B: the card's, or the agent's for the run that its sweep waits for."""
        return self._agent.run_id if self._is_agents(card) and self._agent else card.id

    def open(self, card: Card, step_metric: str | None) -> Any:
        """Start a W&B run, or go on with it, in place of what earlier processes left of it on this disk."""
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
        """Send what a record holds beside its curves."""
        import wandb

        run.config.update(record.card.config, allow_val_change=True)
        content: Row = dict(record.summary)
        content |= {key: _table(table) for key, table in record.tables.items()}
        content |= {key: wandb.Html(page, inject=False) for key, page in record.pages.items()}
        content |= {key: wandb.Image(str(path)) for key, path in record.images.items()}
        run.summary.update(content)
        if run.starting_step == 0:  # a chart is a row of the history, and would be there twice
            for key, chart in record.charts.items():
                run.log({key: _chart(run, chart)})
        for weights in record.weights:
            artifact = wandb.Artifact(f"{record.card.id}-weights", type="model", metadata=weights.metadata)
            artifact.add_file(str(weights.path), policy="immutable", skip_cache=True)
            run.log_artifact(artifact, aliases=[weights.alias])  # wandb itself calls the newest one `latest`

    def finish(self, run: Any, record: Record) -> None:
        """End a W&B run; one that is not complete counts as stopped, and is gone on with later.

        Raises:
            TimeoutError: The upload took over `FINISH_SECONDS`.
            UploadError: The service refused a part of it.
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
        """Let wandb write its files, and note down which offline copies are complete."""
        import wandb

        if wandb.run is not None:  # the caller's process has a run of its own, and the service belongs to both
            return
        wandb.teardown()  # only now is the log on disk: finish() returns earlier
        if self._written:
            self._write_marker({**self._read_marker(), **self._written})
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        if not any(self.folder.glob("offline-run-*")):  # offline copies need what was staged for them
            shutil.rmtree(self.folder / "artifacts", ignore_errors=True)

    def forget_failed_start(self) -> None:
        """End wandb's service, which still holds the id of a run that did not start."""
        import wandb

        if wandb.run is None:
            wandb.teardown()

    def drop_local_copies(self, card: Card) -> None:
        """Remove what an earlier process left of a run: `wandb sync` of two copies would double the rows."""
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
            name=card.name,
            group=card.group,
            job_type=card.job_type,
            tags=card.tags,
            config={**card.config, **(agent.parameters if agent else {})},
            mode=self.mode,
            resume="allow" if self.mode == "online" else None,
            reinit="create_new",
            settings=_client_settings(agent.sweep_id if agent else None),
        )

    def _read_marker(self) -> dict[str, str]:
        """Return, by id, the digest of what a complete offline copy holds."""
        try:
            return {str(key): str(value) for key, value in json.loads(self._marker_path.read_text()).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def _write_marker(self, marker: Mapping[str, str]) -> None:
        write_text(self._marker_path, json.dumps(marker, indent=1) + "\n")


@contextmanager
def environment(folder: Path) -> Iterator[None]:
    """Keep wandb's files in a folder while it is called, and hide what it trips over; afterwards all is as it was.

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


def one_line(error: Exception) -> str:
    """Return the name and the first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _table(table: Table) -> Any:
    import wandb

    return wandb.Table(list(table.columns), [list(row) for row in table.rows])


def _chart(run: Any, chart: Chart) -> Any:
    """Return a chart of a table by a specification that is stored with the entity, which this does the first time."""
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
        **({"sweep_id": sweep_id} if sweep_id else {}),
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
