"""Images converted once: a folder with SPLIT.npy, uint8 [images, C, H, W] class after class, for each split, and
index.json, which says which classes, how many images of each, what the pixels hash to, and their mean and deviation.

Loading maps the files, so a set may be larger than memory and several runs share one copy in the page cache.
"""

import hashlib
import json
import math
import mmap
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import torch

from memmeta_exp.data.episodes import ImageSet
from memmeta_exp.errors import DataError
from memmeta_exp.reading import Count, open_regular, read_json
from memmeta_exp.reading.arrays import npy_header

FORMAT = 1
INDEX = "index.json"
_BLOCK = 2**24

Progress = Callable[[str, int, int], None]  # what, done, of how many


def silent(_what: str, _done: int, _total: int) -> None:
    """No progress."""


@dataclass(frozen=True)
class SplitImages:
    """One split as a reader gives it. names: of the classes, in order; labels: int [N], the class of each image;
    images: those N in the same order, uint8 [H, W, C] or [H, W]."""

    names: list[str]
    labels: np.ndarray
    images: Iterator[np.ndarray]


@dataclass(frozen=True)
class StoredSplit:
    """What index.json says of a split. mean, std: of each channel over all pixels, in units of [0, 1]."""

    names: list[str]
    counts: list[int]
    shape: list[int]
    sha256: str
    mean: list[float]
    std: list[float]


Readers = Mapping[str, Callable[[], SplitImages]]


def write_store(
    folder: Path,
    readers: Readers,
    shape: tuple[int, int, int],
    source: str,
    progress: Progress = silent,
) -> None:
    """Converts the splits of `readers` to images of `shape` [C, H, W]; the folder appears at once and whole, in place
    of one that was there. DataError where an image has another shape or the disk has no room."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _aside(folder) as work:
        splits = {}
        for name, read in readers.items():
            splits[name] = _write_split(work, name, read(), shape, progress)
        index = {"format": FORMAT, "source": source, "splits": {name: asdict(split) for name, split in splits.items()}}
        (work / INDEX).write_text(json.dumps(index, indent=1))


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` that takes its place after the block."""
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield work
        work.chmod(0o755)
        old = work.with_name(work.name + "-old")
        with suppress(FileNotFoundError):
            os.rename(folder, old)
        os.rename(work, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_split(
    work: Path, name: str, split: SplitImages, shape: tuple[int, int, int], progress: Progress
) -> StoredSplit:
    counts = np.bincount(split.labels, minlength=len(split.names))
    if not len(split.labels) or not counts.all():
        raise DataError(f"the {name} split has no images of {_missing(split.names, counts)}")
    starts, filled = np.cumsum(counts) - counts, np.zeros(len(counts), dtype=np.int64)
    full = (len(split.labels), *shape)
    _require_room(work, math.prod(full))
    path = work / f"{name}.npy"
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=full)
    statistics = ChannelStatistics(shape[0])
    for done, (label, image) in enumerate(zip(split.labels, split.images, strict=True)):
        channels_first = _channels_first(image, shape, name)
        out[starts[label] + filled[label]] = channels_first
        filled[label] += 1
        statistics.add(channels_first[None])
        if done % 256 == 0:
            progress(f"converting {name}", done, len(split.labels))
    out.flush()
    del out
    progress(f"converting {name}", len(split.labels), len(split.labels))
    mean, std = statistics.mean_std()
    return StoredSplit(split.names, counts.tolist(), list(full), pixels_sha256(path), mean, std)


def _missing(names: list[str], counts: np.ndarray) -> str:
    return ", ".join(name for name, count in zip(names, counts, strict=True) if not count) or "any class"


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder.parent} has {free / 2**30:.1f} GiB free and the next split needs {needed / 2**30:.1f}: make room "
            "or choose another data_root"
        )


def _channels_first(image: np.ndarray, shape: tuple[int, int, int], split: str) -> np.ndarray:
    found = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    if found.shape != shape or found.dtype != np.uint8:
        raise DataError(f"the {split} split has an image {found.dtype} {found.shape}, expected uint8 {shape}")
    return found


