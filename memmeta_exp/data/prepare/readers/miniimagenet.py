"""Readers of the published formats of miniImageNet.

mini-imagenet-cache-{train,val,test}.pkl (few-shot-ssl-public; learn2learn's say `validation`): {"image_data": uint8
[N, 84, 84, 3], "class_dict": {wnid: [rows]}}. miniImageNet_category_split_{train_phase_train,val,test}.pickle
(FewShotWithoutForgetting, MetaOptNet): {"data": uint8 [N, 84, 84, 3], "labels": [N], "catname2label": {wnid: label}},
the last not always. Ravi and Larochelle's {train,val,test}.csv (header filename,label) with their images in images/ or
in a folder a class. torchmeta's {split}_data.hdf5. Folders {train,val,test}/CLASS/.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from memmeta_exp.config import SPLITS
from memmeta_exp.data.prepare.readers.images import (
    as_integers,
    as_labels,
    as_names,
    decoded,
    field,
    is_images,
    is_sequence,
    numbered,
)
from memmeta_exp.data.prepare.readers.layouts import found_file, hdf5_readers, labels_of, tree_readers
from memmeta_exp.data.prepare.safe_pickle import read_pickle
from memmeta_exp.data.store import Readers, SplitImages
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import csv_rows

SIZE = 84
_LONGEST = 255  # bytes of a file's name
_PICKLES = {
    "train": ("mini-imagenet-cache-train.pkl", "miniImageNet_category_split_train_phase_train.pickle"),
    "val": (
        "mini-imagenet-cache-val.pkl",
        "mini-imagenet-cache-validation.pkl",
        "miniImageNet_category_split_val.pickle",
    ),
    "test": ("mini-imagenet-cache-test.pkl", "miniImageNet_category_split_test.pickle"),
}
EXPECTED = (
    "mini-imagenet-cache-{train,val,test}.pkl, miniImageNet_category_split_{train_phase_train,val,test}.pickle, "
    "{train,val,test}.csv with images/, torchmeta's {train,val,test}_data.hdf5, or folders {train,val,test}/CLASS"
)


def readers(folder: Path) -> Readers | None:
    """The readers of the splits in `folder`; None if it has none of the formats above."""
    pickles = {split: found_file(folder, names) for split, names in _PICKLES.items()}
    if all(pickles.values()):
        return {split: partial(_from_pickle, path) for split, path in pickles.items() if path}
    tables = {split: found_file(folder, (f"{split}.csv",)) for split in SPLITS}
    if all(tables.values()):
        return {split: partial(_from_csv, path, folder) for split, path in tables.items() if path}
    return hdf5_readers(folder) or tree_readers(folder, SIZE)


def _from_pickle(path: Path) -> SplitImages:
    data = read_pickle(path)
    images = field(data, ("image_data", "data"), path, is_images)
    if "class_dict" in data:
        return _by_rows(images, field(data, ("class_dict",), path, lambda v: isinstance(v, dict)), path)
    labels = as_labels(field(data, ("labels",), path, is_sequence), path, len(images))
    names, indices = numbered(labels)
    if isinstance(data.get("catname2label"), dict):
        names = _names(data["catname2label"], names, path)
        names, indices = _sorted(names, indices)
    return SplitImages(names, indices, iter(images))


def _by_rows(images: np.ndarray, rows: dict[Any, Any], path: Path) -> SplitImages:
    """Classes in sorted order, as in torchmeta, each with its rows in their listed order."""
    names = sorted(as_names(list(rows), path))
    order = [found for name in names if (found := as_integers(rows[name])) is not None]
    if len(order) < len(names) or not names:
        raise DataError(f"{path}: 'class_dict' does not list rows of images")
    labels, joined = labels_of([len(of_class) for of_class in order], path), np.concatenate(order)
    if joined.size and not 0 <= joined.min() <= joined.max() < len(images):
        raise DataError(f"{path}: 'class_dict' lists rows beyond its {len(images)} images")
    return SplitImages(names, labels, (images[row] for row in joined))


def _names(catname2label: dict[Any, Any], numbers: list[str], path: Path) -> list[str]:
    if as_integers(list(catname2label.values())) is None:
        raise DataError(f"{path}: 'catname2label' gives no numbers to its names")
    names = as_names(list(catname2label), path)
    by_number = {str(label): name for name, label in zip(names, catname2label.values(), strict=True)}
    try:
        return [by_number[number] for number in numbers]
    except KeyError as error:
        raise DataError(f"{path}: 'catname2label' has no name for label {error.args[0]}") from None


def _sorted(names: list[str], indices: np.ndarray) -> tuple[list[str], np.ndarray]:
    order = sorted(range(len(names)), key=names.__getitem__)
    return [names[i] for i in order], np.argsort(order)[indices]


def _from_csv(path: Path, folder: Path) -> SplitImages:
    rows = csv_rows(path, ("filename", "label"))
    if not rows:
        raise DataError(f"{path} lists no images: it has only a header")
    names, indices = np.unique([row["label"] for _, row in rows], return_inverse=True)
    files = [(row["filename"], _image(path, line, folder, row["filename"], row["label"])) for line, row in rows]
    return SplitImages(names.tolist(), indices, decoded(files, SIZE), [name for name, _ in files])


def _image(table: Path, line: int, folder: Path, name: str, label: str) -> Path:
    """An image of Ravi and Larochelle's list: in images/, in a folder of its class, or beside the list."""
    if not name or not label:
        raise DataError(f"{table}, line {line} has no {'label' if name else 'filename'}")
    if any(Path(part).name != part or len(os.fsencode(part)) > _LONGEST for part in (name, label)):
        raise DataError(f"{table}, line {line} names '{name[:80]}' of '{label[:80]}', which leads out of the folder")
    places = (folder / "images", folder / "images" / label, folder / label, table.parent / "images", table.parent)
    for place in places:
        if (place / name).is_file():
            return place / name
    raise DataError(f"{table}, line {line} names {name}, which is not in {folder}/images nor in a folder {label}")
