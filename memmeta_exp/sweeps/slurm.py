"""What a sweep needs of Slurm beyond hydra-submitit-launcher: to go on waiting when one job of an array is lost, to
cancel, and to have a preempted job queued again only when its run has saved its state."""

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
GRACE_S = 30.0  # between the SIGTERM with which Slurm announces a preemption and the signal that submitit waits for


def require(dry_run: bool) -> None:
    """ConfigError where the `slurm` extra is not here, or Slurm, which a dry run does without."""
    if find_spec("hydra_plugins") is None or find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        raise ConfigError("launcher=slurm needs hydra-submitit-launcher: pip install 'memmeta[slurm]'")
    import submitit

    if not dry_run and submitit.SlurmExecutor.affinity() < 0:
        raise ConfigError(
            "launcher=slurm: there is no srun here; run it on a node of a Slurm cluster, or launcher=joblib"
        )


def described(options: Mapping[str, Any]) -> str:
    """One line of what the array asks of the cluster. options: hydra.launcher."""
    asked = {"partition": options["partition"], "account": options["account"]}
    parts = [f"{key} {value or 'the default'} (launcher.{key})" for key, value in asked.items()]
    return f"{', '.join(parts)}, time {options['timeout_min']} min (launcher.timeout_min)"


class Submitted:
    """The Slurm jobs under `folder`, submitit's folder of this sweep, that were not there before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before = self._ids()

    def _ids(self) -> set[str]:
        return {path.name for path in self.folder.glob("*") if path.is_dir() and JOB_ID.fullmatch(path.name)}

    @property
    def ids(self) -> list[str]:
        """In the order of submission: an array's by their index. submitit keeps an array's script under its bare id."""
        new = self._ids() - self._before
        arrays = {id.partition("_")[0] for id in new if "_" in id}
        return sorted(new - arrays, key=lambda id: [int(part) for part in id.split("_")])

    def wait(self) -> list[str]:
        """Waits until each has ended, whatever became of the others; returns Slurm's word for each."""
        import submitit
        from submitit.core.utils import UncompletedJobError

        jobs = [submitit.SlurmJob(folder=self.folder / "%j", job_id=id) for id in self.ids]
        for job in jobs:
            with contextlib.suppress(UncompletedJobError):
                job.wait()
        return [str(job.state) for job in jobs]

    def cancel(self) -> None:
        """Takes those that wait out of the queue and asks those that run to stop, which saves their state."""
        for id in sorted({id.partition("_")[0] for id in self.ids}):
            with contextlib.suppress(OSError):
                subprocess.run(["scancel", id], check=False)


class Preemption:
    """While entered, the signal by which submitit has a job queued again is noted instead, so that the child process
    which runs the job can be told, and save its state, before `pass_on` lets submitit act. Other signals that stop a
    run do not end this process, for Slurm sends them to the child too."""

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
        """The signal to pass on to the child."""
        return self.signal if self.noted else None

    def expected(self, exit_code: int) -> bool:
        """Whether a child that ended so was stopped by what announces a preemption; waits for the preemption then."""
        if exit_code in (128 + signal.SIGTERM, -signal.SIGTERM):
            until = time.monotonic() + GRACE_S
            while not self.noted and time.monotonic() < until:
                time.sleep(0.1)
        return self.noted and exit_code != 0

    def pass_on(self) -> None:
        """Calls submitit's own handler, which has the job queued again and ends this process."""
        handler: Callable[[int, FrameType | None], Any] | Any = self._before.get(self.signal)
        if callable(handler):
            handler(self.signal, None)
