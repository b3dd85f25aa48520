"""The folder of a sweep: its description, the folders and ends of its jobs, and the request to stop.

    sweep.yaml  jobs.json  results.csv  results.parquet  jobs/ID/  log/ID.txt  log/ID.json  report/

jobs/ID is the run folder of a job, log/ID.txt its output, log/ID.json its end. The process that starts a job writes its
end, so a job that was killed has one too.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from memmeta_exp.config import ConfigError
from memmeta_exp.sweeps.grid import Job
from memmeta_exp.tracking.expected import End
from memmeta_exp.tracking.run_folder import read_mapping, read_status
from memmeta_exp.utils.atomic_io import replace_text
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.file_lock import FolderLock
from memmeta_exp.utils.reading import read_bytes

STATES = ("finished", "failed", "interrupted", "running", "waiting")
SILENT_S = 3600.0  # seconds without a write after which a process on another host counts as ended
SIGNS = ("status.json", "metrics.jsonl")  # files that a running run updates


@dataclass(frozen=True)
class Standing:
    """The status of a job: one of STATES, and a reason unless it is finished."""

    state: str
    reason: str | None = None


class SweepFolder:
    """SWEEP_DIR, shared by the process of the sweep and the processes of its jobs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stop = path / ".stop"

    def job(self, id: str) -> Path:
        """The run folder of a job."""
        return self.path / "jobs" / id

    def log(self, id: str) -> Path:
        """The file with a job's output."""
        return self.path / "log" / f"{id}.txt"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Creates the folder and locks it for the block. Raises ConfigError if another sweep has it, or it cannot be
        written."""
        try:
            for folder in (self.path / "jobs", self.path / "log"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the sweep folder {self.path} cannot be created ({error.strerror}): name another with dir=DIR"
            ) from None
        lock = FolderLock(self.path)
        lock.take("another memmeta sweep")
        try:
            self._stop.unlink(missing_ok=True)
            yield
        finally:
            self._stop.unlink(missing_ok=True)
            lock.release()

    def describe(self, description: Mapping[str, Any], jobs: Sequence[Job]) -> None:
        """Writes sweep.yaml and jobs.json."""
        text = yaml.safe_dump({**description, "jobs": len(jobs)}, sort_keys=False, allow_unicode=True)
        replace_text(self.path / "sweep.yaml", text)
        listed = [
            {"job": f"jobs/{job.id}", "values": job.values, "command": job.command(str(self.job(job.id)))}
            for job in jobs
        ]
        replace_text(self.path / "jobs.json", json.dumps(listed, indent=1) + "\n")

    def stop(self, now: bool = False) -> None:
        """Asks the processes of the jobs to stop: after saving their state, or at once if `now`."""
        self._stop.write_text("now" if now else "soon")

    @property
    def stopping(self) -> str | None:
        """`soon` or `now` if a stop was asked for, else None."""
        try:
            return "now" if read_bytes(self._stop, 16) == b"now" else "soon"
        except FileNotFoundError:
            return None
        except DataError:
            return "soon"

    def end(self, id: str, exit_code: int, reason: str | None, seconds: float) -> None:
        """Records how a started job ended. exit_code: -N if signal N killed it."""
        end = {"exit_code": exit_code, "reason": reason, "seconds": round(seconds, 3), "host": socket.gethostname()}
        replace_text(self.path / "log" / f"{id}.json", json.dumps(end) + "\n")

    def begin(self, id: str) -> None:
        """Removes the record of how an earlier attempt of a job ended."""
        (self.path / "log" / f"{id}.json").unlink(missing_ok=True)

    def ended(self, id: str) -> dict[str, Any]:
        """How the last attempt of a job ended; empty if it was not started or has not ended."""
        return read_mapping(self.path / "log" / f"{id}.json", End)

    def standing(self, job: Job) -> Standing:
        """The status of a job, from its folder and its recorded end."""
        return job_status(self.job(job.id), job.kind, self.ended(job.id))


def job_status(folder: Path, kind: str = "train", end: Mapping[str, Any] | None = None) -> Standing:
    """The status of the job in `folder`. end: how its process ended, if known."""
    status = read_status(folder)
    state, reason = status.get("state"), status.get("reason")
    if state == "finished" and (folder / ("profile.json" if kind == "profile" else "summary.json")).is_file():
        return Standing("finished")
    if state == "running" and not end and _may_live(status, folder):  # a running attempt has no end yet
        return Standing("running", f"process {status.get('pid')} on {status.get('host')}")
    if not end:
        if state in ("failed", "interrupted"):
            return Standing(state, reason)
        gone = f"process {status.get('pid')} on {status.get('host')} is gone" if state else "not started"
        return Standing("interrupted" if state else "waiting", gone)
    why = str(end.get("reason") or reason or f"ended with exit code {end.get('exit_code')}")
    stopped = int(end.get("exit_code", 1)) < 0 or int(end.get("exit_code", 1)) > 128
    return Standing("interrupted" if stopped else "failed", why)


def killed_by(exit_code: int) -> str:
    """A description of the negative exit code of a killed process."""
    name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
    return f"killed by {name}" + (": out of memory, or killed from outside" if name == "SIGKILL" else "")


def _may_live(status: Mapping[str, Any], folder: Path) -> bool:
    """Whether the process named in a status.json may still be running.

    It must hold the folder's lock, since its process id may have been reused. Locks of another host may be invisible
    here, so there it is enough that the run has written within SILENT_S.
    """
    here = status.get("host") == socket.gethostname()
    if here:
        with suppress(PermissionError):  # a process of another user
            try:
                os.kill(int(status["pid"]), 0)
            except (KeyError, ValueError, TypeError, OverflowError, ProcessLookupError):
                return False
    lock = FolderLock(folder)
    try:
        lock.take("the run")
    except ConfigError:
        return True
    lock.release()
    return not here and time.time() - _last_sign(folder) < SILENT_S


def _last_sign(folder: Path) -> float:
    """The time of a run's last write, in seconds since 1970; 0 if there is none."""
    files = [folder / name for name in SIGNS if (folder / name).is_file()]
    return max((file.stat().st_mtime for file in files), default=0.0)
