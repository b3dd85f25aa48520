"""The folder of a sweep: its description, its jobs' folders, what became of each, and the wish to stop.

    sweep.yaml  jobs.json  results.csv  results.parquet  jobs/ID/  log/ID.txt  log/ID.json  report/

jobs/ID is the run folder that the job's command fills; log/ID.txt is what it printed, log/ID.json how it ended, written
by whoever started it, so that a job that was killed, or never came to write, has an end too.
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
SILENT_S = 3600.0  # of a process on another host, after which it is taken to be gone
SIGNS = ("status.json", "metrics.jsonl")  # files that a run goes on writing


@dataclass(frozen=True)
class Standing:
    """How a job stands: one of STATES, and why where it is not finished."""

    state: str
    reason: str | None = None


class SweepFolder:
    """SWEEP_DIR, shared by the process that started the sweep and those that run its jobs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stop = path / ".stop"

    def job(self, id: str) -> Path:
        """The run folder of a job."""
        return self.path / "jobs" / id

    def log(self, id: str) -> Path:
        """What a job printed."""
        return self.path / "log" / f"{id}.txt"

    @contextmanager
    def held(self) -> Iterator[None]:
        """For the block the folder is this command's; ConfigError where another one has it."""
        try:
            for folder in (self.path / "jobs", self.path / "log"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"no sweep can be kept in {self.path} ({error.strerror}): name another with dir=DIR"
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
        """Asks every process that runs jobs to end them: as soon as they have saved their state, or `now`."""
        self._stop.write_text("now" if now else "soon")

    @property
    def stopping(self) -> str | None:
        """`soon` or `now` where a stop has been asked for."""
        try:
            return "now" if read_bytes(self._stop, 16) == b"now" else "soon"
        except FileNotFoundError:
            return None
        except DataError:
            return "soon"

    def end(self, id: str, exit_code: int, reason: str | None, seconds: float) -> None:
        """Notes how a job that was started has ended."""
        end = {"exit_code": exit_code, "reason": reason, "seconds": round(seconds, 3), "host": socket.gethostname()}
        replace_text(self.path / "log" / f"{id}.json", json.dumps(end) + "\n")

    def begin(self, id: str) -> None:
        """Forgets how an earlier try of a job ended."""
        (self.path / "log" / f"{id}.json").unlink(missing_ok=True)

    def ended(self, id: str) -> dict[str, Any]:
        """How the last try of a job ended; empty where there was none, or it has not ended."""
        return read_mapping(self.path / "log" / f"{id}.json", End)

    def standing(self, job: Job) -> Standing:
        """What the job's folder and its end say."""
        return job_status(self.job(job.id), job.kind, self.ended(job.id))


def job_status(folder: Path, kind: str = "train", end: Mapping[str, Any] | None = None) -> Standing:
    """How the job in `folder` stands. end: how its process ended, where that is known."""
    status = read_status(folder)
    state, reason = status.get("state"), status.get("reason")
    if state == "finished" and (folder / ("profile.json" if kind == "profile" else "summary.json")).is_file():
        return Standing("finished")
    if state == "running" and not end and _may_live(status, folder):  # a new try has no end yet
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
    """What a negative exit code of a process says."""
    name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
    return f"killed by {name}" + (": out of memory, or ended from outside" if name == "SIGKILL" else "")


def _may_live(status: Mapping[str, Any], folder: Path) -> bool:
    """Whether the process of a status.json may be running still. It has to hold the folder's lock, for its number may
    have become another's; on another host, whose locks this one need not see, it has to have written lately."""
    here = status.get("host") == socket.gethostname()
    if here:
        with suppress(PermissionError):  # another user's
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
    """When a run last wrote, in seconds since 1970."""
    files = [folder / name for name in SIGNS if (folder / name).is_file()]
    return max((file.stat().st_mtime for file in files), default=0.0)
