"""The single runner: one configuration, one folder, from the first draw of theta to the table of results."""

import errno
import logging
import time
from pathlib import Path
from typing import Any

import torch

from memmeta_exp.config import Config, ConfigError, to_dict
from memmeta_exp.distributed.process_group import SINGLE_PROCESS, Ranks
from memmeta_exp.memory.out_of_memory import suggest_config
from memmeta_exp.reports.plots import plot_run
from memmeta_exp.tracking import Tracker
from memmeta_exp.tracking.console import ProgressBar, print_summary
from memmeta_exp.tracking.run_folder import RunFolder, read_status
from memmeta_exp.training.data_parallel import build_distributed
from memmeta_exp.training.resume import earlier_run, merged_overrides, newest_state, restore, without_weights
from memmeta_exp.training.state import TrainingState
from memmeta_exp.training.trainer import Trainer
from memmeta_exp.utils.errors import CheckpointError, DataError, RunError, RunInterrupted
from memmeta_exp.utils.signals import Stopped, StopRequest

STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
REFUSALS = (ConfigError, CheckpointError, DataError)  # to begin, or to go on with what is there

logger = logging.getLogger("memmeta")


def run(
    config: Config, path: Path, overrides: list[str], ranks: Ranks = SINGLE_PROCESS, title: str | None = None
) -> Path:
    """Trains `config` in the existing folder `path`, or goes on with the run that is there.

    Returns the path of its summary.json. A finished run is left as it is. Of several ranks this is rank 0's part:
    training/worker.py has the others'. title: what the run is called, None: as before, or by its name.

    Raises ConfigError where the folder holds another run or a process is at work in it; then RunError, RunInterrupted,
    CheckpointError and DataError, and status.json says which way it ended in every case.
    """
    if _is_done(path, config):  # found out without touching the folder, which may be read-only by now
        return _nothing_to_do(path, config)
    with StopRequest() as stop:
        ranks.listen(stop)
        folder = RunFolder(path)
        with folder.claimed():
            earlier = earlier_run(path)
            if earlier is not None and earlier.ended_as(config):  # by the process that had it until now
                return _nothing_to_do(path, config)
            summary = _in_folder(config, folder, overrides, stop, ranks, title)
            print_summary(folder.title or config.run_name, path, summary)
            if stop.signum is not None:
                raise RunInterrupted(stop.signum, config.iterations, path)
    return path / "summary.json"


def _is_done(path: Path, config: Config) -> bool:
    earlier = earlier_run(path) if read_status(path).get("state") == "finished" else None
    return earlier is not None and earlier.ended_as(config)


def _nothing_to_do(path: Path, config: Config) -> Path:
    logger.info(
        "%s is finished, %d iterations: nothing to do; memmeta train resume=%s iterations=N goes further",
        *(path, config.iterations, path),
    )
    print(f"summary: {path / 'summary.json'}", flush=True)
    return path / "summary.json"


def _in_folder(
    config: Config, folder: RunFolder, overrides: list[str], stop: StopRequest, ranks: Ranks, title: str | None
) -> dict[str, Any]:
    """The run, and in status.json what it is called and how it ended; returns its summary. A refusal to go on leaves
    the description of the run as it was, and a finished one finished."""
    before = folder.description()
    try:
        folder.set_status("running", title=title)
        folder.write_overrides(merged_overrides(folder.read_overrides(), overrides))
        folder.write_config(to_dict(config))
        summary = _run(config, folder, stop, ranks)
        folder.set_status("finished", iteration=summary["iterations"])
        return summary
    except (RunInterrupted, Stopped, KeyboardInterrupt) as stopped:
        _mark(folder, "interrupted", str(stopped) or "interrupted from the keyboard")
        raise
    except BaseException as error:
        error = translate_error(error, config)
        if not (isinstance(error, REFUSALS) and folder.restore_description(before)):
            _mark(folder, "failed", str(error).partition("\n")[0] or type(error).__name__)
        raise error from None


def _mark(folder: RunFolder, state: str, reason: str) -> None:
    """status.json, for a run that ends before its end; the error that ended it must not be lost over another."""
    try:
        folder.set_status(state, reason=reason)
    except OSError as error:
        logger.warning("%s: status.json still says running (%s)", folder.path, error.strerror)


def translate_error(error: BaseException, config: Config) -> BaseException:
    """What the machine refused as a RunError that says what to do, any other error as it is. torch has no type of its
    own for the refusal of the CPU's allocator."""
    refused = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if refused or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return RunError(f"out of memory with tasks_per_pass={config.tasks_per_pass}: {suggest_config(config)}")
    if isinstance(error, OSError) and error.errno in STORAGE:
        where = f"{error.filename}: " if error.filename else ""
        return RunError(
            f"{where}{error.strerror}: what was written before is whole; mend that and give the same command again, "
            "which goes on from the last checkpoint"
        )
    return error


def _run(config: Config, folder: RunFolder, stop: StopRequest, ranks: Ranks) -> dict[str, Any]:
    started = time.perf_counter()
    saved = newest_state(folder, config)
    ranks.send({"config": to_dict(config), "folder": str(folder.path), "saved": saved})
    with stop.leaving_at_once():
        state = TrainingState(build_distributed(config if saved is None else without_weights(config), ranks), config)
    ranks.require_same("the images", state.images)
    if saved is not None:
        restore(saved, state, folder)
    _write_env(state, folder, resumed=saved is not None)
    with (
        Tracker(config, folder, saved["wandb_id"] if saved else None, folder.title) as tracker,
        ProgressBar(config.iterations, config.progress) as bar,
    ):
        trainer = Trainer(state, folder, tracker, bar, stop, started)
        trainer.train()
        summary = trainer.summary(trainer.test())
        summary["time/total_seconds"] = trainer.seconds
        tracker.summary(summary)
    if config.plots:
        plot_run(folder.path, folder.title or config.run_name)
    return summary


def _write_env(state: TrainingState, folder: RunFolder, resumed: bool) -> None:
    """env.json, with a warning where a run goes on on another machine, because its bits then differ."""
    execution, memory = state.experiment.learner.execution, state.experiment.config.memory
    chosen = {
        "ranks": state.experiment.ranks.size,
        "workers": execution.workers,
        "tasks_per_pass": execution.tasks_per_pass,
    }
    chosen |= {"memory.mode": memory.mode, "memory.checkpoint": memory.checkpoint}
    env = folder.write_env({"device": str(state.experiment.device), **chosen})
    before, now = _where(env.get("earlier", [{}])[-1]), _where(env)
    moved = [f"{key} {before[key]} is now {now[key]}" for key in now if key in before and before[key] != now[key]]
    if resumed and moved:
        logger.warning("%s: what follows need not have the bits of a run left alone", "; ".join(moved))


def _where(env: dict[str, Any]) -> dict[str, Any]:
    """What of env.json decides rounding."""
    found = {key: env[key] for key in ("device_name", "ranks", "threads", "workers", "tasks_per_pass") if key in env}
    return found | ({"torch": env["versions"].get("torch")} if isinstance(env.get("versions"), dict) else {})
