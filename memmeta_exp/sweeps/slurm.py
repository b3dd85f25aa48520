"""Additions to hydra-submitit-launcher: keeps waiting if a job of an array is lost, cancels jobs, and requeues a
preempted job only after its run has saved its state."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from memmeta_exp.config import ConfigError
from memmeta_exp.utils.signals import STOPPING

JOB_ID = re.compile(r"\d+(_\d+)?")
PREEMPTING = "SUBMITIT_PREEMPT_SIGNAL"  # submitit's own variable
GRACE_S = 30.0  # seconds between the SIGTERM that announces a preemption and the signal that submitit waits for


def require(dry_run: bool) -> None:
    """Raises ConfigError if the `slurm` extra is not installed, or, unless it is a dry run, Slurm itself."""
    if find_spec("hydra_plugins") is None or find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        raise ConfigError("launcher=slurm needs hydra-submitit-launcher: pip install 'memmeta[slurm]'")
    import submitit

    if not dry_run and submitit.SlurmExecutor.affinity() < 0:
        raise ConfigError(
            "launcher=slurm needs srun, which is not found: run it on a node of a Slurm cluster, or use launcher=joblib"
        )


def described(options: Mapping[str, Any]) -> str:
    """One line of what the array asks of the cluster. options: hydra.launcher."""
    asked = {"partition": options["partition"], "account": options["account"]}
    parts = [f"{key} {value or 'the default'} (launcher.{key})" for key, value in asked.items()]
    return f"{', '.join(parts)}, time {options['timeout_min']} min (launcher.timeout_min)"


class Submitted:
    """The Slurm jobs that submitit has submitted since construction. folder: submitit's folder of this sweep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before = self._ids()

    def _ids(self) -> set[str]:
        return {path.name for path in self.folder.glob("*") if path.is_dir() and JOB_ID.fullmatch(path.name)}

    @property
    def ids(self) -> list[str]:
        """Their ids in the order of submission; jobs of an array by index. An array's own id, under which submitit
        keeps its script, is not a job."""
        new = self._ids() - self._before
        arrays = {id.partition("_")[0] for id in new if "_" in id}
        return sorted(new - arrays, key=lambda id: [int(part) for part in id.split("_")])

    def wait(self) -> list[str]:
        """Waits until every job has ended, also if some fail; returns Slurm's state of each."""
        import submitit
        from submitit.core.utils import UncompletedJobError

        jobs = [submitit.SlurmJob(folder=self.folder / "%j", job_id=id) for id in self.ids]
        for job in jobs:
            with contextlib.suppress(UncompletedJobError):
                job.wait()
        return [str(job.state) for job in jobs]

    def cancel(self) -> None:
        """Removes waiting jobs from the queue, and asks running jobs to save their state and stop."""
        for id in sorted({id.partition("_")[0] for id in self.ids}):
            with contextlib.suppress(OSError):
                subprocess.run(["scancel", id], check=False)


class Preemption:
    """A context that delays submitit's requeueing of a preempted job.

    The signal that makes submitit requeue the job is stored. So the child process that runs the job can save its state
    before `pass_on` calls submitit's handler. Other stopping signals do not end this process: Slurm sends them to the
    child too.
    """

    def __init__(self) -> None:
        self.signal = signal.Signals[f"SIG{os.environ.get(PREEMPTING, 'USR2')}"]
        self.noted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Preemption":
        left = [s for s in STOPPING if signal.getsignal(s) == signal.SIG_DFL]
        self._before = {signum: signal.signal(signum, self._note) for signum in {self.signal, *left}}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.noted |= signum == self.signal

    def asked(self) -> int | None:
        """The signal to pass on to the child; None if none has come."""
        return self.signal if self.noted else None

    def expected(self, exit_code: int) -> bool:
        """Whether a child with this exit code was stopped by a preemption. After SIGTERM, which announces one, it waits
        up to GRACE_S for the preemption itself."""
        if exit_code in (128 + signal.SIGTERM, -signal.SIGTERM):
            until = time.monotonic() + GRACE_S
            while not self.noted and time.monotonic() < until:
                time.sleep(0.1)
        return self.noted and exit_code != 0

    def pass_on(self) -> None:
        """Calls submitit's handler, which requeues the job and ends this process."""
        handler: Callable[[int, FrameType | None], Any] | Any = self._before.get(self.signal)
        if callable(handler):
            handler(self.signal, None)
