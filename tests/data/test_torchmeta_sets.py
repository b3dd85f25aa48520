import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from memmeta_exp.config import SPLITS
from memmeta_exp.data import DataError, cifar100_torchmeta, load_split
from memmeta_exp.data.cifar100_torchmeta import hdf5_path, verify
from memmeta_exp.data.datasets import CifarFsConfig, Fc100Config
from memmeta_exp.data.loading import resolve_root
from memmeta_exp.data.prepare.fetch import fetch

ROOT = os.environ.get("MEMMETA_DATA")
real_data = pytest.mark.skipif(
    not (ROOT and hdf5_path(Path(ROOT)).is_file()), reason="needs CIFAR-100 under MEMMETA_DATA"
)
CONFIGS = {"cifar_fs": CifarFsConfig(), "fc100": Fc100Config()}


@real_data
@pytest.mark.parametrize("name", CONFIGS)
def test_the_splits_partition_the_hundred_classes(name: str):
    names = [load_split(CONFIGS[name], split).class_names for split in SPLITS]
    assert len({n for split in names for n in split}) == 100
    assert [len(split) for split in names] == list(CONFIGS[name].facts().classes.values())
    if name == "fc100":
        coarse = [{n.split("/")[0] for n in split} for split in names]
        assert [len(c) for c in coarse] == [12, 4, 4]


@real_data
@pytest.mark.parametrize("name", CONFIGS)
def test_classes_and_pixels_are_those_of_torchmetas_own_class(name: str, tmp_path: Path):
    """Its download finds the data in place and writes only the split files, here in a folder of links."""
    folder = tmp_path / "cifar100"
    folder.mkdir()
    for file in ("data.hdf5", "fine_names.json"):
        (folder / file).symlink_to(Path(str(ROOT)).resolve() / "cifar100" / file)
    theirs = cifar100_torchmeta.class_dataset(name)(str(tmp_path), meta_val=True, download=True)
    ours = load_split(CONFIGS[name], "val")
    assert list(ours.class_names) == ["/".join(pair) for pair in theirs.labels]
    image = np.asarray(theirs[3][17][0])
    assert image.any()
    assert np.array_equal(ours.images[3, 17].permute(1, 2, 0).numpy(), image)
    theirs.close()


@real_data
def test_the_content_is_that_of_cifar100():
    assert verify(Path(str(ROOT)))
    assert fetch("cifar100", Path(str(ROOT))) == hdf5_path(Path(str(ROOT)))  # sound already: no network


def write_hdf5(root: Path, images: int = 2) -> Path:
    """A file of torchmeta's layout with the fine classes of every coarse class that FC100's val split names."""
    path = hdf5_path(root)
    path.parent.mkdir(parents=True)
    get_asset = cifar100_torchmeta.import_torchmeta("torchmeta.datasets.utils").get_asset
    with h5py.File(path, "w") as file:
        for coarse in get_asset("cifar100", "fc100", "val.json", dtype="json"):
            for fine in "edcba":
                file[f"{coarse}/{fine}"] = np.full((images, 32, 32, 3), ord(fine), dtype=np.uint8)
    return path


def test_fc100_takes_the_fine_classes_in_order_and_never_writes(tmp_path: Path):
    write_hdf5(tmp_path, images=600)
    image_set = load_split(Fc100Config(), "val", str(tmp_path))
    assert [n[-1] for n in image_set.class_names] == list("abcde") * 4
    assert image_set.images.float().mean((1, 2, 3, 4)).tolist() == [float(ord(c)) for c in "abcde"] * 4
    assert [p.name for p in tmp_path.rglob("*")] == ["cifar100", "data.hdf5"]


def error_line(root: Path | None, split: str = "val") -> str:
    with pytest.raises(DataError) as error:
        load_split(Fc100Config(), split, str(root) if root else None)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_file_names_the_command_that_gets_it(tmp_path: Path):
    assert "does not exist: download it with `memmeta data fetch cifar100" in error_line(tmp_path)


def test_a_missing_root_names_the_setting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MEMMETA_DATA", raising=False)
    assert "data_root=DIR" in error_line(None)
    monkeypatch.setenv("MEMMETA_DATA", "~/here")
    assert resolve_root(None, "fc100") == Path.home() / "here"


def test_damage_is_said_in_one_line(tmp_path: Path):
    path = write_hdf5(tmp_path)
    assert "expected uint8 (600, 32, 32, 3)" in error_line(tmp_path)
    assert "is damaged (no group" in error_line(tmp_path, split="test")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "is damaged" in error_line(tmp_path)
    path.write_bytes(b"not hdf5")
    assert "is damaged" in error_line(tmp_path)


def test_other_pixels_are_not_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_hdf5(tmp_path)
    assert not verify(tmp_path)
    with h5py.File(path) as file:
        monkeypatch.setattr(cifar100_torchmeta, "CIFAR100_SHA256", cifar100_torchmeta.content_sha256(file))
    assert verify(tmp_path)
    with h5py.File(path, "r+") as file:
        group = file[next(iter(file))]
        assert isinstance(group, h5py.Group)
        pixels = group["a"]
        assert isinstance(pixels, h5py.Dataset)
        pixels[0, 0, 0, 0] = 0
    assert not verify(tmp_path)


def test_without_torchmeta_the_line_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_hdf5(tmp_path)
    for module in [m for m in sys.modules if m.partition(".")[0] == "torchmeta"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torchmeta", None)
    assert "pip install --no-deps torchmeta==1.8.0" in error_line(tmp_path)


def test_images_are_contiguous_and_channels_first(tmp_path: Path):
    path = write_hdf5(tmp_path, images=600)
    with h5py.File(path, "r+") as file:
        for coarse in file.values():
            del coarse["a"]
            coarse["a"] = np.broadcast_to(np.array([1, 2, 3], dtype=np.uint8), (600, 32, 32, 3))
    images = load_split(Fc100Config(), "val", str(tmp_path)).images
    assert images.is_contiguous()
    assert torch.equal(images[0, 0, :, 5, 6], torch.tensor([1, 2, 3], dtype=torch.uint8))
