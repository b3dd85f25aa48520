"""Small files in the formats that the datasets are published in, written as their publishers' code writes them."""

import csv
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

SPLITS = ("train", "val", "test")
CLASSES = {"train": ["n03", "n01", "n02"], "val": ["n05", "n04"], "test": ["n07", "n06"]}
"""Not in sorted order, as dictionaries of the releases are not."""


_MEAN, _DEVIATION = np.array([120.4, 115.6, 104.5]), np.array([70.7, 68.3, 72.5])  # of miniImageNet


def pictures(count: int, seed: int, size: int = 84) -> np.ndarray:
    """uint8 [count, size, size, 3] with the mean and deviation of real ones; random, so that no two are equal."""
    signs = np.random.default_rng(seed).integers(0, 2, (count, size, size, 3)) * 2 - 1
    return (_MEAN + _DEVIATION * signs).astype(np.uint8)


def per_class(split: str, each: int, size: int = 84) -> dict[str, np.ndarray]:
    """Images of each class of a split."""
    return {name: pictures(each, 100 * SPLITS.index(split) + int(name[1:]), size) for name in CLASSES[split]}


def unequal(split: str) -> dict[str, np.ndarray]:
    """Classes of 4, 5, 6 .. images."""
    return {name: pictures(4 + i, int(name[1:])) for i, name in enumerate(CLASSES[split])}


def mini_cache(folder: Path, each: int = 4, val: str = "val", protocol: int = pickle.HIGHEST_PROTOCOL) -> Path:
    """few-shot-ssl-public's mini-imagenet-cache-*.pkl, rows of the classes interleaved; protocol -1: Python 2's."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        images = per_class(split, each)
        data = {
            "image_data": np.stack([images[name][i] for i in range(each) for name in images]),
            "class_dict": {name: list(range(k, each * len(images), len(images))) for k, name in enumerate(images)},
        }
        name = f"mini-imagenet-cache-{val if split == 'val' else split}.pkl"
        content = python2_pickle(data) if protocol < 0 else pickle.dumps(data, protocol)
        (folder / name).write_bytes(content)
    return folder


def mini_category_split(folder: Path, each: int = 4, names: bool = True) -> Path:
    """MetaOptNet's miniImageNet_category_split_*.pickle."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, tag in zip(SPLITS, ("train_phase_train", "val", "test"), strict=True):
        images = per_class(split, each)
        first = 10 * SPLITS.index(split)
        data: dict[str, Any] = {"data": np.concatenate(list(images.values()))}
        data["labels"] = [first + k for k in range(len(images)) for _ in range(each)]
        if names:
            data["catname2label"] = {name: first + k for k, name in enumerate(images)}
        (folder / f"miniImageNet_category_split_{tag}.pickle").write_bytes(pickle.dumps(data, 2))
    return folder


def mini_csv(folder: Path, each: int = 4, size: int = 100, layout: str = "images") -> Path:
    """Ravi and Larochelle's lists with images as PNG (their JPEGs would not compare exactly): n0153282900000005.jpg."""
    for split in SPLITS:
        rows = []
        for name, images in per_class(split, each, size).items():
            place = folder / {"images": "images", "classes": name, "both": f"images/{name}"}[layout]
            place.mkdir(parents=True, exist_ok=True)
            for i, image in enumerate(images):
                rows.append((f"{name}{i:08d}.png", name))
                Image.fromarray(image).save(place / rows[-1][0])
        with (folder / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("filename", "label"), *rows])
    return folder


def torchmeta_mini(folder: Path, each: int = 4) -> Path:
    """torchmeta's miniimagenet/: a dataset a class."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        with h5py.File(folder / f"{split}_data.hdf5", "w") as file:
            group = file.create_group("datasets")
            for name, images in per_class(split, each).items():
                group.create_dataset(name, data=images)
        (folder / f"{split}_labels.json").write_text(json.dumps(sorted(CLASSES[split])))
    return folder


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def _tiered_rows(split: str) -> tuple[np.ndarray, dict[str, Any]]:
    images = unequal(split)
    labels = np.concatenate([np.full(len(v), k) for k, v in enumerate(images.values())])
    order = np.random.default_rng(1).permutation(len(labels))
    strings = {"label_specific_str": list(images), "label_general_str": ["animal"]}
    numbers = {"label_specific": labels[order], "label_general": np.zeros(len(labels), dtype=np.int64)}
    return np.concatenate(list(images.values()))[order], {**numbers, **strings}


def tiered_png(folder: Path, prefix: str = "", protocol: int = pickle.HIGHEST_PROTOCOL) -> Path:
    """few-shot-ssl-public's {split}_images_png.pkl, of arrays [n, 1] as cv2.imencode returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        images, labels = _tiered_rows(split)
        pngs = [np.frombuffer(png(image), dtype=np.uint8)[:, None].copy() for image in images]
        for name, data in ((f"{split}_images_png.pkl", pngs), (f"{split}_labels.pkl", labels)):
            (folder / (prefix + name)).write_bytes(
                python2_pickle(data) if protocol < 0 else pickle.dumps(data, protocol)
            )
    return folder


