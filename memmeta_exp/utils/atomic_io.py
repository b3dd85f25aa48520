"""Files that appear whole or not at all, whatever stops the process or the machine."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from memmeta_exp.utils.errors import DataError

PARTIAL = ".partial"


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes `file` when the block ends: written aside in the same folder, synced, renamed, and
    the folder synced. A reader, or a machine that stops, finds the old content or the new, never a mix; a block that
    raises, and a disk that is full, leave the old. Raises OSError, and DataError where `file` is a folder."""
    if file.is_dir() and not file.is_symlink():
        raise DataError(f"{file} is a folder, where a file is to be written: move it away")
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private, but runs are there to be read by the whole group
        os.replace(temporary, file)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(file)
        raise
    sync_folder(file.parent)


def replace_text(file: Path, text: str) -> None:
    """`file` with `text` in it, as `replacing` does it."""
    with replacing(file) as stream:
        stream.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable: a rename is not, until its folder has been synced."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_partials(folder: Path) -> None:
    """Removes what processes that were killed in the middle of a write have left in `folder`."""
    for file in folder.glob(f".*{PARTIAL}"):
        file.unlink(missing_ok=True)
