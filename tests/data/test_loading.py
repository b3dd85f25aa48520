import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from memmeta_exp.config import SPLITS, DatasetConfig, DatasetFacts, options, registry
from memmeta_exp.data import DataError, EpisodeSampler, ImageSet, episodes, load_split, synthetic
from memmeta_exp.data.cifar100_torchmeta import hdf5_path
from memmeta_exp.data.datasets import SyntheticConfig
from memmeta_exp.data.prepare.status import status
from memmeta_exp.data.prepare.verify import verify

SMALL = SyntheticConfig(classes=6, images_per_class=50, channels=2, image_size=16)


@pytest.mark.parametrize("split", SPLITS)
def test_synthetic_images_are_as_configured_and_repeatable(split: str):
    one, two = load_split(SMALL, split), load_split(SMALL, split)
    assert one.images.shape == (6, 50, 2, 16, 16)
    assert torch.equal(one.images, two.images)
    assert one.class_names[5] == f"{split}-5"


def test_synthetic_splits_differ():
    train, test = load_split(SMALL, "train").images, load_split(SMALL, "test").images
    assert (train != test).float().mean() > 0.9


def test_synthetic_classes_can_be_told_apart_by_their_mean():
    images = load_split(SMALL, "val").images.float().flatten(2)
    means = images[:, :25].mean(1)
    nearest = torch.cdist(images[:, 25:].flatten(0, 1), means).argmin(1)
    assert (nearest == torch.arange(6).repeat_interleave(25)).float().mean() > 0.9


def test_images_that_contradict_the_facts_are_refused(monkeypatch: pytest.MonkeyPatch):
    wrong = ImageSet(torch.zeros(5, 50, 2, 16, 16, dtype=torch.uint8), tuple("abcde"))
    monkeypatch.setattr(SyntheticConfig, "load", lambda *_: wrong)
    with pytest.raises(
        DataError,
        match=r"train split holds .*\(5, 50, 2, 16, 16\) in 5 classes .*, expected \(6, 50, 2, 16, 16\) in 6",
    ):
        load_split(SMALL, "train")


def test_status_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEMMETA_CACHE", str(tmp_path))
    monkeypatch.delenv("MEMMETA_DATA", raising=False)
    rows = {row.name: row for row in status()}
    assert list(rows) == list(options("dataset"))
    assert rows["glyphs"].present
    assert rows["glyphs"].verified is None
    assert "MEMMETA_DATA" in rows["cifar_fs"].detail
    assert not any("\n" in row.detail or "\n" in row.description for row in rows.values())


def test_status_tells_absent_from_damaged(tmp_path: Path):
    absent = {row.name: row for row in status(str(tmp_path))}["fc100"]
    assert (absent.present, absent.verified) == (False, None)
    assert "memmeta data fetch cifar100" in absent.detail
    hdf5_path(tmp_path).parent.mkdir()
    hdf5_path(tmp_path).write_bytes(b"not hdf5")
    damaged = {row.name: row for row in status(str(tmp_path))}["fc100"]
    assert (damaged.present, damaged.verified) == (False, False)
    assert "memmeta data fetch cifar100" in damaged.detail


def test_importing_the_package_loads_no_heavy_library():
    heavy = {"matplotlib", "torchmeta", "torchvision", "h5py", "PIL"}
    code = f"import sys, memmeta_exp.data; print({heavy} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


@dataclass(frozen=True)
class MineConfig(DatasetConfig):
    name: str = "mine"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 3, "val": 2, "test": 2}, 4, 1, 16)

    def load(self, split: str, data_root: str | None) -> ImageSet:
        classes = self.facts().classes[split]
        return ImageSet(torch.zeros(classes, 4, 1, 16, 16, dtype=torch.uint8), tuple(map(str, range(classes))))


class _WrongSplit(MineConfig):
    def load(self, split: str, data_root: str | None) -> ImageSet:
        return super().load("val", data_root)


def test_a_registered_dataset_is_listed_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(registry._registered["dataset"], "mine", MineConfig)
    row = status(str(tmp_path))[-1]
    assert (row.name, row.present, row.verified) == ("mine", True, None)
    assert "memmeta data verify mine" in row.detail
    checks = list(verify(MineConfig()))
    assert [check.what for check in checks if check.passed] == ["train: counts", "val: counts", "test: counts"]
    assert [check.what for check in verify(_WrongSplit()) if check.passed is False] == ["train: counts"]


@pytest.mark.parametrize("name", ["quadratic", "sinusoid"])
def test_a_problem_without_images_is_verified_as_one(name: str):
    assert [(c.what, c.passed) for c in verify(options("dataset")[name]())] == [("pixels", None)]


def test_synthetic_images_say_what_they_cost_and_fit(monkeypatch, caplog) -> None:
    monkeypatch.setattr(logging.getLogger("memmeta"), "propagate", True)
    million = SyntheticConfig(classes=1_000_000, images_per_class=2, channels=1, image_size=16)
    monkeypatch.setattr(synthetic, "free_memory", lambda: 2 * 2**30)
    with caplog.at_level(logging.INFO, "memmeta"):
        million.require(None)
    said = "dataset=synthetic draws 3 x 2,000,000 images, 1.4 GiB in memory, about 31 s"
    assert [record.getMessage() for record in caplog.records] == [said]
    monkeypatch.setattr(synthetic, "free_memory", lambda: 2**30)
    with pytest.raises(DataError, match=r"and 1\.0 GiB are free: lower dataset\.classes"):
        million.require(None)
    caplog.clear()
    SMALL.require(None)
    assert not caplog.records


def test_free_memory_is_what_the_control_group_leaves(monkeypatch, tmp_path) -> None:
    everything = synthetic.free_memory()
    assert everything is not None
    assert everything > 2**24
    monkeypatch.setattr(synthetic, "CGROUP", tmp_path)
    for limit, free in (("16777216", 2**24 - 4096), ("max", everything)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("4096\n")
        assert synthetic.free_memory() == pytest.approx(free, rel=0.5)


def test_synthetic_images_do_not_depend_on_how_they_are_drawn(monkeypatch) -> None:
    whole = load_split(SMALL, "val").images
    monkeypatch.setattr(synthetic, "_BLOCK_PIXELS", 2 * whole[0].numel())
    assert torch.equal(load_split(SMALL, "val").images, whole)


def test_tasks_among_a_million_classes_need_little_memory(monkeypatch) -> None:
    """How many tasks' keys are held at once changes no task."""
    sampler = EpisodeSampler(load_split(SMALL, "val"), "val", 0, 3, 1, 1)
    expected = sampler.draw(5, 9)
    monkeypatch.setattr(episodes, "_BLOCK_KEYS", 12)
    found = sampler.draw(5, 9)
    assert torch.equal(found.classes, expected.classes)
    assert torch.equal(found.items, expected.items)
