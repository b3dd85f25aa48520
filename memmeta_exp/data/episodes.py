"""Few-shot tasks drawn from images in memory.

Task k of a stream is a pure function of (seed, stream, k): the same on every machine and device, for any batch size
and any chunking, so a position in training is one integer and nothing of a sampler needs saving. Each candidate
(seed, stream, k, slot, index) gets a 64-bit key from a counter-based generator; slot 0 ranks the classes, slot 1 + w
the images of way w, and the smallest keys are taken. That is sampling without replacement in random order, and its
prefixes are stable: more shots, queries or ways leave the classes and images chosen before them as they were.
"""

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_BLOCK = 256  # tasks whose keys are held at once: 8 bytes for each image of each of their classes
STREAMS = ("train", "val", "test", "reference")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split in memory. images: uint8 [classes, per_class, C, H, W], contiguous; class_names: one per class."""

    images: Tensor
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8, self.images.dtype
        assert self.images.dim() == 5, self.images.shape
        assert self.images.is_contiguous()
        assert len(self.class_names) == len(self.images), len(self.class_names)

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same images on `device`."""
        return replace(self, images=self.images.to(device))


@dataclass(frozen=True)
class Origin:
    """Where tasks come from: the key of their stream and their positions k in it."""

    root: int
    positions: range

    def keys(self, half: str) -> tuple[int, ...]:
        """For each task 63 bits that are a pure function of (seed, stream, k, half): what layers with randomness in
        them draw from for its `half`, "support" or "query"."""
        return tuple(_hash(f"{self.root}/{k}/{half}") >> 1 for k in self.positions)


@dataclass(frozen=True, eq=False)
class TaskBatch:
    """T tasks as indices; images are gathered by `support` and `query` only, so a slice costs the memory of a slice.

    classes: int64 [T, ways]; items: int64 [T, ways, shots + queries], support first; origin: of training tasks.
    """

    image_set: ImageSet
    classes: Tensor
    items: Tensor
    shots: int
    origin: Origin | None = None

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, tasks: slice) -> "TaskBatch":
        origin = self.origin and replace(self.origin, positions=self.origin.positions[tasks])
        return replace(self, classes=self.classes[tasks], items=self.items[tasks], origin=origin)

    def support(self) -> tuple[Tensor, Tensor]:
        """images uint8 [T, n, C, H, W] and labels int64 [T, n], n = ways * shots, in the order 0, 0, .., 1, 1, .."""
        return self._gather(self.items[..., : self.shots])

    def query(self) -> tuple[Tensor, Tensor]:
        """As `support`, with m = ways * queries."""
        return self._gather(self.items[..., self.shots :])

    def _gather(self, items: Tensor) -> tuple[Tensor, Tensor]:
        tasks, ways, each = items.shape
        images = self.image_set.images
        rows = self.classes[..., None] * images.size(1) + items
        gathered = images.flatten(0, 1).index_select(0, rows.flatten())
        labels = torch.arange(ways, device=items.device).repeat_interleave(each).repeat(tasks, 1)
        return gathered.unflatten(0, (tasks, ways * each)), labels


class EpisodeSampler:
    """Draws tasks of `ways` classes with `shots` support and `queries` query images each, on the device of the images.

    Raises ValueError if the split has too few classes or images.
    """

    def __init__(self, image_set: ImageSet, stream: str, seed: int, ways: int, shots: int, queries: int) -> None:
        assert stream in STREAMS, stream
        classes, per_class = image_set.images.shape[:2]
        if ways > classes:
            raise ValueError(f"ways={ways} is more than the {classes} classes at hand; set ways to {classes} or fewer")
        if shots + queries > per_class:
            raise ValueError(
                f"shots={shots} + queries={queries} is more than the {per_class} images of a class; "
                "lower one until their sum fits"
            )
        self.image_set, self.ways, self.shots, self.queries = image_set, ways, shots, queries
        self._root, self._training = _root_key(stream, seed), stream == "train"

    @property
    def tensors(self) -> list[Tensor]:
        """What it keeps in memory."""
        return [self.image_set.images]

    def draw(self, first: int, count: int) -> TaskBatch:
        """Tasks first, .., first + count - 1 of the stream."""
        starts = range(first, first + count, _BLOCK)
        blocks = [self._draw(at, min(_BLOCK, first + count - at)) for at in starts]
        if len(blocks) == 1:
            return blocks[0]
        classes, items = (torch.cat([getattr(b, name) for b in blocks]) for name in ("classes", "items"))
        return TaskBatch(self.image_set, classes, items, self.shots, self._origin(first, count))

    def _draw(self, first: int, count: int) -> TaskBatch:
        images = self.image_set.images
        k = torch.arange(first, first + count, device=images.device)
        slots = _children(_mix(k * _GAMMA + self._root), 1 + self.ways)
        classes = _smallest(_children(slots[:, 0], images.size(0)), self.ways)
        items = _smallest(_children(slots[:, 1:], images.size(1)), self.shots + self.queries)
        return TaskBatch(self.image_set, classes, items, self.shots, self._origin(first, count))

    def _origin(self, first: int, count: int) -> Origin | None:
        return Origin(self._root, range(first, first + count)) if self._training else None


def _signed(word: int) -> int:
    """The int64 with the bits of a 64-bit word."""
    return word - (1 << 64) if word >> 63 else word


_GAMMA = _signed(0x9E3779B97F4A7C15)
_FACTORS = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))


def _root_key(stream: str, seed: int) -> int:
    """A hash that no process, version or platform changes, unlike hash()."""
    return _signed(_hash(f"{stream}/{seed}"))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _children(key: Tensor, count: int) -> Tensor:
    """Words 0, .., count - 1 of the splitmix64 sequence of each key: int64 [*key.shape, count]."""
    counter = torch.arange(1, count + 1, device=key.device) * _GAMMA
    return _mix(key[..., None] + counter)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014, variant 13 of Stafford), in place, modulo 2^64."""
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        x = x.bitwise_xor_(_shift_right(x, shift)).mul_(factor)
    return x.bitwise_xor_(_shift_right(x, 31))


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """The logical shift: torch's own copies the sign bit, which the mask removes."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _smallest(keys: Tensor, count: int) -> Tensor:
    """Indices of the `count` smallest keys of the last dimension in ascending order of key."""
    return keys.topk(count, largest=False, sorted=True).indices
