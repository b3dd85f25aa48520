"""A local HTTP server that serves files well or badly, as each path's script says."""

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from memmeta_exp.data.prepare.urls import RemoteFile

CONTENT = bytes(range(256)) * 40
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
FILE = RemoteFile("file.bin", (), len(CONTENT), (MD5, SHA256))


class Server:
    """files: content by path; misdeeds: of a path, what to do wrong at each request in turn, the last from then on.
    raw: of a path, the answers, byte by byte, in turn. requests: (path, Range) of each request so far."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.misdeeds, self.requests = files, {}, []
        self.etags: dict[str, str] = {}
        self.raw: dict[str, list[Iterable[bytes]]] = {}
        self.address = ""

    def url(self, path: str) -> str:
        return f"{self.address}{path}"

    def misdeed(self, path: str) -> str:
        script = self.misdeeds.get(path, ["none"])
        return script.pop(0) if len(script) > 1 else script[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, _Http)
        site, path = self.server.site, self.path
        wanted = self.headers.get("Range")
        site.requests.append((path, wanted))
        if path in site.raw:
            script = site.raw[path]
            return self._send_raw(script.pop(0) if len(script) > 1 else script[0])
        deed = site.misdeed(path)
        if deed.isdigit():
            headers = {"Retry-After": "7"} if deed == "429" else {}
            return self._send(int(deed), b"no", headers)
        if deed.startswith("to:"):
            return self._send(302, b"", {"Location": deed[3:]})
        content = b"something else" if deed == "wrong file" else site.files.get(path)
        if content is None:
            return self._send(404, b"")
        if deed == "web page":
            return self._send(200, b"<html>quota</html>", {"Content-Type": "text/html; charset=utf-8"})
        self._serve(content, wanted, deed, site.etags.get(path, '"1"'))

    def _serve(self, content: bytes, wanted: str | None, deed: str, etag: str) -> None:
        condition = self.headers.get("If-Range")
        start = int(wanted[len("bytes=") :].rstrip("-")) if wanted and deed != "no ranges" else 0
        if condition is not None and condition != etag:
            start = 0
        headers = {"ETag": etag}
        if start > len(content) or (start and start == len(content)):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        if start:
            shift = 3 if deed == "wrong part" else 0
            headers["Content-Range"] = f"bytes {start + shift}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if deed == "break off":
            return self._send(206 if start else 200, body[: len(body) // 2], headers, length=len(body))
        if deed == "too long":
            return self._send(206 if start else 200, body, headers, length=len(body) + 100)
        if deed == "too short":
            return self._send(206 if start else 200, body[:-5], headers, length=len(body) - 5)
        self._send(206 if start else 200, body, headers)

    def _send_raw(self, answer: Iterable[bytes]) -> None:
        for block in answer:
            self.wfile.write(block)
        self.close_connection = True

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/octet-stream", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = length is not None

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    site: Server

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what the tests ask for."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    site = Server(files)
    with _Http(("127.0.0.1", 0), _Handler) as http:
        http.site = site
        site.address = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield site
        finally:
            http.shutdown()
            thread.join()


def record(checksum: Any, name: str = "file.bin", size: Any = 10240) -> bytes:
    return json.dumps({"files": [{"key": name, "checksum": checksum, "size": size}]}).encode()


def answer(*headers: str, body: bytes = b"", status: str = "200 OK") -> list[bytes]:
    return [f"HTTP/1.1 {status}\r\n".encode(), *(f"{h}\r\n".encode("latin-1") for h in headers), b"\r\n", body]


def endless(*headers: str, status: str = "200 OK", block: bytes = bytes(2**16)) -> Iterable[bytes]:
    yield from answer(*headers, status=status)
    while True:
        yield block


def part(range_: str, body: bytes = CONTENT) -> list[bytes]:
    return answer(f"Content-Range: {range_}", f"Content-Length: {len(body)}", status="206 Partial", body=body)
