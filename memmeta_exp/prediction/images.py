"""Converts images (arrays, tensors, Pillow images, files) to the uint8 format that models were trained on."""

import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from memmeta_exp.data.prepare.readers.colour import eight_bits
from memmeta_exp.data.prepare.readers.images import decode, resized
from memmeta_exp.utils.errors import DataError

FORMS = (
    "give uint8 [n, H, W] or [n, H, W, C] (numpy), uint8 [n, H, W] or [n, C, H, W] (torch), a list of Pillow images, "
    "or a list of paths"
)
MODES = {1: "L", 3: "RGB"}

logger = logging.getLogger("memmeta")


def image_bytes(images: Any, channels: int, size: int) -> Tensor:
    """uint8 [n, channels, size, size] from any of FORMS. A single path or Pillow image is one image.

    Floats must be in [0, 1]. Images of another size are resized to a square as by dataset=folder, with a warning. Grey
    is repeated to colour, colour becomes grey by its luma, transparent parts become white. Raises DataError.
    """
    if channels not in MODES:
        raise DataError(f"the model takes images of {channels} channels: only those of 1 or 3 can be predicted on")
    if isinstance(images, str | PathLike | Image.Image):
        images = [images]
    whole = torch.is_tensor(images) or isinstance(images, np.ndarray)
    pictures = _of_array(_array(images)) if whole else _of_list(images, MODES[channels])
    if not len(pictures):
        raise DataError(f"there are no images: {FORMS}")
    before = sorted({_size(picture) for picture in pictures} - {(size, size)})
    found = torch.stack([_bytes(picture, MODES[channels], size) for picture in pictures])
    if before:
        shown = ", ".join(f"{width}x{height}" for width, height in before[:3]) + (", ..." if len(before) > 3 else "")
        logger.warning("images of %s resized to the model's %dx%d", shown, size, size)
    return found


def _array(images: Any) -> np.ndarray:
    """uint8 [n, H, W] or [n, H, W, C]."""
    values = images
    if torch.is_tensor(images):
        values = images.detach().cpu()
        values = (values.permute(0, 2, 3, 1) if values.dim() == 4 else values).numpy()
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) > 1:
            raise DataError("images of floats must be in [0, 1]: divide them by their largest value, or give uint8")
        values = np.rint(values * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise DataError(f"images of {values.dtype} have no defined range: {FORMS}")
    return values


def _of_array(images: np.ndarray) -> list[np.ndarray]:
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3, 4)):
        raise DataError(f"an array of shape {list(images.shape)} is not a batch of images: {FORMS}")
    return list(images)


def _of_list(images: Any, mode: str) -> list[Any]:
    """Pillow images, and arrays [H, W] or [H, W, C]; those of files in `mode`."""
    if not isinstance(images, Sequence):
        try:
            images = list(images)
        except TypeError:
            raise DataError(f"{type(images).__name__} is not a list of images: {FORMS}") from None
    found: list[Any] = []
    for one in images:
        if isinstance(one, str | PathLike):
            found.append(decode(str(one), Path(one).expanduser(), None, mode).pixels)
        elif isinstance(one, Image.Image):
            found.append(one)
        elif torch.is_tensor(one) or isinstance(one, np.ndarray):
            found += _of_array(_array(one[None]))
        else:
            raise DataError(f"{type(one).__name__} is not an image: {FORMS}")
    return found


def _size(picture: Any) -> tuple[int, int]:
    """Width and height."""
    return picture.size if isinstance(picture, Image.Image) else (picture.shape[1], picture.shape[0])


def _bytes(picture: Any, mode: str, size: int) -> Tensor:
    """uint8 [1 or 3, size, size]."""
    if isinstance(picture, np.ndarray):
        squeezed = picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture
        picture = Image.fromarray(np.ascontiguousarray(squeezed))
    try:
        image = resized(eight_bits(picture, mode), size)
    except (ValueError, OSError) as error:
        raise DataError(f"an image of mode {picture.mode} cannot be read: {error}") from None
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if mode == "L" else pixels.permute(2, 0, 1).contiguous()
