"""Resuming a run: whether a folder holds one, whether it has the requested configuration, and its newest state."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memmeta_exp.config import (
    Config,
    ConfigError,
    absolute,
    as_of_today,
    flat,
    from_dict,
    from_yaml,
    path_keys,
    to_dict,
)
from memmeta_exp.tracking.run_folder import RunFolder, holds_run, read_metrics, read_status
from memmeta_exp.training import checkpoint
from memmeta_exp.training.saved_state import saved_fault
from memmeta_exp.training.state import TrainingState
from memmeta_exp.utils.errors import CheckpointError

MAY_CHANGE = (  # top-level keys that a resumed run may change, beside those of `path_keys`; others change results
    "iterations", "checkpoint_every", "checkpoint_at", "tracking", "device", "tasks_per_pass", "workers", "threads",
    "progress", "verbose", "plots", "data_root",
)  # fmt: skip
NORM = "convergence/grad_norm_sq"
NAMED = 4  # the most differing keys that an error names

logger = logging.getLogger("memmeta")


@dataclass(frozen=True)
class ExistingRun:
    """The run in a folder: its configuration and its status.json."""

    folder: Path
    config: Config
    status: dict[str, Any]

    def ended_as(self, asked: Config) -> bool:
        """Whether the run is finished and `asked` needs no more iterations. ConfigError as in `require_same`."""
        self.require_same(asked)
        whole = self.status.get("state") == "finished" and (self.folder / "summary.json").is_file()
        same_files = absolute(self.config).dataset == absolute(asked).dataset  # else the images must be compared
        return whole and same_files and self.config.iterations == asked.iterations

    def require_same(self, asked: Config) -> None:
        """ConfigError where `asked` differs in a key that a resumed run may not change."""
        differing = differences(to_dict(self.config), to_dict(asked))
        if differing:
            raise ConfigError(
                f"{self.folder} holds a run of another configuration ({_listed(differing)}): name another folder"
            )
        _require_raised(self.config.iterations, asked, self.folder)


def _require_raised(before: int, asked: Config, where: Path) -> None:
    if asked.iterations < before:
        raise ConfigError(
            f"iterations={asked.iterations} is fewer than the {before} of the run in {where}: they can only be raised"
        )
    if asked.iterations > before and asked.optimizer.schedule != "constant":
        raise ConfigError(
            f"iterations={asked.iterations} with optimizer.schedule={asked.optimizer.schedule}, which was laid out for "
            f"the {before} iterations of the run in {where}: name another folder for a longer run"
        )


def earlier_run(folder: Path) -> ExistingRun | None:
    """The run in `folder`; None where none has begun, or its process was killed before it wrote anything.

    ConfigError where the run cannot be read.
    """
    if not holds_run(folder):
        return None
    if (folder / "profile.json").is_file() and not (folder / "metrics.jsonl").is_file():
        raise ConfigError(f"{folder} holds what memmeta profile measured, not a run: name another folder")
    if (folder / "config.yaml").is_file():
        return ExistingRun(folder, from_yaml(folder / "config.yaml"), read_status(folder))
    if any(folder.glob("checkpoints/*.pt")):
        raise ConfigError(f"{folder} holds checkpoints but no config.yaml: put it back, or name another folder")
    return None


def newest_state(folder: RunFolder, config: Config) -> dict[str, Any] | None:
    """The newest checkpoint in `folder` that the run can resume from; None where nothing has been computed yet.

    Raises CheckpointError where there are results but no usable checkpoint. Raises ConfigError where the checkpoints
    have another configuration.
    """
    saved = checkpoint.newest(folder.checkpoints, lambda file, found: _fault(file, found, folder))
    if saved is None:
        if folder.metrics.size:
            raise CheckpointError(
                f"{folder.path} has metrics but no checkpoint to resume from: start a new run in another folder"
            )
        return None
    differing = differences(_with_defaults(saved["config"], folder), to_dict(config))
    if differing:
        raise ConfigError(
            f"{folder.path / 'config.yaml'} is not what its checkpoints were made with ({_listed(differing)}): "
            "put it back, or start a new run in another folder"
        )
    _require_raised(saved["config"]["iterations"], config, folder.path)
    return saved


def without_weights(config: Config) -> Config:
    """`config` of a run that has begun, whose checkpoint has what `weights` gave: the file may be gone."""
    return replace(config, weights=None)


def restore(saved: Mapping[str, Any], state: TrainingState, folder: RunFolder) -> None:
    """Restores `state` and metrics.jsonl to the time of the checkpoint `saved`. DataError where the images differ."""
    state.load_state_dict(saved)
    folder.metrics.resume_at(saved["metrics"])
    for row in read_metrics(folder.path) if folder.metrics.size else ():
        if NORM in row:
            state.convergence_error.update(row["iteration"], row[NORM])
    logger.info("going on in %s from iteration %d", folder.path, saved["iteration"])


def merged_overrides(before: list[str], now: list[str]) -> list[str]:
    """The overrides of a run's command lines joined; the last value of a key wins."""
    keys = {override.partition("=")[0] for override in now}
    return [override for override in before if override.partition("=")[0] not in keys] + now


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The dotted keys whose values differ although they may not: {key: (stored, asked)}.

    Paths of files may differ, because images are compared by their digest.
    """
    a, b = (flat({k: v for k, v in values.items() if k not in MAY_CHANGE}) for values in (stored, asked))
    keys, absent = sorted({*a, *b} - set(path_keys())), "absent"
    return {k: (a.get(k, absent), b.get(k, absent)) for k in keys if a.get(k, absent) != b.get(k, absent)}


def _listed(differing: Mapping[str, tuple[Any, Any]]) -> str:
    named = [f"{key} is {stored} there, {asked} here" for key, (stored, asked) in list(differing.items())[:NAMED]]
    more = len(differing) - NAMED
    return "; ".join(named) + (f"; and {more} more" if more > 0 else "")


def _with_defaults(stored: Mapping[str, Any], folder: RunFolder) -> dict[str, Any]:
    """The configuration of a checkpoint, with defaults for keys that are newer than the checkpoint."""
    try:
        return to_dict(from_dict(as_of_today(stored)))
    except ConfigError as error:
        raise ConfigError(
            f"{folder.checkpoints} holds a configuration that this version cannot run ({error}): use the version that "
            "wrote it, or start a new run in another folder"
        ) from None


def _fault(file: Path, found: Mapping[str, Any], folder: RunFolder) -> str | None:
    """Why a run cannot resume from this checkpoint, in one clause; None if it can."""
    problem = saved_fault(found)
    if problem:
        return f"{file} is damaged, or written by another version of memmeta ({problem})"
    if not folder.metrics.holds(found["metrics"]):
        return f"{folder.metrics.file} was cut short or altered before its iteration {found['iteration']}"
    return None
