"""Standard output and standard error that never raise: output that cannot be written is dropped.

So a run continues if its reader leaves (`memmeta train | head -1`), a disk is full or a terminal closes.
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
    """The descriptor `fd`, opened for writing. lost: the error of the first failed write; None if none failed."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "w", closefd=False)
        self.lost: OSError | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        """Writes `data` and returns the number of bytes. After an error it drops `data` and returns its length."""
        try:
            while (written := super().write(data)) is None:  # a non-blocking descriptor that is full
                select.select([], [self], [])
            return written
        except OSError as error:
            self.lost = self.lost or error
            return memoryview(data).nbytes


def lossy_text(fd: int, line_buffering: bool = False, encoding: str = "utf-8") -> TextIO:
    """A text stream on the descriptor `fd`, which stays open. Characters outside the encoding are escaped."""
    buffer = io.BufferedWriter(LossyFile(fd))  # pyright: ignore[reportArgumentType] - its `write` takes less
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=line_buffering)


@contextmanager
def lossy_output() -> Iterator[None]:
    """In the block, standard output and standard error never raise. A closed descriptor 0 to 2 is opened on the null
    device, so that no other file gets its number."""
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
    """The error of the first failed write to `stream`; None if there was none, or if the reader has left."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    error = raw.lost if isinstance(raw, LossyFile) else None
    return None if isinstance(error, BrokenPipeError) else error


def _open_closed() -> None:
    with suppress(OSError):
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(fd)


def _lossy(stream: TextIO | None, fd: int) -> TextIO:
    """`stream` as a text stream that never raises; `stream` itself if it has no descriptor, as in a notebook."""
    if stream is None:  # closed when Python started
        return lossy_text(fd)
    try:
        stream.flush()
        fd = stream.fileno()
    except (OSError, ValueError):
        return stream
    unbuffered = getattr(stream, "write_through", False)
    return lossy_text(fd, unbuffered or getattr(stream, "line_buffering", False), stream.encoding)
