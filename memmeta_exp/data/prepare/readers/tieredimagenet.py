"""Readers of the published formats of tieredImageNet.

{split}_images_png.pkl (few-shot-ssl-public, learn2learn with `tiered-imagenet-` before the names, torchmeta's source):
a list of uint8 arrays, the bytes of a PNG each; {split}_images.npz (the same decoded; MetaOptNet, few-shot-meta-
baseline): `images`, uint8 [N, 84, 84, 3] in the order blue, green, red, as OpenCV decodes (few-shot-meta-baseline turns
it round, and so is done here). Beside each {split}_labels.pkl: {"label_specific": int [N], "label_specific_str":
[class names]}, or MetaOptNet's {"labels": [N]}. torchmeta's {split}_data.hdf5. Folders {train,val,test}/CLASS/.
"""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from memmeta_exp.config import SPLITS
from memmeta_exp.data.prepare.readers.images import as_labels, as_names, decoded, field, is_sequence, numbered
from memmeta_exp.data.prepare.readers.layouts import MOST_IMAGES, found_file, hdf5_readers, tree_readers
from memmeta_exp.data.prepare.safe_pickle import read_pickle
from memmeta_exp.data.store import Images, Readers, SplitImages
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading.arrays import npy_header, opened_zip

SIZE = 84
EXPECTED = (
    "{train,val,test}_images_png.pkl or {train,val,test}_images.npz, each with {train,val,test}_labels.pkl, "
    "torchmeta's {train,val,test}_data.hdf5, or folders {train,val,test}/CLASS"
)


def readers(folder: Path) -> Readers | None:
    """The readers of the splits in `folder`; None if it has none of the formats above."""
    found: Readers = {}
    for split in SPLITS:
        labels = _file(folder, f"{split}_labels.pkl")
        images = _file(folder, f"{split}_images_png.pkl", f"{split}_images.npz")
        if labels and images:
            found = {**found, split: partial(_read, images, labels)}
    if len(found) == len(SPLITS):
        return found
    return hdf5_readers(folder) or tree_readers(folder, SIZE)


def _file(folder: Path, *names: str) -> Path | None:
    return found_file(folder, tuple(prefix + name for name in names for prefix in ("", "tiered-imagenet-")))


def _read(images: Path, labels: Path) -> SplitImages:
    count, pixels = _npz(images) if images.suffix == ".npz" else _pngs(images)
    names, indices = _labels(read_pickle(labels), labels, count)
    return SplitImages(names, indices, pixels)


def _labels(data: Any, path: Path, count: int) -> tuple[list[str], np.ndarray]:
    """Class names and labels, in the order of `label_specific_str` as in torchmeta."""
    labels = as_labels(field(data, ("label_specific", "labels"), path, is_sequence), path, count)
    names = data.get("label_specific_str")
    if names is None:
        return numbered(labels)
    names = as_names(names, path)
    if not len(labels) or labels.min() < 0 or labels.max() >= len(names):
        raise DataError(f"{path}: 'label_specific' counts further than the names in 'label_specific_str'")
    return names, labels


def _pngs(path: Path) -> tuple[int, Images]:
    pngs = read_pickle(path)
    if not is_sequence(pngs) or not len(pngs):
        raise DataError(f"{path} holds no list of PNG images (docs/datasets.md)")
    return len(pngs), decoded(((f"{path.name}[{i}]", _bytes(png, path)) for i, png in enumerate(pngs)), None)


def _bytes(png: Any, path: Path) -> bytes:
    if isinstance(png, np.ndarray) and png.dtype == np.uint8:
        return png.tobytes()
    if isinstance(png, bytes):
        return png
    raise DataError(f"{path} holds a {type(png).__name__} where an image should be (docs/datasets.md)")


def _npz(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    with opened_zip(path) as file:
        info = file.getinfo("images.npy")
        with file.open(info) as member:
            shape = _shape(member, path)
            start = member.tell()
        if info.file_size != start + math.prod(shape) or shape[0] > MOST_IMAGES:
            raise DataError(f"{path}: 'images' is {shape} in {info.file_size} bytes, which do not agree")
    return shape[0], _npz_images(path)


def _shape(member: IO[bytes], path: Path) -> tuple[int, ...]:
    shape, fortran, dtype = npy_header(member)
    if fortran or dtype != np.uint8 or shape[1:] != (SIZE, SIZE, 3):
        raise DataError(f"{path}: 'images' is {dtype} {shape}, expected uint8 [N, {SIZE}, {SIZE}, 3]")
    return shape


def _npz_images(path: Path) -> Iterator[np.ndarray]:
    """Yields one image at a time, so the array need not fit in memory."""
    with opened_zip(path) as file, file.open("images.npy") as member:
        count, *shape = _shape(member, path)
        for _ in range(count):
            yield np.frombuffer(member.read(math.prod(shape)), dtype=np.uint8).reshape(shape)[..., ::-1]
