"""The converted form: mapped, checked, whole or not there."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from memmeta_exp.data import EpisodeSampler, ImageSet, fingerprint, npy, store
from memmeta_exp.data.store import Picture, SplitImages, Store, pixels_sha256, statistics_of, write_store
from memmeta_exp.utils.errors import DataError

SHAPE = (3, 8, 8)


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def split(counts: tuple[int, ...]) -> SplitImages:
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(len(counts)), counts))
    return SplitImages([f"class {i}" for i in range(len(counts))], labels, iter(pixels(len(labels))))


def made(folder: Path, *counts: int) -> Store:
    write_store(folder, {"train": lambda: split(counts)}, SHAPE, "a test")
    return Store(folder)


def test_images_are_stored_class_by_class_in_their_order(tmp_path: Path):
    images = made(tmp_path / "s", 3, 5, 4).load("train")
    counts = (3, 5, 4)
    assert (images.counts, images.least, images.most) == (counts, 3, 5)
    source, labels = pixels(12).transpose(0, 3, 1, 2), split((3, 5, 4)).labels
    for k, start in enumerate((0, 3, 8)):
        assert np.array_equal(images.flat[start : start + counts[k]].numpy(), source[labels == k])
    assert images.sizes.tolist() == [3, 5, 4]
    assert images.starts.tolist() == [0, 3, 8]


def test_classes_of_one_size_are_five_dimensional(tmp_path: Path):
    images = made(tmp_path / "s", 4, 4).load("train")
    assert (images.images.shape, images.counts) == ((2, 4, 3, 8, 8), None)


def test_pixels_are_mapped_and_not_read(tmp_path: Path):
    """A split of 2^33 bytes that are nowhere loads at once and gives the images it is asked for."""
    folder = made(tmp_path / "s", 4, 4).folder
    index = json.loads((folder / "index.json").read_text())
    count = 2**33 // (3 * 8 * 8)
    counts = [2**11] * (count >> 11) + [count % 2**11]
    names = [str(i) for i in range(len(counts))]
    index["splits"]["train"] |= {"shape": [count, 3, 8, 8], "counts": counts, "names": names}
    (folder / "index.json").write_text(json.dumps(index))
    np.lib.format.open_memmap(folder / "train.npy", mode="w+", dtype=np.uint8, shape=(count, 3, 8, 8))[-1] = 9
    images = Store(folder).load("train")
    assert images.flat.nbytes > 2**33 - 200
    batch = EpisodeSampler(images, "train", 0, 2, 3, 4).draw(0, 3)
    assert batch.support()[0].shape == (3, 6, 3, 8, 8)
    assert int(images.flat[-1].float().mean()) == 9
    blocks = (folder / "train.npy").stat().st_blocks * 512
    assert blocks < 2**26, "a sparse file, or this test needs a large disk"


def test_the_kernel_is_told_what_will_be_read(tmp_path: Path):
    images = made(tmp_path / "s", 6, 9, 7).load("train")
    told: list[list[int]] = []
    mapped = ImageSet(images.images, images.class_names, images.counts, told.append)
    batch = EpisodeSampler(mapped, "train", 0, 2, 2, 2).draw(5, 3)
    assert told == [mapped.rows(batch.classes, batch.items).flatten().tolist()]
    assert images.ahead is not None
    images.ahead([0, 21])
    assert images.to("cpu").ahead is not None
    assert images.to("meta").ahead is None, "what is on a device comes from no disk"


def test_the_fingerprint_sees_sizes_and_pixels_and_reads_ahead(tmp_path: Path):
    images = made(tmp_path / "s", 6, 9, 7).load("train")
    told: list[list[int]] = []
    same = ImageSet(images.images.clone(), images.class_names, images.counts, told.append)
    assert fingerprint(same) == fingerprint(images)
    assert told == [list(range(22))]
    other = ImageSet(images.images, images.class_names, (7, 8, 7))
    assert fingerprint(other) != fingerprint(images)
    same.images[21, 2, 7, 7] ^= 1
    assert fingerprint(same) != fingerprint(images)


def test_statistics_are_exact(tmp_path: Path):
    found = made(tmp_path / "s", 3, 5)
    scaled = pixels(8).astype(np.float64) / 255
    stored = found.splits["train"]
    assert np.allclose(stored.mean, scaled.mean((0, 1, 2)), atol=1e-14)
    assert np.allclose(stored.std, scaled.std((0, 1, 2)), atol=1e-14)
    assert statistics_of(found.load("train")) == (stored.mean, stored.std)


def test_statistics_of_many_blocks(monkeypatch: pytest.MonkeyPatch):
    images = ImageSet(torch.from_numpy(pixels(20)).permute(0, 3, 1, 2).contiguous().unflatten(0, (4, 5)), tuple("abcd"))
    whole = statistics_of(images)
    monkeypatch.setattr(store, "_BLOCK", 3 * 8 * 8 * 3)
    assert statistics_of(images) == whole


@pytest.mark.parametrize("harm", ["shorter", "longer", "other type", "no index", "index", "format", "gone"])
def test_damage_is_found_without_reading_pixels(tmp_path: Path, harm: str):
    folder = made(tmp_path / "s", 4, 4).folder
    data, index = folder / "train.npy", folder / "index.json"
    if harm in ("shorter", "longer"):
        content = data.read_bytes()
        data.write_bytes(content[:-1] if harm == "shorter" else content + b"1")
    elif harm == "other type":
        np.save(data, np.zeros((8, 3, 8, 8), dtype=np.int16))
    elif harm == "gone":
        data.unlink()
    elif harm == "no index":
        index.unlink()
    else:
        index.write_text("{" if harm == "index" else index.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(DataError) as error:
        Store(folder)
    assert "\n" not in str(error.value)


def test_a_failed_conversion_leaves_what_was_there(tmp_path: Path):
    folder = made(tmp_path / "s", 4, 4).folder
    before = (folder / "index.json").read_text()

    def damaged() -> SplitImages:
        raise DataError("not this one")

    with pytest.raises(DataError, match="not this one"):
        write_store(folder, {"train": lambda: split((2, 2)), "val": damaged}, SHAPE, "another")
    assert (folder / "index.json").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    made(folder, 2, 2)
    assert Store(folder).splits["train"].counts == [2, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_full_disk_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(npy.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match="free disk space, or choose another data_root"):
        made(tmp_path / "s", 4, 4)


def with_faults() -> SplitImages:
    """Classes of 3, 1 and 2 images. Two cannot be read; one is of one colour and an animation."""
    images: list[np.ndarray | Picture | DataError] = [*pixels(6)]
    images[1], images[5] = DataError("a/1.png (cut off)"), DataError("c/1.png (no image)")
    images[2] = Picture(np.full((8, 8, 3), [9, 8, 7], dtype=np.uint8), several=True)
    files = ["a/0.png", "a/1.png", "a/2.gif", "b/0.png", "c/0.png", "c/1.png"]
    return SplitImages(["a", "b", "c"], np.array([0, 0, 0, 1, 2, 2]), iter(images), files)


def test_images_that_cannot_be_read_are_all_named(tmp_path: Path):
    many = [DataError(f"a/{i}.png (cut off)") for i in range(25)]
    readers = {
        "train": with_faults,
        "val": lambda: SplitImages(["a"], np.zeros(25, dtype=int), iter(many)),
    }
    with pytest.raises(DataError) as error:
        write_store(tmp_path / "s", readers, SHAPE, "birds")
    line = str(error.value)
    assert line.startswith(
        "27 of 31 images of birds cannot be read: a/1.png (cut off), c/1.png (no image), a/0.png (cut"
    )
    assert line.endswith("a/17.png (cut off) and 7 more; repair or remove them")
    with pytest.raises(DataError, match=r"repair or remove them, or skip them with dataset.skip_damaged=true$"):
        write_store(tmp_path / "s", readers, SHAPE, "birds", skip_damaged=False)
    with pytest.raises(DataError, match="the val split has no readable images of a"):
        write_store(tmp_path / "s", readers, SHAPE, "birds", skip_damaged=True)
    assert not list(tmp_path.iterdir())


def test_images_that_cannot_be_read_can_be_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store.logger, "propagate", True)
    write_store(tmp_path / "s", {"train": with_faults}, SHAPE, "birds", skip_damaged=True)
    found = Store(tmp_path / "s")
    stored, images = found.splits["train"], found.load("train")
    assert (stored.counts, images.counts, images.class_names) == ([2, 1, 1], (2, 1, 1), ("a", "b", "c"))
    expected = pixels(6).transpose(0, 3, 1, 2)
    assert np.array_equal(images.flat[[0, 2, 3]].numpy(), expected[[0, 3, 4]])
    assert images.flat[1, :, 0, 0].tolist() == [9, 8, 7]
    assert statistics_of(images) == (stored.mean, stored.std)
    assert pixels_sha256(found.path("train")) == stored.sha256
    assert sorted(p.name for p in found.folder.iterdir()) == ["index.json", "train.npy"]
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 6 images of birds cannot be read and were skipped: a/1.png (cut off), c/1.png (no image)",
        "1 of 6 images of birds have several frames or pages, of which the first was used: a/2.gif",
        "1 of 6 images of birds have a single colour: a/2.gif",
    ]
    assert {kind: tally.count for kind, tally in (stored.noted or {}).items()} == {
        "left_out": 2,
        "several": 1,
        "constant": 1,
    }


def test_a_store_of_an_earlier_version_is_read(tmp_path: Path):
    folder = made(tmp_path / "s", 4, 4).folder
    index = json.loads((folder / "index.json").read_text())
    del index["splits"]["train"]["noted"]
    (folder / "index.json").write_text(json.dumps(index))
    assert Store(folder).splits["train"].noted is None
    index["splits"]["train"]["noted"] = {"constant": {"count": "many", "first": []}}
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="is damaged"):
        Store(folder)
