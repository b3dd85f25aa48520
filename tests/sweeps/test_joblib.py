"""Jobs side by side: each with its own GPU and threads, a killed one takes no other with it, a stop loses nothing."""

import os
import signal
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pandas
import pytest
from omegaconf import OmegaConf

from memmeta_exp.commands import train
from memmeta_exp.sweeps import devices, workers
from memmeta_exp.utils.errors import MultirunInterrupted
from memmeta_exp.utils.signals import STOPPING, Stopped, StopRequest
from tests.commands.conftest import (
    TINY,
    memmeta,  # noqa: F401 - a fixture
)

EIGHT = "seed=0,1,2,3,4,5,6,7"


def test_one_killed_one_refused_and_the_others_finish(sweep, stand_in) -> None:
    stand_in(seed1="die", seed2="refuse")
    result, rows = sweep("launcher=joblib", "launcher.n_jobs=2", "seed=0,1,2")
    assert result.code == 1
    assert list(rows["state"]) == ["finished", "interrupted", "failed"]
    assert rows["reason"].tolist()[1] == "killed by SIGKILL: out of memory, or killed from outside, after iteration 3"
    assert rows["reason"].tolist()[2] == "device=cuda: torch finds no CUDA device here"
    assert "2 of 3 jobs did not finish: " in result.err
    assert all(Path(rows["job"].tolist()[i]).name in result.err for i in (1, 2))
    assert "[1/3] failed" in result.out
    stand_in()
    again, rows = sweep("launcher=joblib", "launcher.n_jobs=2", "seed=0,1,2")
    assert (again.code, list(rows["state"])) == (0, ["finished"] * 3)
    assert "3 jobs, 2 to do" in again.out
    assert list(rows["again"]) == [False, True, False], "what was finished was left alone"


