"""Standard output and standard error that never fail: what cannot be written is dropped, and the work goes on.

A reader may leave (`memmeta train | head -1`), a disk may fill up, a terminal may close. None of these is a fault of
the command that prints.
"""

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class LossyFile(io.FileIO):
    """The descriptor `fd`, opened for writing. lost: why a write failed for the first time, None where none has."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "w", closefd=False)
        self.lost: OSError | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        """Writes what it can, and says that all was written where nothing can be."""
        try:
            while (written := super().write(data)) is None:  # the descriptor does not block, and is full
                select.select([], [self], [])
            return written
        except OSError as error:
            self.lost = self.lost or error
            return memoryview(data).nbytes


def lossy_text(fd: int, line_buffering: bool = False, encoding: str = "utf-8") -> TextIO:
    """Text on the descriptor `fd`, which stays open. Characters outside the encoding are written as escapes."""
    buffer = io.BufferedWriter(LossyFile(fd))  # pyright: ignore[reportArgumentType] - its `write` takes less
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=line_buffering)


@contextmanager
def lossy_output() -> Iterator[None]:
    """For the block, standard output and error never fail. A closed one is opened on the null device, so that no file
    takes its number."""
    _open_closed()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_lossy, before, (1, 2))
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        sys.stdout, sys.stderr = before


def lost(stream: TextIO) -> OSError | None:
    """Why something printed to `stream` could not be written; None where all was, or where the reader has left."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    error = raw.lost if isinstance(raw, LossyFile) else None
    return None if isinstance(error, BrokenPipeError) else error


def _open_closed() -> None:
    with suppress(OSError):
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(fd)


def _lossy(stream: TextIO | None, fd: int) -> TextIO:
    """`stream` as text that never fails; itself where it has no descriptor, as in a notebook."""
    if stream is None:  # closed when Python started
        return lossy_text(fd)
    try:
        stream.flush()
        fd = stream.fileno()
    except (OSError, ValueError):
        return stream
    unbuffered = getattr(stream, "write_through", False)
    return lossy_text(fd, unbuffered or getattr(stream, "line_buffering", False), stream.encoding)
