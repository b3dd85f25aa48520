"""Runs the jobs of a sweep through Hydra's launchers: `basic` (one after the other in this process), `joblib` (parallel
processes on this machine, each with its own GPU and threads) and `slurm` (an array job).

With `joblib` and `slurm`, the launcher's process starts the job's command as a child process. So a job that is killed
does not affect the launcher or other jobs.
"""

import contextlib
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from memmeta_exp.config import ConfigError, closest
from memmeta_exp.config.compose import one_line, store_options
from memmeta_exp.config.overrides import conf_dir, quote_paths
from memmeta_exp.sweeps import devices, job, slurm, workers
from memmeta_exp.sweeps.grid import Job
from memmeta_exp.sweeps.sweep_folder import SweepFolder
from memmeta_exp.tracking import TITLE
from memmeta_exp.utils.signals import STOPPING, StopRequest, block

LAUNCHERS = {"basic": "basic", "joblib": "joblib", "slurm": "slurm"}  # name: option of the group hydra/launcher
TRIES = 2  # a job is started at most this often if the launcher loses its process
POLL_S = 0.3
PROGRAM = (sys.executable, "-m", "memmeta_exp")

logger = logging.getLogger("memmeta")

Action = Callable[[Job, DictConfig, Path], object]


@dataclass(frozen=True)
class Plan:
    """How to launch the jobs.

    launcher: a key of LAUNCHERS. settings: overrides of hydra.launcher. gpus: GPUs to assign to jobs; empty if they
    need none. threads: per job; None: as the environment says.
    """

    launcher: str
    settings: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    threads: int | None = None


def run_serial(folder: SweepFolder, jobs: Sequence[Job], action: Action, after: Callable[[], None]) -> int | None:
    """Runs `action`, then `after`, for every job in this process; returns the signal that stopped it, or None."""
    by_id = {job.id: job for job in jobs}
    with StopRequest() as stop:

        def task(cfg: DictConfig) -> int:
            id, path = _at(HydraConfig.get())
            if stop.signum is not None:
                raise _Stop(stop.signum)
            code = job.here(folder, id, lambda: action(by_id[id], cfg, path))
            after()
            if code > 128:
                raise _Stop(code - 128)
            return code

        try:
            _launch(folder, jobs, Plan("basic"), task)
        except _Stop as stopped:
            return stopped.signum
        return stop.signum


class _Stop(BaseException):
    """Leaves Hydra's launcher, which would continue after an Exception."""

    def __init__(self, signum: int) -> None:
        self.signum = signum


def run_parallel(folder: SweepFolder, jobs: Sequence[Job], plan: Plan, watch: Callable[[], None]) -> int | None:
    """Runs every job in a child of the launcher's processes, and calls `watch` repeatedly meanwhile.

    Jobs of a lost process are started once more. Returns the signal that stopped it, or None.
    """
    with StopRequest() as stop:
        lost: list[str] = []
        for _ in range(TRIES):
            _await_orphans(folder, jobs, stop, watch)
            left = [job for job in jobs if not folder.ended(job.id) and folder.standing(job).state != "finished"]
            if not left or stop.signum is not None:
                break
            if lost:
                logger.warning("%s; restarting %d jobs", lost[-1], len(left))
            _in_a_thread(folder, left, plan, stop, watch, lost)
        for job in jobs:
            if stop.signum is None and not folder.ended(job.id) and folder.standing(job).state != "finished":
                folder.end(
                    job.id, -signal.SIGKILL, f"its process was lost: {lost[-1] if lost else 'reason unknown'}", 0.0
                )
        watch()
        return stop.signum


def _await_orphans(folder: SweepFolder, jobs: Sequence[Job], stop: StopRequest, watch: Callable[[], None]) -> None:
    """Waits for jobs that still run although their parent process was killed, so that they are not started twice."""
    while stop.signum is None and any(
        not folder.ended(job.id) and folder.standing(job).state == "running" for job in jobs
    ):
        time.sleep(POLL_S)
        watch()


def _in_a_thread(
    folder: SweepFolder, jobs: Sequence[Job], plan: Plan, stop: StopRequest, watch: Callable[[], None], lost: list[str]
) -> None:
    """Runs the launcher, which blocks, in its own thread, until all jobs have ended or a stop was asked for.

    Its processes have stopping signals blocked, since terminals and schedulers send these to all processes. This
    process stops them through a file in the sweep folder. lost: gets the errors of the launcher.
    """
    submitted = slurm.Submitted(folder.path / ".submitit") if plan.launcher == "slurm" else None
    over = threading.Event()  # an interrupted Thread.join marks a running thread as ended

    def work() -> None:
        block(STOPPING if plan.launcher == "joblib" else (signal.SIGINT,))  # Slurm itself signals its processes
        commands = {job.id: [*PROGRAM, *job.command(str(folder.job(job.id)))] for job in jobs}
        try:
            _launch(folder, jobs, plan, _Child(folder.path, commands, {job.id: job.title for job in jobs}, plan))
        except Exception as error:  # noqa: BLE001 - an error of the launcher: a lost worker, a job ended by Slurm
            lost.append(_said(error))
            if submitted is not None:
                _note_lost(folder, list(commands), submitted.wait())
        finally:
            over.set()

    threading.Thread(target=work, daemon=True).start()
    left_at = math.inf
    try:
        while not over.wait(POLL_S):
            if stop.signum is not None and not folder.stopping:
                logger.warning("stopping: running jobs save their state first; repeat the signal to leave at once")
                folder.stop()
                if submitted is not None:
                    submitted.cancel()
                    left_at = time.monotonic() + slurm.GRACE_S
            watch()
            if time.monotonic() > left_at:  # the request to cancel is sent; do not wait for Slurm
                break
    except KeyboardInterrupt:
        folder.stop(now=True)
        over.wait(10 * POLL_S)
        if plan.launcher == "joblib":
            workers.notify(signal.SIGKILL)
        raise


