"""Downloads from a local server that wishes us ill: every answer ends in one line, and nothing is overwritten."""

import gzip
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memmeta_exp.data.prepare import answers, download
from memmeta_exp.data.prepare.download import ATTEMPTS, Downloader
from memmeta_exp.data.prepare.fetch import fetch
from memmeta_exp.data.prepare.urls import RemoteFile
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.signals import Stopped, leaving_at_once
from tests.data.conftest import Setup
from tests.data.servers import CONTENT, FILE, MD5, Server, answer, endless, part, record


@pytest.mark.parametrize(
    "checksum", [5, None, True, [MD5], {"md5": 1}, "md5:²", "md5:", "sha1:" + "0" * 40, MD5 + "\n"]
)
def test_a_record_with_a_checksum_that_is_none_is_refused(site: Server, setup: Setup, checksum: Any):
    site.files["/record"] = record(checksum)
    listed = RemoteFile("file.bin", (), record=site.url("/record"))
    assert setup.refused(site, file=listed) == f"{site.url('/record')} lists no checksum of file.bin"


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b'{"files": 5}', b'{"files": [5]}', b'{"files": [["key"]]}', b'{"files": [{"key": []}]}', b"\xff",
     b"[" * 100_000, b'{"files": ' + b"9" * 5000, b'{"files": "key"}'],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_a_record_of_another_form_is_refused(site: Server, setup: Setup, body: bytes):
    site.files["/record"] = body
    refused = setup.refused(site, file=RemoteFile("file.bin", (), record=site.url("/record")))
    assert refused == f"no checksum from {site.url('/record')} (lists no files)"


@pytest.mark.parametrize("size", ["10240", None, -1, 2**40, True, 1.5])
def test_a_size_that_is_none_leaves_the_bound(site: Server, setup: Setup, size: Any):
    site.files["/record"] = record(MD5, size=size)
    listed = RemoteFile("file.bin", (), record=site.url("/record"), at_most=len(CONTENT))
    assert setup.get(site, file=listed).read_bytes() == CONTENT


