"""Run folders that were damaged, and what else keeps a run from going on: one line, and nothing whole is lost."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from memmeta_exp.data import synthetic
from memmeta_exp.tracking.run_folder import RunFolder
from memmeta_exp.training import checkpoint
from memmeta_exp.utils import file_lock
from tests.training.conftest import TINY, same_bits, status
from tests.training.test_faults import RUN, last_line


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


def test_a_finished_run_that_cannot_be_longer_stays_finished(memmeta, whole, tmp_path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    before = {f.name: f.read_bytes() for f in run.iterdir() if f.is_file()}
    line = last_line(memmeta("train", "resume=run", "iterations=12"), 2)
    assert "has metrics but no checkpoint" in line
    assert {f.name: f.read_bytes() for f in run.iterdir() if f.is_file()} == before
    assert memmeta("train", "resume=run").code == 0, "it is finished, and there is nothing to do"
    (run / "summary.json").unlink()
    assert "has metrics but no checkpoint" in last_line(memmeta("train", "resume=run"), 2), "no summary, not finished"


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
    "not valid YAML": (lambda text: "a: [b\n", "is damaged"),
    "a key misspelt": (lambda text: text.replace("\nways:", "\nwyas:"), "did you mean 'ways'?"),
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
    assert "cannot be read: its content is lost" in line
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

    monkeypatch.setattr(file_lock.fcntl, "flock", none)
    (tmp_path / "run").mkdir()
    with RunFolder(tmp_path / "run").claimed():
        pass
    result = train("iterations=1", "hydra.run.dir=other")
    assert result.code == 0
    assert len([line for line in result.err.splitlines() if "has no locks" in line]) == 1
