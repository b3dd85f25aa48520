"""Whether torchrun started this process as one of several, and its rank. It reads environment variables alone, so that
a command knows before it loads torch."""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from memmeta_exp.utils.errors import ConfigError

NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_OF_TORCHRUN = "TORCHELASTIC_RUN_ID"
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
NEEDED = (*NUMBERS, "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class RankInfo:
    """This process is `rank` of `size` in the group, and `local_rank` of `local_size` on its machine."""

    size: int
    rank: int
    local_rank: int
    local_size: int


def rank_info(environment: Mapping[str, str] = os.environ) -> RankInfo | None:
    """The rank that torchrun gave this process; None for a single process.

    ConfigError where the variables are incomplete or contradict each other.
    """
    if environment.get("WORLD_SIZE", "1") == "1":
        return None
    missing = [name for name in NEEDED if not environment.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE={environment['WORLD_SIZE']} but {', '.join(missing)} not set: start ranks with torchrun, or "
            "unset WORLD_SIZE for one process"
        )
    values = [environment[name] for name in NUMBERS]
    numbers = [int(value) if value.isascii() and value.isdigit() else -1 for value in values]
    size, rank, local_rank, local_size = numbers
    if min(numbers) < 0 or rank >= size or local_rank >= local_size or local_size > size:
        said = " ".join(f"{name}={value}" for name, value in zip(NUMBERS, values, strict=True))
        raise ConfigError(f"{said} names no rank of a group: start ranks with torchrun, or unset WORLD_SIZE")
    return RankInfo(size, rank, local_rank, local_size)


def one_of_many(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun started this process as one of several; for commands that must run as one process."""
    return environment.get("WORLD_SIZE", "1") != "1" and all(environment.get(name) for name in NEEDED)


def stop_with_launcher(environment: Mapping[str, str] = os.environ) -> None:
    """Has Linux send this process SIGTERM when the torchrun that started it ends in any way. A torchrun that is killed
    would leave its ranks running."""
    if _OF_TORCHRUN in environment and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
