"""GPUs shared out by locks: no two holders, freed by the system when a holder dies."""

import os
import signal
import subprocess
import sys
import time

import pytest

from memmeta_exp.sweeps import devices

HOLDER = """
import sys, time
from pathlib import Path
from memmeta_exp.sweeps.devices import claimed
with claimed(sys.argv[2:], Path(sys.argv[1])) as found:
    print(found[0], flush=True)
    time.sleep(60)
"""


def holder(locks, *gpus: str) -> tuple[subprocess.Popen, str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(locks), *gpus], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_each_holder_has_its_own_and_the_dead_have_none(tmp_path) -> None:
    first, gpu = holder(tmp_path, "0", "1")
    try:
        assert gpu == "0"
        with devices.claimed(["0", "1"], tmp_path) as found:
            assert found is not None
            assert found[0] == "1"
        first.send_signal(signal.SIGKILL)
        first.wait()
        with devices.claimed(["0", "1"], tmp_path) as found:
            assert found is not None
            assert found[0] == "0"
    finally:
        first.kill()
        first.wait()


def test_a_child_that_keeps_the_descriptor_keeps_the_gpu(tmp_path) -> None:
    with devices.claimed(["0"], tmp_path) as found:
        assert found is not None
        child = subprocess.Popen(["sleep", "60"], pass_fds=(found[1],))
    waited = []
    devices_sleep, devices.time.sleep = time.sleep, lambda s: (waited.append(s), child.kill(), child.wait())
    try:
        with devices.claimed(["0"], tmp_path):
            assert waited, "it was free although the child lived"
    finally:
        devices.time.sleep = devices_sleep
        child.kill()


def test_a_stop_ends_the_wait(tmp_path) -> None:
    asked = iter([None, None, "soon"])
    with devices.claimed(["0"], tmp_path), devices.claimed(["0"], tmp_path, lambda: next(asked)) as found:
        assert found is None
    assert next(asked, "all asked") == "all asked"


@pytest.mark.parametrize(
    ("said", "processes", "budget"), [(None, 1, 8), (None, 3, 2), (None, 20, 1), ("2", 1, 2), ("16", 2, 4), ("", 2, 4)]
)
def test_thread_budgets(monkeypatch, said: str | None, processes: int, budget: int) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert devices.thread_budget(processes) == budget


def test_the_gpus_are_those_that_this_process_may_see(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert devices.visible_gpus() == ["3", "5"]
    assert devices.cores() <= (os.cpu_count() or 1)
