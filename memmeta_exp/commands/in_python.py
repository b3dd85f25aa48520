"""`memmeta.train(...)`: the command `memmeta train` as a function."""

import os
import threading
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memmeta_exp.commands.output_dir import made_folder, named_folder
from memmeta_exp.commands.train import check
from memmeta_exp.config import Config, ConfigError
from memmeta_exp.config.compose import jobs
from memmeta_exp.distributed.launch_env import one_of_many
from memmeta_exp.experiment.start_weights import weights_file
from memmeta_exp.prediction import TrainedModel, load
from memmeta_exp.tracking.run_folder import holds_run, read_metrics
from memmeta_exp.training import runner
from memmeta_exp.training.resume import earlier_run
from memmeta_exp.utils.reading import read_json

if TYPE_CHECKING:
    from pandas import DataFrame

FOLDER = "hydra.run.dir"
_composing = threading.Lock()  # Hydra's state is global


class Run:
    """A finished run. folder: its run folder, from which everything else is read. `memmeta.load` accepts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def summary(self) -> dict[str, Any]:
        """The final numbers, by the keys of docs/outputs.md: summary["test/acc"] is the test accuracy."""
        return read_json(self.folder / "summary.json")

    @property
    def metrics(self) -> "DataFrame":
        """A row for each outer iteration, a column for each logged key; NaN where a row has no value."""
        import pandas

        return pandas.DataFrame(read_metrics(self.folder)).set_index("iteration", drop=False)

    def load(self) -> TrainedModel:
        """The model of the best checkpoint."""
        return load(self.folder)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"


def train(*overrides: str, folder: str | PathLike[str] | None = None) -> Run:
    """Meta-trains a configuration as `memmeta train OVERRIDES` does, and returns the finished run.

    overrides: KEY=VALUE or GROUP=OPTION, a string each. folder: the run folder, new or empty, or one that holds the
    same run, which is then resumed; None: outputs/DATE/TIME. Raises the errors of memmeta_exp.utils.errors, whose
    text is one line: ConfigError and DataError before anything is computed, RunError where training cannot go on, and
    RunInterrupted, after saving, where a signal stops it. In a thread signals are left alone.

        run = memmeta.train("dataset=glyphs", "iterations=20")
        run.summary["test/acc"], run.metrics["train/loss"]
    """
    if one_of_many():
        raise ConfigError("memmeta.train is for one process: torchrun is for the command memmeta train")
    given = [*overrides, *([] if folder is None else [f"{FOLDER}={os.fspath(folder)}"])]
    for override in given:
        if not isinstance(override, str) or override.startswith("-"):
            raise ConfigError(f"{override!r} is not an override: give strings KEY=VALUE, of one job")
    with _composing:
        (config,) = jobs(given, multirun=False)
        if config.weights:
            weights_file(config.weights)
        check(config)
        path = _folder(config, given)
    runner.run(config, path, [o for o in given if not o.startswith("hydra.")])
    return Run(path)


def _folder(config: Config, overrides: list[str]) -> Path:
    """The run folder, created if it is new. Raises ConfigError if it holds another run or other files."""
    named = named_folder(FOLDER, overrides)
    if named and holds_run(Path(named)):
        earlier = earlier_run(Path(named))
        if earlier is not None:
            earlier.require_same(config)
        return Path(named).absolute()
    return made_folder(FOLDER, overrides).absolute()
