"""What ends a command in one line instead of a traceback; `exit_code` is what the process then returns."""

import shlex
from typing import Any


class MemmetaError(Exception):
    """The text is one line for the user: what, why, and what to do instead. reported: another rank prints it."""

    exit_code = 2
    reported = False


class ConfigError(MemmetaError, ValueError):
    """A configuration or command that cannot be run."""


class DataError(MemmetaError, ValueError):
    """Dataset files that are missing, damaged or not what their configuration says."""


class FetchError(MemmetaError, RuntimeError):
    """Published files that no known address gave."""

    exit_code = 1


class CheckpointError(MemmetaError, ValueError):
    """A checkpoint that is missing, damaged or of another model."""


class RunError(MemmetaError, RuntimeError):
    """A run that cannot go on."""

    exit_code = 1


class RunInterrupted(MemmetaError):
    """A run that was asked to stop by signal `signum` and has saved its state."""

    def __init__(self, signum: int, iteration: int, folder: object) -> None:
        resume = f"memmeta train {shlex.quote(f'resume={folder}')}"
        super().__init__(
            f"stopped by signal {signum} after iteration {iteration}; what it has is in {folder}: {resume} goes on"
        )
        self.exit_code = 128 + signum
        self._made_of = signum, iteration, str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of  # launchers pickle it


class MultirunInterrupted(MemmetaError):
    """A multirun that was asked to stop by signal `signum`, whose jobs have saved their state."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}; the same command goes on where it stopped")
        self.exit_code, self._signum = 128 + signum, signum

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._signum,)  # as above


class RankLost(RunError):
    """A rank of a run of several is gone; the text says how that showed."""


class RankFailed(RunError):
    """A rank of a run of several has failed, and says why."""

    def __init__(self, line: str, exit_code: int) -> None:
        super().__init__(line)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.exit_code)
