"""One file over HTTP: resumed where it broke off, checked before anyone opens it."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from memmeta_exp import __version__
from memmeta_exp.data.archive import free_bytes
from memmeta_exp.data.sources import RemoteFile
from memmeta_exp.data.store import Progress, silent

ATTEMPTS = 4  # at one address, each from where the last one broke off
PROGRESS_BYTES = 2**20  # an attempt that brings more does not count
TIMEOUT_S = (10.0, 30.0)  # to connect; between two reads
PAUSE_S = 1.0  # after the first failed attempt, doubled after each
LONGEST_PAUSE_S = 60.0
_BLOCK = 2**16  # what is lost at most where a transfer breaks off
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_WORDS = {401: "wants a login", 403: "refuses access", 404: "not found", 410: "gone", 429: "too many requests"}


class SourceError(Exception):
    """Why an address gave no usable file, in a few words."""


class _Passing(SourceError):
    """Another attempt may do; wait_s: how long the server wants us to wait."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class Downloader:
    """Downloads into one folder. sleep: waits the seconds it is given."""

    def __init__(self, folder: Path, progress: Progress = silent, sleep: Callable[[float], None] = time.sleep) -> None:
        self.folder, self._progress, self._sleep = folder, progress, sleep
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": f"memmeta/{__version__}", "Accept-Encoding": "identity"})
        self._records: dict[str, dict[str, str]] = {}

    def get(self, file: RemoteFile, url: str) -> Path:
        """The whole, checked file, from `url` or from an earlier download; SourceError where it cannot be had there.

        What has arrived stays in NAME.part for the next attempt at any address: the hash decides in the end.
        """
        target = self.folder / file.name
        if target.is_file():
            return target  # it got this name after its check
        hashes = file.hashes or (self._listed_hash(file),)
        part, failures = Part(self.folder, file.name), 0
        while True:
            have = part.size
            try:
                resumed = self._receive(file, url, part)
            except _Passing as error:
                failures = 1 if part.size - have > PROGRESS_BYTES else failures + 1
                if failures == ATTEMPTS:
                    raise SourceError(str(error)) from None
                self._sleep(min(LONGEST_PAUSE_S, error.wait_s or PAUSE_S * 2 ** (failures - 1)))
                continue
            wrong = _wrong_hash(part.path, hashes, self._progress)
            if wrong is None:
                part.finish(target)
                return target
            part.drop()
            if not resumed:  # else it may be two different files one after the other: once more, from the start
                raise SourceError(f"sent another file ({wrong})")

    def _receive(self, file: RemoteFile, url: str, part: "Part") -> bool:
        """Appends to `part` until the file is complete; whether that was a continuation."""
        have = part.size
        try:
            with self._session.get(
                url, headers=part.range_headers(url, have), stream=True, timeout=TIMEOUT_S
            ) as answer:
                if answer.status_code == 416:  # nothing is left to send, or what is here is no part of it
                    return self._complete_or_drop(answer, part, have)
                start, total = self._opened(answer, url, have)
                if file.bytes is not None and total is not None and total != file.bytes:
                    raise SourceError(f"has {total} bytes, the file {file.bytes}")
                self._require_room((total or file.bytes or 0) - start)
                part.note(url, answer)
                self._append(answer, part, start, total or file.bytes, file)
        except requests.exceptions.Timeout:
            raise _Passing("does not answer in time") from None
        except requests.exceptions.TooManyRedirects:
            raise SourceError("redirects in a circle") from None
        except requests.exceptions.ChunkedEncodingError:
            raise _Passing("breaks off") from None
        except requests.exceptions.ConnectionError as error:
            raise _no_connection(error) from None
        except requests.exceptions.RequestException as error:
            raise SourceError(_one_line(error)) from None
        return start > 0

    def _opened(self, answer: requests.Response, url: str, have: int) -> tuple[int, int | None]:
        """Where the answer's bytes belong and how many the whole file has; SourceError for no file."""
        if url.startswith("https:") and not answer.url.startswith("https:"):
            raise SourceError(f"redirects to an unencrypted address ({answer.url})")
        if answer.status_code in _PASSING:
            raise _Passing(_status(answer), _retry_after(answer))
        if answer.status_code not in (200, 206):
            raise SourceError(_status(answer))
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise SourceError("answers with a web page, not with the file (over quota, or it wants a click)")
        if answer.status_code == 206:
            start, total = _content_range(answer)
            if start != have:
                raise SourceError(f"continues at byte {start}, asked for {have}")
            return start, total
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None  # the whole file, whatever was asked for

    def _append(self, answer: requests.Response, part: "Part", start: int, total: int | None, file: RemoteFile) -> None:
        done = start
        with part.path.open("r+b" if start else "wb") as out:
            out.seek(start)
            for block in answer.iter_content(_BLOCK):
                done += len(block)
                if file.bytes is not None and done > file.bytes:
                    raise SourceError(f"sends more than the {file.bytes} bytes of the file")
                out.write(block)
                self._progress(file.name, done, total or 0)
        if total is not None and done < total:
            raise _Passing(f"breaks off after {done} of {total} bytes")

    def _complete_or_drop(self, answer: requests.Response, part: "Part", have: int) -> bool:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if total == str(have):
            return True
        part.drop()
        raise _Passing("cannot continue the partial file")

    def _require_room(self, needed: int) -> None:
        free = free_bytes(self.folder)
        if needed > free:
            raise SourceError(f"{needed / 2**30:.1f} GiB to download, {free / 2**30:.1f} free in {self.folder}")

    def _listed_hash(self, file: RemoteFile) -> str:
        """The checksum in the repository's own record (Zenodo's API: files[].key and .checksum, "md5:..")."""
        assert file.record is not None, file.name
        if file.record not in self._records:
            try:
                answer = self._session.get(file.record, timeout=TIMEOUT_S)
                answer.raise_for_status()
                if file.record.startswith("https:") and not answer.url.startswith("https:"):
                    raise ValueError(f"redirects to {answer.url}")
                listed = {entry["key"]: entry["checksum"] for entry in answer.json()["files"]}
            except (requests.exceptions.RequestException, ValueError, KeyError, TypeError) as error:
                raise SourceError(f"no checksum from {file.record} ({_one_line(error)})") from None
            self._records[file.record] = listed
        checksum = self._records[file.record].get(file.name, "")
        if not checksum.startswith(("md5:", "sha256:")):
            raise SourceError(f"{file.record} lists no checksum of {file.name}")
        return checksum


