"""The readers against small files in exactly the published formats."""

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from memmeta_exp.data.prepare.archive import unpacked
from memmeta_exp.data.prepare.readers import miniimagenet, omniglot, tieredimagenet
from memmeta_exp.data.store import Readers, Store, write_store
from memmeta_exp.utils.errors import DataError
from tests.data import official
from tests.data.official import CLASSES, SPLITS, per_class, unequal

COLOUR = (3, 84, 84)


def converted(tmp_path: Path, readers: Readers | None, shape: tuple[int, int, int] = COLOUR) -> Store:
    assert readers is not None
    write_store(tmp_path / "store", readers, shape, "test")
    return Store(tmp_path / "store")


def images_of(store: Store, split: str) -> dict[str, np.ndarray]:
    """[n, H, W, C] of each class."""
    stored, images = store.splits[split], store.load(split).flat.permute(0, 2, 3, 1).numpy()
    return dict(zip(stored.names, np.split(images, np.cumsum(stored.counts)[:-1]), strict=True))


MINI: dict[str, Callable[[Path], Path]] = {
    "cache": official.mini_cache,
    "cache protocol 2": lambda p: official.mini_cache(p, protocol=2, val="validation"),
    "cache of Python 2": lambda p: official.mini_cache(p, protocol=-1),
    "cache one folder down": lambda p: official.mini_cache(p / "mini-imagenet").parent,
    "category split": official.mini_category_split,
    "lists": lambda p: official.mini_csv(p, size=84),
    "lists, class folders": lambda p: official.mini_csv(p, size=84, layout="classes"),
    "lists, class folders in images": lambda p: official.mini_csv(p, size=84, layout="both"),
    "torchmeta": official.torchmeta_mini,
    "tree": official.tree,
    "tree one folder down": lambda p: official.tree(p / "miniImagenet").parent,
}


@pytest.mark.parametrize("form", MINI)
def test_every_form_of_miniimagenet_gives_the_same_images_in_the_same_order(tmp_path: Path, form: str):
    store = converted(tmp_path, miniimagenet.readers(MINI[form](tmp_path / "source")))
    for split in SPLITS:
        found, expected = images_of(store, split), per_class(split, 4)
        assert list(found) == sorted(CLASSES[split])
        for name in expected:
            assert np.array_equal(found[name], expected[name]), (split, name)
        assert store.load(split).images.shape == (len(expected), 4, *COLOUR)


def test_classes_without_names_are_numbered_in_the_order_of_their_labels(tmp_path: Path):
    folder = official.mini_category_split(tmp_path / "source", names=False)
    found = images_of(converted(tmp_path, miniimagenet.readers(folder)), "val")
    assert list(found) == ["10", "11"]
    assert np.array_equal(found["10"], per_class("val", 4)["n05"])


def test_larger_images_of_the_lists_are_resized(tmp_path: Path):
    store = converted(tmp_path, miniimagenet.readers(official.mini_csv(tmp_path / "source", size=168)))
    source = per_class("test", 4, 168)["n06"][1]
    expected = np.asarray(Image.fromarray(source).resize((84, 84), Image.Resampling.BILINEAR))
    assert np.array_equal(images_of(store, "test")["n06"][1], expected)


def test_the_lists_with_their_zip(tmp_path: Path):
    folder = official.mini_csv(tmp_path / "source", size=84)
    with zipfile.ZipFile(folder / "images.zip", "w") as file:
        for image in (folder / "images").iterdir():
            file.write(image, f"images/{image.name}")
    shutil.rmtree(folder / "images")
    (tmp_path / "work").mkdir()
    found = unpacked(folder, tmp_path / "work", ("images.zip",))
    store = converted(tmp_path, miniimagenet.readers(found))
    assert np.array_equal(images_of(store, "val")["n04"], per_class("val", 4)["n04"])


TIERED: dict[str, Callable[[Path], Path]] = {
    "png": official.tiered_png,
    "png of learn2learn": lambda p: official.tiered_png(p, prefix="tiered-imagenet-"),
    "png of Python 2": lambda p: official.tiered_png(p, protocol=-1),
    "png in the archive's folder": lambda p: official.tiered_png(p / "tiered-imagenet").parent,
    "npz": official.tiered_npz,
    "compressed npz": lambda p: official.tiered_npz(p, compressed=True),
    "torchmeta": official.torchmeta_tiered,
}


@pytest.mark.parametrize("form", TIERED)
def test_every_form_of_tieredimagenet_keeps_all_images_of_unequal_classes(tmp_path: Path, form: str):
    store = converted(tmp_path, tieredimagenet.readers(TIERED[form](tmp_path / "source")))
    for split in SPLITS:
        found, expected = images_of(store, split), unequal(split)
        names = list(expected)
        if "npz" in form:
            expected = {str(100 + i): images for i, images in enumerate(expected.values())}
        assert list(found) == list(expected)
        assert store.splits[split].counts == [4 + i for i in range(len(names))]
        for name, images in expected.items():
            rows = {image.tobytes() for image in found[name]}
            assert rows == {image.tobytes() for image in images}, "in RGB, whatever the file has"


