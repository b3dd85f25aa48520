"""The image files of dataset=folder: what tells them from others, what is left out, and how they are read."""

import hashlib
import os
from collections import Counter
from functools import partial
from pathlib import Path

from memmeta_exp.config.validation import shown
from memmeta_exp.data.datasets import FolderConfig
from memmeta_exp.data.folder import Files
from memmeta_exp.data.prepare.readers.images import VERSION
from memmeta_exp.data.prepare.readers.layouts import from_files
from memmeta_exp.data.store import Readers
from memmeta_exp.utils.errors import DataError


def digest(root: Path, files: Files, shape: tuple[int, int, int], skip_damaged: bool) -> str:
    """Of how they are converted, and of names, sizes and times of all image files; reads none. DataError where a file
    is gone, or is an image of two splits by a link."""
    found = hashlib.sha256(os.fsencode(f"{root}{shape}{skip_damaged}{VERSION}"))
    owners: dict[tuple[int, int], str] = {}
    for split, classes in files.items():
        for name, of_class in classes.items():
            for image in of_class.images:
                status = _status(of_class.folder / image)
                found.update(os.fsencode(f"{split}/{name}/{image}/{status.st_size}/{status.st_mtime_ns}\n"))
                owner = owners.setdefault((status.st_dev, status.st_ino), split)
                if owner != split and status.st_ino:
                    raise DataError(
                        f"{shown(of_class.folder / image)} of {split} is an image of {owner} too, by a link; leave it "
                        "in one of them"
                    )
    return found.hexdigest()[:16]


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error.strerror}") from None


def left_out(files: Files) -> dict[str, int]:
    """How many files of all classes may be images and are not read, by kind."""
    found: Counter[str] = Counter()
    for classes in files.values():
        for of_class in classes.values():
            found.update(of_class.left_out)
    return dict(found)


def readers(files: Files, config: FolderConfig) -> Readers:
    """How each split is read."""
    mode = "RGB" if config.channels == 3 else "L"
    paths = {
        split: {name: [c.folder / image for image in c.images] for name, c in classes.items()}
        for split, classes in files.items()
    }
    return {split: partial(from_files, classes, config.image_size, mode) for split, classes in paths.items()}
