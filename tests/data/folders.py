"""Folders of small images, as users have them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = {"train": ["c00", "c01", "c02", "c03"], "val": ["c04", "c05", "c06"], "test": ["c07", "c08", "c09"]}


def image(path: Path, seed: int = 0) -> None:
    """Noise of 18 x 18 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (18, 18, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")


def tree(root: Path, images: int = 6, more: dict[str, int] | None = None) -> Path:
    """Ten folders c00 .. c09 of `images` each, `more` in some, all different, and split.json."""
    for at in range(10):
        name = f"c{at:02}"
        for n in range(images + (more or {}).get(name, 0)):
            image(root / name / f"{n}.png", 100 * at + n)
    (root / "split.json").write_text(json.dumps(SPLITS))
    return root
