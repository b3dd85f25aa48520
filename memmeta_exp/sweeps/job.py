"""Runs one job of a sweep, in this process or in a child process, and records how it ended. A failure of the job is
not raised, so the next job can run."""

import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO

from memmeta_exp.sweeps.sweep_folder import SweepFolder, killed_by
from memmeta_exp.tracking.run_folder import RunFolder, read_status
from memmeta_exp.utils.errors import MemmetaError
from memmeta_exp.utils.output import lossy_text
from memmeta_exp.utils.reading import open_handle, tail

APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
POLL_S = 0.1
SAID = 2**20  # bytes at the end of a log that are searched for the last message
FAILED = 1  # exit code of a job that ended with an unexpected exception

logger = logging.getLogger("memmeta")


def here(folder: SweepFolder, id: str, action: Callable[[], object]) -> int:
    """Runs the job `action` in this process; returns the exit code that its command would have.

    Its output and warnings go to the job's log, its progress bar to the terminal. KeyboardInterrupt is recorded, then
    raised again.
    """
    folder.begin(id)
    started, code, reason = time.perf_counter(), 0, None
    handle = open_handle(folder.log(id), APPEND)
    with os.fdopen(handle, "ab") as file, lossy_text(file.fileno(), line_buffering=True) as log, _written_to(log):
        try:
            action()
        except MemmetaError as error:
            code, reason = error.exit_code, str(error)
        except KeyboardInterrupt:
            folder.end(id, 130, "interrupted from the keyboard", time.perf_counter() - started)
            raise
        except Exception as error:  # noqa: BLE001 - a bug in one job must not cost the others
            traceback.print_exc(file=log)
            code, reason = FAILED, f"{type(error).__name__}: {str(error).partition(os.linesep)[0]}"
        if reason:
            print(f"memmeta: {reason}", file=log)
    folder.end(id, code, reason, time.perf_counter() - started)
    _clear_up()
    return code


@contextlib.contextmanager
def _written_to(log: TextIO) -> Iterator[None]:
    """Redirects standard output and memmeta's logger to `log` for the block."""
    handler: logging.Handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("memmeta: %(message)s"))
    before = logger.handlers
    logger.handlers = [handler]
    try:
        with contextlib.redirect_stdout(log):
            yield
    finally:
        logger.handlers = before


def _clear_up() -> None:
    """Frees tensors in reference cycles, which would count in the GPU peak of the next job."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def in_child(
    folder: SweepFolder,
    id: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    keep_open: Sequence[int] = (),
    asked: Callable[[], int | None] = lambda: None,
) -> int:
    """Runs `command` in a child process; returns its exit code, -N if signal N killed it.

    environment: additional variables. keep_open: file descriptors that the child inherits. asked: returns a signal to
    pass on once, or None; if the sweep is stopping, its own signal is sent instead.
    """
    if folder.stopping:
        return 128 + signal.SIGTERM
    folder.begin(id)
    started = time.perf_counter()
    with os.fdopen(open_handle(folder.log(id), APPEND), "ab") as log:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            pass_fds=tuple(keep_open),
        )
        code = _wait(process, folder, asked)
    reason = None if code == 0 else _reason(folder, id, code)
    status = read_status(folder.job(id))
    if code < 0 and status.get("state") == "running" and status.get("pid") == process.pid:
        reason = f"{reason}, after iteration {status.get('iteration')}"
        RunFolder(folder.job(id)).set_status("interrupted", reason=reason)
    folder.end(id, code, reason, time.perf_counter() - started)
    return code


def _wait(process: subprocess.Popen[bytes], folder: SweepFolder, asked: Callable[[], int | None]) -> int:
    sent: set[int] = set()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=POLL_S)
        wish = {"soon": signal.SIGTERM, "now": signal.SIGKILL, None: asked()}[folder.stopping]
        if wish is not None and wish not in sent:
            sent.add(wish)
            process.send_signal(wish)


def _reason(folder: SweepFolder, id: str, code: int) -> str:
    """Why a child did not finish: the reason in its status.json, the signal that killed it, or its last message."""
    status = read_status(folder.job(id))
    if status.get("state") in ("failed", "interrupted") and status.get("reason"):
        return str(status["reason"])
    if code < 0:
        return killed_by(code)
    lines = [line for line in tail(folder.log(id), SAID).splitlines() if line.strip()]
    said = [line.removeprefix("memmeta: ") for line in lines if line.startswith("memmeta: ")] or lines[-1:]
    return said[-1] if said else f"ended with exit code {code}, without a message"
