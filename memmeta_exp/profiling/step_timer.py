"""Seconds of a training step."""

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StepTimer:
    """Wall-clock seconds of steps: `with timer.step(): ...`. CUDA is synchronised at both ends.

    The median leaves out the first `skip` steps (warm-up of allocator and kernels) and steps with counted=False, such
    as metered ones. counted: the list that steps are added to; it may hold those of an earlier process.
    """

    def __init__(self, device: torch.device | str, skip: int = 1, counted: list[float] | None = None) -> None:
        self.device = torch.device(device)
        self.skip = skip
        self.seen = 0
        self.last_seconds = math.nan
        self._counted = [] if counted is None else counted

    @contextmanager
    def step(self, counted: bool = True) -> Iterator[None]:
        """Times the block. A block that raises is not counted."""
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
