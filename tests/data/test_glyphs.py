import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from memmeta_exp.data import cache, glyphs, load_split
from memmeta_exp.data.alphabets import ALPHABETS
from memmeta_exp.data.datasets import GlyphsConfig


@pytest.fixture(scope="module")
def arrays() -> cache.Arrays:
    return glyphs.build()


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache file that holds stand-ins for the drawings, so that its handling takes no time."""
    monkeypatch.setenv("MEMMETA_CACHE", str(tmp_path))
    return tmp_path / "glyphs.npz"


def test_splits_are_what_the_configuration_says(arrays: cache.Arrays):
    facts = GlyphsConfig().facts()
    for split, images in arrays.items():
        size = (facts.classes[split], facts.images_per_class, facts.channels, facts.image_size, facts.image_size)
        assert images.shape == size
        assert images.dtype == np.uint8
    assert facts.classes["train"] >= 150
    assert facts.classes["val"] >= 40
    assert facts.classes["test"] >= 60


def test_no_script_and_no_character_is_in_two_splits():
    scripts = [script for split in ALPHABETS.values() for script in split]
    characters = [c for split in ALPHABETS.values() for letters in split.values() for c in letters]
    assert len(set(scripts)) == len(scripts)
    assert len(set(characters)) == len(characters)


def test_drawing_is_deterministic(arrays: cache.Arrays):
    faces = glyphs._Faces()
    first = next(iter(ALPHABETS["val"].values()))[0]
    generator = np.random.Generator(np.random.Philox(key=1))
    assert np.array_equal(glyphs._draw_class(faces.bitmaps(first), generator), arrays["val"][0])


def test_glyphs_are_white_on_black_whole_and_varied(arrays: cache.Arrays):
    for images in arrays.values():
        pixels = images[:, :, 0].astype(np.float32)
        edge = np.concatenate([pixels[..., 0, :], pixels[..., -1, :], pixels[..., 0], pixels[..., -1]], axis=-1)
        assert edge.mean() < 2
        assert (pixels.max((-1, -2)) > 100).all()
        assert 10 < pixels.mean() < 80
        assert all(len(np.unique(of_class.reshape(40, -1), axis=0)) == 40 for of_class in images)


def test_no_two_classes_look_alike():
    """Plain drawings of all classes, blurred, correlate below 0.92: the 0.9 they were chosen by, and a margin for
    another version of the renderer."""
    faces = glyphs._Faces()
    letters = [c for split in ALPHABETS.values() for script in split.values() for c in script]
    plain = F.avg_pool2d(torch.stack([faces.bitmaps(c)[0] for c in letters])[:, None], 2)
    shifted = [torch.roll(plain, (i, j), (2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    reference = _unit(plain)
    likeness = torch.stack([_unit(s) @ reference.T for s in shifted]).amax(0).fill_diagonal_(0)
    assert 0.8 < float(likeness.max()) < 0.92


def _unit(images: torch.Tensor) -> torch.Tensor:
    blurred = F.avg_pool2d(images, 3, 1, 1).flatten(1)
    return F.normalize(blurred - blurred.mean(1, keepdim=True))


def test_loading_draws_once_then_reads(stored: Path, monkeypatch: pytest.MonkeyPatch):
    builds = _count_builds(monkeypatch)
    for _ in range(2):
        glyphs._arrays.cache_clear()
        assert len(load_split(GlyphsConfig(), "val").images) == GlyphsConfig().facts().classes["val"]
    assert len(builds) == 1
    assert [p.name for p in stored.parent.iterdir()] == ["glyphs.npz"]


@pytest.mark.parametrize("harm", ["truncated", "flipped", "empty", "stale", "other"])
def test_a_damaged_or_stale_file_is_rebuilt(stored: Path, monkeypatch: pytest.MonkeyPatch, harm: str):
    builds = _count_builds(monkeypatch)
    glyphs._arrays.cache_clear()
    glyphs.load("val")
    _harm(stored, harm)
    assert cache.read(stored, glyphs.recipe()) is None
    glyphs._arrays.cache_clear()
    assert int(glyphs.load("val").images[0, 0, 0, 0, 0]) == 7
    assert len(builds) == 2
    assert cache.read(stored, glyphs.recipe()) is not None


def test_without_a_writable_folder_nothing_fails(stored: Path, monkeypatch: pytest.MonkeyPatch):
    blocked = stored.parent / "file"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("MEMMETA_CACHE", str(blocked))
    builds = _count_builds(monkeypatch)
    glyphs._arrays.cache_clear()
    assert int(glyphs.load("test").images[0, 0, 0, 0, 0]) == 7
    glyphs.load("test")
    assert len(builds) == 1
    assert os.listdir(stored.parent) == ["file"]


def _count_builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replaces the drawing by blank images of value 7; the list grows with every call."""
    builds: list[int] = []

    def build() -> cache.Arrays:
        builds.append(1)
        counts = GlyphsConfig().facts().classes
        return {split: np.full((n, 40, 1, 28, 28), 7, dtype=np.uint8) for split, n in counts.items()}

    monkeypatch.setattr(glyphs, "build", build)
    return builds


def _harm(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes({"truncated": content[:-1000], "empty": b"", "other": b"not a zip"}.get(how, content))
    if how == "stale":
        cache._write(path, "an older recipe", {"val": np.zeros((1, 1), dtype=np.uint8)})