CHUNKED = "Transfer-Encoding: chunked"
GZIP = "Content-Encoding: gzip"
LENGTH = f"Content-Length: {len(CONTENT)}"
MORE = "sends more than the 10240 bytes of the file"
HOSTILE: dict[str, tuple[Callable[[], Iterable[bytes]], str]] = {
    "no end": (endless, MORE),
    "no end, in chunks": (lambda: endless(CHUNKED, block=b"1000\r\n" + bytes(4096) + b"\r\n"), MORE),
    "one chunk without end": (lambda: endless(CHUNKED, "X: y", block=b"f" * 15 + b"\r\n" + bytes(2**16)), MORE),
    "a chunk of less than nothing": (lambda: endless(CHUNKED, block=b"-1\r\n" + bytes(2**16)), MORE),
    "a chunk size without end": (lambda: endless(CHUNKED, block=b"1" * 2**16), "breaks off"),
    "a chunk size that is none": (lambda: answer(CHUNKED, body=b"zz\r\n" + CONTENT), "breaks off"),
    "chunks that break off": (lambda: answer(CHUNKED, body=b"2800\r\n" + CONTENT[:99]), "breaks off"),
    "no bytes at all": (lambda: [b""], "breaks off"),
    "no HTTP": (lambda: [b"220 ftp ready\r\n"], "breaks off"),
    "a header without end": (lambda: [b"HTTP/1.1 200 OK\r\nX: ", b"x" * 2**17], "breaks off"),
    "a thousand headers": (lambda: answer(*["X: y"] * 1000), "breaks off"),
    "gzip bomb": (lambda: answer(GZIP, body=gzip.compress(bytes(2**25))), MORE),
    "small gzip bomb": (lambda: answer(GZIP, body=gzip.compress(bytes(2**22)).ljust(10240)), "the server encoded it"),
    "deflate that is none": (lambda: answer("Content-Encoding: deflate", LENGTH, body=CONTENT[::-1]), "sent another"),
    "ten encodings": (lambda: answer("Content-Encoding: " + ", ".join(["gzip"] * 10), body=b"x" * 10240), "sent anot"),
    "two lengths": (lambda: answer("Content-Length: 5", "Content-Length: 6", body=CONTENT), "malformed"),
    "a length in superscript": (lambda: answer("Content-Length: ²", body=CONTENT[::-1]), "sent another file"),
    "a negative length": (lambda: answer("Content-Length: -1", body=CONTENT[::-1]), "sent another file"),
    "a length of 5,000 digits": (lambda: answer("Content-Length: " + "9" * 5000, body=CONTENT[::-1]), "sent another"),
    "a length of nothing": (lambda: answer("Content-Length: 0"), "has 0 bytes, the file 10240"),
    "a shorter length": (lambda: answer("Content-Length: 100", body=CONTENT), "has 100 bytes, the file 10240"),
    "a part unasked for": (lambda: part("bytes 5-10239/10240"), "continues at byte 5, asked for 0"),
    "a part of another size": (lambda: part("bytes 0-9/20", CONTENT[:10]), "has 20 bytes, the file 10240"),
    "a part in superscript": (lambda: part("bytes ²-9/10240"), "without saying which"),
    "a part of other units": (lambda: part("lines 0-9/10240"), "without saying which"),
    "parts": (lambda: answer("Content-Type: multipart/byteranges; boundary=x", status="206 P"), "without saying which"),
    "416 unasked for": (lambda: answer("Content-Range: bytes */0", status="416 No"), "HTTP 416"),
    "a status of its own": (lambda: answer(status="999 \x1b[2J[/red] no"), "HTTP 999"),
    "204": (lambda: answer(status="204 Nothing"), "HTTP 204, no content"),
    "to a file": (lambda: answer("Location: file:///etc/passwd", status="302 F"), "file:///etc/passwd, which is no"),
    "to ftp": (lambda: answer("Location: ftp://127.0.0.1/x", status="302 F"), "which is no web address"),
    "to data": (lambda: answer("Location: data:text/plain,x", status="302 F"), "which is no web address"),
    "to a bracket": (lambda: answer("Location: http://[", status="302 F"), "malformed"),
    "to a port": (lambda: answer("Location: http://127.0.0.1:99999/", status="302 F"), "malformed"),
    "to a port that is none": (lambda: answer("Location: http://127.0.0.1:x/", status="302 F"), "malformed"),
    "to port 0": (lambda: answer("Location: http://127.0.0.1:0/", status="302 F"), "which is no web address"),
    "to a dot": (lambda: answer("Location: http://.a/", status="302 F"), "malformed"),
    "to a long label": (lambda: answer(f"Location: http://{'a' * 70}/", status="302 F"), "malformed"),
    "to odd bytes": (lambda: answer("Location: http://\xff\xfe/", status="302 F"), "malformed"),
    "a redirect without end": (lambda: endless("Location: file:///x", status="302 F"), "which is no web address"),
    "a redirect to a bomb": (lambda: answer("Location: /bomb", GZIP, status="302 F"), "HTTP 404"),
}  # fmt: skip


@pytest.mark.parametrize("deed", HOSTILE)
def test_a_hostile_answer_is_one_line(site: Server, setup: Setup, deed: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "_BLOCK", 2**16)
    make, word = HOSTILE[deed]
    site.raw["/hostile"] = [make() for _ in range(ATTEMPTS)]
    assert word in setup.refused(site, "/hostile")
    assert sum(p.stat().st_size for p in setup.folder.iterdir()) < 2 * len(CONTENT)


def test_a_body_without_end_stops_at_the_bound_or_at_half_of_the_disk(
    site: Server, setup: Setup, monkeypatch: pytest.MonkeyPatch
):
    site.raw["/hostile"] = [endless(), endless()]
    assert "more than the 5000 bytes allowed for" in setup.refused(
        site, "/hostile", RemoteFile("file.bin", (), hashes=(MD5,), at_most=5000)
    )
    monkeypatch.setattr(download, "free_bytes", lambda _: 8000)
    assert "more than the 4000 bytes" in setup.refused(site, "/hostile", RemoteFile("file.bin", (), hashes=(MD5,)))
    assert not list(setup.folder.iterdir())


