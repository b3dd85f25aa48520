"""The driver's side of a worker process."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class WorkerError(Exception):
    """A worker failed; the text is one line."""


class WorkerProcess:
    """A worker process for `library`, run by the interpreter `python` with `threads` threads until `close`.

    Raises WorkerError if the library cannot be imported there.
    """

    def __init__(self, library: str, python: Path | str, threads: int) -> None:
        self.library = library
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmarks.peer_libraries.worker", library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=_environment(threads),
        )
        try:
            self.facts: dict[str, Any] = self._receive()
        except WorkerError:
            self.close()
            raise

    def ask(self, do: str, **arguments: Any) -> Any:
        """The worker's answer to one request (`worker.py` lists them). Raises WorkerError with the worker's error."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._epitaph()) from None
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._log.close()

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._epitaph())
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply["value"]

    def _epitaph(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return f"ended with code {code}: {lines[-1] if lines else 'no message'}"


def _environment(threads: int) -> dict[str, str]:
    """The worker's environment: PYTHONPATH is this checkout, and waiting OpenMP threads sleep instead of spinning,
    which would slow other workers."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
