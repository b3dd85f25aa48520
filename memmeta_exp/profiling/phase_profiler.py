"""Seconds and peak memory of each phase of a step.

Every instant belongs to the innermost open phase, or to OTHER where none is open. So the seconds of all parts add up to
the step, and the largest peak of a part is the step's peak.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from memmeta_exp.profiling.peak_memory import Peak, metered
from memmeta_exp.profiling.phases import PHASES, observed_by

OTHER = "other"
PARTS = (*PHASES, OTHER)

T = TypeVar("T")


class _Parts(ABC):
    """Divides a step at the edges of its phases. `_charge` assigns what passed since the last edge to a part."""

    def __init__(self) -> None:
        self._open = [OTHER]

    @contextmanager
    def step(self) -> Iterator[None]:
        """Observes the block."""
        with observed_by(self):
            yield
        self._charge(OTHER)

    @contextmanager
    def observe(self, name: str) -> Iterator[None]:
        self._charge(self._open[-1])
        self._open.append(name)
        try:
            yield
        finally:
            self._charge(self._open.pop())

    @abstractmethod
    def _charge(self, part: str) -> None: ...


class PhaseTimes(_Parts):
    """seconds: wall clock of each part of one step. Make one instance for each step, right before it.

    CUDA is synchronised at every edge, so launches do not overlap with computing. Time whole steps without it.
    """

    def __init__(self, device: torch.device | str) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.seconds: dict[str, float] = {}
        self._edge = self._now()

    def _charge(self, part: str) -> None:
        now = self._now()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._edge
        self._edge = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class PhasePeaks(_Parts):
    """above_baseline: the most requested bytes above the baseline during each part, whichever part allocated them.

    lap: that of a meter.
    """

    def __init__(self, lap: Callable[[], int]) -> None:
        super().__init__()
        self.above_baseline: dict[str, int] = {}
        self._lap = lap

    def _charge(self, part: str) -> None:
        self.above_baseline[part] = max(self.above_baseline.get(part, 0), self._lap())


def measure_phase_peaks(
    step: Callable[[], T], device: torch.device | str, persistent: Any = ()
) -> tuple[T, Peak, dict[str, int]]:
    """As `measure_peak`, with the peak of each part in requested bytes above the baseline. Their maximum is
    `Peak.above_baseline_mib`."""
    with metered(device, persistent) as meter:
        peaks = PhasePeaks(meter.lap)
        with peaks.step():
            result = step()
    return result, meter.report(), peaks.above_baseline
