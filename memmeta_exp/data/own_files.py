"""The image files of dataset=folder: their digest, the files left out, and their readers."""

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
    """16 hexadecimal digits that change with the conversion settings and with name, size or time of any image file.

    Reads no image. Raises DataError if a file cannot be read, or if one file is, by a link, in two splits.
    """
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
                        f"{shown(of_class.folder / image)} of {split} is the same file as an image of {owner}, by a "
                        "link; leave it in one split"
                    )
    return found.hexdigest()[:16]


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error.strerror}") from None


def left_out(files: Files) -> dict[str, int]:
    """The number of files of all classes that may be images but are not read, by kind."""
    found: Counter[str] = Counter()
    for classes in files.values():
        for of_class in classes.values():
            found.update(of_class.left_out)
    return dict(found)


def readers(files: Files, config: FolderConfig) -> Readers:
    """The reader of each split."""
    mode = "RGB" if config.channels == 3 else "L"
    paths = {
        split: {name: [c.folder / image for image in c.images] for name, c in classes.items()}
        for split, classes in files.items()
    }
    return {split: partial(from_files, classes, config.image_size, mode) for split, classes in paths.items()}