class ChannelStatistics:
    """Mean and standard deviation of each channel, from exact integer sums."""

    def __init__(self, channels: int) -> None:
        self._sums = np.zeros((2, channels), dtype=np.uint64)
        self._pixels = 0

    def add(self, images: np.ndarray) -> None:
        """uint8 [n, C, H, W]."""
        wide = images.astype(np.uint32)
        self._sums[0] += wide.sum((0, 2, 3), dtype=np.uint64)
        self._sums[1] += np.square(wide).sum((0, 2, 3), dtype=np.uint64)
        self._pixels += images[:, 0].size

    def mean_std(self) -> tuple[list[float], list[float]]:
        """In units of [0, 1]."""
        n = self._pixels
        sums, squares = ([int(v) for v in row] for row in self._sums)
        means = [s / n / 255 for s in sums]
        return means, [math.sqrt((q * n - s * s) / (n * n)) / 255 for s, q in zip(sums, squares, strict=True)]


def statistics_of(image_set: ImageSet) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all images of a set."""
    flat = image_set.flat.cpu()
    statistics = ChannelStatistics(flat.size(1))
    step = max(1, _BLOCK // flat[0].numel())
    for at in range(0, len(flat), step):
        statistics.add(flat[at : at + step].numpy())
    return statistics.mean_std()


def pixels_sha256(path: Path) -> str:
    """SHA-256 of the pixels of a .npy file, its header left out."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        file.seek(_header(path)[1])
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _header(path: Path) -> tuple[tuple[int, ...], int]:
    """Shape and where the pixels start; ValueError where it is no .npy file of bytes."""
    with open_regular(path) as file:
        shape, fortran, dtype = npy_header(file)
        if fortran or dtype != np.uint8:
            raise ValueError(f"{dtype}, expected uint8")
        return shape, file.tell()


class _Split(TypedDict):
    names: list[str]
    counts: list[Count]
    shape: list[Count]
    sha256: str
    mean: list[float]
    std: list[float]


class _Index(TypedDict):
    """What index.json holds."""

    format: int
    source: str
    splits: dict[Literal["train", "val", "test"], _Split]


def _stored(name: str, split: _Split) -> StoredSplit:
    """ValueError where the parts do not agree."""
    found = StoredSplit(**{field.name: split[field.name] for field in fields(StoredSplit)})
    images, *image = found.shape
    if len(image) != 3 or not len(found.mean) == len(found.std) == image[0]:
        raise ValueError(f"the {name} split has images of the shape {image}")
    if sum(found.counts) != images or len(found.counts) != len(found.names) or not all(found.counts):
        raise ValueError(f"the {name} split has {images} images, which its classes do not add up to")
    return found


class Store:
    """A folder that `write_store` made; DataError where it is not there or not whole. Reads no pixels until asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = read_json(folder / INDEX, _Index)
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
        shape, start = _header(path)
        if shape != wanted or not math.prod(shape) or path.stat().st_size != start + math.prod(shape):
            raise ValueError(f"{path.name} is not the {wanted} bytes that {INDEX} says")

    def load(self, split: str) -> ImageSet:
        """The images of a split, mapped: [classes, per_class, C, H, W] where the classes are of one size."""
        if split not in self.splits:
            raise DataError(f"{self.folder} is damaged (it has no {split} split)")
        stored = self.splits[split]
        mapped = _Mapped(self.path(split))
        flat, names = mapped.images(), tuple(stored.names)
        if len(set(stored.counts)) == 1:
            return ImageSet(flat.unflatten(0, (len(names), -1)), names, ahead=mapped)
        return ImageSet(flat, names, tuple(stored.counts), mapped)


class _Mapped:
    """A .npy file of images mapped read-only: a private writable map would count against memory.

    Called with rows, it asks the kernel to read them: tasks are scattered over the file, and one request for all of
    them is 20 times as fast on a cold disk as a page fault after the other.
    """

    def __init__(self, path: Path) -> None:
        self._shape, self._start = _header(path)
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
