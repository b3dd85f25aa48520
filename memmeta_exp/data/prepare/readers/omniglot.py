"""Omniglot: images_background.zip and images_evaluation.zip of its authors (ALPHABET/characterNN/*.png, black ink on
white, 105 x 105), or torchmeta's data.hdf5 made of them. As torchmeta: white ink on black, the split of Vinyals et al.
from its assets, classes sorted; then 28 x 28, as everywhere in the field."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from memmeta_exp.config import SPLITS
from memmeta_exp.data.folder_entries import ignored
from memmeta_exp.data.prepare.readers.layouts import from_files, labels_of
from memmeta_exp.data.store import Readers, SplitImages
from memmeta_exp.data.torchmeta_compat import torchmeta_asset
from memmeta_exp.utils.errors import DataError

SIZE = 28
_DRAWN = (105, 105)  # pixels of the files
_PARTS = ("images_background", "images_evaluation")
EXPECTED = "images_background.zip and images_evaluation.zip, what they unpack to, or torchmeta's data.hdf5"


def readers(folder: Path) -> Readers | None:
    """The readers of the splits in a folder with the two unpacked archives or torchmeta's file; None without these."""
    if all((folder / part).is_dir() for part in _PARTS):
        return {split: partial(_from_folders, folder, split) for split in SPLITS}
    if (folder / "data.hdf5").is_file():
        return {split: partial(_from_hdf5, folder / "data.hdf5", split) for split in SPLITS}
    return None


def class_names(split: str) -> list[str]:
    """ "images_background/ALPHABET/characterNN" of each class of a split, sorted by its parts."""
    parts = torchmeta_asset("omniglot", f"{split}.json")
    triples = [
        (f"images_{part}", alphabet, character)
        for part, alphabets in parts.items()
        for alphabet, characters in alphabets.items()
        for character in characters
    ]
    return ["/".join(triple) for triple in sorted(triples)]


def _from_folders(folder: Path, split: str) -> SplitImages:
    found = {name: (folder / name).glob("*.png") for name in class_names(split)}
    classes = {name: sorted(p for p in files if not ignored(p.name)) for name, files in found.items()}
    missing = [name for name, files in classes.items() if not files]
    if missing:
        raise DataError(
            f"{folder} has no images of {len(missing)} characters of the {split} split, such as {missing[0]}"
        )
    return from_files(classes, SIZE, "L", invert=True)


def _from_hdf5(path: Path, split: str) -> SplitImages:
    from memmeta_exp.utils.reading.hdf5 import images_in, opened_hdf5

    names = class_names(split)
    with opened_hdf5(path) as file:
        counts = [len(images_in(file, name, _DRAWN)) for name in names]
    return SplitImages(names, labels_of(counts, path), _hdf5_images(path, names))


def _hdf5_images(path: Path, names: list[str]) -> Iterator[np.ndarray]:
    from PIL import Image

    from memmeta_exp.utils.reading.hdf5 import blocks, images_in, opened_hdf5

    with opened_hdf5(path) as file:
        for name in names:
            for block in blocks(images_in(file, name, _DRAWN)):
                for pixels in block:
                    yield np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
