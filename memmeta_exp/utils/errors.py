"""Errors that end a command with one line instead of a traceback. The process exits with their `exit_code`."""

import shlex
from typing import Any


class MemmetaError(Exception):
    """Its text is one line for the user: what is wrong, why, and what to do. reported: another rank prints it."""

    exit_code = 2
    reported = False


class ConfigError(MemmetaError, ValueError):
    """A configuration or command that cannot be run."""


class DataError(MemmetaError, ValueError):
    """Files that are missing, damaged, or that do not fit their configuration."""


class FetchError(MemmetaError, RuntimeError):
    """Published files that could not be downloaded from any known address."""

    exit_code = 1


class CheckpointError(MemmetaError, ValueError):
    """A checkpoint that is missing, damaged or from another model."""


class RunError(MemmetaError, RuntimeError):
    """A run that cannot continue."""

    exit_code = 1


class RunInterrupted(MemmetaError):
    """A run that signal `signum` stopped, after it saved its state."""

    def __init__(self, signum: int, iteration: int, folder: object) -> None:
        resume = f"memmeta train {shlex.quote(f'resume={folder}')}"
        super().__init__(
            f"stopped by signal {signum} after iteration {iteration}; its state is saved in {folder}: {resume} goes on"
        )
        self.exit_code = 128 + signum
        self._made_of = signum, iteration, str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of  # launchers pickle it


class MultirunInterrupted(MemmetaError):
    """A multirun that signal `signum` stopped, after its jobs saved their state."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}; run the same command again to continue")
        self.exit_code, self._signum = 128 + signum, signum

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._signum,)  # launchers pickle it


class RankLost(RunError):
    """Another rank of the run has disappeared; the text says how that was noticed."""


class RankFailed(RunError):
    """Another rank of the run has failed; the text is its error line."""

    def __init__(self, line: str, exit_code: int) -> None:
        super().__init__(line)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.exit_code)
