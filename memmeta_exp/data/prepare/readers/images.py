"""Decodes image files, and checks the fields of pickled datasets."""

import io
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from memmeta_exp.data.store import Picture
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import open_regular

VERSION = 2  # increment it with any change of decoding that changes pixels
MAX_PIXELS = 2**27  # per image file; Pillow's own limit only warns
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA")
"""The allowed formats, recognised by content; other formats may start a program. TGA has no magic bytes, so it is
last."""


Sources = Iterable[tuple[str, Path | bytes]]  # image files, each with what to call it in a message


def decode(name: str, source: Path | bytes, size: int | None, mode: str = "RGB", invert: bool = False) -> Picture:
    """Decodes an image file to uint8 [H, W, 3], or [H, W] for mode "L" (see colour.py).

    size: side of the square to which it is resized (bilinear, with averaging when it shrinks); None: not resized.
    invert: inverts the grey values. Raises DataError, with `name`, if it cannot be read.
    """
    from PIL import Image, ImageOps

    from memmeta_exp.data.prepare.readers.colour import eight_bits

    try:
        with (
            _quiet(),
            io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as stream,
            Image.open(stream, formats=_formats()) as file,
        ):
            if file.width * file.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            several = _has_several(file)
            with _no_standard_error() if file.format == "TIFF" else nullcontext():
                image = eight_bits(file, mode)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow may raise anything for a damaged file
        raise DataError(f"{name} ({_reason(error)})") from None
    if invert:
        image = ImageOps.invert(image)
    return Picture(np.asarray(image if size is None else resized(image, size)), several)


def resized(image: Any, size: int) -> Any:
    """A Pillow image as a square of `size`, bilinear, averaged where it shrinks; as it is where it is one."""
    from PIL import Image

    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)


def decoded(
    sources: Sources, size: int | None, mode: str = "RGB", invert: bool = False
) -> Iterator[Picture | DataError]:
    """Yields the decoded image of each source, or a DataError for one that cannot be read."""
    for name, source in sources:
        try:
            yield decode(name, source, size, mode, invert)
        except DataError as error:
            yield error


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses Pillow's warnings about metadata and about sizes within MAX_PIXELS."""
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_redirection = threading.Lock()


@contextmanager
def _no_standard_error() -> Iterator[None]:
    """Discards what is written to file descriptor 2: libtiff prints there about damaged files."""
    with _redirection:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def _formats() -> list[str]:
    """Those of FORMATS that this Pillow reads."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _has_several(file: Any) -> bool:
    """Whether an image file has several frames or pages. The second picture of a camera's JPEG (MPO) does not count."""
    try:
        return file.format != "MPO" and bool(getattr(file, "is_animated", False))
    except Exception:  # noqa: BLE001 - the first frame is readable
        return False


def _reason(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels, the limit of an image: shrink it"
    if isinstance(error, UnidentifiedImageError):
        return "no image of a format that is read here, or a damaged one"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).splitlines()), "") or f"damaged ({type(error).__name__})"


def field(data: Any, names: tuple[str, ...], path: Path, kind: Callable[[Any], bool]) -> Any:
    """The value of the first of the keys `names` that the dictionary `data` has. Raises DataError if there is none, or
    `kind` is false for it."""
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
    """The labels as int64 [images]. Raises DataError unless they are as many integers."""
    labels = as_integers(values)
    if labels is None or labels.shape != (images,):
        raise DataError(f"{path}: {len(values)} labels for {images} images, expected as many integers")
    return labels


def as_integers(values: Any) -> np.ndarray | None:
    """A list or array of integers as int64; None for anything else. The elements of a list are checked first: NumPy
    would allocate the longest length for every string of a list."""
    if not isinstance(values, np.ndarray):
        if not is_sequence(values) or not all(isinstance(value, int | np.integer) for value in values):
            return None
        values = np.asarray(values, dtype=None if len(values) else np.int64)
    if values.dtype.kind not in "iu" or values.ndim != 1 or (values.dtype.kind == "u" and (values >= 2**63).any()):
        return None
    return np.asarray(values).astype(np.int64)


def as_names(values: Any, path: Path) -> list[str]:
    """The names of classes. Raises DataError unless they are a list of strings."""
    if not is_sequence(values) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{path}: the names of the classes are no texts (docs/datasets.md)")
    return [str(value) for value in values]


def numbered(labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names and indices of classes that have only numbers, which may start anywhere."""
    values, indices = np.unique(labels, return_inverse=True)
    return [str(v) for v in values.tolist()], indices
