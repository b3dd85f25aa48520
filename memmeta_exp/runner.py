"""The single runner: one configuration, one folder, from the first draw of theta to the table of results."""

import time
from pathlib import Path

import torch

from memmeta_exp.budget import fitted
from memmeta_exp.build import build, resolve_device
from memmeta_exp.config import Config, to_dict
from memmeta_exp.display import ProgressBar, print_summary
from memmeta_exp.errors import RunError, RunInterrupted
from memmeta_exp.signals import StopRequest
from memmeta_exp.studies.plots import plot_run
from memmeta_exp.tracking import Tracker
from memmeta_exp.tracking.run_folder import RunFolder
from memmeta_exp.trainer import Trainer

OUT_OF_MEMORY = (
    "out of memory with chunk={}: set a smaller chunk (1 is the least), or memory.budget_mib, which chooses it and "
    "what is computed twice; else workers=1, fewer filters or smaller images"
)


def run(config: Config, path: Path, overrides: list[str]) -> Path:
    """Trains `config` in the existing folder `path`; returns the path of its summary.json.

    Raises ConfigError where the folder holds a run already, then RunError, RunInterrupted and DataError; status.json
    says which way it ended in every case.
    """
    with StopRequest() as stop:
        folder = RunFolder(path)
        folder.start()
        try:
            folder.write_config(to_dict(config))
            folder.write_overrides(overrides)
            _run(config, folder, stop)
        except (RunInterrupted, KeyboardInterrupt) as stopped:
            folder.set_status("interrupted", reason=str(stopped) or "interrupted from the keyboard")
            raise
        except BaseException as error:
            error = readable(error, config)
            folder.set_status("failed", reason=str(error).partition("\n")[0] or type(error).__name__)
            raise error from None
        folder.set_status("finished", iteration=config.iterations)
    return path / "summary.json"


def readable(error: BaseException, config: Config) -> BaseException:
    """An allocator's refusal as a RunError that says what to do, any other error as it is. torch has no type of its own
    for the refusal of the CPU's."""
    refused = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if refused or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return RunError(OUT_OF_MEMORY.format(config.chunk))
    return error


def _run(config: Config, folder: RunFolder, stop: StopRequest) -> None:
    started = time.perf_counter()
    experiment = build(fitted(config, resolve_device(config.device)))
    execution, memory = experiment.learner.execution, experiment.config.memory
    chosen = {"workers": execution.workers, "chunk": execution.chunk}
    chosen |= {"memory.mode": memory.mode, "memory.checkpoint": memory.checkpoint}
    folder.write_env({"device": str(experiment.device), **chosen})
    with Tracker(config, folder) as tracker, ProgressBar(config.iterations, config.progress) as bar:
        trainer = Trainer(experiment, folder, tracker, bar, stop)
        trainer.train()
        summary = trainer.summary(trainer.test())
        summary["time/total_seconds"] = time.perf_counter() - started
        tracker.summary(summary)
    if config.plots:
        plot_run(folder.path, config.run_name)
    print_summary(config.run_name, folder.path, summary)
