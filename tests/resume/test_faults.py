"""What machines do to runs: each fault ends in one clear line, with the right exit code and status.json, and nothing
that was written before is lost."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from memmeta_exp import atomic, checkpoint
from memmeta_exp.algorithms import FeatureSpaceLearner
from memmeta_exp.data import synthetic
from memmeta_exp.iteration import Iteration
from memmeta_exp.tracking import lock, metrics_file
from memmeta_exp.tracking.run_folder import RunFolder, read_metrics
from tests.resume.conftest import TINY, same_bits, status

RUN = "hydra.run.dir=run"
GOES_ON = "goes on from the last checkpoint"


def last_line(result: Any, code: int) -> str:
    """The error line; there is one, after warnings, and no traceback."""
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    assert "Error executing job" not in result.err
    return result.err.splitlines()[-1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["gradient", "loss"])
def test_theta_is_not_stepped_with_what_is_no_number(train, tmp_path, monkeypatch, value: float, where: str) -> None:
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
        ["algorithm.inner_steps=1", "algorithm.inner_tolerance=1e-7"],
    ):
        result = train(*overrides)
        assert result.code == 0
        assert len([line for line in result.err.splitlines() if "a solve that fell short" in line]) == 1
        folder = result.summary.parent
        assert json.loads((folder / "summary.json").read_text())["lower/wrong_fraction"] == 1
        assert {row["lower/wrong_fraction"] for row in read_metrics(folder)[1:]} == {1.0}


def test_out_of_memory_says_what_would_fit(train, memmeta, tmp_path, monkeypatch) -> None:
    real = Iteration.__call__

    def refuse(self: Iteration, t: int) -> Any:
        if self.experiment.device.type == "meta":  # where the prediction runs it
            return real(self, t)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(Iteration, "__call__", refuse)
        line = last_line(train(RUN), 1)
    assert "out of memory with chunk=auto: the tasks need" in line
    assert status(tmp_path / "run")["state"] == "failed"
    named, _, budget = line.rpartition("memory.budget_mib=")
    assert "memory.mode=half_task needs" in named
    fitted = train("iterations=2", f"memory.budget_mib={budget.partition(' ')[0]}")
    assert json.loads((fitted.summary.parent / "env.json").read_text())["memory.mode"] == "half_task"
    assert memmeta("train", "resume=run").code == 0, "and with more memory the run goes on"


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, name: str, at: int, number: int = errno.ENOSPC) -> Iterator[None]:
    """From the `at`-th time on that a file `name` is replaced its bytes do not fit."""
    real, seen = atomic.os.fsync, [0]

    def fsync(handle: int) -> None:
        if f"/.{name}." in os.readlink(f"/proc/self/fd/{handle}"):
            seen[0] += 1
            if seen[0] >= at:
                raise OSError(number, os.strerror(number))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", fsync)
        yield


FULL = {(".next.pt", 3): 5, ("best.pt", 1): 0, ("summary.json", 1): 6, ("test_episodes.csv", 1): 6, ("env.json", 1): 0}


@pytest.mark.parametrize("place", FULL, ids=lambda place: place[0])
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
        patch.setattr(lock.os, "open", refuse)
        line = last_line(train(RUN), 2)
        assert "cannot be written (Read-only file system): name another folder" in line
        assert list((tmp_path / "run").iterdir()) == []


@pytest.fixture(scope="session")
def killed_once(runs, tmp_path_factory) -> Path:
    """A run killed in the middle: last.pt and previous.pt hold iterations one after the other."""
    base = tmp_path_factory.mktemp("killed")
    assert runs(base, "train", *TINY, RUN, operation=150).status == -9
    return base / "run"


@pytest.fixture
def killed(killed_once, tmp_path, memmeta) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(killed_once, tmp_path / "run"))


@pytest.fixture(scope="session")
def whole(runs, tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("whole")
    assert runs(base, "train", *TINY, RUN).status == 0
    return base / "run"


def flipped(content: bytes) -> bytes:
    """With one bit of the middle another."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE = {
    "truncated": lambda content: content[: len(content) // 2],
    "short of a byte": lambda content: content[:-1],
    "empty": lambda content: b"",
    "a bit flipped": flipped,
    "its seal gone": lambda content: content[: content.rfind(b"PK\x05\x06") + 20] + b"\0\0",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_with_one_warning(memmeta, killed, whole, damage: str) -> None:
    last = killed / "checkpoints" / "last.pt"
    last.write_bytes(DAMAGE[damage](last.read_bytes()))
    result = memmeta("train", "resume=run")
    assert result.code == 0, result.err
    (line,) = [line for line in result.err.splitlines() if "damaged" in line]
    assert "last.pt is damaged" in line
    assert "going on from run/checkpoints/previous.pt, iteration" in line
    same_bits(whole, killed)


def test_two_damaged_checkpoints_are_the_end(memmeta, killed) -> None:
    for name in ("last.pt", "previous.pt"):
        (killed / "checkpoints" / name).write_bytes(b"no checkpoint")
    rows = (killed / "metrics.jsonl").read_bytes()
    line = last_line(memmeta("train", "resume=run"), 2)
    assert "last.pt is damaged" in line
    assert "previous.pt is damaged" in line
    assert "in another folder" in line
    assert status(killed)["state"] == "failed"
    assert (killed / "metrics.jsonl").read_bytes() == rows


def test_checkpoints_that_are_gone(memmeta, killed) -> None:
    shutil.rmtree(killed / "checkpoints")
    rows = (killed / "metrics.jsonl").read_bytes()
    assert "has metrics but no checkpoint" in last_line(memmeta("train", "resume=run"), 2)
    assert (killed / "metrics.jsonl").read_bytes() == rows


def test_metrics_cut_short_go_on_from_the_checkpoint_before(memmeta, killed, whole) -> None:
    """Where that is whole up to there; an altered row before it is the end."""
    file = killed / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    at = checkpoint.load(killed / "checkpoints" / "previous.pt")["iteration"]
    file.write_text("".join(lines[: at + 1]))
    result = memmeta("train", "resume=run")
    assert result.code == 0, result.err
    (line,) = [line for line in result.err.splitlines() if "cut short or altered" in line]
    assert f"iteration {at}" in line
    same_bits(whole, killed)


def test_metrics_that_were_altered_are_the_end(memmeta, killed) -> None:
    file = killed / "metrics.jsonl"
    file.write_text(file.read_text().replace('"train/acc": ', '"train/acc": 1', 1))
    altered = file.read_bytes()
    line = last_line(memmeta("train", "resume=run"), 2)
    assert "metrics.jsonl was cut short or altered" in line
    assert file.read_bytes() == altered


CONFIGS = {
    "cut short": (lambda text: text[: len(text) // 2], "is damaged"),
    "empty": (lambda text: "", "is damaged"),
    "a list": (lambda text: "- a\n", "holds no mapping"),
    "no YAML": (lambda text: "a: [b\n", "is damaged"),
    "a key misspelt": (lambda text: text.replace("ways:", "wyas:"), "did you mean 'ways'?"),
    "another seed": (lambda text: text.replace("seed: 0", "seed: 4"), "seed is 0 there, 4 here"),
    "fewer iterations": (lambda text: text.replace("iterations: 10", "iterations: 2"), "fewer than"),
}


@pytest.mark.parametrize("change", CONFIGS)
def test_an_altered_configuration_is_not_gone_on_with(memmeta, killed, change: str) -> None:
    alter, expected = CONFIGS[change]
    file = killed / "config.yaml"
    file.write_text(alter(file.read_text()))
    before = {f.name: f.read_bytes() for f in killed.glob("checkpoints/*.pt")}
    result = memmeta("train", "resume=run")
    line = last_line(result, 2)
    assert len(result.err.splitlines()) == 1
    assert ("config.yaml" in line) != (change == "fewer iterations")
    assert expected in line
    assert {f.name: f.read_bytes() for f in killed.glob("checkpoints/*.pt")} == before


@pytest.mark.parametrize("name", ["status.json", "env.json", "overrides.yaml"])
def test_a_damaged_file_that_decides_nothing_is_named_and_replaced(memmeta, killed, whole, name: str) -> None:
    (killed / name).write_bytes(b'{"pid": \xff')
    result = memmeta("train", "resume=run")
    assert result.code == 0, result.err
    (line,) = [line for line in result.err.splitlines() if name in line]
    assert "cannot be read: what it held is lost" in line
    same_bits(whole, killed)


def test_other_images_are_not_gone_on_with(memmeta, killed, monkeypatch) -> None:
    """A renderer of another version, another copy of a dataset."""
    monkeypatch.setattr(synthetic, "_NOISE_STD", 47.0)
    line = last_line(memmeta("train", "resume=run"), 2)
    assert "the images of train, val, test are not those that the run began with" in line


def test_a_truncated_dataset_is_refused_before_anything_is_made(memmeta, tmp_path) -> None:
    file = tmp_path / "data" / "cifar100" / "data.hdf5"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 40)
    result = memmeta("train", "dataset=cifar_fs", f"data_root={tmp_path / 'data'}")
    assert f"{file} is damaged" in last_line(result, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_checkpoint_of_another_version(memmeta, killed) -> None:
    """One that has something to add up which this one does not know, and one without what it needs."""
    saved = checkpoint.load(killed / "checkpoints" / "last.pt")
    for changed in ({**saved, "progress": {**saved["progress"], "new": 1.0}}, {"model": saved["model"]}):
        for name in ("last", "previous"):
            checkpoint.save(killed / "checkpoints" / f"{name}.pt", changed)
        assert "written by another version of memmeta" in last_line(memmeta("train", "resume=run"), 2)


def test_a_file_system_without_locks_is_said_so(train, tmp_path, monkeypatch) -> None:
    def none(handle: int, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(lock.fcntl, "flock", none)
    (tmp_path / "run").mkdir()
    with RunFolder(tmp_path / "run").claimed():
        pass
    result = train("iterations=1", "hydra.run.dir=other")
    assert result.code == 0
    assert len([line for line in result.err.splitlines() if "has no locks" in line]) == 1
