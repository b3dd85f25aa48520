"""Lists the image files of a folder, and counts the other files that may be images."""

import os
from collections import Counter
from functools import lru_cache
from pathlib import Path, PurePath
from typing import NamedTuple

from memmeta_exp.config.validation import shown
from memmeta_exp.utils.errors import ConfigError

IMAGE_SUFFIXES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
    }
)
_SYSTEM = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"})
# files of text, such as annotations, are not counted as left out
_TEXT = frozenset({".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".log"})


class Listing(NamedTuple):
    """images: names of image files, sorted. left_out: number of other files that may be images, by kind."""

    images: tuple[str, ...]
    left_out: dict[str, int]


def ignored(name: str) -> bool:
    """Whether a file belongs to an operating system: hidden files, macOS's `._*`, Thumbs.db."""
    return name.startswith(".") or name.lower() in _SYSTEM


def listed(folder: Path) -> Listing:
    """The files of `folder`, without its subfolders. Raises ConfigError if it cannot be read."""
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError as error:
        raise ConfigError(f"{shown(folder)} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=2**14)
def _listed(folder: Path, _modified: int) -> Listing:
    images: list[str] = []
    left_out: Counter[str] = Counter()
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = PurePath(entry.name).suffix.lower()
            if ignored(entry.name) or suffix in _TEXT or _is_folder(entry):
                continue
            if not _is_file(entry):
                left_out["broken links" if entry.is_symlink() else "special files"] += 1
            elif suffix in IMAGE_SUFFIXES:
                images.append(entry.name)
            else:
                left_out[shown(suffix) or "without a suffix"] += 1
    return Listing(tuple(sorted(images)), dict(left_out))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def said(left_out: dict[str, int]) -> str:
    """The counts as text, such as `2 .heic, 1 without a suffix`."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
