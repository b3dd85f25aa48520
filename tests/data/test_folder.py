"""dataset=folder: what people have in folders, and what becomes of it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from memmeta_exp.config import SPLITS, from_omegaconf
from memmeta_exp.config.compose import composed
from memmeta_exp.data import fingerprint, load_split
from memmeta_exp.data.datasets import FolderConfig
from memmeta_exp.data.prepare.verify import verify
from memmeta_exp.experiment.builder import build
from memmeta_exp.utils.errors import ConfigError, DataError
from tests.data.folders import tree


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMMETA_CACHE", str(tmp_path / "cache"))


def folder(root: Path, **keys: object) -> FolderConfig:
    return FolderConfig(path=str(root), image_size=16, **keys)  # pyright: ignore[reportArgumentType]


TWO_MORE = dict.fromkeys(("c04", "c05", "c06"), 2)
UNEVEN = {  # images more in some classes: the number of dimensions of train, val and test
    "one class": ({"c00": 1}, [4, 5, 5]),
    "one class of the last split": ({"c09": 3}, [5, 5, 4]),
    "splits that differ, each even": (TWO_MORE, [5, 5, 5]),
    "splits that differ, one uneven": ({**TWO_MORE, "c07": 1}, [5, 5, 4]),
    "all": ({"c00": 1, "c04": 2, "c08": 3}, [4, 4, 4]),
}


@pytest.mark.parametrize("which", UNEVEN)
def test_uneven_classes_load_and_verify(tmp_path: Path, which: str) -> None:
    more, dimensions = UNEVEN[which]
    config = folder(tree(tmp_path / "birds", 3, more))
    sets = [load_split(config, split) for split in SPLITS]
    assert [s.images.dim() for s in sets] == dimensions
    assert [tuple(s.images.shape) for s in sets] == [config.facts().shape(split) for split in SPLITS]
    assert sum(len(s.flat) for s in sets) == 30 + sum(more.values())
    checks = list(verify(config))
    assert not [check for check in checks if check.passed is False]


def test_a_task_too_large_names_class_split_and_key(tmp_path: Path) -> None:
    root = tree(tmp_path / "birds", 4, {"c08": -2})
    overrides = ["dataset=folder", f"dataset.path={root}", "dataset.image_size=16", "ways=3", "training.queries=1"]
    from_omegaconf(composed([*overrides, "shots=1", "queries=1"]))
    with pytest.raises(ConfigError, match=r"shots=1 .* more than the 2 images of class 'c08' of folder's test split"):
        from_omegaconf(composed([*overrides, "shots=1", "queries=2"]))


def test_names_that_are_no_text_load(tmp_path: Path) -> None:
    root = tree(tmp_path / os.fsdecode(b"V\xf6gel"), 2)
    (root / "c00" / "0.png").rename(root / "c00" / os.fsdecode(b"caf\xe9.png"))
    (root / "c01").rename(root / os.fsdecode(b"\xe9"))
    split = (root / "split.json").read_text().replace("c01", "\\udce9")
    (root / "split.json").write_text(split)
    images = load_split(folder(root), "train")
    assert images.images.shape == (4, 2, 3, 16, 16)
    assert images.class_names[-1] == os.fsdecode(b"\xe9")
    assert fingerprint(images) == fingerprint(load_split(folder(root), "train"))


def test_what_systems_leave_is_skipped_and_what_may_be_an_image_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tree(tmp_path / "birds", 2)
    for name in ("._0.png", ".DS_Store", ".hidden.jpg", "Thumbs.db", "desktop.ini", "labels.txt"):
        (root / "c00" / name).write_bytes(b"none of an image")
    for name in ("0.heic", "1.HEIC", "2.cr2", "noname"):
        (root / "c01" / name).write_bytes(b"none that is read")
    (root / "c02" / "gone.png").symlink_to("nowhere.png")
    (root / "c02" / "round.png").symlink_to("round.png")
    for suffix in (".ppm", ".PGM", ".jfif", ".tga"):
        format = {".jfif": "JPEG", ".tga": "TGA"}.get(suffix, "PPM")
        Image.open(root / "c03" / "0.png").convert("L").save(root / "c03" / f"x{suffix}", format=format)
    for split in SPLITS:
        load_split(folder(root), split)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        f"{root}: left out 1 .cr2, 2 .heic, 2 broken links, 1 without a suffix, which are not read as images"
    ]
    assert load_split(folder(root), "train").counts == (2, 2, 2, 6)


def test_a_class_without_an_image_that_is_read_says_what_it_has(tmp_path: Path) -> None:
    root = tree(tmp_path / "birds", 2)
    for image in (root / "c05").iterdir():
        image.rename(image.with_suffix(".heic"))
    with pytest.raises(
        ConfigError, match=r"c05 holds no images \(.*\.png.*\); it contains 2 \.heic, which are not read"
    ):
        folder(root).facts()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_one_file_in_two_splits_is_refused(tmp_path: Path, link: Callable[..., None]) -> None:
    root = tree(tmp_path / "birds", 2)
    link(root / "c00" / "1.png", root / "c08" / "other.png")
    with pytest.raises(DataError, match=r"c08/other\.png of test is the same file as an image of train, by a link"):
        load_split(folder(root), "val")


def test_images_that_cannot_be_read_are_left_out_on_request(tmp_path: Path) -> None:
    root = tree(tmp_path / "birds", 4)
    (root / "c00" / "1.png").write_bytes(b"no image")
    (root / "c08" / "3.png").write_bytes((root / "c08" / "3.png").read_bytes()[:60])
    with pytest.raises(DataError) as error:
        load_split(folder(root), "train")
    assert str(error.value) == (
        f"2 of 40 images of {root} cannot be read: c00/1.png (no image of a format that is read here, or a damaged "
        "one), c08/3.png (image file is truncated); repair or remove them, or skip them with "
        "dataset.skip_damaged=true"
    )
    config = folder(root, skip_damaged=True)
    assert [load_split(config, split).counts for split in SPLITS] == [(3, 4, 4, 4), None, (4, 3, 4)]
    assert not [check for check in verify(config) if check.passed is False]
    overrides = ["dataset=folder", f"dataset.path={root}", "dataset.image_size=16", "dataset.skip_damaged=true"]
    with pytest.raises(ConfigError, match="is more than the 3 images of class 'c00' of the train split; lower one"):
        build(from_omegaconf(composed([*overrides, "ways=3", "shots=2", "queries=2"])))


def test_verify_counts_images_that_two_splits_share(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tree(tmp_path / "birds", 3)
    assert [c.passed for c in verify(folder(root)) if c.what == "splits"] == [True]
    for name in ("0.png", "1.png"):
        shutil.copy(root / "c00" / name, root / "c09" / name)
    checks = list(verify(folder(root)))
    assert "identical images are in two splits: 2 of test in train" in caplog.text
    assert not [check for check in checks if check.passed is False]
