"""Image files decoded."""

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from memmeta_exp.errors import DataError

MAX_PIXELS = 2**27  # of one image file: Pillow's own limit only warns


def decode(source: Path | bytes, size: int | None, mode: str = "RGB", invert: bool = False) -> np.ndarray:
    """uint8 [H, W, 3], or [H, W] for mode "L": an image file, resized to a square of `size` where one is given
    (bilinear, averaged where it shrinks). DataError where it does not decode."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"{file.width} x {file.height} pixels")
            image = file.convert(mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{_name(source)} is no image that can be read ({str(error).splitlines()[0]})") from None
    if invert:
        image = ImageOps.invert(image)
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def decoded(sources: Iterable[Path | bytes], size: int | None, mode: str = "RGB", invert: bool = False) -> Iterator:
    """`decode` of each, one at a time."""
    return (decode(source, size, mode, invert) for source in sources)


def _name(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else f"an image of {len(source)} bytes"


def field(data: Any, names: tuple[str, ...], path: Path, kind: Callable[[Any], bool]) -> Any:
    """The first of the keys `names` that a dictionary has, checked by `kind`; DataError where none fits."""
    if not isinstance(data, dict):
        raise DataError(f"{path} holds no dictionary: it is none of the known releases (docs/datasets.md)")
    for name in names:
        if name in data:
            if not kind(data[name]):
                raise DataError(f"{path}: '{name}' is not what the known releases hold (docs/datasets.md)")
            return data[name]
    raise DataError(f"{path} has no '{names[0]}': it is none of the known releases (docs/datasets.md)")


def is_images(value: Any) -> bool:
    """Whether a value is an array of colour images."""
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 4 and value.shape[-1] == 3


def is_sequence(value: Any) -> bool:
    """Whether a value is a list, tuple or array."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def as_labels(values: Any, path: Path, images: int) -> np.ndarray:
    """int64 [images]; DataError where the labels are no integers or another number of them."""
    labels = as_integers(values)
    if labels is None or labels.shape != (images,):
        raise DataError(f"{path}: {len(values)} labels for {images} images, expected as many integers")
    return labels


def as_integers(values: Any) -> np.ndarray | None:
    """int64, of a list or array of integers; None of anything else. Of a list each is looked at first: numpy would
    give every text of a list the length of the longest."""
    if not isinstance(values, np.ndarray):
        if not is_sequence(values) or not all(isinstance(value, int | np.integer) for value in values):
            return None
        values = np.asarray(values, dtype=None if len(values) else np.int64)
    if values.dtype.kind not in "iu" or values.ndim != 1 or (values.dtype.kind == "u" and (values >= 2**63).any()):
        return None
    return np.asarray(values).astype(np.int64)


def as_names(values: Any, path: Path) -> list[str]:
    """The names of classes; DataError where they are no list of texts."""
    if not is_sequence(values) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{path}: the names of the classes are no texts (docs/datasets.md)")
    return [str(value) for value in values]


def numbered(labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names and indices of classes that are known by numbers alone, which may start anywhere."""
    values, indices = np.unique(labels, return_inverse=True)
    return [str(v) for v in values.tolist()], indices
