"""metrics.jsonl: a line an iteration, each written whole before the next iteration begins."""

import hashlib
import json
import math
import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"


class MetricsFile:
    """Appends rows to `file` and knows what it has written, so that a checkpoint can say up to where it goes."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.bytes = 0
        self._digest = hashlib.sha256()
        self._handle: int | None = None

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends one line. Raises OSError where it does not fit; nothing of it is left then."""
        line = (json.dumps(plain(row), allow_nan=False) + "\n").encode()
        handle = self._open()
        try:
            written = os.write(handle, line)
            while written < len(line):
                written += os.write(handle, line[written:])
        except OSError as error:
            os.ftruncate(handle, self.bytes)
            raise OSError(error.errno, error.strerror, str(self.file)) from None
        self.bytes += len(line)
        self._digest.update(line)

    def position(self) -> dict[str, Any]:
        """What `resume_at` takes; everything up to here is on the disk when it returns."""
        os.fsync(self._open())
        return {"bytes": self.bytes, "sha256": self._digest.hexdigest()}

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.file.stat().st_size if self.file.exists() else 0

    def holds(self, position: Mapping[str, Any]) -> bool:
        """Whether the file begins with exactly what had been written at `position`."""
        content = self._content(position["bytes"])
        return len(content) == position["bytes"] and hashlib.sha256(content).hexdigest() == position["sha256"]

    def resume_at(self, position: Mapping[str, Any]) -> None:
        """Cuts off what was written after `position`, in one step."""
        assert self._handle is None
        assert self.holds(position), position
        if self.file.exists():
            os.truncate(self.file, position["bytes"])

    def close(self) -> None:
        """A later `log` opens the file again."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _content(self, count: int = -1) -> bytes:
        if not self.file.exists():
            return b""
        with self.file.open("rb") as stream:
            return stream.read(count)

    def _open(self) -> int:
        """At its end, after cutting off a line that a killed process left unfinished."""
        if self._handle is None:
            content = self._content()
            content = content[: content.rfind(b"\n") + 1]
            self._handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._handle, len(content))
            self.bytes, self._digest = len(content), hashlib.sha256(content)
        return self._handle


def plain(value: Any) -> Any:
    """`value` in JSON's types: numpy and torch scalars become numbers, tuples lists, NaN and infinities None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, numbers.Real) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