def test_a_record_without_end_and_one_that_unpacks_are_refused(
    site: Server, setup: Setup, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(answers, "_BLOCK", 2**16)
    listed = RemoteFile("file.bin", (), record=site.url("/record"))
    bomb = answer(GZIP, body=gzip.compress(record(MD5) + b" " * 2**25))
    site.raw["/record"] = [endless(block=b" " * 2**16), bomb, answer("Location: file:///x", status="302 F")]
    assert "sends more than 4194304 bytes" in setup.refused(site, file=listed)
    assert "lists no files" in setup.refused(site, file=listed)
    assert "which is no web address" in setup.refused(site, file=listed)


def test_a_body_that_drips_is_given_up(site: Server, setup: Setup, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "SLOW_S", 0.05)

    def dripping() -> Iterator[bytes]:
        yield from answer(LENGTH)
        for _ in range(100):
            time.sleep(0.01)
            yield b"x"

    site.raw["/hostile"] = [dripping() for _ in range(ATTEMPTS)]
    assert "sends less than 65536 bytes in 0 s" in setup.refused(site, "/hostile")


@pytest.mark.parametrize("line", [b"HTTP/1.1 100 Continue\r\n\r\n", b"x"])
def test_an_answer_that_never_begins_is_given_up(
    site: Server, setup: Setup, line: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(answers, "ANSWER_S", 0.05)

    def begins() -> Iterator[bytes]:
        yield b"" if line != b"x" else b"HTTP/1.1 200 OK\r\nX: "
        for _ in range(50):
            time.sleep(0.01)
            yield line

    site.raw["/hostile"] = [begins() for _ in range(ATTEMPTS)]
    assert "has sent no whole answer in 0 s" in setup.refused(site, "/hostile")


def test_a_server_that_gives_and_takes_is_given_up(site: Server, setup: Setup, monkeypatch: pytest.MonkeyPatch):
    """It sends much and breaks off, then starts again with little: what counts is how far the file ever came."""
    monkeypatch.setattr(download, "PROGRESS_BYTES", 100)
    much, little = answer(LENGTH, body=CONTENT[:5000]), answer(LENGTH, body=CONTENT[:10])
    site.raw["/hostile"] = [much, little] * 20
    assert "breaks off" in setup.refused(site, "/hostile")
    assert len(site.requests) == ATTEMPTS


@pytest.mark.parametrize(
    ("value", "waited"),
    [("7", 7), ("0", 0), ("²", 1), ("-5", 1), ("1e3", 1), ("", 1), ("soon", 1), ("9" * 5000, 1), ("\xff", 1),
     ("Fri, 31 Dec 1999 23:59:59 GMT", 1), ("Fri, 99 Foo 99999 99:99:99", 1), ("3600", None), ("60", 60),
     ("Fri, 31 Dec 9999 23:59:59 GMT", None), ("Fri, 31 Dec 9999 23:59:59 -0000", None)],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
@pytest.mark.parametrize("status", ["429 No", "503 No"])
def test_retry_after_of_any_content(site: Server, setup: Setup, value: str, waited: int | None, status: str):
    """A short wait is waited for and said; a long one ends the attempt with words; what is no time is not read."""
    site.raw["/busy"] = [
        answer(f"Retry-After: {value}", "Content-Length: 0", status=status),
        answer(LENGTH, body=CONTENT),
    ]
    if waited is None:
        assert re.search(
            r"HTTP (429|503), .*, and asks to wait \d+ s: run the same command", setup.refused(site, "/busy")
        )
        assert setup.slept == []
    else:
        assert setup.get(site, "/busy").read_bytes() == CONTENT
        assert setup.slept == [waited]
        assert any(what.endswith(f", waiting {waited} s") for what, _, _ in setup.seen)


def test_a_signal_ends_a_wait_at_once(site: Server, tmp_path: Path):
    site.raw["/busy"] = [answer("Retry-After: 60", "Content-Length: 0", status="503 No")]
    began = time.monotonic()
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    with leaving_at_once(), pytest.raises(Stopped):
        Downloader(tmp_path).get(FILE, site.url("/busy"))
    assert time.monotonic() - began < 10


PLACES = ("file.bin", "file.bin.part", "file.bin.part.json")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "folder", "pipe"])
def test_nothing_but_a_plain_file_is_written_or_read(site: Server, setup: Setup, place: str, kind: str, tmp_path: Path):
    victim, planted = tmp_path / "victim", setup.folder / "downloads" / place
    planted.parent.mkdir()
    victim.write_bytes(CONTENT[:500])
    make: dict[str, Callable[[], Any]] = {
        "link": lambda: planted.symlink_to(victim), "dangling link": lambda: planted.symlink_to(tmp_path / "made"),
        "hard link": lambda: os.link(victim, planted), "folder": planted.mkdir, "pipe": lambda: os.mkfifo(planted),
    }  # fmt: skip
    make[kind]()
    with pytest.raises(DataError) as error:
        Downloader(planted.parent).get(FILE, site.url("/file"))
    assert str(error.value).startswith(f"{planted} is a link, a folder or a special file")
    assert "remove it, then run the same command again" in str(error.value)
    assert victim.read_bytes() == CONTENT[:500]
    assert not (tmp_path / "made").exists()
    assert site.requests == []


def test_a_link_that_appears_meanwhile_is_not_followed(site: Server, setup: Setup, monkeypatch: pytest.MonkeyPatch):
    victim = setup.folder / "victim"
    victim.write_bytes(b"precious")
    monkeypatch.setattr(download.Part, "note", lambda self, *_: self.path.symlink_to(victim))
    with pytest.raises(DataError, match="is a link"):
        setup.get(site)
    assert victim.read_bytes() == b"precious"


def test_a_file_that_is_here_is_checked_too(site: Server, setup: Setup):
    (setup.folder / "file.bin").write_bytes(b"planted")
    with pytest.raises(DataError, match=r"file.bin is not the published file \(md5 .*\): remove it"):
        setup.get(site)


@pytest.mark.parametrize(
    "note",
    [b"[]", b"5", b"null", b"", b"\xff", b"[" * 100_000, b"x" * 2**20, b'{"url": 5, "validator": ["x"]}',
     b'{"url": "URL"}', b'{"url": "URL", "validator": 5}', b'{"url": "URL", "validator": "\\n: x"}',
     b'{"url": "URL", "validator": "\\ud800"}',
     b'{"url": "URL", "validator": "' + b"x" * 5000 + b'"}', b'{"url": {}, "validator": {}}'],
    ids=lambda note: repr(note[:40]),
)  # fmt: skip
def test_a_note_of_any_content_is_none(site: Server, setup: Setup, note: bytes):
    (setup.folder / "file.bin.part").write_bytes(CONTENT[:500])
    (setup.folder / "file.bin.part.json").write_bytes(note.replace(b"URL", site.url("/file").encode()))
    assert setup.get(site).read_bytes() == CONTENT
    assert site.requests == [("/file", "bytes=500-")]


def test_odd_validators_are_not_sent_back(site: Server, setup: Setup):
    site.raw["/file"] = [
        answer(LENGTH, 'ETag: "\xff\x01"', body=CONTENT[:500]),
        part("bytes 500-10239/10240", CONTENT[500:]),
    ]
    assert setup.get(site).read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_dropped(site: Server, setup: Setup):
    (setup.folder / "file.bin.part").write_bytes(CONTENT + b"and more")
    assert setup.get(site).read_bytes() == CONTENT
    assert site.requests == [("/file", None)]


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_download_folder_is_no_link_and_no_file(tmp_path: Path, kind: str):
    folder = tmp_path / "root" / "downloads" / "cifar100-the-author"
    folder.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere") if kind == "link" else folder.write_text("")
    with pytest.raises(DataError, match="downloads have a folder of their own: remove it"):
        fetch("cifar100", tmp_path / "root")
