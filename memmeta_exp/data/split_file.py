"""Reads a split file, JSON or CSV, which assigns class folders to train, val and test."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from memmeta_exp.config.facts import SPLITS
from memmeta_exp.config.validation import shown
from memmeta_exp.utils.errors import ConfigError, DataError
from memmeta_exp.utils.reading import csv_rows, read_text

FORM = 'write JSON {"train": [class folders], "val": [..], "test": [..]}, or CSV with the header class,split'
_BRIEF = 40  # characters of a value in a message
_MEANT = {
    **dict.fromkeys(("valid", "validation", "validate", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("training", "trn"), "train"),
    **dict.fromkeys(("testing", "tst", "novel"), "test"),
}


class Entry(NamedTuple):
    """A class folder as the file names it, its split, and its line in a CSV file (`, line 3`)."""

    name: str
    split: str
    line: str = ""


def read_entries(file: Path) -> tuple[Entry, ...]:
    """The class folders of all splits, in the order of the file. docs/datasets.md has the format.

    The content decides between JSON and CSV. Raises ConfigError, with the place, for anything else.
    """
    try:
        status = file.stat()
        return _read(file, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ConfigError(f"{shown(file)} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=4)
def _read(file: Path, _modified: int, _size: int) -> tuple[Entry, ...]:
    try:
        text = read_text(file).strip()
        entries = tuple(_from_json(text, str(file)) if text.startswith(("{", "[")) else _from_csv(file))
        missing = [split for split in SPLITS if split not in {entry.split for entry in entries}]
        if missing:
            raise DataError(
                f"{file} must name classes for each of {', '.join(SPLITS[:-1])} and {SPLITS[-1]}, and has none for "
                f"{' and '.join(missing)}"
            )
    except DataError as error:
        raise ConfigError(f"{shown(error)}; {FORM}") from None
    return entries


def _from_csv(file: Path) -> Iterator[Entry]:
    for number, row in csv_rows(file, ("class", "split")):
        line = f", line {number}"
        if not row["class"]:
            raise DataError(f"{file}{line} names no class")
        yield Entry(row["class"], _split(row["split"], f"{file}{line}"), line)


def _from_json(text: str, file: str) -> Iterator[Entry]:
    try:
        read = json.loads(text, object_pairs_hook=tuple)  # of a mapping's pairs, a key twice among them
    except json.JSONDecodeError as error:
        raise DataError(f"{file} is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})") from None
    except RecursionError:
        raise DataError(f"{file} is not a split file (it nests too deeply)") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{file} is not a split file ({error})") from None
    if not isinstance(read, tuple):
        raise DataError(f"{file} is not a split file (it is a list, where a mapping of three lists is expected)")
    seen: set[str] = set()
    for key, classes in read:
        split = _split(key, file)
        if split in seen:
            raise DataError(f"{file} has the key '{split}' twice: leave one")
        if not isinstance(classes, list):
            raise DataError(f"{file} must name classes of '{split}' in a list, not as {_brief(classes)}")
        seen.add(split)
        yield from (Entry(_class(name, split, file), split) for name in classes)


def _class(name: Any, split: str, file: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{file}: '{split}' lists {_brief(name)}, where a class folder is expected, in quotes")
    return name


def _brief(value: Any) -> str:
    text = "a mapping" if isinstance(value, tuple) else json.dumps(value)
    return text if len(text) <= _BRIEF else f"{text[:_BRIEF]}.."


def _split(word: str, where: str) -> str:
    """The split that `word` names, in any letter case. Raises DataError, with `where`, if there is none."""
    found = word.strip().lower()
    if found in SPLITS:
        return found
    if found in _MEANT:
        raise DataError(f"{where}: '{word}' is not a split: write '{_MEANT[found]}'")
    raise DataError(f"{where}: '{word[:_BRIEF]}' is not a split: use {', '.join(SPLITS)}")
