"""Stops joblib's processes: the jobs of a multirun save their state first, and no process is left running."""

import io
import os
import signal
import threading
from collections.abc import Callable, Collection
from contextlib import nullcontext, redirect_stderr, suppress

import joblib
from joblib.externals.loky import reusable_executor

from memmeta_exp.utils.errors import MultirunInterrupted
from memmeta_exp.utils.signals import StopRequest, block

LAUNCHER = "hydra/launcher=joblib"
N_JOBS = "hydra.launcher.n_jobs="
POLL_S = 0.3


def has_workers(overrides: list[str]) -> bool:
    """Whether a multirun with `overrides` starts joblib processes. With one job at a time it does not."""
    named = [o.removeprefix(N_JOBS) for o in overrides if o.startswith(N_JOBS)]
    counts = [int(text) for text in named if text.lstrip("-").isdecimal() and int(text)]
    return LAUNCHER in overrides and joblib.effective_n_jobs(counts[-1] if counts else -1) > 1


def stopped_together(launch: Callable[[], int]) -> int:
    """Calls `launch`, which starts the processes and waits for them; returns its result.

    A stopping signal is passed on to all processes; after their jobs have saved their state, MultirunInterrupted is
    raised. A second SIGINT kills them at once.
    """
    result: list[int] = []
    error: list[BaseException] = []

    def work() -> None:
        block()
        try:
            result.append(launch())
        except BaseException as raised:  # noqa: BLE001 - raised again in the waiting thread
            error.append(raised)
        finally:
            release()
            over.set()

    over = threading.Event()  # an interrupted Thread.join marks a running thread as ended
    with StopRequest() as stop:
        threading.Thread(target=work, daemon=True).start()
        notified: set[int] = set()
        try:
            while not over.wait(POLL_S) and stop.signum is None:
                pass
            with (
                redirect_stderr(io.StringIO()) if stop.signum else nullcontext()
            ):  # hides Hydra's message about a stopped job
                while not over.wait(POLL_S):
                    notified |= notify(signal.SIGTERM, notified)
        except KeyboardInterrupt:
            notify(signal.SIGKILL)
            over.wait(10 * POLL_S)
            raise
        if stop.signum is not None:
            raise MultirunInterrupted(stop.signum)
    if error:
        raise error[0]
    return result[0]


def notify(signum: int, notified: Collection[int] = ()) -> set[int]:
    """Sends a signal to joblib's processes, except those in `notified`; returns the ids of those it was sent to."""
    executor = reusable_executor._executor
    processes = set(getattr(executor, "_processes", None) or {}) - {*notified}
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signum)
    return processes


def release() -> None:
    """Ends joblib's processes. joblib would reuse them, with their old environment, in the next call."""
    executor = reusable_executor._executor
    if executor is not None:
        executor.shutdown(wait=True)
