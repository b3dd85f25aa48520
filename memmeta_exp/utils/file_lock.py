"""A lock that lets one process at a time write to a run folder."""

import errno
import fcntl
import logging
import os
from pathlib import Path

from memmeta_exp.utils.errors import ConfigError, DataError
from memmeta_exp.utils.reading import open_handle

NAME = ".lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)

logger = logging.getLogger("memmeta")


class FolderLock:
    """An exclusive flock on DIR/.lock. The system releases it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handle: int | None = None

    def take(self, holder: str) -> None:
        """Takes the lock. Raises ConfigError if another process has it, or the folder is read-only.

        holder: words for the other process in the message. If the file system has no locks, it only warns.
        """
        try:
            self._handle = open_handle(self.folder / NAME, os.O_RDWR | os.O_CREAT)
        except DataError as error:
            raise ConfigError(str(error)) from None
        except OSError as error:
            if error.errno not in CANNOT_WRITE:
                raise
            raise ConfigError(
                f"{self.folder} cannot be written ({error.strerror}): name another folder, or make this one writable"
            ) from None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ConfigError(f"{self.folder} is in use by {holder}: wait for it, or name another folder") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                self.release()
                raise
            logger.warning("%s: its file system has no locks; make sure that no other process uses it", self.folder)

    def release(self) -> None:
        """Releases the lock, if it is held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
