"""Few-shot tasks drawn from images in memory or memory-mapped.

Task k of a stream is a pure function of (seed, stream, k): equal on every machine and device, for any batch size and
any number of tasks per pass. A sampler has no state to save. Each candidate (seed, stream, k, slot, index) gets a
64-bit key from a counter-based generator. Slot 0 ranks the classes, slot 1 + w the images of way w, and the smallest
keys are taken. This samples without replacement in random order. With more shots, queries or ways, the classes and
images chosen before stay the same. An image's key does not depend on the size of its class, so classes may differ in
size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from memmeta_exp.config.validation import shown
from memmeta_exp.data.counter_rng import GAMMA, children, hashed, mix, root_key, smallest
from memmeta_exp.data.image_transforms import UNCHANGED, ImageTransforms
from memmeta_exp.data.tasks import Tasks
from memmeta_exp.utils.errors import ConfigError

_BLOCK = 256  # most tasks drawn at once: each needs 8 bytes per class of the split and per image of its classes
_BLOCK_KEYS = 2**23  # most class keys in memory at once
_LAST = torch.iinfo(torch.int64).max  # the key of images that a smaller class does not have
STREAMS = ("train", "val", "test", "reference")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of one split, contiguous, in memory or memory-mapped.

    images: uint8 [classes, per_class, C, H, W]; if classes differ in size, [N, C, H, W] class by class. counts: images
    per class in the second case, else None. class_names: one per class. ahead: prefetches the rows of `flat` that it is
    called with; None if the images are in memory.
    """

    images: Tensor
    class_names: tuple[str, ...]
    counts: tuple[int, ...] | None = None
    ahead: Callable[[list[int]], None] | None = None

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8, self.images.dtype
        assert self.images.dim() == (5 if self.counts is None else 4), self.images.shape
        assert self.images.is_contiguous()
        classes = len(self.images) if self.counts is None else len(self.counts)
        assert len(self.class_names) == classes, (len(self.class_names), classes)
        assert self.counts is None or sum(self.counts) == len(self.images), (sum(self.counts), len(self.images))

    def to(self, device: torch.device | str) -> "ImageSet":
        """The images copied to `device`."""
        images = self.images.to(device)
        return replace(self, images=images, ahead=self.ahead if images.device.type == "cpu" else None)

    def rows(self, classes: Tensor, items: Tensor) -> Tensor:
        """Rows of `flat`: int64 [.., ways, each], for classes [.., ways] and items [.., ways, each]."""
        if self.counts is None:
            return classes[..., None] * self.images.size(1) + items
        return self.starts[classes][..., None] + items

    @property
    def flat(self) -> Tensor:
        """All images class by class, a view: uint8 [N, C, H, W]."""
        return self.images.flatten(0, 1) if self.counts is None else self.images

    @property
    def least(self) -> int:
        """Images of the smallest class."""
        return self.images.size(1) if self.counts is None else min(self.counts)

    @property
    def most(self) -> int:
        """Images of the largest class."""
        return self.images.size(1) if self.counts is None else max(self.counts)

    @cached_property
    def sizes(self) -> Tensor:
        """Images of each class: int64 [classes]."""
        return torch.tensor(self.counts or (self.least,) * len(self.class_names), device=self.images.device)

    @cached_property
    def starts(self) -> Tensor:
        """Row of `flat` at which each class starts: int64 [classes]."""
        return self.sizes.cumsum(0) - self.sizes


@dataclass(frozen=True)
class Origin:
    """The origin of tasks: the key of their stream, and their positions k in it."""

    root: int
    positions: range

    def keys(self, half: str) -> tuple[int, ...]:
        """One 63-bit key per task for random layers, a pure function of (seed, stream, k, half). half: "support" or
        "query"."""
        return tuple(hashed(f"{self.root}/{k}/{half}") >> 1 for k in self.positions)


