"""What machines do to runs: each fault ends in one clear line, with the right exit code and status.json, and nothing
that was written before is lost."""

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from memmeta_exp.algorithms import FeatureSpaceLearner
from memmeta_exp.experiment.train_step import TrainStep
from memmeta_exp.tracking import metrics_file
from memmeta_exp.tracking.run_folder import read_metrics
from memmeta_exp.training import checkpoint
from memmeta_exp.utils import atomic_io, file_lock
from tests.training.conftest import same_bits, status

RUN = "hydra.run.dir=run"
GOES_ON = "goes on from the last checkpoint"


def last_line(result: Any, code: int) -> str:
    """The error line; there is one, after warnings, and no traceback."""
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    assert "Error executing job" not in result.err
    return result.err.splitlines()[-1]


@pytest.mark.parametrize(("where", "value"), [("gradient", float("nan")), ("loss", float("inf"))])
def test_theta_is_not_stepped_with_what_is_no_number(train, tmp_path, monkeypatch, where: str, value: float) -> None:
    real, seen, theta = FeatureSpaceLearner.step, [0], {}

    def poisoned(self: FeatureSpaceLearner, batch: Any) -> Any:
        report = real(self, batch)
        seen[0] += 1
        if seen[0] == 6:  # the fourth step: row 0 and row 3 have a reference measure each
            theta["before"], theta["model"] = [p.detach().clone() for p in self.model.parameters()], self.model
            gradient = next(self.model.parameters()).grad
            assert gradient is not None
            (gradient if where == "gradient" else report.loss)[0] = value
        return report

    monkeypatch.setattr(FeatureSpaceLearner, "step", poisoned)
    line = last_line(train(RUN), 1)
    assert "at iteration 4" in line
    assert str(value) in line
    assert "lower optimizer.lr" in line
    assert (status(tmp_path / "run")["state"], status(tmp_path / "run")["reason"]) == (
        "failed",
        line.partition(": ")[2],
    )
    assert all(torch.equal(a, b) for a, b in zip(theta["before"], theta["model"].parameters(), strict=True))
    assert [row["iteration"] for row in read_metrics(tmp_path / "run")] == [0, 1, 2, 3]


def test_a_solve_that_misses_its_tolerance_is_reported(train) -> None:
    """Conjugate gradients, and the lower level: each in the metrics, the summary and one warning."""
    for overrides in (
        ["algorithm.linear_solver=cg", "algorithm.linear_steps=1", "algorithm.linear_tolerance=1e-9"],
        ["algorithm.inner_solver=gd", "algorithm.inner_steps=1", "algorithm.inner_tolerance=null"],
    ):
        result = train(*overrides, "iterations=2", "eval_every=2")
        assert result.code == 0
        assert len([line for line in result.err.splitlines() if "of the hypergradients are inexact" in line]) == 1
        assert "1/L_g" not in result.err, "a measured step keeps the condition"
        folder = result.summary.parent
        assert json.loads((folder / "summary.json").read_text())["hypergrad/inexact_fraction"] == 1
        assert {row["hypergrad/inexact_fraction"] for row in read_metrics(folder)[1:]} == {1.0}


@pytest.mark.slow
def test_out_of_memory_says_what_would_fit(train, memmeta, tmp_path, monkeypatch) -> None:
    real = TrainStep.__call__

    def refuse(self: TrainStep, t: int) -> Any:
        if self.experiment.device.type == "meta":  # where the prediction runs it
            return real(self, t)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", refuse)
        line = last_line(train(RUN), 1)
    assert "out of memory with tasks_per_pass=auto: the tasks need" in line
    assert status(tmp_path / "run")["state"] == "failed"
    named, _, budget = line.rpartition("memory.budget_mib=")
    assert "memory.mode=half_task needs" in named
    fit_to_budget = train("iterations=2", f"memory.budget_mib={budget.partition(' ')[0]}")
    assert json.loads((fit_to_budget.summary.parent / "env.json").read_text())["memory.mode"] == "half_task"
    assert memmeta("train", "resume=run").code == 0, "and with more memory the run goes on"


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, name: str, at: int, number: int = errno.ENOSPC) -> Iterator[None]:
    """From the `at`-th time on that a file `name` is replaced its bytes do not fit."""
    real, seen = atomic_io.os.fsync, [0]

    def fsync(handle: int) -> None:
        if f"/.{name}." in os.readlink(f"/proc/self/fd/{handle}"):
            seen[0] += 1
            if seen[0] >= at:
                raise OSError(number, os.strerror(number))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(atomic_io.os, "fsync", fsync)
        yield


FULL = {(".next.pt", 3): 5, ("best.pt", 1): 0, ("summary.json", 1): 6, ("test_episodes.csv", 1): 6, ("env.json", 1): 0}


DEAR = ("best.pt", "test_episodes.csv", "env.json")


@pytest.mark.parametrize(
    "place", [pytest.param(p, marks=[pytest.mark.slow] if p[0] in DEAR else []) for p in FULL], ids=lambda p: p[0]
)
def test_a_full_disk_loses_nothing_that_was_written(train, left_alone, tmp_path, monkeypatch, place) -> None:
    run = tmp_path / "run"
    with full_disk(monkeypatch, *place):
        line = last_line(train(RUN), 1)
    assert place[0] in line
    assert "No space left on device" in line
    assert GOES_ON in line
    assert status(run)["state"] == "failed"
    assert list(run.rglob("*.partial")) == []
    for file in run.glob("checkpoints/*.pt"):
        checkpoint.load(file)
    assert train(RUN).code == 0
    same_bits(left_alone(), run)


def test_a_disk_too_full_for_the_status(train, tmp_path, monkeypatch) -> None:
    """The error that ended the run is the last line; the status file is the one from before."""
    with full_disk(monkeypatch, "status.json", 2), full_disk(monkeypatch, "summary.json", 1, errno.EDQUOT):
        result = train(RUN)
    assert "status.json" in last_line(result, 1)
    assert status(tmp_path / "run")["state"] == "running"
    assert train(RUN).code == 0


def test_a_row_that_does_not_fit_is_not_there_in_part(train, left_alone, tmp_path) -> None:
    """By the system's own limit on the size of files: the write is cut short and then refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    real = metrics_file.MetricsFile.log
    run = tmp_path / "run"

    def limited(self: metrics_file.MetricsFile, row: dict[str, Any]) -> None:
        if row["iteration"] == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size + 40, hard))
        try:
            real(self, row)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics_file.MetricsFile, "log", limited)
        line = last_line(train(RUN), 1)
    assert "metrics.jsonl: File too large" in line
    assert [row["iteration"] for row in read_metrics(run)] == [0, 1, 2, 3, 4]
    assert (run / "metrics.jsonl").read_bytes().endswith(b"\n")
    assert status(run)["state"] == "failed"
    assert train(RUN).code == 0
    same_bits(left_alone(), run)


def test_a_folder_that_is_read_only(train, memmeta, tmp_path, monkeypatch) -> None:
    """One that was made before, and one that became so."""
    (tmp_path / "run").mkdir()
    real = os.open

    def refuse(path: Any, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT and str(tmp_path / "run") in str(Path(path).absolute()):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(file_lock.os, "open", refuse)
        line = last_line(train(RUN), 2)
        assert "cannot be written (Read-only file system): name another folder" in line
        assert list((tmp_path / "run").iterdir()) == []
    with full_disk(monkeypatch, ".next.pt", 2, errno.EROFS):
        assert "Read-only file system" in last_line(train(RUN), 1)
    assert status(tmp_path / "run")["state"] == "failed"
