"""Reads a server's answer without trusting it: any header may have any content."""

import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import responses
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

ANSWER_S = 120.0  # seconds for the headers of an answer, including redirects
SLOW_S = 60.0  # seconds; a transfer with less than SLOW_BYTES in this time is aborted
SLOW_BYTES = 2**16
_BLOCK = 2**16  # most bytes that are lost when a transfer breaks off
_NUMBER = re.compile(r"[0-9]{1,18}")
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_WORDS = {401: "wants a login", 403: "refuses access"}


class SourceError(Exception):
    """Why an address gave no usable file, in a few words."""


class Passing(SourceError):
    """A temporary error: another attempt may succeed. wait_s: the waiting time that the server asks for."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


@contextmanager
def translated() -> Iterator[None]:
    """Turns errors of requests and urllib3 in the block into SourceError, or Passing if another attempt may succeed."""
    try:
        yield
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
        raise Passing("does not answer in time") from None
    except requests.exceptions.TooManyRedirects:
        raise SourceError("redirects in a circle") from None
    except requests.exceptions.SSLError:
        raise SourceError("its TLS connection or certificate is not valid") from None
    except requests.exceptions.ConnectionError as error:
        raise _no_connection(error) from None
    except urllib3.exceptions.ProtocolError:
        raise Passing("breaks off") from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise SourceError(one_line(error)) from None


@contextmanager
def well_formed() -> Iterator[None]:
    """Turns the ValueError of requests for a malformed address or header in the block into SourceError."""
    try:
        yield
    except ValueError as error:
        raise SourceError(f"gives an address or a header that is malformed ({one_line(error)})") from None


def in_time(call: Callable[[], requests.Response]) -> requests.Response:
    """The result of `call`. Raises what it raises, or Passing after ANSWER_S seconds.

    The time-outs of requests are between two bytes, so a slow server could block the call forever. After a time-out the
    thread of the call is abandoned.
    """
    outcome: queue.SimpleQueue[requests.Response | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(call())
        except Exception as error:  # noqa: BLE001 - the caller raises it
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        answer = outcome.get(timeout=ANSWER_S)
    except queue.Empty:
        raise Passing(f"has sent no whole answer in {ANSWER_S:.0f} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def check_redirect(answer: requests.Response, **_: object) -> None:
    """A hook of requests that raises SourceError for a redirect to anything but a web address, or from https to http.
    It closes the answer, because requests would read its whole body."""
    if not answer.is_redirect:
        return
    answer.close()
    location = answer.headers["Location"]
    with well_formed():
        target = urlsplit(urljoin(answer.url, location))
        named = bool(target.hostname) and target.port != 0
    if target.scheme not in ("http", "https") or not named:
        raise SourceError(f"redirects to {shown(location)}, which is no web address")
    if answer.url.startswith("https:") and target.scheme != "https":
        raise SourceError(f"redirects to an unencrypted address ({shown(location)})")


def blocks(answer: requests.Response) -> Iterator[bytes]:
    """Yields the body as it was sent. It is not decompressed, so it is no larger than what was transferred."""
    since, brought = time.monotonic(), 0
    while block := answer.raw.read1(_BLOCK, decode_content=False):
        yield block
        brought += len(block)
        if time.monotonic() - since > SLOW_S:
            if brought < SLOW_BYTES:
                raise Passing(f"sends less than {SLOW_BYTES} bytes in {SLOW_S:.0f} s")
            since, brought = time.monotonic(), 0


def status(answer: requests.Response) -> str:
    """The HTTP status in our own words, since the server's text is not trusted."""
    word = _WORDS.get(answer.status_code) or responses.get(answer.status_code, "").lower()
    return f"HTTP {answer.status_code}{f', {word}' if word else ''}"


def length(answer: requests.Response) -> int | None:
    """Content-Length; None if it is missing or not a number."""
    return _number(answer.headers.get("Content-Length", ""))


def retry_after_s(answer: requests.Response) -> float | None:
    """Retry-After in seconds, from a number or a date; None if it is missing, invalid or in the past."""
    value = answer.headers.get("Retry-After", "")
    seconds = _number(value)
    if seconds is not None:
        return float(seconds)
    try:
        date = parsedate_to_datetime(value)
        wait_s = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return wait_s if wait_s > 0 else None


def content_range(answer: requests.Response) -> tuple[int, int | None]:
    """START and TOTAL of the header Content-Range, "bytes START-END/TOTAL". Raises SourceError if it is invalid."""
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None:
        raise SourceError("sends a part without saying which")
    return int(found[1]), _number(found[2])


def one_line(error: BaseException) -> str:
    """The first line of an exception's text, or the name of its class."""
    return shown((str(error) or type(error).__name__).splitlines()[0])


def shown(text: str) -> str:
    """Text from a server, made printable and short for a message."""
    return "".join(c if c.isprintable() else "?" for c in text)[:150]


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _no_connection(error: Exception) -> SourceError:
    """The kind of connection error, which requests shows only in its text."""
    text = str(error)
    if "NameResolution" in text or "getaddrinfo" in text:
        return SourceError("its name does not resolve (no network?)")
    if "refused" in text:
        return SourceError("connection refused")
    return Passing("breaks off" if "broken" in text or "aborted" in text or "reset" in text else "cannot be reached")
