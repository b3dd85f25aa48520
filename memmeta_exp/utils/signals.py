"""Stops a command on a signal: at once if there is nothing to save, else after its state has been saved.

The signals are SIGINT (keyboard), SIGTERM, SIGUSR1, SIGUSR2 (scheduler or user), SIGHUP (closed terminal) and SIGXCPU
(limit of processor time). A signal that was ignored when the command started stays ignored, as SIGHUP under nohup. The
exception is SIGINT, which shells ignore for background commands.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
SUPPRESSION_S = 1.0  # seconds after a stopping signal in which further signals count as repetitions of it
PATIENCE_S = 5.0  # seconds that a step may take after a request; then it is abandoned, and redone on resume


class Stopped(BaseException):
    """Signal `signum` ends the command at once. It is not an Exception, because libraries catch those."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum


def stopped_behind(error: BaseException | None) -> Stopped | None:
    """The Stopped that `error` is, or that is among its causes and contexts; None where there is none.

    Libraries, and Python itself while it makes a class, turn a Stopped into an error of their own. A chain of contexts
    may be a cycle.
    """
    seen: set[int] = set()
    while error is not None and not isinstance(error, Stopped) and id(error) not in seen:
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return error if isinstance(error, Stopped) else None


class StopAsked(Exception):
    """Raised in a run that was asked to stop, at a point where its state can be saved."""


class _Suppression:
    """until: signals raise nothing before this time (time.monotonic()), so that they do not interrupt the shutdown."""

    until = 0.0

    @classmethod
    def is_active_or_start(cls) -> bool:
        """Whether signals are suppressed now. If not, suppresses them for the next SUPPRESSION_S seconds."""
        now = time.monotonic()
        if now < cls.until:
            return True
        cls.until = now + SUPPRESSION_S
        return False


def leave(signum: int, frame: FrameType | None) -> None:
    """The signal handler of a command that has nothing to save. Raises Stopped."""
    if not _Suppression.is_active_or_start():
        raise Stopped(signum)


def hush() -> None:
    """Suppresses signals from now on, while the command prints how it ended."""
    _Suppression.until = math.inf


@contextmanager
def leaving_at_once(for_good: bool = False) -> Iterator[None]:
    """In the block, the signals of STOPPING raise Stopped.

    for_good: the process ends after the block; from then on a signal exits silently, and SIGINT is ignored.
    """
    if for_good:  # sweep workers start with these signals blocked, and stop their jobs by SIGTERM
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(STOPPING) - {signal.SIGINT})
    _Suppression.until = 0.0
    before = _install(leave)
    try:
        yield
    finally:
        if for_good:
            _install(_end)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # else it could interrupt Python's shutdown
        else:
            _restore(before)


def _end(signum: int, frame: FrameType | None) -> None:
    os._exit(128 + signum)


class StopRequest:
    """A context in which the first signal of STOPPING is stored in `signum`; a later SIGINT raises KeyboardInterrupt.

    On exit, the signal is passed to the previous handler if it belongs to a launcher (submitit's asks Slurm to requeue
    the job). Outside the main thread Python allows no handlers, and nothing is stored.
    """

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
        """In the block, a request raises Stopped at once. For work with nothing to save, such as converting data."""
        self._at_once = True
        try:
            if self.signum is not None:
                raise Stopped(self.signum)
            yield
        finally:
            self._at_once = False

    def check(self) -> None:
        """Raises StopAsked if the run has been asked to stop."""
        if self.signum is not None:
            raise StopAsked

    def check_in_a_step(self) -> None:
        """As `check`, but only from PATIENCE_S seconds after the request: the current step may finish until then."""
        if self.signum is not None and time.monotonic() - self._asked_at >= PATIENCE_S:
            raise StopAsked

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum, self._asked_at = signum, time.monotonic()
            if self._at_once:
                raise Stopped(signum)
        elif signum == signal.SIGINT and not _Suppression.is_active_or_start():
            raise KeyboardInterrupt


def block(signums: Collection[signal.Signals] = STOPPING) -> None:
    """Blocks `signums` in this thread, and so in the processes that it starts.

    A terminal or scheduler signals all processes of a command; the parent decides what its children do. Python's
    resource tracker is started here, because starting it unblocks some signals.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, signums)


_OF_WORKER = StopRequest()


def request_to_worker() -> StopRequest:
    """The `StopRequest` of a worker process that was started with blocked signals (`block`).

    The first call unblocks all signals of STOPPING except SIGINT. In any other process the request stays empty.
    """
    if signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        _OF_WORKER.__enter__()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(STOPPING) - {signal.SIGINT})
    return _OF_WORKER


def _install(handler: Any) -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = [s for s in STOPPING if s == signal.SIGINT or signal.getsignal(s) is not signal.SIG_IGN]
    return {signum: signal.signal(signum, handler) for signum in heard}


def _restore(before: dict[int, Any]) -> None:
    for signum, handler in before.items():
        signal.signal(signum, signal.SIG_DFL if handler is None else handler)  # None: not set from Python
