"""Writes one split of a store, image by image."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memmeta_exp.data.npy import new_array, pixels_sha256
from memmeta_exp.data.tally import Tally
from memmeta_exp.utils.errors import DataError

Progress = Callable[[str, int, int], None]  # called with: what is done, how much of it, of what total


def silent(_what: str, _done: int, _total: int) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True)
class Picture:
    """A decoded image: uint8 [H, W, C] or [H, W]. several: the file has several frames or pages; this is the first."""

    pixels: np.ndarray
    several: bool = False


Images = Iterator["np.ndarray | Picture | DataError"]


@dataclass(frozen=True)
class SplitImages:
    """One split, as a reader returns it.

    names: class names in order. labels: int [N], the class of each image. images: the N images in the same order, uint8
    [H, W, C] or [H, W], or a DataError for one that cannot be read. files: the name of each in messages; empty: class
    and number.
    """

    names: list[str]
    labels: np.ndarray
    images: Images
    files: Sequence[str] = ()


NOTED = {
    "left_out": "cannot be read and were skipped",
    "several": "have several frames or pages, of which the first was used",
    "constant": "have a single colour",
}


@dataclass(frozen=True)
class StoredSplit:
    """The entry of a split in index.json. mean, std: of each channel over all pixels, in units of [0, 1]. noted: the
    images of each kind of NOTED; None if an older version, without this entry, converted them."""

    names: list[str]
    counts: list[int]
    shape: list[int]
    sha256: str
    mean: list[float]
    std: list[float]
    noted: dict[str, Tally] | None = None

    def __post_init__(self) -> None:
        if self.noted is not None:
            tallies = {kind: t if isinstance(t, Tally) else Tally(**t) for kind, t in self.noted.items()}
            object.__setattr__(self, "noted", {kind: tallies[kind] for kind in NOTED})


class SplitWriter:
    """Writes one split class by class to WORK/NAME.npy."""

    def __init__(self, work: Path, name: str, split: SplitImages, shape: tuple[int, int, int]) -> None:
        counts = np.bincount(split.labels, minlength=len(split.names))
        if not len(split.labels) or not counts.all():
            raise DataError(f"the {name} split has no images of {_missing(split.names, counts)}")
        self.name, self.split, self.shape, self.total = name, split, shape, len(split.labels)
        self.path = work / f"{name}.npy"
        self.noted = {kind: Tally() for kind in NOTED}
        self._starts, self._filled = np.cumsum(counts) - counts, np.zeros(len(counts), dtype=np.int64)
        self._statistics = ChannelStatistics(shape[0])

    def write(self, progress: Progress) -> None:
        """Writes all readable images, and counts the unreadable ones."""
        out = new_array(self.path, (self.total, *self.shape))
        for done, (label, image) in enumerate(zip(self.split.labels, self.split.images, strict=True)):
            progress(f"converting {self.name}", done, self.total)
            if isinstance(image, DataError):
                self.noted["left_out"].add(str(image))
                continue
            picture = image if isinstance(image, Picture) else Picture(image)
            channels_first = _channels_first(picture.pixels, self.shape, self.name)
            out[self._starts[label] + self._filled[label]] = channels_first
            self._filled[label] += 1
            self._statistics.add(channels_first[None])
            self._note(done, int(label), picture.several, channels_first)
        out.flush()
        progress(f"converting {self.name}", self.total, self.total)

    def _note(self, at: int, label: int, several: bool, image: np.ndarray) -> None:
        constant = bool((image == image[:, :1, :1]).all())
        if several or constant:
            files = self.split.files
            called = files[at] if files else f"{self.split.names[label]}, image {self._filled[label]}"
            for kind, found in (("several", several), ("constant", constant)):
                if found:
                    self.noted[kind].add(called)

    def stored(self) -> StoredSplit:
        """The index entry of what was written. Raises DataError if a class has no readable image."""
        if not self._filled.all():
            missing = _missing(self.split.names, self._filled)
            raise DataError(f"the {self.name} split has no readable images of {missing}")
        counts = self._filled.tolist()
        if sum(counts) < self.total:
            self._close_gaps(counts)
        mean, std = self._statistics.mean_std()
        shape = [sum(counts), *self.shape]
        return StoredSplit(self.split.names, counts, shape, pixels_sha256(self.path), mean, std, self.noted)

    def _close_gaps(self, counts: list[int]) -> None:
        """Rewrites the file without the gaps of skipped images."""
        loose = self.path.with_suffix(".loose")
        self.path.rename(loose)
        written = np.load(loose, mmap_mode="r")
        out = new_array(self.path, (sum(counts), *self.shape))
        at = 0
        for start, count in zip(self._starts, counts, strict=True):
            out[at : at + count] = written[start : start + count]
            at += count
        out.flush()
        loose.unlink()


def _missing(names: list[str], counts: np.ndarray) -> str:
    return ", ".join(name for name, count in zip(names, counts, strict=True) if not count) or "any class"


def _channels_first(image: np.ndarray, shape: tuple[int, int, int], split: str) -> np.ndarray:
    found = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    if found.shape != shape or found.dtype != np.uint8:
        raise DataError(f"the {split} split has an image {found.dtype} {found.shape}, expected uint8 {shape}")
    return found


class ChannelStatistics:
    """Accumulates mean and standard deviation of each channel from exact integer sums."""

    def __init__(self, channels: int) -> None:
        self._sums = np.zeros((2, channels), dtype=np.uint64)
        self._pixels = 0

    def add(self, images: np.ndarray) -> None:
        """Adds images: uint8 [n, C, H, W]."""
        wide = images.astype(np.uint32)
        self._sums[0] += wide.sum((0, 2, 3), dtype=np.uint64)
        self._sums[1] += np.square(wide).sum((0, 2, 3), dtype=np.uint64)
        self._pixels += images[:, 0].size

    def mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, in units of [0, 1]."""
        n = self._pixels
        sums, squares = ([int(v) for v in row] for row in self._sums)
        means = [s / n / 255 for s in sums]
        return means, [math.sqrt((q * n - s * s) / (n * n)) / 255 for s, q in zip(sums, squares, strict=True)]
