"""Stopping a command from outside: at once where there is nothing to lose, else when what there is has been saved.

What asks a command to stop: a keyboard (SIGINT), a scheduler or a person (SIGTERM, SIGUSR1, SIGUSR2), a terminal or a
connection that closes (SIGHUP) and a limit on processor time (SIGXCPU). A signal that whoever started the command has
it ignore, as nohup does with SIGHUP, stays ignored; but for SIGINT, which shells ignore for all they start in the
background.
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
CALM_S = 1.0  # after a signal has ended the work, so long others change nothing: they are the same wish
PATIENCE_S = 5.0  # a step that needs longer after a request is given up; it is done again when the run goes on


class Stopped(BaseException):
    """A command left at once, by signal `signum`; no Exception, which libraries catch."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum


def stopped_behind(error: BaseException | None) -> Stopped | None:
    """The Stopped that `error` is, or that was raised where a library made `error` of it: Python itself does so where a
    class is being made. None where there is none."""
    while error is not None and not isinstance(error, Stopped):
        error = error.__cause__ or error.__context__
    return error


class StopAsked(Exception):
    """A run has been asked to stop, and is where its state can be saved."""


class _Calm:
    """until: before it (time.monotonic()) signals raise nothing, so that the end under way is not cut short."""

    until = 0.0

    @classmethod
    def holds(cls) -> bool:
        """Whether it does now; begins it anew where it does not."""
        now = time.monotonic()
        if now < cls.until:
            return True
        cls.until = now + CALM_S
        return False


def leave(signum: int, frame: FrameType | None) -> None:
    """The handler of a command that has nothing to save. Raises Stopped."""
    if not _Calm.holds():
        raise Stopped(signum)


def hush() -> None:
    """From now on no signal raises: what is left to do is to say how it ended."""
    _Calm.until = math.inf


@contextmanager
def leaving_at_once(for_good: bool = False) -> Iterator[None]:
    """For the block, the signals of STOPPING raise Stopped instead of ending the process without a word. for_good:
    the process ends after the block, and one that comes then ends it in silence, or changes nothing (SIGINT)."""
    if for_good:  # the workers of a sweep have them blocked, and tell their jobs by SIGTERM alone
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(STOPPING) - {signal.SIGINT})
    _Calm.until = 0.0
    before = _install(leave)
    try:
        yield
    finally:
        if for_good:
            _install(_end)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a keyboard: Python would end by it while it tidies up
        else:
            _restore(before)


def _end(signum: int, frame: FrameType | None) -> None:
    os._exit(128 + signum)


class StopRequest:
    """While entered, the first signal of STOPPING is noted in `signum`; a SIGINT after that raises KeyboardInterrupt
    at once. On leaving, what was noted is passed on to the handler that was there before, if it is one of a launcher
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
        elif signum == signal.SIGINT and not _Calm.holds():
            raise KeyboardInterrupt


def block(signums: Collection[signal.Signals] = STOPPING) -> None:
    """Blocks `signums` in this thread, and so in the processes that it starts: a terminal or a scheduler sends them to
    all, and the process that started the others says what becomes of them.

    Python's resource tracker is started here, because starting it unblocks some of them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, signums)


_OF_WORKER = StopRequest()


def request_to_worker() -> StopRequest:
    """What this process has been asked since its first call, where it was started by a thread with `block`; from then
    on it hears all but SIGINT. A request that is never made in any other process."""
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
