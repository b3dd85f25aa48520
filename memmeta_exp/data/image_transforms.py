"""Converts stored bytes to the input of a backbone: crop and flip, scaling to [0, 1], colour changes, normalisation.

It runs on the device, and is a pure function of the bytes and of one key per image. So the pixels of a task do not
depend on the tasks per pass, the rank or how often they are computed.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from memmeta_exp.data.counter_rng import children, uniform

_GREY = (0.2989, 0.587, 0.114)  # luma of ITU-R BT.601, to the digits that torchvision uses
_DRAWS = 6  # random numbers per image: row, column, flip, brightness, contrast, saturation; add new ones at the end


@dataclass(frozen=True)
class ImageTransforms:
    """Augmentation and normalisation of images.

    crop_padding: p rows and columns of zeros on each side, then a random crop of the original size.
    flip: left-right flip with probability 1/2.
    brightness, contrast, saturation: factors b, c, s uniform in [1 - x, 1 + x], applied to values v in this order, each
    clamped to [0, 1]: b v, c v + (1 - c) * mean grey of the image, s v + (1 - s) * grey of the pixel.
    mean, std: of each channel in units of [0, 1], subtracted and divided by; empty: no normalisation.
    mirrored: features are averaged over an image and its mirror image.
    """

    crop_padding: int = 0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    mirrored: bool = False

    @property
    def augments(self) -> bool:
        """Whether images are augmented at random."""
        return bool(self.crop_padding or self.flip or self.jitters)

    @property
    def jitters(self) -> bool:
        """Whether the augmentation changes colours."""
        return bool(self.brightness or self.contrast or self.saturation)

    def floats(self, images: Tensor, keys: Tensor | None, dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
        """Converts uint8 images [n, C, H, W] to `dtype` in the memory format `layout`.

        keys: int64 [n] on the same device, the random keys of the augmentation; None: no augmentation.
        """
        draws = None if keys is None else uniform(children(keys, _DRAWS)).unbind(-1)
        if draws is not None and (self.crop_padding or self.flip):
            images = self._moved(images, *draws[:3])
        x = images.to(dtype, memory_format=layout).div_(255)
        if draws is not None and self.jitters:
            x = self._jittered(x, *(u.to(dtype)[:, None, None, None] for u in draws[3:]))
        if self.mean:
            x = x.sub_(_channels(self.mean, dtype, x.device)).div_(_channels(self.std, dtype, x.device))
        return x

    def _moved(self, images: Tensor, row: Tensor, column: Tensor, mirror: Tensor) -> Tensor:
        """Crop and flip in one gather of bytes. row, column, mirror: random numbers in [0, 1), float64 [n]."""
        p, (n, _, height, width) = self.crop_padding, images.shape
        down, right = ((u * (2 * p + 1)).long()[:, None] for u in (row, column))
        x = torch.arange(width, device=images.device).expand(n, -1)
        if self.flip:
            x = torch.where((mirror < 0.5)[:, None], width - 1 - x, x)
        y = torch.arange(height, device=images.device) + down
        padded = torch.nn.functional.pad(images, (p, p, p, p))
        batch = torch.arange(n, device=images.device)[:, None, None]
        return padded[batch, :, y[:, :, None], (x + right)[:, None, :]].permute(0, 3, 1, 2)

    def _jittered(self, x: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
        """Changes colours of x [n, C, H, W] in [0, 1], partly in place. The others: random numbers in [0, 1),
        [n, 1, 1, 1]."""
        if self.brightness:
            x = x.mul_(_factor(self.brightness, brightness)).clamp_(0, 1)
        if self.contrast:
            x = _blend(x, _grey(x).mean((1, 2, 3), keepdim=True), _factor(self.contrast, contrast))
        if self.saturation:
            x = _blend(x, _grey(x), _factor(self.saturation, saturation))
        return x


UNCHANGED = ImageTransforms()


@cache
def _channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`values` as a tensor [C, 1, 1], cached: a copy to a GPU would synchronise."""
    return torch.tensor(values, dtype=dtype, device=device)[:, None, None]


def _factor(strength: float, number: Tensor) -> Tensor:
    return 1 + strength * (2 * number - 1)


def _grey(x: Tensor) -> Tensor:
    """[n, 1, H, W]: the luma of three channels; a single channel as it is."""
    if x.size(1) == 1:
        return x
    return sum(weight * x[:, i : i + 1] for i, weight in enumerate(_GREY))  # pyright: ignore[reportReturnType]


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor * x + (1 - factor) * other, clamped to [0, 1]."""
    return other.lerp(x, factor).clamp_(0, 1)
