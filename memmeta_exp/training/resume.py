"""Going on with a run: whether a folder holds one, whether it is the one that is asked for, and where it stands."""

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
from memmeta_exp.tracking.run_folder import RunFolder, holds_run, read_status
from memmeta_exp.training import checkpoint
from memmeta_exp.training.saved_state import saved_fault
from memmeta_exp.training.state import TrainingState
from memmeta_exp.utils.errors import CheckpointError

MAY_CHANGE = (  # top-level keys, and those of `path_keys`; the others decide what is computed
    "iterations", "checkpoint_every", "tracking", "device", "tasks_per_pass", "workers", "threads", "progress", "plots",
    "data_root",
)  # fmt: skip
NAMED = 4  # differing keys that a refusal names

logger = logging.getLogger("memmeta")


@dataclass(frozen=True)
class ExistingRun:
    """The run that a folder holds: its configuration, and what its status.json says."""

    folder: Path
    config: Config
    status: dict[str, Any]

    def ended_as(self, asked: Config) -> bool:
        """Whether it has come to the end that `asked` asks for. ConfigError as `require_same`."""
        self.require_same(asked)
        whole = self.status.get("state") == "finished" and (self.folder / "summary.json").is_file()
        same_files = absolute(self.config).dataset == absolute(asked).dataset  # else its images have to be looked at
        return whole and same_files and self.config.iterations == asked.iterations

    def require_same(self, asked: Config) -> None:
        """ConfigError where going on with `asked` would make another run of it."""
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
    """The run in `folder`; None where none has begun, or its process was killed before it had written anything.
    ConfigError where it cannot be read."""
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
    """The newest checkpoint in `folder` that can be gone on from; None where nothing has been computed yet.

    Raises CheckpointError where something has been and no checkpoint is whole, ConfigError where they are of another
    configuration.
    """
    saved = checkpoint.newest(folder.checkpoints, lambda file, found: _fault(file, found, folder))
    if saved is None:
        if folder.metrics.size:
            raise CheckpointError(
                f"{folder.path} has metrics but no checkpoint to go on from: start the run anew in another folder"
            )
        return None
    differing = differences(_with_defaults(saved["config"], folder), to_dict(config))
    if differing:
        raise ConfigError(
            f"{folder.path / 'config.yaml'} is not what its checkpoints were made with ({_listed(differing)}): "
            "put it back, or start the run anew in another folder"
        )
    _require_raised(saved["config"]["iterations"], config, folder.path)
    return saved


def without_weights(config: Config) -> Config:
    """`config` of a run that has begun, whose checkpoint has what `weights` gave: the file may be gone."""
    return replace(config, weights=None)


def restore(saved: Mapping[str, Any], state: TrainingState, folder: RunFolder) -> None:
    """Brings `state` and the metrics to where `saved` was written. Raises DataError where the images are others."""
    state.load_state_dict(saved)
    folder.metrics.resume_at(saved["metrics"])
    logger.info("going on in %s from iteration %d", folder.path, saved["iteration"])


def merged_overrides(before: list[str], now: list[str]) -> list[str]:
    """What the command lines of a run have changed, the last one winning."""
    keys = {override.partition("=")[0] for override in now}
    return [override for override in before if override.partition("=")[0] not in keys] + now


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys, dotted, whose values differ and may not: {key: (stored, asked)}. Where files lie may: the images are
    compared by their digest."""
    a, b = (flat({k: v for k, v in values.items() if k not in MAY_CHANGE}) for values in (stored, asked))
    keys, absent = sorted({*a, *b} - set(path_keys())), "absent"
    return {k: (a.get(k, absent), b.get(k, absent)) for k in keys if a.get(k, absent) != b.get(k, absent)}


def _listed(differing: Mapping[str, tuple[Any, Any]]) -> str:
    named = [f"{key} is {stored} there, {asked} here" for key, (stored, asked) in list(differing.items())[:NAMED]]
    more = len(differing) - NAMED
    return "; ".join(named) + (f"; and {more} more" if more > 0 else "")


def _with_defaults(stored: Mapping[str, Any], folder: RunFolder) -> dict[str, Any]:
    """The configuration of a checkpoint, with the defaults of keys that came after it was written."""
    try:
        return to_dict(from_dict(as_of_today(stored)))
    except ConfigError as error:
        raise ConfigError(
            f"{folder.checkpoints} holds a configuration that this version cannot run ({error}): use the version that "
            "wrote it, or start the run anew in another folder"
        ) from None


def _fault(file: Path, found: Mapping[str, Any], folder: RunFolder) -> str | None:
    """What keeps a checkpoint from being gone on from, if anything."""
    inexact = saved_fault(found)
    if inexact:
        return f"{file} is damaged, or written by another version of memmeta ({inexact})"
    if not folder.metrics.holds(found["metrics"]):
        return f"{folder.metrics.file} was cut short or altered before its iteration {found['iteration']}"
    return None
