"""Characters of eleven scripts, drawn from the fonts that matplotlib ships: few-shot data without a download.

28x28 grey images, white on black, 40 per character. Each is a random font face that has the character (DejaVu Sans,
Sans Mono and Serif, STIX; upright to bold oblique) under a random affine map. Size is normalised: before the map, the
longer side of the ink measures 20 of the 28 pixels. So upper and lower case that differ only in size are one class.
Train, val and test have different scripts (`alphabets.ALPHABETS`), so the test measures learning of unseen alphabets.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.config import SPLITS
from memmeta_exp.data.alphabets import ALPHABETS
from memmeta_exp.data.cache import Arrays, cache_folder, cached
from memmeta_exp.data.episodes import ImageSet

IMAGES_PER_CLASS = 40
SIZE = 28
_SHARPNESS = 2  # oversampling: faces are drawn and mapped at twice the resolution, then averaged for smooth edges
_INK = 20
_FONT_PIXELS = 64
_FACES = tuple(
    ["DejaVuSans" + style for style in ("", "-Bold", "-Oblique", "-BoldOblique")]
    + ["DejaVuSansMono" + style for style in ("", "-Bold", "-Oblique", "-BoldOblique")]
    + ["DejaVuSerif" + style for style in ("", "-Bold", "-Italic", "-BoldItalic")]
    + ["STIXGeneral" + style for style in ("", "Bol", "Italic", "BolIta")]
)
_ROTATION = np.deg2rad(20)
_SHEAR = 0.2
_LOG_SCALE = (np.log(0.75), np.log(1.15))
_SHIFT = 2.5 / (SIZE / 2)
_FORMAT = 1
"""Increment it with any change that changes pixels: it invalidates stored files."""


def load(split: str) -> ImageSet:
    """Images of one split: uint8 [classes, 40, 1, 28, 28]. The first call draws all splits and caches them.

    The images are deterministic; another version of the font renderer may change some pixels by a grey level.
    """
    return ImageSet(torch.from_numpy(_arrays(cache_path())[split]), class_names(split))


def class_names(split: str) -> tuple[str, ...]:
    """ "script/U+CODE" of each class."""
    return tuple(f"{script}/U+{ord(c):04X}" for script, letters in ALPHABETS[split].items() for c in letters)


def cache_path() -> Path:
    """The file that keeps the drawn images."""
    return cache_folder() / "glyphs.npz"


@cache
def _arrays(path: Path) -> Arrays:
    return cached(path, recipe(), build)


def recipe() -> str:
    """A text that identifies what the images depend on: the format and the alphabets."""
    return f"glyphs {_FORMAT} {hashlib.sha256(repr(ALPHABETS).encode()).hexdigest()}"


def build() -> Arrays:
    """All splits, by name: uint8 [classes, 40, 1, 28, 28]."""
    faces = _Faces()
    return {split: _draw_split(split, faces) for split in SPLITS}


def _draw_split(split: str, faces: "_Faces") -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=SPLITS.index(split)))
    characters = [c for letters in ALPHABETS[split].values() for c in letters]
    return np.stack([_draw_class(faces.bitmaps(c), generator) for c in characters])


def _draw_class(bitmaps: Tensor, generator: np.random.Generator) -> np.ndarray:
    """40 variations of one character, uint8 [40, 1, 28, 28]. bitmaps: its faces, [faces, side, side]."""
    face = torch.from_numpy(generator.integers(len(bitmaps), size=IMAGES_PER_CLASS))
    grid = F.affine_grid(_affine_maps(generator), [IMAGES_PER_CLASS, 1, *bitmaps.shape[1:]], align_corners=False)
    varied = F.grid_sample(bitmaps[face, None], grid, align_corners=False)
    return F.avg_pool2d(varied, _SHARPNESS).round().to(torch.uint8).numpy()


def _affine_maps(generator: np.random.Generator) -> Tensor:
    """float32 [40, 2, 3]: output to input coordinates in [-1, 1], rotation x shear x scale of each axis, then shift."""
    angle, shear, *shift = generator.uniform(-1, 1, (4, IMAGES_PER_CLASS))
    width, height = np.exp(generator.uniform(*_LOG_SCALE, (2, IMAGES_PER_CLASS)))
    cos, sin, shear = np.cos(_ROTATION * angle), np.sin(_ROTATION * angle), _SHEAR * shear
    rows = [
        [cos / width, (shear * cos - sin) / width, _SHIFT * shift[0]],
        [sin / height, (shear * sin + cos) / height, _SHIFT * shift[1]],
    ]
    return torch.from_numpy(np.array(rows, dtype=np.float32)).permute(2, 0, 1)


class _Faces:
    """The font faces and the characters each one has."""

    def __init__(self) -> None:
        from matplotlib import get_data_path
        from matplotlib.ft2font import FT2Font
        from PIL import ImageFont

        paths = [str(Path(get_data_path(), "fonts", "ttf", f"{face}.ttf")) for face in _FACES]
        # the default layout engine depends on an optional library
        basic = ImageFont.Layout.BASIC
        fonts = [ImageFont.truetype(path, _FONT_PIXELS, layout_engine=basic) for path in paths]
        self._fonts = list(zip(fonts, [FT2Font(path).get_charmap() for path in paths], strict=True))

    def bitmaps(self, character: str) -> Tensor:
        """float32 [faces, 56, 56] in 0..255: the character in every face that has it, its ink centred."""
        fonts = [font for font, characters in self._fonts if ord(character) in characters]
        return torch.stack([torch.from_numpy(_centred(font.getmask(character, mode="L"))) for font in fonts])


def _centred(mask: Any) -> np.ndarray:
    """float32 [56, 56]: the inked box of a Pillow mask, its longer side scaled to 40 pixels, in the middle."""
    from PIL import Image

    image = Image.frombytes("L", mask.size, bytes(mask))
    ink = image.crop(image.getbbox())
    factor = _SHARPNESS * _INK / max(ink.size)
    ink = ink.resize([max(1, round(side * factor)) for side in ink.size], Image.Resampling.BILINEAR)
    side = _SHARPNESS * SIZE
    canvas = Image.new("L", (side, side))
    canvas.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    return np.asarray(canvas, dtype=np.float32)
