"""How a job stands, read from what it and its starter left; the table of all of them."""

import json
import os
import socket
import time

import pandas
import pytest

from memmeta_exp.config import ConfigError
from memmeta_exp.sweeps import results_table
from memmeta_exp.sweeps.grid import Job
from memmeta_exp.sweeps.sweep_folder import SweepFolder
from memmeta_exp.utils.file_lock import FolderLock

HERE = socket.gethostname()
DEAD = 2**22 + 7  # above every pid


def job(id: str = "a", kind: str = "train", **values) -> Job:
    return Job(id, kind, ("seed=0",), (), values)


@pytest.fixture
def folder(tmp_path) -> SweepFolder:
    made = SweepFolder(tmp_path)
    with made.held():
        return made


def leave(folder: SweepFolder, id: str, **files) -> None:
    folder.job(id).mkdir(parents=True, exist_ok=True)
    for name, values in files.items():
        (folder.job(id) / f"{name}.json").write_text(json.dumps(values))


STATUSES = [  # status.json, how the job's process ended (exit code, reason), state, what the reason says
    (None, None, "waiting", "not started"),
    ({"state": "finished"}, None, "finished", None),
    ({"state": "finished"}, (0, None), "finished", None),
    ({"state": "failed", "reason": "loss is nan"}, None, "failed", "loss is nan"),
    ({"state": "interrupted", "reason": "signal 15"}, (143, None), "interrupted", "signal 15"),
    ({"state": "running", "pid": os.getpid(), "host": HERE}, None, "interrupted", "is gone"),  # a number used again
    ({"state": "running", "pid": 1, "host": "elsewhere"}, None, "running", "process 1 on elsewhere"),
    ({"state": "running", "pid": DEAD, "host": HERE}, None, "interrupted", f"process {DEAD} on {HERE} is gone"),
    ({"state": "running", "pid": DEAD, "host": HERE}, (-9, "killed by SIGKILL"), "interrupted", "killed by SIGKILL"),
    ({"state": "running", "pid": 1, "host": "elsewhere"}, (-9, "Slurm ended it"), "interrupted", "Slurm ended it"),
    (None, (2, "device=cuda: none here"), "failed", "device=cuda: none here"),
    (None, (1, None), "failed", "ended with exit code 1"),
    (None, (-15, None), "interrupted", "ended with exit code -15"),
]


@pytest.mark.parametrize(("status", "end", "state", "reason"), STATUSES)
def test_standing(folder, status, end, state: str, reason: str | None) -> None:
    if status is not None:
        leave(folder, "a", status=status, summary={})
    if end is not None:
        folder.end("a", *end, seconds=1.0)
    standing = folder.standing(job())
    assert standing.state == state
    assert standing.reason is None if reason is None else reason in str(standing.reason)


def test_a_host_that_has_been_silent_for_an_hour_is_gone(folder) -> None:
    leave(folder, "a", status={"state": "running", "pid": 1, "host": "elsewhere"}, metrics={})
    (folder.job("a") / "metrics.json").rename(folder.job("a") / "metrics.jsonl")
    now = time.time()
    for name, ago, state in (
        ("status.json", 4000, "running"),  # its metrics have just been written
        ("metrics.jsonl", 3500, "running"),
        ("metrics.jsonl", 3700, "interrupted"),
    ):
        os.utime(folder.job("a") / name, (now - ago, now - ago))
        assert folder.standing(job()).state == state, (name, ago)
    lock = FolderLock(folder.job("a"))
    lock.take("the run")
    assert folder.standing(job()).state == "running", "its lock is seen here, so it lives"
    lock.release()


def test_running_is_who_holds_the_folder(folder) -> None:
    leave(folder, "a", status={"state": "running", "pid": os.getpid(), "host": HERE})
    lock = FolderLock(folder.job("a"))
    lock.take("the run")
    assert folder.standing(job()).state == "running"
    lock.release()
    assert folder.standing(job()).state == "interrupted"


def test_finished_without_numbers_is_not_finished(folder) -> None:
    leave(folder, "a", status={"state": "finished"}, summary={})
    assert folder.standing(job(kind="profile")).state != "finished"


def test_the_table_has_a_row_for_every_job(folder) -> None:
    jobs = [
        job("a", seed=0, tasks_per_pass=1),
        job("b", seed=1, tasks_per_pass="auto"),
        job("c", kind="profile", seed=2, tasks_per_pass=1),
        job("d", seed=None, tasks_per_pass=1),
    ]
    leave(folder, "a", status={"state": "finished"}, summary={"test/acc": 0.5, "memory/kind": "cpu-tensors", "n": 3})
    leave(folder, "b", status={"state": "failed", "reason": 'loss, "nan"'}, summary={"test/acc": 0.1})
    leave(folder, "c", status={"state": "finished"}, profile={"memory/kind": "cuda", "bytes": {"tensors": 7}})
    results_table.write(folder, jobs)
    frame = pandas.read_parquet(folder.path / "results.parquet")
    assert list(frame.columns) == [
        "job",
        "state",
        "reason",
        "seed",
        "tasks_per_pass",
        "test/acc",
        "memory/kind",
        "n",
        "bytes.tensors",
    ]
    assert list(frame["job"]) == ["jobs/a", "jobs/b", "jobs/c", "jobs/d"]
    assert list(frame["state"]) == ["finished", "failed", "finished", "waiting"]
    assert frame["reason"].tolist()[1] == 'loss, "nan"'
    assert list(frame["tasks_per_pass"]) == ["1", "auto", "1", "1"], "a column of numbers and texts holds texts"
    assert frame["seed"].iloc[:3].tolist() == [0, 1, 2]
    assert frame["test/acc"].isna().tolist() == [False, True, True, True], "numbers come from finished jobs alone"
    assert frame["bytes.tensors"].tolist()[2] == 7
    read_back = pandas.read_csv(folder.path / "results.csv")
    assert list(read_back.columns) == list(frame.columns)
    assert read_back["reason"].tolist()[1] == 'loss, "nan"'
    assert not list(folder.path.glob(".*results*"))


def test_one_command_at_a_time(folder) -> None:
    with folder.held():
        folder.stop()
        assert folder.stopping == "soon"
        with pytest.raises(ConfigError, match="is in use by another memmeta sweep"), SweepFolder(folder.path).held():
            pass
    with folder.held():
        assert folder.stopping is None
