"""Downloads from a local server that behaves as badly as real ones do."""

import io

import pytest
import requests

from memmeta_exp.data.prepare import answers, download
from memmeta_exp.data.prepare.answers import SourceError
from memmeta_exp.data.prepare.download import ATTEMPTS
from memmeta_exp.data.prepare.urls import RemoteFile
from tests.data.conftest import Setup
from tests.data.servers import CONTENT, FILE, MD5, SHA256, Server, record


def test_a_file_arrives_and_is_not_asked_for_again(site: Server, setup: Setup):
    assert setup.get(site).read_bytes() == CONTENT
    assert setup.get(site).read_bytes() == CONTENT
    assert site.requests == [("/file", None)]
    assert [p.name for p in setup.folder.iterdir()] == ["file.bin"]
    assert ("file.bin", len(CONTENT), len(CONTENT)) in setup.seen


def test_a_broken_transfer_goes_on_where_it_stopped(site: Server, setup: Setup):
    site.misdeeds["/file"] = ["break off", "break off", "none"]
    assert setup.get(site).read_bytes() == CONTENT
    ranges = [r for _, r in site.requests]
    assert ranges == [None, f"bytes={len(CONTENT) // 2}-", f"bytes={len(CONTENT) * 3 // 4}-"]
    assert setup.slept == [1, 2]
    done = [event[1] for event in setup.seen if event[0] == "file.bin"]
    assert done == sorted(done)


def test_a_later_call_goes_on_too_and_at_another_address(site: Server, setup: Setup):
    site.misdeeds["/file"] = ["break off", "403"]
    assert "HTTP 403" in setup.refused(site)
    assert Setup(setup.folder).get(site, "/mirror").read_bytes() == CONTENT
    assert site.requests[-1] == ("/mirror", f"bytes={len(CONTENT) // 2}-")


def test_attempts_that_bring_much_do_not_count(site: Server, setup: Setup, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "PROGRESS_BYTES", 10)
    site.misdeeds["/file"] = ["break off"] * (ATTEMPTS + 2) + ["none"]
    assert setup.get(site).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(site: Server, setup: Setup):
    site.misdeeds["/file"] = ["break off", "no ranges"]
    assert setup.get(site).read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_starts_again(site: Server, setup: Setup):
    site.misdeeds["/file"] = ["break off", "403"]
    site.files["/file"] = b"an older version" * 100
    older = RemoteFile("file.bin", (), None, (MD5,))
    setup.refused(site, file=older)
    site.files["/file"], site.etags["/file"], site.misdeeds = CONTENT, '"2"', {}
    assert setup.get(site, file=older).read_bytes() == CONTENT
    assert site.requests[-1][1] == "bytes=800-"


def test_two_halves_of_different_files_are_thrown_away(site: Server, setup: Setup):
    """Another address has no validator to compare: the hash finds out, and one fresh start follows."""
    (setup.folder / "file.bin.part").write_bytes(b"x" * 500)
    assert setup.get(site).read_bytes() == CONTENT
    assert [r for _, r in site.requests] == ["bytes=500-", None]


def test_a_complete_part_needs_no_more_bytes(site: Server, setup: Setup):
    (setup.folder / "file.bin.part").write_bytes(CONTENT)
    assert setup.get(site).read_bytes() == CONTENT
    (setup.folder / "file.bin").unlink()
    (setup.folder / "file.bin.part").write_bytes(CONTENT + b"and more")
    assert setup.get(site).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("deed", "word", "requests"),
    [
        ("403", "HTTP 403, refuses access", 1),
        ("404", "HTTP 404, not found", 1),
        ("503", "HTTP 503", ATTEMPTS),
        ("429", "HTTP 429, too many requests", ATTEMPTS),
        ("web page", "answers with a web page", 1),
        ("wrong file", "has 14 bytes, the file 10240", 1),
        ("break off", "breaks off", ATTEMPTS),
        ("too long", "has 10340 bytes, the file 10240", 1),
        ("too short", "has 10235 bytes, the file 10240", 1),
    ],
)
def test_what_a_server_does_wrong_is_said(site: Server, setup: Setup, deed: str, word: str, requests: int):
    site.misdeeds["/file"] = [deed]
    assert word in setup.refused(site)
    assert len(site.requests) == requests
    if deed == "429":
        assert setup.slept == [7.0] * (ATTEMPTS - 1), "Retry-After is honoured"


@pytest.mark.parametrize(
    ("deed", "word"),
    [("wrong file", "sent another file (md5"), ("too short", "sent another file"), ("break off", "breaks off")],
)
def test_lies_are_found_where_the_size_is_unknown(site: Server, setup: Setup, deed: str, word: str):
    site.misdeeds["/file"] = [deed]
    unsized = RemoteFile("file.bin", (), None, (MD5,))
    assert word in setup.refused(site, file=unsized)


def test_a_length_that_is_too_long_does_no_harm(site: Server, setup: Setup):
    """The server says there is more, breaks off, and has nothing left to send: the hash decides."""
    site.misdeeds["/file"] = ["too long"]
    assert setup.get(site, file=RemoteFile("file.bin", (), None, (MD5,))).read_bytes() == CONTENT


def test_a_wrong_file_leaves_nothing_to_continue(site: Server, setup: Setup):
    site.misdeeds["/file"] = ["wrong file"]
    setup.refused(site, file=RemoteFile("file.bin", (), None, (SHA256,)))
    assert not list(setup.folder.iterdir())


def test_a_part_from_the_wrong_place_is_refused(site: Server, setup: Setup):
    site.misdeeds["/file"] = ["break off", "wrong part"]
    assert "continues at byte 5123, asked for 5120" in setup.refused(site)


def test_redirects_are_followed_but_not_in_circles_and_not_to_plain_text(site: Server, setup: Setup):
    site.misdeeds["/moved"] = [f"to:{site.url('/file')}"]
    assert setup.get(site, "/moved").read_bytes() == CONTENT
    site.misdeeds["/circle"] = ["to:/circle"]
    (setup.folder / "file.bin").unlink()
    assert "circle" in setup.refused(site, "/circle")

    answer = requests.Response()
    answer.url, answer.status_code, answer.headers["Location"] = "https://here/file", 302, "http://elsewhere/file"
    answer.raw = io.BytesIO()
    with pytest.raises(SourceError, match="unencrypted"):
        answers.check_redirect(answer)


def test_no_server_is_said_at_once(setup: Setup):
    with pytest.raises(SourceError, match="connection refused"):
        setup.downloader.get(FILE, "http://127.0.0.1:9/file")
    assert setup.slept == []


def test_a_full_disk_is_found_before_it_is_filled(site: Server, setup: Setup, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "free_bytes", lambda _: 1000)
    assert "0.0 free" in setup.refused(site)


def test_a_repository_record_gives_the_hash_that_no_source_states(site: Server, setup: Setup):
    listed = RemoteFile("file.bin", (), record=site.url("/record"))
    assert "no checksum" in setup.refused(site, file=listed)
    site.files["/record"] = record(MD5, "other.bin")
    assert "lists no checksum of file.bin" in Setup(setup.folder).refused(site, file=listed)
    site.files["/record"] = record("md5:" + "0" * 32)
    assert "sent another file" in Setup(setup.folder).refused(site, file=listed)
    site.files["/record"] = record(MD5, size=5)
    assert "has 10240 bytes, the file 5" in Setup(setup.folder).refused(site, file=listed)
    site.files["/record"] = record(MD5)
    assert Setup(setup.folder).get(site, file=listed).read_bytes() == CONTENT
