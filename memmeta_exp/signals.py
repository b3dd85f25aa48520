"""Stopping a command from outside: at once where there is nothing to lose, else when what there is has been saved."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
PATIENCE_S = 5.0  # a step that needs longer after a request is given up; it is done again when the run goes on


class Stopped(BaseException):
    """A command left at once, by signal `signum`; no Exception, which libraries catch."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum


class StopAsked(Exception):
    """A run has been asked to stop, and is where its state can be saved."""


def leave(signum: int, frame: FrameType | None) -> None:
    """The handler of a command that has nothing to save. Raises Stopped."""
    raise Stopped(signum)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """For the block, SIGINT, SIGTERM and SIGUSR2 raise Stopped instead of ending the process without a word."""
    before = _install(leave)
    try:
        yield
    finally:
        _restore(before)


class StopRequest:
    """While entered, SIGINT, SIGTERM and SIGUSR2 are noted in `signum`; a SIGINT after that raises KeyboardInterrupt at
    once. On leaving, what was noted is passed on to the handler that was there before, if it is one of a launcher
    (submitit's asks Slurm to queue the job again). Outside the main thread, where Python allows no handlers, it notes
    nothing."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._asked_at, self._at_once = 0.0, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        self._before = _install(self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _restore(self._before)
        handler = self._before.get(self.signum) if self.signum is not None else None
        if callable(handler) and handler not in (leave, signal.default_int_handler):
            handler(self.signum, None)

    @contextmanager
    def leaving_at_once(self) -> Iterator[None]:
        """For the block, in which there is nothing to save yet, a request raises Stopped: the reading and converting of
        data may take long."""
        self._at_once = True
        try:
            if self.signum is not None:
                raise Stopped(self.signum)
            yield
        finally:
            self._at_once = False

    def check(self) -> None:
        """StopAsked if the run has been asked to stop."""
        if self.signum is not None:
            raise StopAsked

    def check_in_a_step(self) -> None:
        """As `check`, but only when the step that is under way has had its time to end."""
        if self.signum is not None and time.monotonic() - self._asked_at >= PATIENCE_S:
            raise StopAsked

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum, self._asked_at = signum, time.monotonic()
            if self._at_once:
                raise Stopped(signum)
        elif signum == signal.SIGINT:
            raise KeyboardInterrupt


def _install(handler: Any) -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {signum: signal.signal(signum, handler) for signum in STOPPING}


def _restore(before: dict[int, Any]) -> None:
    for signum, handler in before.items():
        signal.signal(signum, signal.SIG_DFL if handler is None else handler)  # None: not set from Python