def test_omniglot_is_inverted_shrunk_and_split_as_in_torchmeta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = {split: omniglot.class_names(split)[:3] for split in SPLITS}
    assert [len(omniglot.class_names(split)) for split in SPLITS] == [1028, 172, 423]
    monkeypatch.setattr(omniglot, "class_names", names.__getitem__)
    parts = {
        part: [n.split("/", 1)[1] for s in SPLITS for n in names[s] if n.startswith(part)] for part in omniglot._PARTS
    }
    zips = official.omniglot_zips(tmp_path / "source", parts)
    (tmp_path / "work").mkdir()
    folder = unpacked(zips, tmp_path / "work", ("images_background.zip", "images_evaluation.zip"))
    store = converted(tmp_path, omniglot.readers(folder), (1, 28, 28))
    for split in SPLITS:
        assert store.splits[split].names == names[split]
        for index, name in enumerate(parts["images_background"]):
            full = f"images_background/{name}"
            if full not in names[split]:
                continue
            ink = store.load(split).images[names[split].index(full), 1, 0].double().numpy()
            assert ink[:, :8].sum() < 1, "the second drawer starts at column 50 of 105"
            row = float((ink.sum(1) * np.arange(28)).sum() / ink.sum())
            assert abs(row - ((4 * (index % 26) + 2) / 105 * 28 - 0.5)) < 0.3
            assert 0 < float(ink.mean()) < 40, "white ink on black"
    torchmeta_form(tmp_path / "torchmeta", folder, names)
    again = converted(tmp_path / "two", omniglot.readers(tmp_path / "torchmeta"), (1, 28, 28))
    assert [again.splits[s].sha256 for s in SPLITS] == [store.splits[s].sha256 for s in SPLITS]


def torchmeta_form(target: Path, unzipped: Path, names: dict[str, list[str]]) -> None:
    """torchmeta's omniglot/data.hdf5."""
    from PIL import ImageOps

    target.mkdir()
    with h5py.File(target / "data.hdf5", "w") as file:
        for name in [n for split in SPLITS for n in names[split]]:
            files = sorted((unzipped / name).glob("*.png"))
            file[name] = np.stack([np.asarray(ImageOps.invert(Image.open(f).convert("L"))) for f in files])


def broken(source: Path, change: Callable[[dict], object]) -> Path:
    path = source / "mini-imagenet-cache-val.pkl"
    data = pickle.loads(path.read_bytes())
    change(data)
    path.write_bytes(pickle.dumps(data))
    return source


BROKEN: dict[str, tuple[Callable[[dict], object], str]] = {
    "other keys": (lambda d: d.pop("image_data"), "has no 'image_data'"),
    "floats": (lambda d: d.update(image_data=d["image_data"] / 255), "'image_data' is not what"),
    "rows": (lambda d: d["class_dict"].update(n05=[999]), "rows beyond"),
    "no rows": (lambda d: d["class_dict"].update(n05="x"), "does not list rows"),
    "empty class": (lambda d: d["class_dict"].update(n05=[]), "no images of n05"),
    "labels": (lambda d: d.update(labels=[0]) or d.pop("class_dict"), "labels for 8 images"),
    "size": (lambda d: d.update(image_data=d["image_data"][:, ::2]), r"expected uint8 \(3, 84, 84\)"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_files_that_are_something_else_are_refused_in_one_line(tmp_path: Path, what: str):
    change, word = BROKEN[what]
    with pytest.raises(DataError, match=word) as error:
        converted(tmp_path, miniimagenet.readers(broken(official.mini_cache(tmp_path / "source"), change)))
    assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"], "nothing half-made stays"


def test_a_missing_image_is_named(tmp_path: Path):
    folder = official.mini_csv(tmp_path / "source", size=84)
    (folder / "images" / "n0500000002.png").unlink()
    with pytest.raises(DataError, match=r"val.csv, line 4 names n0500000002.png, which is not in .*/images"):
        converted(tmp_path, miniimagenet.readers(folder))


def test_a_list_cannot_name_files_elsewhere(tmp_path: Path):
    folder = official.mini_csv(tmp_path / "source", size=84)
    (folder / "val.csv").write_text("filename,label\n../../secret.png,n04\n")
    with pytest.raises(DataError, match="leads out of the folder"):
        converted(tmp_path, miniimagenet.readers(folder))


def test_a_folder_of_something_else_is_no_dataset(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "train").mkdir()
    assert miniimagenet.readers(tmp_path) is None
    assert tieredimagenet.readers(tmp_path) is None
    assert omniglot.readers(tmp_path) is None