class Half(NamedTuple):
    """The support or the query half of T tasks.

    images: uint8 [T, n, C, H, W], as stored. labels: int64 [T, n]. keys: int64 [T, n], the random key of each image's
    augmentation; None without augmentation. pixels: the conversion of the images to floats.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor | None
    pixels: ImageTransforms

    def with_tasks_of(self, other: "Half") -> "Half":
        """The tasks of this half followed by those of `other`."""
        keys = None if self.keys is None or other.keys is None else torch.cat([self.keys, other.keys])
        return Half(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]), keys, self.pixels)


@dataclass(frozen=True, eq=False)
class TaskBatch:
    """T tasks as indices into an image set. `support` and `query` gather the images, so a slice needs little memory.

    classes: int64 [T, ways]. items: int64 [T, ways, shots + queries], support first. keys: augmentation keys in the
    shape of items; None without augmentation. origin: of training tasks; None for others.
    """

    image_set: ImageSet
    classes: Tensor
    items: Tensor
    shots: int
    origin: Origin | None = None
    pixels: ImageTransforms = UNCHANGED
    keys: Tensor | None = None

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, tasks: slice) -> "TaskBatch":
        origin = self.origin and replace(self.origin, positions=self.origin.positions[tasks])
        keys = None if self.keys is None else self.keys[tasks]
        return replace(self, classes=self.classes[tasks], items=self.items[tasks], origin=origin, keys=keys)

    @property
    def ways(self) -> int:
        """Classes of a task."""
        return self.classes.size(1)

    def support(self) -> tuple[Tensor, Tensor]:
        """Images uint8 [T, n, C, H, W], not augmented, and labels int64 [T, n] in the order 0, 0, .., 1, 1, .. with
        n = ways * shots."""
        return self.half("support")[:2]

    def query(self) -> tuple[Tensor, Tensor]:
        """As `support`, with m = ways * queries."""
        return self.half("query")[:2]

    def half(self, which: str) -> Half:
        """The half `which` ("support" or "query"), with the data for augmentation and normalisation."""
        return next(self.parts(which, self.items[0].numel()))

    def parts(self, which: str, size: int) -> Iterator[Half]:
        """`half`, with at most `size` images of each task at a time; no others are gathered."""
        chosen = {"support": slice(None, self.shots), "query": slice(self.shots, None)}[which]
        items = self.items[..., chosen]
        tasks, ways, each = items.shape
        rows = self.image_set.rows(self.classes, items).flatten(1)
        labels = torch.arange(ways, device=items.device).repeat_interleave(each).repeat(tasks, 1)
        keys = None if self.keys is None else self.keys[..., chosen].flatten(1)
        for at in range(0, ways * each, size):
            some = slice(at, at + size)
            gathered = self.image_set.flat.index_select(0, rows[:, some].flatten()).unflatten(0, (tasks, -1))
            yield Half(gathered, labels[:, some], None if keys is None else keys[:, some], self.pixels)


@dataclass(frozen=True, eq=False)
class GivenTask:
    """One task of images at hand, which need be neither of equally many a class nor in their order.

    support_images: uint8 [n, C, H, W]; support_labels: int64 [n], of 0, .., ways - 1; query_images: uint8 [m, C, H, W],
    whose labels are not known (0 stands for each); pixels: what becomes of the images.
    """

    support_images: Tensor
    support_labels: Tensor
    query_images: Tensor
    ways: int
    pixels: ImageTransforms = UNCHANGED
    origin: None = None

    def __len__(self) -> int:
        return 1

    def __getitem__(self, tasks: slice) -> "GivenTask":
        return self

    def support(self) -> tuple[Tensor, Tensor]:
        """images uint8 [1, n, C, H, W] and labels int64 [1, n]."""
        return self.support_images[None], self.support_labels[None]

    def query(self) -> tuple[Tensor, Tensor]:
        """As `support`, with m images."""
        return self.query_images[None], torch.zeros(1, len(self.query_images), dtype=torch.int64)

    def half(self, which: str) -> Half:
        """`support` or `query` with its normalisation."""
        return Half(*(self.support() if which == "support" else self.query()), None, self.pixels)


def half(tasks: Tasks, which: str) -> Half:
    """The half `which` ("support" or "query") of any tasks. Data other than images has no transforms."""
    if isinstance(tasks, TaskBatch | GivenTask):
        return tasks.half(which)
    data, labels = tasks.support() if which == "support" else tasks.query()
    return Half(data, labels, None, UNCHANGED)


class EpisodeSampler:
    """Draws tasks of `ways` classes with `shots` support and `queries` query images each, on the device of the images.

    pixels: the conversion of the images to floats. Raises ConfigError if the split has too few classes or images.
    """

    def __init__(
        self,
        image_set: ImageSet,
        stream: str,
        seed: int,
        ways: int,
        shots: int,
        queries: int,
        pixels: ImageTransforms = UNCHANGED,
    ) -> None:
        assert stream in STREAMS, stream
        classes, per_class = len(image_set.class_names), image_set.least
        if ways > classes:
            raise ConfigError(f"ways={ways} is more than the {classes} classes; set ways to {classes} or fewer")
        if shots + queries > per_class:
            at = image_set.counts.index(per_class) if image_set.counts else 0
            split = "train" if stream == "reference" else stream
            raise ConfigError(
                f"shots={shots} + queries={queries} is more than the {per_class} images of class "
                f"'{shown(image_set.class_names[at])}' of the {split} split; lower one until their sum fits"
            )
        self.image_set, self.ways, self.shots, self.queries = image_set, ways, shots, queries
        self.pixels = pixels
        self._root, self._training = root_key(f"{stream}/{seed}"), stream == "train"
        self._augment_root = root_key(f"{stream}/{seed}/augment")

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that it keeps in memory."""
        return [self.image_set.images]

    def draw(self, first: int, count: int) -> TaskBatch:
        """Tasks first, .., first + count - 1 of the stream."""
        block = max(1, min(_BLOCK, _BLOCK_KEYS // len(self.image_set.class_names)))
        starts = range(first, first + count, block)
        blocks = [self._draw(at, min(block, first + count - at)) for at in starts]
        if self.image_set.ahead is not None:
            for block in blocks:
                self.image_set.ahead(self.image_set.rows(block.classes, block.items).flatten().tolist())
        if len(blocks) == 1:
            return blocks[0]
        classes, items = (torch.cat([getattr(b, name) for b in blocks]) for name in ("classes", "items"))
        keys = torch.cat([b.keys for b in blocks if b.keys is not None]) if self.pixels.augments else None
        return TaskBatch(self.image_set, classes, items, self.shots, self._origin(first, count), self.pixels, keys)

    def _draw(self, first: int, count: int) -> TaskBatch:
        images = self.image_set
        k = torch.arange(first, first + count, device=images.images.device)
        slots = children(mix(k * GAMMA + self._root), 1 + self.ways)
        classes = smallest(children(slots[:, 0], len(images.class_names)), self.ways)
        candidates = children(slots[:, 1:], images.most)
        if images.counts is not None:
            absent = torch.arange(images.most, device=k.device) >= images.sizes[classes][..., None]
            candidates.masked_fill_(absent, _LAST)
        items = smallest(candidates, self.shots + self.queries)
        keys = self._augmentation_keys(k) if self.pixels.augments else None
        return TaskBatch(images, classes, items, self.shots, self._origin(first, count), self.pixels, keys)

    def _origin(self, first: int, count: int) -> Origin | None:
        return Origin(self._root, range(first, first + count)) if self._training else None

    def _augmentation_keys(self, k: Tensor) -> Tensor:
        """A key per image, a function of its task, way and position: int64 [T, ways, shots + queries]."""
        ways = children(mix(k * GAMMA + self._augment_root), self.ways)
        return children(ways, self.shots + self.queries)
