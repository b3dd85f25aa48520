"""Converts images of any colour mode to 8 bits per channel without losing their content.

Pillow's own `convert` clips 16-bit values at 255, drops alpha and ignores the camera's orientation.
"""

from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps

WHITE = (255, 255, 255)  # the background of transparent parts
_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose mode I has 16 bits; in other formats it has 32
_KEY_SCALE = {
    "L;2": 85,
    "L;4": 17,
}  # of a PNG of 2 and 4 bits: Pillow scales pixels to 8 bits, not the transparent grey
_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT = 262, 258, 339  # tags of TIFF


def eight_bits(file: ImageFile.ImageFile, mode: str) -> Image.Image:
    """Converts an opened image to mode "RGB" or "L", and rotates it upright.

    16-bit grey is scaled so that the largest possible value becomes 255. Transparent parts become white. Raises
    ValueError if its numbers have no defined range.
    """
    largest, inverted, key = _largest(file), _white_is_zero(file), _transparent_colour(file)
    file.load()
    if key is not None:
        file.info["transparency"] = key
    image = _upright(file)
    if largest is not None:
        image = _scaled(image, largest, inverted)
    elif image.mode == "LAB":
        image = _from_lab(image)
    elif _has_transparency(image):
        image = _on_white(image)
    return image if image.mode == mode else image.convert("RGB").convert(mode)


def _largest(file: ImageFile.ImageFile) -> int | None:
    """The largest possible value of grey with more than 8 bits; None for 8 bits."""
    tags: Any = getattr(file, "tag_v2", {})
    kinds = set(tags.get(_SAMPLE_FORMAT, (1,)))
    if file.mode == "F" or kinds & {3, 5, 6}:
        raise ValueError(_no_range("floating-point"))
    if kinds & {2} or (file.mode == "I" and file.format not in _SIXTEEN_BITS):
        raise ValueError(_no_range("signed or 32-bit"))
    if not file.mode.startswith("I"):
        return None
    return 2 ** int(tags[_BITS][0]) - 1 if _BITS in tags else 2**16 - 1


def _no_range(kind: str) -> str:
    return f"{kind} numbers have no defined range: scale them and save the image with 8 or 16 bits a channel"


def _white_is_zero(file: ImageFile.ImageFile) -> bool:
    """Whether a TIFF stores white as 0. Pillow inverts such images if they have at most 8 bits."""
    return getattr(file, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _transparent_colour(file: ImageFile.ImageFile) -> Any:
    """The colour that a PNG without an alpha channel names as transparent, in the units that Pillow gives pixels in."""
    raw = file.tile[0][3] if file.format == "PNG" and file.tile else None
    key = file.info.get("transparency")
    if isinstance(key, tuple) and raw == "RGB;16B":
        return tuple(value >> 8 for value in key)
    return key * _KEY_SCALE[raw] if isinstance(key, int) and raw in _KEY_SCALE else key


def _upright(file: Image.Image) -> Image.Image:
    """The image rotated as EXIF says, without a copy of all pixels; unchanged if EXIF cannot be read."""
    with suppress(Exception):
        ImageOps.exif_transpose(file, in_place=True)
    return file


def _scaled(image: Image.Image, largest: int, inverted: bool) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    key = image.info.get("transparency")
    transparent = values == key if isinstance(key, int) else np.zeros_like(values, dtype=bool)
    values *= 255
    values += largest // 2
    values //= largest
    grey = 255 - values if inverted else values
    grey[transparent] = WHITE[0]
    return Image.fromarray(grey.astype(np.uint8))


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    try:
        return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    except ImageCms.PyCMSError as error:
        raise ValueError(f"Lab colours cannot be converted here ({error})") from None


def _has_transparency(image: Image.Image) -> bool:
    palette = image.palette.mode if image.mode == "P" and image.palette else ""
    return image.mode[-1] in "Aa" or palette.endswith("A") or "transparency" in image.info


def _on_white(image: Image.Image) -> Image.Image:
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    flat = Image.new("RGB", image.size, WHITE)
    flat.paste(rgba, mask=rgba.getchannel("A"))
    return flat
