"""Seconds of a training step."""

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StepTimer:
    """Wall-clock seconds of steps: `with timer.step(): ...`, CUDA synchronised at both ends.

    The first `skip` steps (allocator and kernel warm-up) and those entered with counted=False (metered or otherwise
    slowed) are left out of the median, which is that of `counted`: the caller's list, where steps that an earlier
    process timed may be already.
    """

    def __init__(self, device: torch.device | str, skip: int = 1, counted: list[float] | None = None) -> None:
        self.device = torch.device(device)
        self.skip = skip
        self.seen = 0
        self.last_seconds = math.nan
        self._counted = [] if counted is None else counted

    @contextmanager
    def step(self, counted: bool = True) -> Iterator[None]:
        """Times the block; a block that raises leaves no trace."""
        self._synchronize()
        start = time.perf_counter()
        yield
        self._synchronize()
        self.last_seconds = time.perf_counter() - start
        self.seen += 1
        if counted and self.seen > self.skip:
            self._counted.append(self.last_seconds)

    @property
    def median_seconds(self) -> float:
        """Median of the counted steps; NaN before the first."""
        return statistics.median(self._counted) if self._counted else math.nan

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
