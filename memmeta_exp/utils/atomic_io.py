"""Atomic file writes: a reader sees the old or the new content, even after a crash."""

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from memmeta_exp.utils.errors import DataError

PARTIAL = ".partial"


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A binary stream whose content replaces `file` when the block ends.

    The content is written to a temporary file in the same folder, synced and renamed; then the folder is synced. If the
    block raises, or the disk is full, the old file stays. Raises OSError, and DataError where `file` is a
    folder.
    """
    if file.is_dir() and not file.is_symlink():
        raise DataError(f"{file} is a folder, where a file is to be written: move it away")
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private, but other users should be able to read runs
        os.replace(temporary, file)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(file)
        raise
    sync_folder(file.parent)


def replace_text(file: Path, text: str) -> None:
    """Replaces the content of `file` by `text`, atomically."""
    with replacing(file) as stream:
        stream.write(text.encode())


def replace_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Replaces the content of `file` by a CSV table, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    replace_text(file, text.getvalue())


def sync_folder(folder: Path) -> None:
    """Syncs `folder`; a rename in it is durable only afterwards."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_partials(folder: Path) -> None:
    """Removes the temporary files that killed processes left in `folder`."""
    for file in folder.glob(f".*{PARTIAL}"):
        file.unlink(missing_ok=True)
