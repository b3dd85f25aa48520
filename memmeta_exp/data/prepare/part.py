"""A partial download: its bytes, its source, and the check of its hash."""

import errno
import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

import requests

from memmeta_exp.data.store import Progress
from memmeta_exp.utils.errors import DataError

_MOST_NOTE_BYTES = 2**16
_VALIDATOR = re.compile(r"[\x20-\x7e]{1,200}")  # what can be sent back in a header
_NOT_PLAIN = (errno.ELOOP, errno.EISDIR, errno.ENXIO)  # a link, a folder, a socket


class Part:
    """NAME.part, the received bytes of a file, and NAME.part.json, their source.

    Raises DataError if either is a link, a folder or another special file.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self._note = folder / f"{name}.part", folder / f"{name}.part.json"
        for path in (self.path, self._note):
            plain_size(path)

    @property
    def size(self) -> int:
        """The number of received bytes."""
        return plain_size(self.path) or 0

    def range_headers(self, url: str, have: int) -> dict[str, str]:
        """Headers that request the rest of the file; at the same address only if the file has not changed
        (If-Range)."""
        if not have:
            return {}
        came_from, validator = self._came_from()
        headers = {"Range": f"bytes={have}-"}
        if came_from == url and validator:
            headers["If-Range"] = validator
        return headers

    def note(self, url: str, answer: requests.Response) -> None:
        """Stores the address and the validator of its file (ETag or Last-Modified)."""
        etag = answer.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified")
        with os.fdopen(_open_plain(self._note, os.O_WRONLY | os.O_CREAT), "w") as file:
            file.truncate(0)
            json.dump({"url": url, "validator": validator}, file)

    def appending(self, start: int) -> BinaryIO:
        """The file, truncated to `start` bytes and open for writing the rest."""
        file = os.fdopen(_open_plain(self.path, os.O_RDWR | os.O_CREAT), "r+b")
        file.truncate(start)
        file.seek(start)
        return file

    def drop(self) -> None:
        """Removes the received bytes."""
        for path in (self.path, self._note):
            path.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Renames the complete file to `target`."""
        self.path.replace(target)
        self.drop()

    def _came_from(self) -> tuple[str | None, str | None]:
        """The stored address and validator; each None if it is missing or invalid."""
        if plain_size(self._note) is None:
            return None, None
        with os.fdopen(_open_plain(self._note, os.O_RDONLY), "rb") as file:
            text = file.read(_MOST_NOTE_BYTES)
        try:
            note = json.loads(text)
            url, validator = note["url"], note["validator"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None, None
        sound = isinstance(validator, str) and _VALIDATOR.fullmatch(validator)
        return url if isinstance(url, str) else None, validator if sound else None


def plain_size(path: Path) -> int | None:
    """The size of a file in bytes; None if there is none. Raises DataError for a link, a folder or a special file."""
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return None
    if not _plain(facts):
        raise _refusal(path)
    return facts.st_size


def wrong_hash(path: Path, hashes: tuple[str, ...], progress: Progress) -> str | None:
    """Describes the first of `hashes` that the file does not have; None if it has all."""
    digests = {name: hashlib.new(name) for name in {h.partition(":")[0] for h in hashes}}
    with os.fdopen(_open_plain(path, os.O_RDONLY), "rb") as file:
        done, total = 0, os.fstat(file.fileno()).st_size
        while block := file.read(2**22):
            for digest in digests.values():
                digest.update(block)
            done += len(block)
            progress(f"checking {path.name.removesuffix('.part')}", done, total)
    for wanted in hashes:
        name, _, value = wanted.partition(":")
        if digests[name].hexdigest() != value:
            return f"{name} {digests[name].hexdigest()}, expected {value}"
    return None


def _open_plain(path: Path, flags: int) -> int:
    """A descriptor of a regular file with a single name. It follows no link and does not block on a pipe."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno in _NOT_PLAIN:
            raise _refusal(path) from None
        raise
    if not _plain(os.fstat(handle)):
        os.close(handle)
        raise _refusal(path)
    return handle


def _plain(facts: os.stat_result) -> bool:
    return stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1


def _refusal(path: Path) -> DataError:
    return DataError(
        f"{path} is a link, a folder or a special file, and the download needs this name: remove it, then run the same "
        "command again"
    )
