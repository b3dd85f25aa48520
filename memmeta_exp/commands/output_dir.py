"""Makes the output folder of a command, before anything else is created."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from memmeta_exp.config.overrides import text_of
from memmeta_exp.tracking.run_folder import claim
from memmeta_exp.utils.errors import ConfigError


def named_folder(key: str, overrides: list[str]) -> str | None:
    """The folder that `key=` (or `++key=`) names among `overrides`, without quotes; None if they do not set it."""
    named = [text_of(override) for override in overrides if override.partition("=")[0].lstrip("+") == key]
    return named[-1] if named else None


def made_folder(key: str, overrides: list[str]) -> Path:
    """Creates and returns the command's own folder: the new or empty one that `key=` names, else outputs/DATE/TIME.

    Raises ConfigError if it cannot be made, or is not empty.
    """
    named = named_folder(key, overrides)
    folder = _default() if named is None else Path(named)
    try:
        if named is None:
            return claim(folder)
        if not named:
            raise ConfigError(f"{key}= is empty: name a folder for the run")
        if folder.is_dir() and any(folder.iterdir()):
            raise ConfigError(f"{key}={named} is not empty, or already holds a run: name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    except OSError as error:
        raise ConfigError(
            f"the run folder {folder.absolute()} cannot be created ({error.strerror}): "
            f"run from a folder that you can write to, or set {key}"
        ) from None


@contextmanager
def kept_if_done(key: str, overrides: list[str]) -> Iterator[Path]:
    """`made_folder` for the block. If the block raises, folders made here are removed again while they are empty."""
    folder = Path(named_folder(key, overrides) or _default())
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    made = made_folder(key, overrides)
    try:
        yield made
    except BaseException:
        for path in (made, *new):
            with suppress(OSError):  # it is not empty, or already removed
                path.rmdir()
        raise


def _default() -> Path:
    now = datetime.now()
    return Path(f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}")