class Part:
    """A file that has not arrived in full: NAME.part, and NAME.part.json with where it comes from."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self._note = folder / f"{name}.part", folder / f"{name}.part.json"

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def range_headers(self, url: str, have: int) -> dict[str, str]:
        """The request for the rest: at the same address on condition that the file has not changed (If-Range)."""
        if not have:
            return {}
        came_from: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            came_from = json.loads(self._note.read_text())
        headers = {"Range": f"bytes={have}-"}
        if came_from.get("url") == url and came_from.get("validator"):
            headers["If-Range"] = came_from["validator"]
        return headers

    def note(self, url: str, answer: requests.Response) -> None:
        """Keeps the address and its strong validator."""
        etag = answer.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified")
        self._note.write_text(json.dumps({"url": url, "validator": validator}))

    def drop(self) -> None:
        """Forgets what has arrived."""
        for path in (self.path, self._note):
            path.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Gives the file its name."""
        self.path.replace(target)
        self.drop()


def _wrong_hash(path: Path, hashes: tuple[str, ...], progress: Progress) -> str | None:
    """None where every hash fits, else the one that does not."""
    digests = {name: hashlib.new(name) for name in {h.partition(":")[0] for h in hashes}}
    done, total = 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(2**22):
            for digest in digests.values():
                digest.update(block)
            done += len(block)
            progress(f"checking {path.stem}", done, total)
    for wanted in hashes:
        name, _, value = wanted.partition(":")
        if digests[name].hexdigest() != value:
            return f"{name} {digests[name].hexdigest()}, expected {value}"
    return None


def _status(answer: requests.Response) -> str:
    word = _WORDS.get(answer.status_code, answer.reason or "")
    return f"HTTP {answer.status_code}{f', {word}' if word else ''}"


def _retry_after(answer: requests.Response) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _content_range(answer: requests.Response) -> tuple[int, int | None]:
    """The start and the total of "bytes START-END/TOTAL"."""
    unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    start = span.partition("-")[0]
    if unit != "bytes" or not start.isdigit():
        raise SourceError("sends a part without saying which")
    return int(start), int(total) if total.isdigit() else None


def _no_connection(error: Exception) -> SourceError:
    """requests tells these apart in its text alone."""
    text = str(error)
    if "NameResolution" in text or "getaddrinfo" in text:
        return SourceError("its name does not resolve (no network?)")
    if "refused" in text:
        return SourceError("connection refused")
    return _Passing("breaks off" if "broken" in text or "aborted" in text or "reset" in text else "cannot be reached")


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
