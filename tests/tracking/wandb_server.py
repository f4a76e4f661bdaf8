"""A small loopback server that the real W&B client talks to: it keeps what arrives, and fails where it is told to.

It shows what the client sends, not that the service accepts or renders it. Requests that it does not know are kept in
`unknown`. Written against wandb 0.31.0.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "loopback"
JSON = "application/json"


@dataclass
class ServedRun:
    """A run as the server knows it."""

    id: str
    project: str
    attributes: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, dict[int, str]] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        lines = self.lines.get("wandb-history.jsonl", {})
        return [json.loads(lines[offset]) for offset in sorted(lines)]

    @property
    def user_config(self) -> dict[str, Any]:
        return {key: entry["value"] for key, entry in self.config.items() if key != "_wandb"}


@dataclass
class ServedArtifact:
    """An artifact as the server knows it."""

    id: str
    type: str
    name: str
    digest: str
    aliases: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


@dataclass
class _Fault:
    what: str
    status: int
    times: int


class WandbServer:
    """Serves on a free port of 127.0.0.1 while the `with` block runs.

    Attributes:
        runs: By id.
        artifacts: In the order of their creation.
        charts: The chart specifications that are stored, by name.
        views: The workspaces and reports that are stored, by name.
        requests: The GraphQL operation or path of each request.
        unknown: Requests that the server does not know.
        is_away: While true, every connection is dropped.
        page: While set, every answer is this page of a proxy, with status 200.
        delay: Seconds before each answer.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ServedRun] = {}
        self.artifacts: list[ServedArtifact] = []
        self.charts: dict[str, dict[str, Any]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.unknown: list[str] = []
        self.is_away = False
        self.page: bytes | None = None
        self.delay = 0.0
        self._faults: list[_Fault] = []
        self._lock = threading.RLock()

    def __enter__(self) -> WandbServer:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def fail(self, what: str, status: int, times: int = 10**9) -> None:
        """Answer the next `times` requests whose operation or path contains `what` with `status`."""
        self._faults.append(_Fault(what, status, times))

    def work_again(self) -> None:
        """End all faults."""
        self._faults, self.page, self.delay, self.is_away = [], None, 0.0, False

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes, str]:
        """Return status, body and content type."""
        with self._lock:
            route = urllib.parse.urlparse(path).path
            query = json.loads(body) if route == "/graphql" else {}
            label = _operation(query) if query else route
            self.requests.append(label)
            if self.page is not None:
                return 200, self.page, "text/html"
            for fault in self._faults:
                if fault.times > 0 and fault.what in label:
                    fault.times -= 1
                    return fault.status, json.dumps({"errors": [{"message": "injected"}]}).encode(), JSON
            if query:
                return 200, json.dumps(self._graphql(label, query.get("variables") or {})).encode(), JSON
            return self._other(method, route, body)

    def _graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        answer = getattr(self, f"_on_{operation}", None)
        if answer is None:
            self.unknown.append(operation)
            return {"errors": [{"message": f"unknown operation {operation}"}]}
        return {"data": answer(variables)}

    def _other(self, method: str, route: str, body: bytes) -> tuple[int, bytes, str]:
        if match := re.fullmatch(r"/files/[^/]*/[^/]*/([^/]*)/file_stream", route):
            return 200, json.dumps(self._file_stream(self.runs[match[1]], json.loads(body))).encode(), JSON
        if match := re.fullmatch(r"/storage/artifact/(\d+)/(.+)", route):
            self.artifacts[int(match[1])].files[urllib.parse.unquote(match[2])] = body
            return 200, b"", "text/plain"
        if route.startswith("/storage/run/"):
            return 200, b"", "text/plain"
        self.unknown.append(f"{method} {route}")
        return 404, b"{}", JSON

    def _file_stream(self, run: ServedRun, request: dict[str, Any]) -> dict[str, Any]:
        for name, chunk in request.get("files", {}).items():
            lines = run.lines.setdefault(name, {})
            lines.update({chunk["offset"] + i: line for i, line in enumerate(chunk["content"])})
            if name == "wandb-summary.json":
                run.summary = json.loads(chunk["content"][-1])
        if request.get("complete"):
            run.exit_code = request.get("exitcode")
        return {"exitcode": None, "limits": {}, "stopped": False}

    def _on_Viewer(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        user = {
            "id": "1",
            "entity": ENTITY,
            "username": "u",
            "email": "u@example.invalid",
            "flags": "{}",
            "teams": teams,
        }
        return {"viewer": user}

    _on_GetDefaultEntity = _on_GetViewer = _on_Viewer  # noqa: N815

    def _on_ServerFeaturesQuery(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def _on_RunStoppedStatus(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"project": {"run": {"stopped": False}}}

    def _on_UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run_id = variables.get("name") or variables["id"]
        is_new = run_id not in self.runs
        run = self.runs.setdefault(run_id, ServedRun(run_id, variables.get("project") or "uncategorized"))
        given = {key: value for key, value in variables.items() if value is not None}
        run.attributes |= {
            key: given[key] for key in ("displayName", "groupName", "jobType", "tags", "sweep") if key in given
        }
        if "config" in given:
            run.config = json.loads(given["config"])
        if "summaryMetrics" in given:
            run.summary = json.loads(given["summaryMetrics"])
        bucket = {
            "id": _encode(f"Run:{run_id}"),
            "name": run_id,
            "displayName": run.attributes.get("displayName", run_id),
            "config": json.dumps(run.config),
            "historyLineCount": len(run.history),
            "sweepName": run.attributes.get("sweep"),
            "project": _project(run.project),
        }
        return {"upsertBucket": {"inserted": is_new, "bucket": bucket}}

    def _on_RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.get(variables["name"])
        project = _project(variables.get("project") or "")
        if run is None:
            return {"model": {**project, "bucket": None}}
        bucket = {
            "id": _encode(f"Run:{run.id}"),
            "name": run.id,
            "displayName": run.attributes.get("displayName", run.id),
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.history),
            "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "config": json.dumps(run.config),
            "tags": run.attributes.get("tags", []),
            "wandbConfig": json.dumps({"t": {"value": 1}}),
        }
        return {"model": {**project, "bucket": bucket}}

    def _on_CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run_id = variables["run"]
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/run/{run_id}/file"} for name in variables["files"]]
        return {"createRunFiles": {"runID": _encode(f"Run:{run_id}"), "uploadHeaders": [], "files": files}}

    def _on_ArtifactType(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = variables["name"].partition(":")[0]
        types = [artifact.type for artifact in self.artifacts if artifact.name == name]
        return {"project": {"artifact": {"artifactType": {"name": types[0]}} if types else None}}

    def _on_CreateArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        given = variables["input"]
        name = given.get("artifactCollectionName") or given["artifactCollectionNames"][0]
        for artifact in self.artifacts:
            if (artifact.name, artifact.digest, artifact.committed) == (name, given["digest"], True):
                return _created(artifact, "COMMITTED")
        artifact = ServedArtifact(
            id=str(len(self.artifacts)),
            type=given["artifactTypeName"],
            name=name,
            digest=given["digest"],
            aliases=[alias["alias"] for alias in given.get("aliases") or []],
            metadata=json.loads(given.get("metadata") or "{}"),
        )
        self.artifacts.append(artifact)
        return _created(artifact, "PENDING")

    def _on_CreateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        url = f"{self.url}/storage/artifact/{variables['artifactID']}/wandb_manifest.json"
        file = {"id": "file", "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "manifest", "file": file}}}

    def _on_CreateArtifactFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        nodes = [
            {
                "storagePath": f"stored/{file['name']}",
                "uploadUrl": f"{self.url}/storage/artifact/{file['artifactID']}/{urllib.parse.quote(file['name'])}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for file in variables.get("input", variables)["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _on_CommitArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        artifact = self.artifacts[int(variables["artifactID"])]
        artifact.committed = True
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    def _on_CreateCustomChart(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        given = variables.get("input", variables)
        name = given.get("name") or given["chartName"]
        self.charts[name] = json.loads(given["spec"])
        return {"createCustomChart": {"chart": {"id": f"{ENTITY}/{name}"}}}

    def _on_UpsertView2(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        known = [name for name, view in self.views.items() if view["id"] == variables.get("id")]
        name = known[0] if known else variables["name"]
        view = {
            "id": (known and variables["id"]) or _encode(f"View:{len(self.views)}"),
            "name": name,
            "type": variables["type"],
            "displayName": variables["displayName"],
            "description": variables["description"],
            "project": {"id": "1", "name": variables["projectName"], "entityName": variables["entityName"]},
            "spec": variables["spec"],
            "createdAt": "2026-01-01T00:00:00",
            "updatedAt": "2026-01-01T00:00:00",
        }
        self.views[name] = view
        return {"upsertView": {"inserted": not known, "view": view}}

    _on_upsertView = _on_UpsertView2  # noqa: N815

    def _on_View(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        found = [view for view in self.views.values() if view["type"] == variables["viewType"]]
        named = [view for view in found if variables.get("viewName") in (None, view["name"])]
        return {"project": {"allViews": _page([{**view, "user": None} for view in named])}}

    def _on_ProjectViews(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self._on_View({"viewType": "runs", **variables})

    def _on_GetProjects(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        names = sorted({run.project for run in self.runs.values()})
        return {"models": _page([{"__typename": "Project", **_listed(name)} for name in names])}

    def _on_UseArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"useArtifact": {"artifact": {"id": variables["input"]["artifactID"]}}}


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            time.sleep(server.delay)
            if server.is_away:
                self.close_connection = True
                return
            try:
                status, answer, content_type = server.answer(self.command, self.path, body)
            except Exception as error:  # a fault of the server itself must show in the test
                server.unknown.append(f"{self.path}: {error!r}")
                status, answer, content_type = 400, b"{}", JSON
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = serve  # noqa: N815

    return Handler


def _operation(query: dict[str, Any]) -> str:
    match = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
    return query.get("operationName") or (match[1] if match else "unnamed")


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _project(name: str) -> dict[str, Any]:
    return {"id": _encode(f"Project:{name}"), "name": name, "entity": {"id": _encode("Entity"), "name": ENTITY}}


def _listed(name: str) -> dict[str, Any]:
    return {
        "id": _encode(f"Project:{name}"),
        "name": name,
        "entityName": ENTITY,
        "createdAt": "2026-01-01T00:00:00",
        "isBenchmark": False,
        "user": None,
    }


def _page(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    info = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
    return {"edges": [{"node": node, "cursor": "c"} for node in nodes], "pageInfo": info}


def _created(artifact: ServedArtifact, state: str) -> dict[str, Any]:
    sequence = {"latestArtifact": None}
    return {"createArtifact": {"artifact": {"id": artifact.id, "state": state, "artifactSequence": sequence}}}