def _note_lost(folder: SweepFolder, ids: Sequence[str], states: Sequence[str]) -> None:
    """Records the end of jobs that Slurm ended before they could record it. states: Slurm's state of each job."""
    for id, state in zip(ids, states, strict=False):
        if not folder.ended(id):
            folder.end(id, -signal.SIGKILL, f"Slurm ended it: {state}", 0.0)


def _said(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else 'no reason given'}"


@dataclass(frozen=True)
class _Child:
    """The task of a launcher's process: runs one job in a child process. It can be pickled, and does not raise if the
    job fails."""

    path: Path
    commands: dict[str, list[str]]
    titles: dict[str, str]
    plan: Plan

    def __call__(self, cfg: DictConfig) -> int:
        folder, (id, _) = SweepFolder(self.path), _at(HydraConfig.get())
        if self.plan.launcher == "slurm":
            return self._on_a_node(folder, id)
        environment = {TITLE: self.titles[id]}
        environment |= {} if self.plan.threads is None else {"OMP_NUM_THREADS": str(self.plan.threads)}
        if not self.plan.gpus:
            return job.in_child(folder, id, self.commands[id], environment)
        with devices.claimed(self.plan.gpus, stopping=lambda: folder.stopping) as found:
            if found is None:
                return 128 + signal.SIGTERM
            gpu, lock = found
            return job.in_child(folder, id, self.commands[id], {**environment, "CUDA_VISIBLE_DEVICES": gpu}, (lock,))

    def _on_a_node(self, folder: SweepFolder, id: str) -> int:
        cpus = os.environ.get("SLURM_CPUS_PER_TASK")
        environment = {TITLE: self.titles[id]}
        environment |= {"OMP_NUM_THREADS": cpus} if cpus and "OMP_NUM_THREADS" not in os.environ else {}
        with slurm.Preemption() as preemption:
            code = job.in_child(folder, id, self.commands[id], environment, asked=preemption.asked)
            preempted = preemption.expected(code) if folder.stopping is None else False
        if preempted:
            folder.begin(id)
            preemption.pass_on()
        return code


def _at(settings: Any) -> tuple[str, Path]:
    """The id and the folder of the job, from Hydra's settings."""
    path = Path(settings.runtime.output_dir)
    return path.name, path


def _launch(folder: SweepFolder, jobs: Sequence[Job], plan: Plan, task: Callable[[DictConfig], int]) -> None:
    """Passes the jobs to Hydra's launcher, which calls `task` for each. Blocks until it returns."""
    overrides = [
        f"hydra/launcher={LAUNCHERS[plan.launcher]}",
        quote_paths(f"hydra.sweep.dir={folder.path / 'jobs'}"),
        *plan.settings,
    ]
    if plan.launcher == "slurm":
        overrides.append(quote_paths(f"hydra.launcher.submitit_folder={folder.path / '.submitit' / '%j'}"))
    with _hydra() as hydra:
        config = hydra.compose_config("config", overrides, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
        try:
            launcher.launch([_as_hydra_reads(job) for job in jobs], initial_job_idx=0)
        finally:
            if plan.launcher == "joblib":
                workers.release()


def _as_hydra_reads(job: Job) -> list[str]:
    return [quote_paths(override) for override in (*job.overrides, f"hydra.sweep.subdir={job.id}")]


def settings_of(launcher: str, given: Sequence[str], dry_run: bool = False) -> tuple[str, ...]:
    """The launcher.KEY=VALUE arguments `given` as overrides of hydra.launcher. Raises ConfigError if the launcher is
    unknown or not installed, or does not accept a key or value. A dry run needs no Slurm."""
    if launcher not in LAUNCHERS:
        raise ConfigError(f"launcher={launcher} is unknown{closest(launcher, LAUNCHERS)}")
    if launcher == "slurm":
        slurm.require(dry_run)
    overrides = [f"hydra.{setting}" for setting in given]
    options = options_of(launcher)
    known = {f"launcher.{key}" for key in options if key not in ("_target_", "submitit_folder", "backend")}
    for setting in given:
        key = setting.partition("=")[0]
        if ".".join(key.split(".")[:2]) not in known:
            near = closest(key, known) if known else ": it has no settings"
            raise ConfigError(f"launcher={launcher} has no setting '{key}'{near}")
    options_of(launcher, overrides)
    return tuple(overrides)


def options_of(launcher: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """hydra.launcher as `overrides` make it. ConfigError where they do not compose."""
    with _hydra() as hydra:
        lines = [f"hydra/launcher={LAUNCHERS[launcher]}", *overrides]
        try:
            return dict(hydra.compose_config("config", lines, run_mode=RunMode.MULTIRUN).hydra.launcher)
        except Exception as error:  # noqa: BLE001 - Hydra raises many types, and all of its input is the user's
            raise ConfigError(one_line(error)) from None


@contextlib.contextmanager
def _hydra() -> Iterator[Hydra]:
    GlobalHydra.instance().clear()
    store_options()
    with initialize_config_dir(str(conf_dir()), job_name="memmeta", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield hydra
