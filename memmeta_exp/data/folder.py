"""dataset=folder before loading: reads the split file, and lists the class folders and their image files."""

import os
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple
from unicodedata import normalize

from memmeta_exp.config.facts import SPLITS, DatasetFacts, counted
from memmeta_exp.config.validation import closest, shown
from memmeta_exp.data.folder_entries import IMAGE_SUFFIXES, ignored, listed, said
from memmeta_exp.data.split_file import FORM, Entry, read_entries
from memmeta_exp.utils.errors import ConfigError
from memmeta_exp.utils.path_keys import home_path

SPLIT_FILES = ("split.json", "split.csv")


class ClassFiles(NamedTuple):
    """The files of one class. images: names of its image files in `folder`, sorted. left_out: number of other files by
    kind, which may be images but are not read."""

    folder: Path
    images: tuple[str, ...]
    left_out: dict[str, int]


Files = dict[str, dict[str, ClassFiles]]  # split: {class: its files}


class _Placed(NamedTuple):
    """A class of the split file, and its folder."""

    name: str
    entry: Entry
    folder: Path


def folder_facts(path: str | None, split_file: str | None, channels: int, size: int) -> DatasetFacts:
    """The facts of a folder of class folders. Reads directories and the split file, no image.

    Raises ConfigError if the folder is missing or its split file does not fit it.
    """
    files = folder_files(path, split_file)
    counts = {split: {name: len(c.images) for name, c in classes.items()} for split, classes in files.items()}
    return counted(counts, channels, size)


def folder_files(path: str | None, split_file: str | None) -> Files:
    """The files of each class of each split, sorted by class name. Raises ConfigError as `folder_facts`."""
    if not path:
        raise ConfigError("dataset=folder needs the folder of class folders: set dataset.path=DIR")
    root = home_path(path)
    if not root.is_dir():
        raise ConfigError(f"dataset.path={shown(path)} is not a folder: name the one that contains the class folders")
    file = _split_file(root, split_file)
    placed = [_placed(root.resolve(), entry, file) for entry in read_entries(file)]
    _require_apart(placed, file)
    found: Files = {split: {} for split in SPLITS}
    for name, entry, folder in sorted(placed, key=lambda p: p.name):
        found[entry.split][name] = _class_files(folder)
    return found


def _split_file(root: Path, split_file: str | None) -> Path:
    candidates = [home_path(split_file)] if split_file else _named_so(root)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    where = split_file or f"{root}/{SPLIT_FILES[0]} (or {SPLIT_FILES[1]})"
    what = "is not a file" if any(os.path.lexists(candidate) for candidate in candidates) else "does not exist"
    raise ConfigError(
        f"dataset=folder needs a split file, and {shown(where)} {what}: {FORM}, or name it with dataset.split_file=FILE"
    )


def _named_so(root: Path) -> list[Path]:
    """The files of `root` named as in SPLIT_FILES, in any letter case; lower case first."""
    try:
        names = sorted(os.listdir(root), reverse=True)
    except OSError as error:
        raise ConfigError(f"dataset.path={shown(root)} cannot be read: {error.strerror}") from None
    return [root / name for wanted in SPLIT_FILES for name in names if name.lower() == wanted]


def _placed(root: Path, entry: Entry, file: Path) -> _Placed:
    """The folder below `root` that `entry` names, in one of its `_spellings`. Raises ConfigError if there is none."""
    name, where = shown(entry.name), f"{shown(file)}{entry.line}"
    for spelt in _spellings(entry.name, root):
        if spelt.startswith("/") or spelt.split("/")[0] in (".", ".."):
            raise ConfigError(
                f"{where}: class '{name}' is not below {shown(root)}; write paths relative to this folder"
            )
        folder = _folder(root, spelt)
        if folder is not None:
            return _Placed(spelt, entry, folder)
    folders = [shown(e) for e in os.listdir(root) if not ignored(e) and _is_folder(root / e)]
    raise ConfigError(
        f"{where} names class '{name}', but {shown(root / entry.name)} is not a folder{closest(entry.name, folders)}"
    )


def _spellings(name: str, root: Path) -> Iterator[str]:
    """`name` as a normalised path relative to `root`: as written, without surrounding spaces, with / for \\."""
    for text in dict.fromkeys((name, name.strip(), name.strip().replace("\\", "/"))):
        path = posixpath.normpath(text)
        yield os.path.relpath(path, root) if PurePath(path).is_relative_to(root) else path


def _folder(root: Path, name: str) -> Path | None:
    """The folder `name` below `root`. If there is none, the one with the same name in another Unicode normal form (é as
    one or two characters). None if there is neither, or several."""
    if _is_folder(root / name):
        return root / name
    found = root
    for part in PurePath(name).parts:
        same = [e for e in _entries(found) if normalize("NFC", e) == normalize("NFC", part)]
        if len(same) != 1:
            return None
        found = found / same[0]
    return found if _is_folder(found) else None


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (OSError, ValueError):
        return []


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # the name is too long or invalid
        return False


def _require_apart(placed: Iterable[_Placed], file: Path) -> None:
    """Raises ConfigError if two classes are the same folder, or a class lies within a class of another split.

    Folders are compared by device and inode, so links and other spellings count as the same folder.
    """
    owners: dict[tuple[int, int] | str, _Placed] = {}
    for one in placed:
        other = owners.setdefault(_identity(one.folder), one)
        if other is not one:
            raise ConfigError(f"{shown(file)}{one.entry.line}: {_twice(one, other)}; name it once")
    for one in owners.values():
        for parent in one.folder.resolve().parents:
            other = owners.get(_identity(parent))
            if other is not None and other.entry.split != one.entry.split:
                raise ConfigError(
                    f"{shown(file)}{one.entry.line}: class '{shown(one.entry.name)}' of {one.entry.split} lies within "
                    f"class '{shown(other.entry.name)}' of {other.entry.split}; put both into one split"
                )


def _identity(folder: Path) -> tuple[int, int] | str:
    status = folder.stat()
    return (status.st_dev, status.st_ino) if status.st_ino else str(folder.resolve())


def _twice(one: _Placed, other: _Placed) -> str:
    a, b, split = shown(other.entry.name), shown(one.entry.name), one.entry.split
    where = f"in {split} twice" if other.entry.split == split else f"in {other.entry.split} and in {split}"
    return f"class '{a}' is {where}" if a == b else f"'{a}' and '{b}' are one class, {where}"


def _class_files(folder: Path) -> ClassFiles:
    images, left_out = listed(folder)
    if not images:
        others = f"; it contains {said(left_out)}, which are not read" if left_out else ""
        raise ConfigError(f"{shown(folder)} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}){others}")
    return ClassFiles(folder, images, left_out)
