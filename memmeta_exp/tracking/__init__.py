"""Records the numbers of a run: always in the run folder, and in W&B unless tracking is disabled."""

import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from memmeta_exp.config import Config, flat
from memmeta_exp.tracking.run_folder import RunFolder
from memmeta_exp.tracking.wandb_run import WandbRun, open_wandb

TITLE = "WANDB_NAME"


def given_title() -> str | None:
    """The title of a run from W&B's variable WANDB_NAME, None if it is not set. Sweeps set it for their jobs."""
    return os.environ.get(TITLE) or None


def track_profile(config: Config, run_folder: RunFolder, found: Mapping[str, Any], title: str | None = None) -> None:
    """Writes the result of `memmeta profile` to profile.json; if tracking is online, also to W&B's summary under dotted
    keys. title: of the W&B run; None: the run's name."""
    run_folder.write_profile(found)
    if config.tracking.mode == "online":
        with open_wandb(config, run_folder.path, job_type="profile", title=title) as wandb:
            wandb.summary(flat(found))


class Tracker:
    """Logs to metrics.jsonl and to W&B with the same keys and values: `with Tracker(config, folder) as tracker:`.

    wandb_id: the W&B run to resume. title: of the W&B run; None: the run's name.
    """

    def __init__(
        self, config: Config, run_folder: RunFolder, wandb_id: str | None = None, title: str | None = None
    ) -> None:
        self.config = config
        self.run_folder = run_folder
        self._before = wandb_id
        self._title = title
        self.wandb = WandbRun()
        self._stack = ExitStack()

    def __enter__(self) -> "Tracker":
        self._stack.callback(self.run_folder.close)
        opened = open_wandb(self.config, self.run_folder.path, run_id=self._before, title=self._title)
        self.wandb = self._stack.enter_context(opened)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def wandb_id(self) -> str | None:
        """The id of the W&B run that a resumed process must continue; it is kept while tracking is disabled."""
        return self.wandb.id or self._before

    def log(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """Logs values after outer iteration t >= 1; iterations never decrease within a run. Values that are not finite
        are null in metrics.jsonl and left out in W&B."""
        self.run_folder.log({"iteration": iteration, **metrics})
        self.wandb.log(iteration, {key: value for key, value in metrics.items() if math.isfinite(value)})

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Writes the run's final numbers to summary.json and to W&B's summary."""
        self.run_folder.write_summary(metrics)
        self.wandb.summary(metrics)
