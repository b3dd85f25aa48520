"""A store of converted images: a folder with SPLIT.npy per split, uint8 [images, C, H, W] class by class, and an
index.json with the classes, their image counts, the hash of the pixels, and the mean and deviation of each channel.

The files are memory-mapped, so a dataset may be larger than memory, and several runs share one copy in the page cache.
"""

import json
import logging
import math
import mmap
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import torch

from memmeta_exp.config.facts import uneven
from memmeta_exp.data.aside import half_made, put, remove_stale, work_folder
from memmeta_exp.data.episodes import ImageSet
from memmeta_exp.data.npy import header, pixels_sha256
from memmeta_exp.data.split_writer import (
    NOTED,
    ChannelStatistics,
    Images,
    Picture,
    Progress,
    SplitImages,
    SplitWriter,
    StoredSplit,
    silent,
)
from memmeta_exp.data.tally import Tally
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import Count, open_regular, read_json

__all__ = ["Images", "Picture", "Progress", "Readers", "SplitImages", "Store", "StoredSplit", "pixels_sha256", "silent"]

FORMAT = 1
INDEX = "index.json"
_BLOCK = 2**24
logger = logging.getLogger("memmeta")

Readers = Mapping[str, Callable[[], SplitImages]]


def write_store(
    folder: Path,
    readers: Readers,
    shape: tuple[int, int, int],
    source: str,
    progress: Progress = silent,
    skip_damaged: bool | None = None,
) -> None:
    """Converts the splits of `readers` to a store in `folder`, which appears complete, and replaces an older one.

    shape: of an image, [C, H, W]. source: its origin, in words. skip_damaged: whether to skip unreadable images; None:
    no, and the error message does not suggest it. Raises DataError if an image is unreadable or has another shape, or
    if the disk is full.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(half_made(folder.parent, re.escape(folder.name)))
    with work_folder(folder.parent, folder.name) as work:
        writers, splits = [], {}
        for name, read in readers.items():
            writers.append(SplitWriter(work, name, read(), shape))
            writers[-1].write(progress)
            if skip_damaged or not any(writer.noted["left_out"].count for writer in writers):
                splits[name] = writers[-1].stored()
        _report_notes(writers, source, skip_damaged)
        index = {"format": FORMAT, "source": source, "splits": {name: asdict(split) for name, split in splits.items()}}
        (work / INDEX).write_text(json.dumps(index, indent=1))
        put(work, folder)


def _report_notes(writers: list[SplitWriter], source: str, skip_damaged: bool | None) -> None:
    """Logs one line per kind of NOTED. Raises DataError if images are unreadable and must not be skipped."""
    total = sum(writer.total for writer in writers)
    for kind, what in NOTED.items():
        tally = Tally.joined(writer.noted[kind] for writer in writers)
        line = f"{tally.count} of {total} images of {source}"
        if kind == "left_out" and tally.count and not skip_damaged:
            choice = "" if skip_damaged is None else ", or skip them with dataset.skip_damaged=true"
            raise DataError(f"{line} cannot be read: {tally}; repair or remove them{choice}")
        if tally.count:
            logger.warning("%s %s: %s", line, what, tally)


def statistics_of(image_set: ImageSet) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all images, in units of [0, 1]."""
    flat = image_set.flat.cpu()
    statistics = ChannelStatistics(flat.size(1))
    step = max(1, _BLOCK // flat[0].numel())
    for at in range(0, len(flat), step):
        statistics.add(flat[at : at + step].numpy())
    return statistics.mean_std()


class _Split(TypedDict):
    names: list[str]
    counts: list[Count]
    shape: list[Count]
    sha256: str
    mean: list[float]
    std: list[float]
    noted: NotRequired[dict[str, Any] | None]


class _Index(TypedDict):
    """The content of index.json."""

    format: int
    source: str
    splits: dict[Literal["train", "val", "test"], _Split]


def _stored(name: str, split: _Split) -> StoredSplit:
    """The checked entry of a split. Raises ValueError if its parts contradict each other."""
    found = StoredSplit(**{field.name: split[field.name] for field in fields(StoredSplit) if field.name in split})
    images, *image = found.shape
    if len(image) != 3 or not len(found.mean) == len(found.std) == image[0]:
        raise ValueError(f"the {name} split has images of the shape {image}")
    if sum(found.counts) != images or len(found.counts) != len(found.names) or not all(found.counts):
        raise ValueError(f"the {name} split has {images} images, and its classes have another number")
    return found


class Store:
    """A folder that `write_store` made. Reads no pixels until `load`. Raises DataError if it is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = read_json(folder / INDEX, _Index, file_names=True)
            if index["format"] != FORMAT:
                raise ValueError(f"format {index['format']}, this version reads {FORMAT}")
            self.source = index["source"]
            self.splits = {name: _stored(name, split) for name, split in index["splits"].items()}
            for name in self.splits:
                self._check_size(name)
        except FileNotFoundError as error:
            raise DataError(f"{error.filename} does not exist") from None
        except (ValueError, TypeError) as error:
            raise DataError(f"{folder} is damaged ({str(error).splitlines()[0]})") from None

    def path(self, split: str) -> Path:
        """The file of a split's pixels."""
        return self.folder / f"{split}.npy"

    def _check_size(self, split: str) -> None:
        path, wanted = self.path(split), tuple(self.splits[split].shape)
        shape, start = header(path)
        if shape != wanted or not math.prod(shape) or path.stat().st_size != start + math.prod(shape):
            raise ValueError(f"{path.name} is not the {wanted} bytes that {INDEX} says")

    def load(self, split: str) -> ImageSet:
        """The images of a split, memory-mapped: [classes, per_class, C, H, W] if its classes are of equal size."""
        if split not in self.splits:
            raise DataError(f"{self.folder} is damaged (it has no {split} split)")
        stored = self.splits[split]
        mapped = _Mapped(self.path(split))
        flat, names = mapped.images(), tuple(stored.names)
        if uneven(stored.counts):
            return ImageSet(flat, names, tuple(stored.counts), mapped)
        return ImageSet(flat.unflatten(0, (len(names), -1)), names, ahead=mapped)


class _Mapped:
    """A .npy file of images, mapped read-only, since a private writable map counts as used memory.

    A call with rows asks the kernel to prefetch them. The images of a task are scattered over the file; on a cold disk
    one request for all is 20 times as fast as single page faults.
    """

    def __init__(self, path: Path) -> None:
        self._shape, self._start = header(path)
        with open_regular(path) as file:
            self._buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._each = math.prod(self._shape[1:])

    def images(self) -> torch.Tensor:
        """uint8 [N, C, H, W]."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given buffer is not writable")
            return torch.frombuffer(self._buffer, dtype=torch.uint8, offset=self._start).view(self._shape)

    def __call__(self, rows: list[int]) -> None:
        if not hasattr(self._buffer, "madvise"):  # not on every system
            return
        for row in rows:
            first = self._start + row * self._each
            page = first - first % mmap.PAGESIZE
            self._buffer.madvise(mmap.MADV_WILLNEED, page, first + self._each - page)
