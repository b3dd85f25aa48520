"""A digest of a split, to check that two processes read the same images."""

import hashlib

from memmeta_exp.data.episodes import ImageSet

IMAGES = 4096  # images hashed per split: takes milliseconds, and distinguishes versions and renderers


def fingerprint(image_set: ImageSet) -> str:
    """SHA-256 of a split's shape, class names and up to IMAGES evenly spaced images."""
    sizes = () if image_set.counts is None else (image_set.counts,)
    digest = hashlib.sha256(repr((tuple(image_set.images.shape), image_set.class_names, *sizes)).encode())
    images = image_set.flat
    step = -(-len(images) // IMAGES)
    if image_set.ahead is not None:
        image_set.ahead(list(range(0, len(images), step)))
    digest.update(images[::step].contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
