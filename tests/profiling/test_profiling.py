"""Seconds and peaks of phases, against a step whose parts are known."""

import time

import pytest
import torch

from memmeta_exp.profiling.peak_memory import MIB, PeakMeter, measure_peak
from memmeta_exp.profiling.phase_profiler import OTHER, PhaseTimes, measure_phase_peaks
from memmeta_exp.profiling.phases import phase

FLOATS = MIB // 4  # float32 entries of one MiB


def step() -> None:
    """2 MiB in features with 1 of them kept; 3 more in the linear solve inside the lower level; 1 + 1 outside."""
    with phase("features"):
        kept = torch.ones(FLOATS)
        scratch = torch.ones(FLOATS)
        del scratch
    with phase("lower level"):
        time.sleep(0.02)
        with phase("linear solve"):
            time.sleep(0.05)
            inner = torch.ones(3 * FLOATS)
            del inner
        time.sleep(0.01)
    del kept
    torch.ones(2 * FLOATS)


def test_an_inner_phase_is_no_part_of_the_one_around_it() -> None:
    begun = time.perf_counter()
    times = PhaseTimes("cpu")
    with times.step():
        step()
    whole = time.perf_counter() - begun
    assert times.seconds.keys() == {"features", "lower level", "linear solve", OTHER}
    assert times.seconds["lower level"] >= 0.03
    assert times.seconds["linear solve"] >= 0.05
    assert sum(times.seconds.values()) == pytest.approx(whole, rel=0.05)


def test_peaks_of_phases() -> None:
    _, peak, found = measure_phase_peaks(step, "cpu")
    assert {part: n / MIB for part, n in found.items()} == {
        "features": 2, "lower level": 1, "linear solve": 4, OTHER: 2,
    }  # fmt: skip
    assert peak == measure_peak(step, "cpu")[1]
    assert peak.above_baseline_mib == 4


def test_a_phase_that_raises_is_left() -> None:
    def failing() -> None:
        with phase("features"):
            raise ValueError("bad step")

    with pytest.raises(ValueError, match="bad step"):
        measure_phase_peaks(failing, "cpu")
    times = PhaseTimes("cpu")
    with pytest.raises(ValueError, match="bad step"), times.step():
        failing()
    assert phase("features").__class__.__name__ == "nullcontext", "nobody observes any more"


def test_laps_of_the_meter() -> None:
    held = torch.ones(FLOATS)
    with PeakMeter(held) as meter:
        a = held + 1
        assert meter.lap() == MIB
        b = torch.cat([a, held])
        del b
        assert meter.lap() == 3 * MIB
        assert meter.lap() == MIB, "the next starts from what is live"
        del a
        assert meter.lap() == MIB
        assert meter.lap() == 0
    assert meter.requested_above_baseline == 3 * MIB


def test_only_storages_of_the_device_count() -> None:
    with PeakMeter(device="meta") as meter:
        torch.ones(FLOATS)
        torch.ones(2 * FLOATS, device="meta")
    assert meter.requested_above_baseline == 2 * MIB


class FakeAllocator:
    """torch.cuda's counters, for machines without CUDA."""

    def __init__(self, monkeypatch) -> None:
        self.now = self.peak = 10 * MIB
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)
        monkeypatch.setattr(torch.cuda, "memory_stats", self.stats)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak + 100)

    def reset(self, device: object) -> None:
        self.peak = self.now

    def stats(self, device: object) -> dict[str, int]:
        return {"requested_bytes.all.current": self.now, "requested_bytes.all.peak": self.peak}

    def allocate(self, mib: int) -> None:
        self.now += mib * MIB
        self.peak = max(self.peak, self.now)


def test_cuda_peaks_survive_the_resets_between_phases(monkeypatch) -> None:
    allocator = FakeAllocator(monkeypatch)

    def on_gpu() -> None:
        with phase("features"):
            allocator.allocate(5)
            allocator.allocate(-4)
        with phase("backward"):
            allocator.allocate(2)
            allocator.allocate(-3)

    _, peak, found = measure_phase_peaks(on_gpu, "cuda")
    assert {part: n / MIB for part, n in found.items()} == {"features": 5, "backward": 3, OTHER: 1}
    assert (peak.kind, peak.above_baseline_mib, peak.absolute_mib) == ("cuda", 5, (15 * MIB + 100) / MIB)


def test_an_allocator_without_statistics_is_refused(monkeypatch) -> None:
    FakeAllocator(monkeypatch)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {})
    with pytest.raises(RuntimeError, match="keeps no statistics"):
        measure_peak(lambda: None, "cuda")
