"""The jobs of a sweep through Hydra's launchers: `basic` (here, one after the other), `joblib` (processes of this
machine, each job with a GPU and threads of its own) and `slurm` (an array job).

Only `basic` computes in the process that the launcher gives a job. The others start the job's very command as a child,
so that a job which is killed takes no other with it, whatever the launcher makes of it.
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

LAUNCHERS = {"basic": "basic", "joblib": "joblib", "slurm": "slurm"}  # their options of the group hydra/launcher
TRIES = 2  # of what is left, where a launcher has lost processes
POLL_S = 0.3
PROGRAM = (sys.executable, "-m", "memmeta_exp")

logger = logging.getLogger("memmeta")

Action = Callable[[Job, DictConfig, Path], object]


@dataclass(frozen=True)
class Plan:
    """launcher: a key of LAUNCHERS; settings: its own, as hydra.launcher has them; gpus: those to share out, none where
    the jobs need none; threads: for each job, None: as the environment says."""

    launcher: str
    settings: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    threads: int | None = None


def run_serial(folder: SweepFolder, jobs: Sequence[Job], action: Action, after: Callable[[], None]) -> int | None:
    """Does `action` for every job in this process, then `after`; returns the signal that stopped it, if one did."""
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
    """Leaves Hydra's launcher, which would go on after an Exception."""

    def __init__(self, signum: int) -> None:
        self.signum = signum


def run_parallel(folder: SweepFolder, jobs: Sequence[Job], plan: Plan, watch: Callable[[], None]) -> int | None:
    """Runs every job as a child of the processes that the launcher starts, calling `watch` meanwhile; returns the
    signal that stopped it, if one did. What a lost process leaves undone is tried once more."""
    with StopRequest() as stop:
        lost: list[str] = []
        for _ in range(TRIES):
            _await_orphans(folder, jobs, stop, watch)
            left = [job for job in jobs if not folder.ended(job.id) and folder.standing(job).state != "finished"]
            if not left or stop.signum is not None:
                break
            if lost:
                logger.warning("%s; %d jobs are started again", lost[-1], len(left))
            _in_a_thread(folder, left, plan, stop, watch, lost)
        for job in jobs:
            if stop.signum is None and not folder.ended(job.id) and folder.standing(job).state != "finished":
                folder.end(
                    job.id, -signal.SIGKILL, f"its process was lost: {lost[-1] if lost else 'no word of it'}", 0.0
                )
        watch()
        return stop.signum


def _await_orphans(folder: SweepFolder, jobs: Sequence[Job], stop: StopRequest, watch: Callable[[], None]) -> None:
    """A child outlives the process that started it, should that be killed: it is not to be started a second time."""
    while stop.signum is None and any(
        not folder.ended(job.id) and folder.standing(job).state == "running" for job in jobs
    ):
        time.sleep(POLL_S)
        watch()


def _in_a_thread(
    folder: SweepFolder, jobs: Sequence[Job], plan: Plan, stop: StopRequest, watch: Callable[[], None], lost: list[str]
) -> None:
    """The launcher, which blocks, in a thread of its own. The processes that it starts hear none of the signals that a
    terminal or a scheduler sends to all: this process tells them to stop, by a file."""
    submitted = slurm.Submitted(folder.path / ".submitit") if plan.launcher == "slurm" else None
    over = threading.Event()  # Thread.join, interrupted, takes the thread for one that has ended

    def work() -> None:
        block(STOPPING if plan.launcher == "joblib" else (signal.SIGINT,))  # Slurm's own processes are told by Slurm
        commands = {job.id: [*PROGRAM, *job.command(str(folder.job(job.id)))] for job in jobs}
        try:
            _launch(folder, jobs, plan, _Child(folder.path, commands, {job.id: job.title for job in jobs}, plan))
        except Exception as error:  # noqa: BLE001 - the launcher's own: a lost worker, a job that Slurm ended
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
                logger.warning("stopping: running jobs save their state first; once more to leave at once")
                folder.stop()
                if submitted is not None:
                    submitted.cancel()
                    left_at = time.monotonic() + slurm.GRACE_S
            watch()
            if time.monotonic() > left_at:  # Slurm has the request, and need not be waited for
                break
    except KeyboardInterrupt:
        folder.stop(now=True)
        over.wait(10 * POLL_S)
        if plan.launcher == "joblib":
            workers.notify(signal.SIGKILL)
        raise


def _note_lost(folder: SweepFolder, ids: Sequence[str], states: Sequence[str]) -> None:
    """Ends the jobs that Slurm ended before they could note it themselves."""
    for id, state in zip(ids, states, strict=False):
        if not folder.ended(id):
            folder.end(id, -signal.SIGKILL, f"Slurm ended it: {state}", 0.0)


def _said(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else 'no word why'}"


@dataclass(frozen=True)
class _Child:
    """What a launcher's process does for a job; importable, so that it can be sent there. Never raises for the job."""

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
    """The job's id and folder, as Hydra has them."""
    path = Path(settings.runtime.output_dir)
    return path.name, path


def _launch(folder: SweepFolder, jobs: Sequence[Job], plan: Plan, task: Callable[[DictConfig], int]) -> None:
    """Hands the jobs to Hydra's launcher, each as the overrides of its command line and the name of its folder."""
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
    """launcher.KEY=VALUE arguments as overrides of hydra.launcher. Raises ConfigError for a launcher that is not here,
    and for a key or value that it does not take."""
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
            raise ConfigError(f"launcher={launcher} does not know '{key}'{near}")
    options_of(launcher, overrides)
    return tuple(overrides)


def options_of(launcher: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """hydra.launcher as `overrides` make it. ConfigError where they do not compose."""
    with _hydra() as hydra:
        lines = [f"hydra/launcher={LAUNCHERS[launcher]}", *overrides]
        try:
            return dict(hydra.compose_config("config", lines, run_mode=RunMode.MULTIRUN).hydra.launcher)
        except Exception as error:  # noqa: BLE001 - Hydra raises a dozen kinds, and all its input here is the user's
            raise ConfigError(one_line(error)) from None


@contextlib.contextmanager
def _hydra() -> Iterator[Hydra]:
    GlobalHydra.instance().clear()
    store_options()
    with initialize_config_dir(str(conf_dir()), job_name="memmeta", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield hydra
