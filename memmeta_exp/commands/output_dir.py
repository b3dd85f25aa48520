"""The folder that a command writes to: its own, made before anything else is."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from memmeta_exp.config.overrides import text_of
from memmeta_exp.tracking.run_folder import claim
from memmeta_exp.utils.errors import ConfigError


def named_folder(key: str, overrides: list[str]) -> str | None:
    """The folder that `key=` (or `++key=`) names among the overrides, as Hydra reads it, without quotes; None where it
    is not among them."""
    named = [text_of(override) for override in overrides if override.partition("=")[0].lstrip("+") == key]
    return named[-1] if named else None


def made_folder(key: str, overrides: list[str]) -> Path:
    """The command's folder, made here and now so that no other command has it: the one that `key=` names, which has to
    be new or empty, else outputs/DATE/TIME. ConfigError where that cannot be."""
    named = named_folder(key, overrides)
    folder = _default() if named is None else Path(named)
    try:
        if named is None:
            return claim(folder)
        if not named:
            raise ConfigError(f"{key}= is empty: name a folder of its own for the run")
        if folder.is_dir() and any(folder.iterdir()):
            raise ConfigError(f"{key}={named} is not empty, or already holds a run: name a folder of its own")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    except OSError as error:
        raise ConfigError(
            f"no run folder can be made at {folder.absolute()} ({error.strerror}): "
            f"run from a folder that you can write to, or set {key}"
        ) from None


@contextmanager
def kept_if_done(key: str, overrides: list[str]) -> Iterator[Path]:
    """`made_folder` for the block, unmade if the block raises before it has written anything there."""
    folder = Path(named_folder(key, overrides) or _default())
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    made = made_folder(key, overrides)
    try:
        yield made
    except BaseException:
        for path in (made, *new):
            with suppress(OSError):  # it has content, or is gone already
                path.rmdir()
        raise


def _default() -> Path:
    now = datetime.now()
    return Path(f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}")
