"""Read an offline W&B log without a server.

The format is LevelDB's log: a 7-byte file header, then 32 KiB blocks of chunks with a 7-byte header each (CRC, length,
type: whole, first, middle, last). A payload is a `wandb_internal_pb2.Record`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7
WHOLE, LAST = 1, 4


@dataclass
class WandbLog:
    """What one offline run says. `exit_code` is None if it was not finished."""

    attributes: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    step_metrics: dict[str, str] = field(default_factory=dict)
    artifacts: list[tuple[str, str]] = field(default_factory=list)
    exit_code: int | None = None


def read_log(path: Path) -> WandbLog:
    from wandb.proto import wandb_internal_pb2

    log = WandbLog()
    for payload in _payloads(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        _add(log, record)
    return log


def _add(log: WandbLog, record: Any) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        run = record.run
        log.attributes = {
            "id": run.run_id,
            "name": run.display_name,
            "group": run.run_group,
            "job_type": run.job_type,
            "tags": list(run.tags),
        }
        log.config.update(_values(run.config.update))
    elif kind == "config":
        log.config.update(_values(record.config.update))
    elif kind == "summary":
        log.summary.update(_values(record.summary.update))
    elif kind == "history":
        log.history.append(_values(record.history.item))
    elif kind == "metric":
        log.step_metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
    elif kind == "artifact":
        log.artifacts.append((record.artifact.type, record.artifact.name))
    elif kind == "exit":
        log.exit_code = record.exit.exit_code


def _values(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _payloads(data: bytes) -> Iterator[bytes]:
    assert struct.unpack("<4sHB", data[:HEADER]) == (b":W&B", 0xBEE1, 0)
    offset, parts = HEADER, b""
    while offset + HEADER <= len(data):
        left = BLOCK - offset % BLOCK
        crc, length, kind = struct.unpack("<IHB", data[offset : offset + HEADER])
        if left < HEADER or (length == 0 and kind == 0):
            offset += left
            continue
        body = data[offset + HEADER : offset + HEADER + length]
        if len(body) < length:  # the process was killed
            return
        assert zlib.crc32(bytes([kind]) + body) == crc
        offset += HEADER + length
        parts += body
        if kind in (WHOLE, LAST):
            yield parts
            parts = b""