def test_each_job_has_a_gpu_and_its_threads(sweep, stand_in, monkeypatch) -> None:
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["2", "5"])
    monkeypatch.setattr(devices, "cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("TMPDIR", os.getcwd())
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("STAND_IN_SECONDS", "0.2")
    result, rows = sweep("launcher=joblib", "seed=0,1,2,3")
    assert result.code == 0, result.err
    assert set(rows["gpu"]) == {2, 5}, "as many processes as GPUs, by default"
    assert set(rows["threads"]) == {3}
    assert rows["title"].tolist()[1] == "seed=1 (proposed-synthetic-conv4-5w5s-s1)"
    for _, held in rows.sort_values("began").groupby("gpu"):
        ends, begins = list(held["over"])[:-1], list(held["began"])[1:]
        assert all(end <= begin for end, begin in zip(ends, begins, strict=True)), "two jobs at once on a GPU"
    refused, _ = sweep("launcher=joblib", "launcher.n_jobs=3")
    assert refused.code == 2
    assert "launcher.n_jobs=3 is more than the 2 GPUs, and each job needs its own" in refused.err


def test_a_stop_ends_what_runs_and_starts_nothing_more(sweep, stand_in, tmp_path) -> None:
    stand_in(seed0="wait", seed1="wait")

    def interrupt() -> None:
        while len(list((tmp_path / "out").glob("jobs/*/status.json"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    result, rows = sweep("launcher=joblib", "launcher.n_jobs=2")
    assert result.code == 130
    assert list(rows["state"]) == ["interrupted", "interrupted", "waiting"]
    assert rows["reason"].tolist()[0] == "stopped by signal 15 after iteration 3"
    assert "report:" not in result.out
    assert "run the same command again to continue" in result.err


def test_a_stop_that_reaches_every_process_is_one(sweep, stand_in, tmp_path, monkeypatch) -> None:
    """As a terminal that is closed, or Ctrl-C, which all processes get: joblib's go on, and say nothing."""
    stand_in(seed0="wait", seed1="wait")

    def close_the_terminal() -> None:
        while len(list((tmp_path / "out").glob("jobs/*/status.json"))) < 2:
            time.sleep(0.05)
        for signum in STOPPING:
            workers.notify(signum)
        os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=close_the_terminal, daemon=True).start()
    result, rows = sweep("launcher=joblib", "launcher.n_jobs=2")
    assert result.code == 129
    assert list(rows["state"]) == ["interrupted", "interrupted", "waiting"]
    assert result.err == (
        "memmeta: stopping: running jobs save their state first; repeat the signal to leave at once\n"
        "memmeta: stopped by signal 1; run the same command again to continue\n"
    )


def test_a_second_interrupt_ends_the_jobs_at_once(sweep, stand_in, tmp_path) -> None:
    stand_in(seed0="wait", seed1="wait")

    def interrupt() -> None:
        while len(list((tmp_path / "out").glob("jobs/*/status.json"))) < 2:
            time.sleep(0.05)
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    threading.Thread(target=interrupt, daemon=True).start()
    result, rows = sweep("launcher=joblib", "launcher.n_jobs=2")
    assert (result.code, result.err.splitlines()[-1]) == (130, "memmeta: interrupted")
    assert "Traceback" not in result.err
    assert list(rows["state"]) == ["interrupted", "interrupted", "waiting"]


@pytest.mark.parametrize("in_worker", [True, False])
def test_a_job_that_is_stopped_while_it_reads_data_lets_the_others_save(monkeypatch, in_worker: bool) -> None:
    asked = StopRequest()

    def stopped(*_: object) -> None:
        asked.signum = signal.SIGTERM if in_worker else None
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(train.HydraConfig, "get", Mock)
    monkeypatch.setattr(train, "request_to_worker", lambda: asked)
    monkeypatch.setattr(train, "from_omegaconf", stopped)
    with pytest.raises(MultirunInterrupted if in_worker else Stopped):
        train._job(OmegaConf.create())


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_jobs_of_a_multirun_save_their_state(memmeta, tmp_path, signum: signal.Signals) -> None:  # noqa: F811
    def running(number: int) -> bool:
        file = tmp_path / "many" / str(number) / "metrics.jsonl"
        return file.exists() and file.stat().st_size > 0

    def stop() -> None:
        while not (running(0) and running(1)):
            time.sleep(0.05)
        os.kill(os.getpid(), signum)

    threading.Thread(target=stop, daemon=True).start()
    options = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=many", "progress=false"]
    result = memmeta("train", "-m", *TINY, "iterations=100000", "eval_every=100000", "seed=0,1,2", *options)
    assert result.code == 128 + signum
    last = result.err.splitlines()[-1]
    assert last == f"memmeta: stopped by signal {signum:d}; run the same command again to continue"
    assert "Traceback" not in result.err
    rows = pandas.read_csv(tmp_path / "many" / "results.csv")
    assert list(rows["state"]) == ["interrupted", "interrupted", "waiting"]


@pytest.mark.slow
def test_a_lost_worker_costs_no_job(sweep, stand_in) -> None:
    """joblib gives up every job when one of its processes is killed: what it gave up is started again."""
    stand_in(seed1="orphan")
    result, rows = sweep("launcher=joblib", "launcher.n_jobs=2", "seed=0,1,2,3")
    assert result.code == 0, result.err
    assert list(rows["state"]) == ["finished"] * 4
    assert "restarting" in result.err


@pytest.mark.slow
def test_of_eight_real_jobs_with_one_killed_seven_finish(sweep, tmp_path) -> None:
    def kill() -> None:
        while not (found := sorted((tmp_path / "out").glob("jobs/*-s3-*/status.json"))):
            time.sleep(0.02)
        os.kill(int(found[0].read_text().split('"pid": ')[1].split(",")[0]), signal.SIGKILL)

    tiny = [
        "dataset.image_size=16", "dataset.classes=5", "dataset.images_per_class=8", "backbone.filters=4", "ways=3",
        "shots=2", "queries=2", "batch_size=1", "iterations=20", "val_tasks=4", "test_tasks=4", "convergence_tasks=2",
    ]  # fmt: skip
    threading.Thread(target=kill, daemon=True).start()
    result, rows = sweep("launcher=joblib", "launcher.n_jobs=4", EIGHT, *tiny)
    assert result.code == 1
    assert list(rows["state"]) == ["finished"] * 3 + ["interrupted"] + ["finished"] * 4
    assert rows["reason"].tolist()[3].startswith("killed by SIGKILL")
    assert rows["test/acc"].notna().tolist() == [True] * 3 + [False] + [True] * 4
