"""dataset=folder before it is loaded: the split file and the number of images of each class."""

import csv
import json
import os
from functools import lru_cache
from pathlib import Path, PurePosixPath

from memmeta_exp.config.facts import SPLITS, DatasetFacts, counted
from memmeta_exp.errors import ConfigError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
SPLIT_FILES = ("split.json", "split.csv")

Files = dict[str, dict[str, tuple[str, ...]]]  # split: {class: its image files, sorted}


def folder_facts(path: str | None, split_file: str | None, channels: int, size: int) -> DatasetFacts:
    """The facts of a tree; ConfigError where it is not there or its split file does not fit it. Reads directories and
    the split file, no image."""
    files = folder_files(path, split_file)
    counts = {split: {name: len(images) for name, images in classes.items()} for split, classes in files.items()}
    return counted(counts, channels, size)


def folder_files(path: str | None, split_file: str | None) -> Files:
    """The image files of each class of each split, by class name in sorted order; ConfigError as `folder_facts`."""
    if not path:
        raise ConfigError("dataset=folder reads a folder of class folders: name it with dataset.path=DIR")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ConfigError(f"dataset.path={path} is no folder: name the one that holds the class folders")
    file = _split_file(root, split_file)
    splits = _read_split(file, file.stat().st_mtime_ns)
    return {
        split: {name: _images(_class_folder(root.resolve(), name, file)) for name in sorted(classes)}
        for split, classes in splits.items()
    }


def _split_file(root: Path, split_file: str | None) -> Path:
    candidates = [Path(split_file).expanduser()] if split_file else [root / name for name in SPLIT_FILES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    where = split_file or f"{root}/{SPLIT_FILES[0]} (or {SPLIT_FILES[1]})"
    raise ConfigError(
        f"dataset=folder needs a split file, and {where} does not exist: write one, "
        '{"train": [class folders], "val": [..], "test": [..]}, or name it with dataset.split_file=FILE'
    )


@lru_cache(maxsize=4)
def _read_split(file: Path, _modified: int) -> dict[str, list[str]]:
    try:
        text = file.read_text()
        splits = _from_csv(text) if file.suffix == ".csv" else json.loads(text)
    except (ValueError, KeyError, OSError) as error:
        raise ConfigError(f"{file} is no split file ({str(error).splitlines()[0]}): {_FORM}") from None
    known = isinstance(splits, dict) and set(splits) == set(SPLITS)
    if not known or not all(isinstance(v, list) and v and all(isinstance(n, str) for n in v) for v in splits.values()):
        raise ConfigError(f"{file} has to name classes for each of train, val and test: {_FORM}")
    owner: dict[str, str] = {}
    for split, classes in splits.items():
        for name in classes:
            if name in owner:
                raise ConfigError(f"{file}: class '{name}' is in {owner[name]} and in {split}; name it once")
            owner[name] = split
    return {split: splits[split] for split in SPLITS}


_FORM = 'JSON {"train": [class folders], "val": [..], "test": [..]}, or CSV with the header class,split'


def _from_csv(text: str) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for row in csv.DictReader(text.splitlines()):
        splits.setdefault(row["split"].strip(), []).append(row["class"].strip())
    return splits


def _class_folder(root: Path, name: str, split_file: Path) -> Path:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise ConfigError(f"{split_file}: class '{name}' is not a folder below {root}; write paths relative to it")
    if not (root / pure).is_dir():
        raise ConfigError(f"{split_file} names class '{name}', but {root / pure} is no folder")
    return root / pure


def _images(folder: Path) -> tuple[str, ...]:
    return _listed(folder, folder.stat().st_mtime_ns)


@lru_cache(maxsize=2**14)
def _listed(folder: Path, _modified: int) -> tuple[str, ...]:
    images = sorted(e.name for e in os.scandir(folder) if e.is_file() and Path(e.name).suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise ConfigError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return tuple(images)
