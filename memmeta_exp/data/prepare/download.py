"""Downloads one file over HTTP, resumes broken transfers, and checks the hash before the file is used.

The server is not trusted: the size of what it sends is bounded, and it is written only to the download's own files.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests

from memmeta_exp import __version__
from memmeta_exp.data.prepare.answers import (
    Passing,
    SourceError,
    blocks,
    check_redirect,
    content_range,
    in_time,
    length,
    retry_after_s,
    status,
    translated,
    well_formed,
)
from memmeta_exp.data.prepare.archive import free_bytes
from memmeta_exp.data.prepare.part import Part, plain_size, wrong_hash
from memmeta_exp.data.prepare.urls import RemoteFile
from memmeta_exp.data.store import Progress, silent
from memmeta_exp.utils.errors import DataError

ATTEMPTS = 4  # per address; each resumes where the last one broke off
PROGRESS_BYTES = 2**20  # an attempt that transfers more resets the count of attempts
TIMEOUT_S = (10.0, 30.0)  # seconds to connect; between two reads
PAUSE_S = 1.0  # seconds after the first failed attempt, doubled after each
LONGEST_PAUSE_S = 60.0
_MOST_RECORD_BYTES = 2**22
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")


class Downloader:
    """Downloads files into `folder`. sleep: waits for the given seconds; a signal may interrupt it."""

    def __init__(self, folder: Path, progress: Progress = silent, sleep: Callable[[float], None] = time.sleep) -> None:
        self.folder, self._progress, self._sleep = folder, progress, sleep
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": f"memmeta/{__version__}", "Accept-Encoding": "identity"})
        self._session.hooks["response"].append(check_redirect)
        self._records: dict[str, dict[str, Any]] = {}

    def get(self, file: RemoteFile, url: str) -> Path:
        """The path of the complete, checked file, downloaded from `url` unless it is there already.

        Received bytes stay in NAME.part for the next attempt at any address; the hash of the whole file decides. Raises
        SourceError if the download fails, and DataError if another file is in its place.
        """
        file = file if file.hashes else self._listed(file)
        target, part = self.folder / file.name, Part(self.folder, file.name)
        if plain_size(target) is not None:
            return self._checked(target, file)
        while True:
            if part.size > file.most:
                part.drop()
            resumed, encoding = self._arrived(file, url, part)
            wrong = wrong_hash(part.path, file.hashes, self._progress)
            if wrong is None:
                part.finish(target)
                return target
            part.drop()
            if not resumed:  # a resumed file may be parts of two different files: try again from the start
                raise SourceError(f"sent another file ({wrong}{encoding})")

    def _checked(self, target: Path, file: RemoteFile) -> Path:
        wrong = wrong_hash(target, file.hashes, self._progress)
        if wrong is not None:
            raise DataError(f"{target} is not the published file ({wrong}): remove it, then run the same command again")
        return target

    def _arrived(self, file: RemoteFile, url: str, part: Part) -> tuple[bool, str]:
        """Calls `_receive` until the file is complete; returns its last result. Raises SourceError after ATTEMPTS
        failed attempts without progress."""
        failures, furthest = 0, part.size
        while True:
            try:
                return self._receive(file, url, part)
            except Passing as error:
                failures = 1 if part.size > furthest + PROGRESS_BYTES else failures + 1
                furthest = max(furthest, part.size)
                if failures == ATTEMPTS:
                    raise SourceError(str(error)) from None
                self._wait(file, error, PAUSE_S * 2 ** (failures - 1))

    def _wait(self, file: RemoteFile, error: Passing, pause_s: float) -> None:
        wait_s = pause_s if error.wait_s is None else error.wait_s
        if wait_s > LONGEST_PAUSE_S:
            raise SourceError(f"{error}, and asks to wait {wait_s:.0f} s: run the same command again after that")
        self._progress(f"{file.name}: {error}, waiting {wait_s:.0f} s", 0, 0)
        self._sleep(wait_s)

    def _receive(self, file: RemoteFile, url: str, part: Part) -> tuple[bool, str]:
        """Appends to `part` until the file is complete. Returns whether it resumed a partial file, and words for an
        error message if the server encoded the file."""
        have = part.size
        with translated(), self._ask(url, part.range_headers(url, have)) as answer:
            if answer.status_code == 416 and have:  # the partial file is complete, or does not belong to the file
                return self._complete_or_drop(answer, part, have), ""
            start, total = _opened(answer, have)
            if total is not None:
                self._require_size(file, total, start)
            part.note(url, answer)
            self._append(answer, part, start, total or file.bytes, file)
            encoding = answer.headers.get("Content-Encoding")
        return start > 0, "; the server encoded it" if encoding else ""

    def _ask(self, url: str, headers: dict[str, str]) -> requests.Response:
        with well_formed():
            return in_time(lambda: self._session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S))

    def _append(self, answer: requests.Response, part: Part, start: int, total: int | None, file: RemoteFile) -> None:
        most = file.most if total else min(file.most, start + free_bytes(self.folder) // 2)
        done = start
        with part.appending(start) as out:
            for block in blocks(answer):
                done += len(block)
                if done > most:
                    part.drop()
                    raise SourceError(
                        f"sends more than the {most} bytes {'of' if file.bytes else 'allowed for'} the file"
                    )
                out.write(block)
                self._progress(file.name, done, total or 0)
        if total is not None and done < total:
            raise Passing(f"breaks off after {done} of {total} bytes")

    def _complete_or_drop(self, answer: requests.Response, part: Part, have: int) -> bool:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if total == str(have):
            return True
        part.drop()
        raise Passing("cannot continue the partial file")

    def _require_size(self, file: RemoteFile, total: int, start: int) -> None:
        """Raises SourceError if the file cannot have this size, or the disk has too little space."""
        if total != file.bytes if file.bytes else total > file.most:
            raise SourceError(f"has {total} bytes, the file {file.bytes or f'at most {file.most}'}")
        free = free_bytes(self.folder)
        if total - start > free:
            raise SourceError(
                f"{(total - start) / 2**30:.1f} GiB to download, {free / 2**30:.1f} free in {self.folder}"
            )

    def _listed(self, file: RemoteFile) -> RemoteFile:
        """`file` with the checksum and size in the repository's record (Zenodo's API: files[].key, .checksum as
        "md5:..", .size). Raises SourceError if the record has no checksum."""
        assert file.record is not None, file.name
        if file.record not in self._records:
            try:
                self._records[file.record] = self._read_record(file.record)
            except SourceError as error:
                raise SourceError(f"no checksum from {file.record} ({error})") from None
        entry = self._records[file.record].get(file.name, {})
        checksum, size = str(entry.get("checksum")).lower(), entry.get("size")
        if not _CHECKSUM.fullmatch(checksum):
            raise SourceError(f"{file.record} lists no checksum of {file.name}")
        known = type(size) is int and 0 < size <= file.at_most
        return replace(file, hashes=(checksum,), bytes=size if known else None)

    def _read_record(self, url: str) -> dict[str, Any]:
        """The entries of a repository's record by file name."""
        body = bytearray()
        with translated(), self._ask(url, {}) as answer:
            if answer.status_code != 200:
                raise SourceError(status(answer))
            for block in blocks(answer):
                body.extend(block)
                if len(body) > _MOST_RECORD_BYTES:
                    raise SourceError(f"sends more than {_MOST_RECORD_BYTES} bytes")
        try:
            return {entry["key"]: dict(entry) for entry in json.loads(bytes(body))["files"]}
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SourceError("lists no files") from None


def _opened(answer: requests.Response, have: int) -> tuple[int, int | None]:
    """The offset of the answer's bytes, and the size of the whole file, if known. Raises SourceError if it is no
    file."""
    if answer.status_code in _PASSING:
        raise Passing(status(answer), retry_after_s(answer))
    if answer.status_code not in (200, 206):
        raise SourceError(status(answer))
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise SourceError("answers with a web page, not with the file (over quota, or it wants a click)")
    if answer.status_code == 206:
        start, total = content_range(answer)
        if start != have:
            raise SourceError(f"continues at byte {start}, asked for {have}")
        return start, total
    return 0, length(answer)  # the server sends the whole file, even if a part was requested
