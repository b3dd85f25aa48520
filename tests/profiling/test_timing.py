"""The step timer, on a clock that the test winds."""

import math

import pytest

from memmeta_exp.profiling import step_timer
from memmeta_exp.profiling.step_timer import StepTimer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(step_timer.time, "perf_counter", lambda: now[0])
    return now


def test_median_leaves_out_the_first_and_the_metered_steps(clock: list[float]) -> None:
    timer = StepTimer("cpu", skip=1)
    for seconds, metered in [(9.0, False), (1.0, False), (50.0, True), (3.0, False), (2.0, False)]:
        assert timer.seen == 0 or timer.last_seconds > 0
        with timer.step(counted=not metered):
            clock[0] += seconds
        assert timer.last_seconds == seconds
    assert timer.median_seconds == 2.0
    assert timer.seen == 5


def test_nothing_counted_is_nan_and_a_failed_step_leaves_no_trace(clock: list[float]) -> None:
    timer = StepTimer("cpu", skip=0)
    assert math.isnan(timer.median_seconds)
    with pytest.raises(ZeroDivisionError), timer.step():
        _ = 1 / 0
    assert timer.seen == 0
    with timer.step():
        clock[0] += 4.0
    assert timer.median_seconds == 4.0


def test_cuda_is_synchronised_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(step_timer.torch.cuda, "synchronize", lambda device: calls.append(str(device)))
    with StepTimer("cuda:1").step():
        calls.append("step")
    assert calls == ["cuda:1", "step", "cuda:1"]
