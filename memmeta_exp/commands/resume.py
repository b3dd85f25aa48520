"""`memmeta train resume=DIR [KEY=VALUE]`: resumes the run in DIR."""

from pathlib import Path
from typing import Any

from memmeta_exp.config import Config, ConfigError, absolute, changed, flat, from_dict, path_keys, to_dict
from memmeta_exp.config.compose import text_of, values_of
from memmeta_exp.distributed.process_group import SINGLE_PROCESS, Ranks
from memmeta_exp.training import runner
from memmeta_exp.training.resume import MAY_CHANGE, ExistingRun, earlier_run

KEY = "resume"


def split_folder(overrides: list[str], key: str) -> tuple[str | None, list[str]]:
    """The folder that `key`= names, None if `overrides` have no `key`=, and the other overrides."""
    ours = [override for override in overrides if override.partition("=")[0].lstrip("+") == key]
    named = [override.partition("=")[2] for override in ours]
    others = [override for override in overrides if override not in ours]
    if len(named) > 1:
        raise ConfigError(f"{key}= is given {len(named)} times: name one run folder")
    if named == [""]:
        raise ConfigError(f"{key}= is empty: name a run folder, {key}=outputs/DATE/TIME")
    return (named[0] if named else None), others


def resume(folder: Path, overrides: list[str], check: Any, ranks: Ranks = SINGLE_PROCESS) -> int:
    """Resumes the run in `folder`; returns the exit code. check(config) is called before anything is written, unless
    the run has already ended with the same configuration."""
    earlier = existing_run(folder)
    config = asked_config(earlier, overrides, KEY)
    if not earlier.ended_as(config):
        check(config)
    runner.run(config, folder, overrides, ranks)
    return 0


def existing_run(folder: Path) -> ExistingRun:
    """The run in `folder`; ConfigError where there is none that can be read."""
    try:
        earlier = earlier_run(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read ({error.strerror}): name a run folder that you can read") from None
    if earlier is None:
        raise ConfigError(f"{folder} is not a run folder: name one that memmeta train wrote")
    return earlier


def asked_config(earlier: ExistingRun, overrides: list[str], named_by: str) -> Config:
    """The configuration of the run with `overrides`. Raises ConfigError for a key that is neither in MAY_CHANGE nor a
    path of the configuration. named_by: the key that names the folder, for the message."""
    values = to_dict(earlier.config)
    paths = [key for key in path_keys() if key in flat(values) and key not in MAY_CHANGE]
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key.partition(".")[0] not in MAY_CHANGE and key not in paths:
            raise ConfigError(
                f"{override} with {named_by}=: the configuration is that of {earlier.folder}; "
                f"only {', '.join((*MAY_CHANGE, *paths))} may change"
            )
    if not overrides:
        return earlier.config
    moved = {key: text_of(o) for o in overrides if (key := o.partition("=")[0].lstrip("+")) in paths}
    values = changed(values, moved)
    others = [override for override in overrides if override.partition("=")[0].lstrip("+") not in moved]
    for key, value in values_of(others).items():
        if key == "tracking":  # its options differ only in their mode; keep the W&B project and tags
            values["tracking"]["mode"] = value["mode"]
        else:
            _set(values, key, value)
    return absolute(from_dict(values))


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    section, _, rest = key.partition(".")
    if rest:
        _set(values[section], rest, value)
    else:
        values[section] = value
