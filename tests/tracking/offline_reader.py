"""Reads a .wandb file back without wandb's help: LevelDB log frames around protobuf records.

A file is a 7-byte header, then blocks of 32 KiB; a record is one FULL frame, or FIRST, MIDDLE ... LAST. A frame is
crc32 (4 bytes), length (2, little-endian), kind (1), data; fewer than 7 bytes left in a block are padding.
"""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

Record: Any = wandb_internal_pb2.Record  # type: ignore[attr-defined] # generated at import

BLOCK, FILE_HEADER, FRAME_HEADER = 32768, 7, 7
FULL, LAST = 1, 4


def read_records(wandb_file: Path) -> Iterator[Any]:
    """The whole records in the file; what is still being written is left out."""
    content = wandb_file.read_bytes()
    assert content.startswith(b":W&B"), f"{wandb_file} is no .wandb file"
    position, parts = FILE_HEADER, b""
    while position + FRAME_HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < FRAME_HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += FRAME_HEADER
        if position + length > len(content):
            return
        parts += content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            yield Record.FromString(parts)
            parts = b""


def finished_file(run_dir: Path) -> Path:
    """The .wandb file of the one offline run in `run_dir`; wandb's service completes it some ms after finish()."""
    (file,) = run_dir.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 10
    while not any(record.HasField("exit") for record in read_records(file)):
        assert time.monotonic() < deadline, f"{file} has no end"
        time.sleep(0.01)
    return file


def read_history(wandb_file: Path) -> list[dict[str, Any]]:
    """One dictionary a logged step, without wandb's own _step, _runtime and _timestamp."""
    rows = [_values(record.history.item) for record in read_records(wandb_file) if record.HasField("history")]
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]


def read_steps(wandb_file: Path) -> list[int]:
    return [record.history.step.num for record in read_records(wandb_file) if record.HasField("history")]


def read_summary(wandb_file: Path) -> dict[str, Any]:
    """What the run itself put in its summary."""
    found: dict[str, Any] = {}
    for record in read_records(wandb_file):
        if record.HasField("summary"):
            found |= _values(record.summary.update)
    return found


def _values(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
