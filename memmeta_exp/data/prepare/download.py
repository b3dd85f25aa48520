"""One file over HTTP: resumed where it broke off, checked before anyone opens it.

The server is not trusted. It can write no more than the file can have, only to files of their own, and what it sent is
opened when its hash fits.
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

ATTEMPTS = 4  # at one address, each from where the last one broke off
PROGRESS_BYTES = 2**20  # an attempt that brings more does not count
TIMEOUT_S = (10.0, 30.0)  # to connect; between two reads
PAUSE_S = 1.0  # after the first failed attempt, doubled after each
LONGEST_PAUSE_S = 60.0
_MOST_RECORD_BYTES = 2**22
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")


class Downloader:
    """Downloads into one folder. sleep: waits the seconds it is given, and ends when a signal asks the command to."""

    def __init__(self, folder: Path, progress: Progress = silent, sleep: Callable[[float], None] = time.sleep) -> None:
        self.folder, self._progress, self._sleep = folder, progress, sleep
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": f"memmeta/{__version__}", "Accept-Encoding": "identity"})
        self._session.hooks["response"].append(check_redirect)
        self._records: dict[str, dict[str, Any]] = {}

    def get(self, file: RemoteFile, url: str) -> Path:
        """The whole, checked file, from `url` or from an earlier download; SourceError where it cannot be had there,
        DataError where something else is in the place of the file or of what has arrived of it.

        What has arrived stays in NAME.part for the next attempt at any address: the hash decides in the end.
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
            if not resumed:  # else it may be two different files one after the other: once more, from the start
                raise SourceError(f"sent another file ({wrong}{encoding})")

    def _checked(self, target: Path, file: RemoteFile) -> Path:
        wrong = wrong_hash(target, file.hashes, self._progress)
        if wrong is not None:
            raise DataError(f"{target} is not the published file ({wrong}): remove it, then run the same command again")
        return target

    def _arrived(self, file: RemoteFile, url: str, part: Part) -> tuple[bool, str]:
        """What the last `_receive` returns; one that breaks off is followed by others, as long as they bring more."""
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
            raise SourceError(f"{error}, and wants us to wait {wait_s:.0f} s: run the same command again after that")
        self._progress(f"{file.name}: {error}, waiting {wait_s:.0f} s", 0, 0)
        self._sleep(wait_s)

    def _receive(self, file: RemoteFile, url: str, part: Part) -> tuple[bool, str]:
        """Appends to `part` until the file is complete; whether that was a continuation, and how the server says that
        it encoded the file, in words."""
        have = part.size
        with translated(), self._ask(url, part.range_headers(url, have)) as answer:
            if answer.status_code == 416 and have:  # nothing is left to send, or what is here is no part of it
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
        """SourceError for a size that the file cannot have, or that has no room here."""
        if total != file.bytes if file.bytes else total > file.most:
            raise SourceError(f"has {total} bytes, the file {file.bytes or f'at most {file.most}'}")
        free = free_bytes(self.folder)
        if total - start > free:
            raise SourceError(
                f"{(total - start) / 2**30:.1f} GiB to download, {free / 2**30:.1f} free in {self.folder}"
            )

    def _listed(self, file: RemoteFile) -> RemoteFile:
        """The file with checksum and size of the repository's own record (Zenodo's API: files[].key, .checksum as
        "md5:..", .size)."""
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
        """Each file's entry by the file's name."""
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
    """Where the answer's bytes belong and how many the whole file has; SourceError for no file."""
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
    return 0, length(answer)  # the whole file, whatever was asked for
