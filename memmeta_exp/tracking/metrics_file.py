"""metrics.jsonl: a line an iteration, each written whole before the next iteration begins."""

import hashlib
import json
import math
import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import open_handle, open_regular

NAME = "metrics.jsonl"
_BLOCK = 2**22  # bytes


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
        """Bytes on disk; 0 where there is no such file. DataError where it is no regular file."""
        try:
            with open_regular(self.file) as stream:
                return os.fstat(stream.fileno()).st_size
        except FileNotFoundError:
            return 0

    def holds(self, position: Mapping[str, Any]) -> bool:
        """Whether the file begins with exactly what had been written at `position`."""
        if self.size < position["bytes"]:
            return False
        return self._digest_of(position["bytes"]).hexdigest() == position["sha256"]

    def resume_at(self, position: Mapping[str, Any]) -> None:
        """Cuts off what was written after `position`, in one step."""
        assert self._handle is None
        assert self.holds(position), position
        if self.size:
            os.truncate(self.file, position["bytes"])

    def close(self) -> None:
        """A later `log` opens the file again."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _digest_of(self, count: int) -> "hashlib._Hash":
        """Of the first `count` bytes; of fewer where there are no more."""
        digest = hashlib.sha256()
        if count:
            with open_regular(self.file) as stream:
                while count and (block := stream.read(min(count, _BLOCK))):
                    digest.update(block)
                    count -= len(block)
        return digest

    def _end_of_rows(self) -> int:
        """Bytes up to the end of the last whole line. DataError where there is no line end in the last _BLOCK."""
        if not self.size:
            return 0
        with open_regular(self.file) as stream:
            start = stream.seek(max(0, self.size - _BLOCK))
            at = stream.read().rfind(b"\n")
        if at < 0 < start:
            raise DataError(f"{self.file} is damaged: it ends with more than {_BLOCK} bytes that are no row")
        return start + at + 1

    def _open(self) -> int:
        """At its end, after cutting off a line that a killed process left unfinished."""
        if self._handle is None:
            self.bytes = self._end_of_rows()
            self._digest = self._digest_of(self.bytes)
            self._handle = open_handle(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.ftruncate(self._handle, self.bytes)
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