def tiered_npz(folder: Path, compressed: bool = False) -> Path:
    """The same as arrays, blue first as OpenCV has them, with MetaOptNet's plain labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        images, labels = _tiered_rows(split)
        save = np.savez_compressed if compressed else np.savez
        save(folder / f"{split}_images.npz", images=np.ascontiguousarray(images[..., ::-1]))
        plain = [int(label) + 100 for label in labels["label_specific"]]
        (folder / f"{split}_labels.pkl").write_bytes(pickle.dumps({"labels": plain}))
    return folder


def torchmeta_tiered(folder: Path) -> Path:
    """torchmeta's tieredimagenet/: bytes of PNG files, of varying length."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        with h5py.File(folder / f"{split}_data.hdf5", "w") as file:
            group = file.create_group("datasets")
            for name, images in unequal(split).items():
                dataset = group.create_dataset(name, (len(images),), dtype=h5py.special_dtype(vlen=np.uint8))
                for i, image in enumerate(images):
                    dataset[i] = np.frombuffer(png(image), dtype=np.uint8)
        (folder / f"{split}_labels.json").write_text(json.dumps(CLASSES[split]))
    return folder


def tree(folder: Path, suffix: str = "png", each: int = 4, size: int = 84) -> Path:
    """{train,val,test}/CLASS/*.png."""
    for split in SPLITS:
        for name, images in per_class(split, each, size).items():
            place = folder / split / name
            place.mkdir(parents=True)
            for i, image in enumerate(images):
                Image.fromarray(image).save(place / f"{i}.{suffix}")
    return folder


def omniglot_zips(folder: Path, names: dict[str, list[str]], each: int = 2) -> Path:
    """images_background.zip and images_evaluation.zip with the characters `names` (PART: [ALPHABET/characterNN]):
    black strokes on white, 105 x 105, one bit a pixel. Stroke and character are told apart by where the stroke is."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, characters in names.items():
        with zipfile.ZipFile(folder / f"{part}.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for index, character in enumerate(characters):
                for drawer in range(each):
                    pixels = np.full((105, 105), 255, dtype=np.uint8)
                    pixels[4 * (index % 26) : 4 * (index % 26) + 4, 10 + 40 * drawer : 40 + 40 * drawer] = 0
                    out = io.BytesIO()
                    Image.fromarray(pixels).convert("1").save(out, "PNG")
                    file.writestr(f"{part}/{character}/{index:04d}_{drawer:02d}.png", out.getvalue())
    return folder


def cifar100_archive(
    path: Path, parts: dict[str, tuple[np.ndarray, list[int], list[int]]], meta: dict[str, Any]
) -> Path:
    """cifar-100-python.tar.gz as Python 2 wrote it; parts (train, test): uint8 [N, 32, 32, 3], fine, coarse labels."""
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        for name, (images, fine, coarse) in parts.items():
            data = {
                "data": np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1),
                "fine_labels": fine,
                "coarse_labels": coarse,
                "filenames": ["x.png"] * len(images),
                "batch_label": "part",
            }
            _add(file, name, python2_pickle(data))
        _add(file, "meta", python2_pickle(meta))
    return path


def _add(file: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(f"cifar-100-python/{name}")
    info.size = len(content)
    file.addfile(info, io.BytesIO(content))


def python2_pickle(data: Any) -> bytes:
    """Protocol 2 as Python 2 writes it, where text and the bytes of arrays are its one `str` type."""
    return b"\x80\x02" + b"".join(_python2(data)) + b"."


def _python2(value: Any) -> Iterator[bytes]:
    if isinstance(value, bool) or value is None:
        yield {True: b"\x88", False: b"\x89", None: b"N"}[value]
    elif isinstance(value, int | np.integer):
        yield b"J" + int(value).to_bytes(4, "little", signed=True)
    elif isinstance(value, str | bytes):
        raw = value.encode("latin-1") if isinstance(value, str) else value
        yield b"T" + len(raw).to_bytes(4, "little") + raw
    elif isinstance(value, dict):
        yield b"}("
        for pair in value.items():
            for part in pair:
                yield from _python2(part)
        yield b"u"
    elif isinstance(value, list):
        yield b"]("
        for item in value:
            yield from _python2(item)
        yield b"e"
    elif isinstance(value, np.ndarray):
        yield from _python2_array(value)
    else:
        raise TypeError(type(value))


def _python2_array(array: np.ndarray) -> Iterator[bytes]:
    yield b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01("
    for length in array.shape:
        yield from _python2(length)
    kind = array.dtype.str[1:].encode()
    order = b"|" if array.dtype.itemsize == 1 else b"<"
    yield b"tcnumpy\ndtype\nU" + bytes([len(kind)]) + kind + b"K\x00K\x01\x87R(K\x03U\x01" + order
    yield b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    yield from _python2(array.tobytes())
    yield b"tb"
