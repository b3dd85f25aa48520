"""metrics.jsonl: one JSON line per logged iteration, appended at once."""

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
    """Appends rows to `file`, and tracks its length and digest, so a checkpoint can store its position in the file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.bytes = 0
        self._digest = hashlib.sha256()
        self._handle: int | None = None

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends one line. If the disk is full, raises OSError and removes the partial line."""
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
        """Syncs the file to disk and returns the current position, for `resume_at`."""
        os.fsync(self._open())
        return {"bytes": self.bytes, "sha256": self._digest.hexdigest()}

    @property
    def size(self) -> int:
        """Bytes on disk; 0 if there is no such file. Raises DataError if it is not a regular file."""
        try:
            with open_regular(self.file) as stream:
                return os.fstat(stream.fileno()).st_size
        except FileNotFoundError:
            return 0

    def holds(self, position: Mapping[str, Any]) -> bool:
        """Whether the file still begins with the bytes that were written up to `position`."""
        if self.size < position["bytes"]:
            return False
        return self._digest_of(position["bytes"]).hexdigest() == position["sha256"]

    def resume_at(self, position: Mapping[str, Any]) -> None:
        """Truncates the file to `position`."""
        assert self._handle is None
        assert self.holds(position), position
        if self.size:
            os.truncate(self.file, position["bytes"])

    def close(self) -> None:
        """Closes the file. A later `log` opens it again."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _digest_of(self, count: int) -> "hashlib._Hash":
        """SHA-256 of the first `count` bytes, or of the whole file if it is shorter."""
        digest = hashlib.sha256()
        if count:
            with open_regular(self.file) as stream:
                while count and (block := stream.read(min(count, _BLOCK))):
                    digest.update(block)
                    count -= len(block)
        return digest

    def _end_of_rows(self) -> int:
        """Bytes up to the end of the last complete line. Raises DataError if the last _BLOCK bytes have no line end."""
        if not self.size:
            return 0
        with open_regular(self.file) as stream:
            start = stream.seek(max(0, self.size - _BLOCK))
            at = stream.read().rfind(b"\n")
        if at < 0 < start:
            raise DataError(f"{self.file} is damaged: its last {_BLOCK} bytes have no line end")
        return start + at + 1

    def _open(self) -> int:
        """Opens the file for appending, after removing an incomplete last line of a killed process."""
        if self._handle is None:
            self.bytes = self._end_of_rows()
            self._digest = self._digest_of(self.bytes)
            self._handle = open_handle(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.ftruncate(self._handle, self.bytes)
        return self._handle


def plain(value: Any) -> Any:
    """`value` in JSON's types: NumPy and torch scalars become numbers, tuples lists, NaN and infinities None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, numbers.Real) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
