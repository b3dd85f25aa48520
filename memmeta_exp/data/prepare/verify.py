"""Compares a dataset with checksums.py: counts, classes, pixels and statistics."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from memmeta_exp.config import SPLITS
from memmeta_exp.data import loading
from memmeta_exp.data.episodes import ImageSet
from memmeta_exp.data.loading import load_split, resolve_root
from memmeta_exp.data.prepare import checksums
from memmeta_exp.data.store import Store, StoredSplit, pixels_sha256, statistics_of
from memmeta_exp.utils.errors import DataError

logger = logging.getLogger("memmeta")


@dataclass(frozen=True)
class Check:
    """The result of one check. passed: None if there is no reference. detail: one line, what was found and the
    reference."""

    what: str
    passed: bool | None
    detail: str


def verify(config: Any, data_root: str | None = None) -> Iterator[Check]:
    """Yields every check of the dataset of `config`. Raises DataError if the dataset is missing."""
    if not config.has_classes:
        yield Check("pixels", None, "it has no images: tasks are generated from a seed")
        return
    yield from _pixels(config, data_root)
    sets: dict[str, ImageSet] = {}
    for split in SPLITS:
        try:
            sets[split] = config.load(split, data_root)
            yield from _split(config, split, sets[split], data_root)
        except DataError as error:
            yield Check(f"{split}: counts", False, str(error))
    if config.name == "folder":
        yield from _apart(sets)


def _apart(sets: dict[str, ImageSet]) -> Iterator[Check]:
    """Checks whether identical images are in two splits. If so, it only warns."""
    owners: dict[bytes, str] = {}
    shared: Counter[str] = Counter()
    for split, images in sets.items():
        for image in images.flat.numpy():
            owner = owners.setdefault(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), split)
            if owner != split:
                shared[f"of {split} in {owner}"] += 1
    if shared:
        found = ", ".join(f"{count} {where}" for where, count in shared.items())
        logger.warning("identical images are in two splits: %s; keep each in one split", found)
    else:
        yield Check("splits", True, "no image is in two of them")


def _split(config: Any, split: str, images: ImageSet, data_root: str | None) -> Iterator[Check]:
    wrong = loading.mismatch(config, split, images)
    if wrong is not None:
        yield Check(f"{split}: counts", False, wrong)
        return
    yield _counts(config, split, images)
    yield _classes(config.name, split, images)
    yield _statistics(config, split, images, data_root)
    store = config.store(data_root)
    if store is not None:
        yield _constant(split, store.splits[split])


def _pixels(config: Any, data_root: str | None) -> Iterator[Check]:
    name = config.name
    if name in ("cifar_fs", "fc100"):
        from memmeta_exp.data import cifar100_torchmeta

        root = resolve_root(data_root, name)
        sound = cifar100_torchmeta.verify(root)
        yield Check(
            "pixels", sound, f"{cifar100_torchmeta.hdf5_path(root)} {_IS[sound]} CIFAR-100 as published, by SHA-256"
        )
    elif (store := config.store(data_root)) is not None:
        yield from _stored_pixels(store)
    elif name == "glyphs":
        from memmeta_exp.data import cache, glyphs

        load_split(config, "val")
        intact = cache.read(glyphs.cache_path(), glyphs.recipe()) is not None
        yield Check("pixels", intact or None, "the cache is intact" if intact else "no cache: drawn at every start")
    elif name == "synthetic":
        yield Check("pixels", None, "generated at every start")
    else:
        yield Check("pixels", None, "read by its own loader, without a reference hash")


_IS = {True: "is", False: "is NOT"}


def _stored_pixels(store: Store) -> Iterator[Check]:
    """Compares the pixels with their hash at conversion, since no hash of converted pixels is published."""
    for split, stored in store.splits.items():
        same = pixels_sha256(store.path(split)) == stored.sha256
        yield Check(f"{split}: pixels", same, f"{_ARE[same]} those converted from {store.source}, by SHA-256")
    yield Check("pixels", None, "no reference hash of the published pixels is known")


_ARE = {True: "are", False: "are NOT"}


def _counts(config: Any, split: str, images: ImageSet) -> Check:
    """The passed check of counts, for images that pass `loading.mismatch`."""
    total, source = len(images.flat), checksums.COUNTS.get(config.name, "its facts()")
    each = f"{images.least}" if images.least == images.most else f"{images.least} to {images.most}"
    detail = f"{len(images.class_names)} classes of {each} images, {total} in all, as expected ({source})"
    return Check(f"{split}: counts", None if config.name in ("folder", "synthetic") else True, detail)


def _classes(name: str, split: str, images: ImageSet) -> Check:
    what = f"{split}: classes"
    known = checksums.CLASSES.get((name, split))
    if known is None:
        return Check(what, None, "no reference list of the class names")
    if all(name.isdigit() for name in images.class_names):
        return Check(what, None, "the imported files have class numbers, but no names")
    digest, source = known
    same = hashlib.sha256("\n".join(sorted(images.class_names)).encode()).hexdigest() == digest
    return Check(what, same, f"the class names {_ARE[same]} those of {source}")


def _statistics(config: Any, split: str, images: ImageSet, data_root: str | None) -> Check:
    what = f"{split}: statistics"
    store = config.store(data_root)
    mean, std = statistics_of(images) if store is None else (store.splits[split].mean, store.splits[split].std)
    found = f"mean {_numbers(mean)}, deviation {_numbers(std)}"
    known = checksums.STATISTICS.get((config.name, split))
    if known is None:
        return Check(what, None, f"{found}; none published")
    expected = [*known.mean, *known.std]
    passed = all(abs(a - b) <= known.tolerance for a, b in zip([*mean, *std], expected, strict=False))
    wanted = f"mean {_numbers(known.mean)}" + (f", deviation {_numbers(known.std)}" if known.std else "")
    return Check(what, passed, f"{found}; {wanted} +- {known.tolerance:g} ({known.source})")


def _constant(split: str, stored: StoredSplit) -> Check:
    """Checks for images of a single colour, whose content was most likely lost."""
    what = f"{split}: constant images"
    if stored.noted is None:
        return Check(what, None, "not counted by the older version that converted them")
    found = stored.noted["constant"]
    detail = f"{found.count} of {sum(stored.counts)} images have a single colour"
    return Check(what, not found.count, f"{detail}: {found}" if found.count else detail)


def _numbers(values: tuple[float, ...] | list[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
