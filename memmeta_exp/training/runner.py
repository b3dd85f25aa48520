"""The runner: trains one configuration in one folder, from initial values to the table of results."""

import errno
import logging
import time
from pathlib import Path
from typing import Any

import torch

from memmeta_exp.config import SPLITS, Config, ConfigError, to_dict
from memmeta_exp.distributed.process_group import SINGLE_PROCESS, Ranks
from memmeta_exp.memory.out_of_memory import suggest_config
from memmeta_exp.reports.plots import plot_run
from memmeta_exp.tracking import Tracker
from memmeta_exp.tracking.console import print_summary
from memmeta_exp.tracking.progress_bar import ProgressBar
from memmeta_exp.tracking.run_folder import RunFolder, read_status
from memmeta_exp.training.data_parallel import build_distributed
from memmeta_exp.training.resume import earlier_run, merged_overrides, newest_state, restore, without_weights
from memmeta_exp.training.state import TrainingState
from memmeta_exp.training.trainer import Trainer
from memmeta_exp.utils.errors import CheckpointError, DataError, RunError, RunInterrupted
from memmeta_exp.utils.signals import Stopped, StopRequest

STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
REFUSALS = (ConfigError, CheckpointError, DataError)  # to begin a run or to resume one

logger = logging.getLogger("memmeta")


def run(
    config: Config, path: Path, overrides: list[str], ranks: Ranks = SINGLE_PROCESS, title: str | None = None
) -> Path:
    """Trains `config` in the existing folder `path`, or resumes the run that is there.

    Returns the path of its summary.json. A finished run is left as it is. With several ranks this is rank 0's part;
    training/worker.py has that of the others. title: the run's display name, None for the earlier one or its run_name.

    Raises ConfigError where the folder holds another run or another process uses it. Raises RunError, RunInterrupted,
    CheckpointError and DataError where the run ends early; status.json then says how it ended.
    """
    if _is_done(path, config):  # decided without writing to the folder, which may be read-only by now
        return _nothing_to_do(path, config)
    with StopRequest() as stop:
        ranks.listen(stop)
        folder = RunFolder(path)
        with folder.claimed():
            earlier = earlier_run(path)
            if earlier is not None and earlier.ended_as(config):  # by the process that held the claim before
                return _nothing_to_do(path, config)
            summary = _in_folder(config, folder, overrides, stop, ranks, title)
            print_summary(folder.title or config.run_name, path, summary, config.verbose)
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
    """Runs, records title and outcome in status.json, and returns the summary.

    A refusal restores the run's earlier description, so that a finished run stays finished.
    """
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
    """Writes the outcome of a run that ended early. A failure to write is a warning, so that it hides no error."""
    try:
        folder.set_status(state, reason=reason)
    except OSError as error:
        logger.warning("%s: status.json still says running (%s)", folder.path, error.strerror)


def translate_error(error: BaseException, config: Config) -> BaseException:
    """A RunError with a remedy for memory and storage that ran out; any other error unchanged.

    torch raises a plain RuntimeError where the CPU's allocator fails.
    """
    refused = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if refused or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return RunError(f"out of memory with tasks_per_pass={config.tasks_per_pass}: {suggest_config(config)}")
    if isinstance(error, OSError) and error.errno in STORAGE:
        where = f"{error.filename}: " if error.filename else ""
        return RunError(
            f"{where}{error.strerror}: files written before are intact; fix this and run the same command again, "
            "which goes on from the last checkpoint"
        )
    return error


def _run(config: Config, folder: RunFolder, stop: StopRequest, ranks: Ranks) -> dict[str, Any]:
    started = time.perf_counter()
    warn_of_bf16(config)
    saved = newest_state(folder, config)
    ranks.send({"config": to_dict(config), "folder": str(folder.path), "saved": saved})
    with ProgressBar(config.iterations, config.progress) as bar:
        bar.phase("building data")
        started_from = config if saved is None else without_weights(config)
        with stop.leaving_at_once():
            state = TrainingState(build_distributed(started_from, ranks), config)
        ranks.require_same("the images", state.images)
        if saved is not None:
            restore(saved, state, folder)
        _write_env(state, folder, resumed=saved is not None)
        bar.note(_header(state, folder))
        with Tracker(config, folder, saved["wandb_id"] if saved else None, folder.title) as tracker:
            trainer = Trainer(state, folder, tracker, bar, stop, started)
            trainer.train()
            summary = trainer.summary(trainer.test())
            summary["time/total_seconds"] = trainer.seconds
            tracker.summary(summary)
            bar.phase("closing W&B")
        if config.plots:
            bar.phase("drawing plots")
            plot_run(folder.path, folder.title or config.run_name)
    return summary


def warn_of_bf16(config: Config) -> None:
    """One line where the backbone's rounding is amplified by inner steps on all weights."""
    if config.precision == "bf16" and config.algorithm.adapted_params == "all":
        logger.warning(
            "precision=bf16 with algorithm=%s, whose inner steps adapt all weights: rounding may turn its "
            "meta-gradient in another direction; precision=fp32 rounds less",
            config.algorithm.name,
        )


def _header(state: TrainingState, folder: RunFolder) -> str:
    """What runs: its name, dataset and classes of each split, backbone and its parameters, device, and where."""
    experiment = state.experiment
    config, execution = experiment.config, experiment.learner.execution
    parts = [config.dataset.name]
    if config.dataset.has_classes:
        classes = config.dataset.facts().classes
        parts[0] += f" {'/'.join(str(classes[split]) for split in SPLITS)} classes"
    parameters = sum(p.numel() for p in experiment.model.parameters())
    parts += [f"{config.backbone.title} {parameters:,} parameters", str(experiment.device)]
    parts += [f"{execution.workers} x {experiment.learner.tasks_per_pass} tasks at a time", str(folder.path)]
    return f"{folder.title or config.run_name}: {', '.join(parts)}"


def _write_env(state: TrainingState, folder: RunFolder, resumed: bool) -> None:
    """Writes env.json. Warns where a run resumes on other hardware or threads, because rounding then differs."""
    execution, memory = state.experiment.learner.execution, state.experiment.config.memory
    chosen = {
        "ranks": state.experiment.ranks.size,
        "workers": execution.workers,
        "tasks_per_pass": execution.tasks_per_pass,
    }
    chosen |= {f"memory.{key}": getattr(memory, key) for key in ("mode", "images_per_pass", "checkpoint")}
    env = folder.write_env({"device": str(state.experiment.device), **chosen})
    before, now = _where(env.get("earlier", [{}])[-1]), _where(env)
    moved = [f"{key} {before[key]} is now {now[key]}" for key in now if key in before and before[key] != now[key]]
    if resumed and moved:
        logger.warning("%s: what follows need not have the bits of a run left alone", "; ".join(moved))


def _where(env: dict[str, Any]) -> dict[str, Any]:
    """The values of env.json that decide rounding."""
    found = {key: env[key] for key in ("device_name", "ranks", "threads", "workers", "tasks_per_pass") if key in env}
    return found | ({"torch": env["versions"].get("torch")} if isinstance(env.get("versions"), dict) else {})
