"""CIFAR-100's official archive, cifar-100-python.tar.gz: pickles train, test and meta in cifar-100-python/.

train and test: {"data": uint8 [N, 3072], channels first, "fine_labels", "coarse_labels": [N]}; meta:
{"fine_label_names", "coarse_label_names"}. Written as torchmeta's data.hdf5: a group a coarse class, in it uint8
[600, 32, 32, 3] a fine class, train part before test part.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from memmeta_exp.data.prepare.readers.images import as_labels, field, is_sequence
from memmeta_exp.data.prepare.readers.layouts import found_file
from memmeta_exp.data.prepare.safe_pickle import read_pickle
from memmeta_exp.utils.errors import DataError

_NAME = re.compile(r"\w[\w-]{0,63}")  # large_man-made_outdoor_things
EXPECTED = "cifar-100-python.tar.gz, the folder cifar-100-python it unpacks to, or torchmeta's data.hdf5"


def write_hdf5(folder: Path, target: Path) -> None:
    """Writes data.hdf5 and fine_names.json in torchmeta's layout to the folder `target`, from the unpacked archive."""
    import h5py

    images, fine, coarse = (np.concatenate(parts) for parts in zip(*map(_part, _files(folder)), strict=True))
    meta = read_pickle(_file(folder, "meta"))
    fine_names, coarse_names = (_names(meta, key, folder) for key in ("fine_label_names", "coarse_label_names"))
    for labels, known in ((fine, fine_names), (coarse, coarse_names)):
        if not len(labels) or labels.min() < 0 or labels.max() >= len(known):
            raise DataError(f"{folder}: labels count further than the names in meta")
    names = {}
    with h5py.File(target / "data.hdf5", "w") as file:
        for i, coarse_name in enumerate(coarse_names):
            classes = np.unique(fine[coarse == i])
            names[coarse_name] = [fine_names[j] for j in classes]
            group = file.create_group(coarse_name)
            for j in classes:
                group.create_dataset(fine_names[j], data=images[fine == j])
    (target / "fine_names.json").write_text(json.dumps(names))


def found(folder: Path) -> bool:
    """Whether `folder` has the unpacked archive."""
    return all(found_file(folder, (name,)) for name in ("train", "test", "meta"))


def _file(folder: Path, name: str) -> Path:
    path = found_file(folder, (name,))
    if path is None:
        raise DataError(f"{folder} has no file '{name}': expected {EXPECTED}")
    return path


def _files(folder: Path) -> list[Path]:
    return [_file(folder, "train"), _file(folder, "test")]


def _part(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 [N, 32, 32, 3], fine labels and coarse labels of one file."""
    data = read_pickle(path)
    pixels = field(data, ("data",), path, lambda v: isinstance(v, np.ndarray) and v.dtype == np.uint8 and v.ndim == 2)
    if pixels.shape[1] != 3072:
        raise DataError(f"{path}: 'data' has rows of {pixels.shape[1]} bytes, expected 3072")
    labels = [
        as_labels(field(data, (k,), path, is_sequence), path, len(pixels)) for k in ("fine_labels", "coarse_labels")
    ]
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels[0], labels[1]


def _names(meta: Any, key: str, folder: Path) -> list[str]:
    names = field(meta, (key,), folder / "meta", is_sequence)
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names) or len(set(names)) < len(names):
        raise DataError(f"{folder}/meta: '{key}' holds no names of classes")
    return [str(name) for name in names]
