"""The model of `make bench-scaling`, by hand."""

import pytest

from benchmarks.scaling import (
    Assumed,
    Load,
    efficiency,
    iteration_seconds,
    ring_seconds,
    stops_paying,
    tasks_for,
)

SIMPLE = Assumed(
    flops=1e12, use=0.5, machine=4, nvlink_bytes_per_second=1e9, network_bytes_per_second=1e8, nvlink_latency_s=1e-6,
    network_latency_s=1e-5, base_s=1e-4, host_s=0.0, gloo_hop_s=0.0, wait_s=0.0,
)  # fmt: skip
LOAD = Load(task_flops=5e9, gradient_bytes=10_000_000)  # 10 ms a task


def test_a_ring_by_hand() -> None:
    assert ring_seconds(1, 10**7, SIMPLE) == 0
    inside = 1e-4 + 6 * 5e-6 + 2 * 3 / 4 * 10**7 / 1e9  # the bytes decide: all of the bandwidth
    assert ring_seconds(4, 10**7, SIMPLE) == pytest.approx(inside)
    outside = 1e-4 + 14 * 1e-5 + 2 * 2 * 7 / 8 * 100 / 1e8  # the latency decides: half of it
    assert ring_seconds(8, 100, SIMPLE) == pytest.approx(outside)


def test_an_iteration_by_hand() -> None:
    assert iteration_seconds(1, 8, LOAD, SIMPLE) == pytest.approx(0.08)
    assert iteration_seconds(3, 8, LOAD, SIMPLE) == pytest.approx(0.03 + ring_seconds(3, 10**7, SIMPLE))
    assert efficiency(1, 8, LOAD, SIMPLE) == 1
    assert efficiency(4, 8, LOAD, SIMPLE) == pytest.approx(0.08 / (4 * (0.02 + 1e-4 + 3e-5 + 0.015)))


def test_where_it_stops_paying() -> None:
    for batch in (8, 64, 512):
        n = stops_paying(batch, LOAD, SIMPLE)
        assert efficiency(n, batch, LOAD, SIMPLE) >= 0.5
        assert 2 * n > batch or efficiency(2 * n, batch, LOAD, SIMPLE) < 0.5
    each = tasks_for(8, 0.8, LOAD, SIMPLE)
    assert efficiency(8, 8 * each, LOAD, SIMPLE) >= 0.8 > efficiency(8, 8 * (each - 1), LOAD, SIMPLE)
    slower = Assumed(**{**vars(SIMPLE), "network_bytes_per_second": 1e7})
    assert tasks_for(8, 0.8, LOAD, slower) > each
