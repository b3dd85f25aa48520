"""Image files of every colour mode keep what they show, or are refused in one line."""

import io
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from memmeta_exp.data.prepare.readers import images
from memmeta_exp.data.prepare.readers.images import decode
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading.hdf5 import opened_hdf5

DEEP = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
DEEP_IN_8 = [0, 1, 128, 255]
COLOURS = np.array([[[200, 30, 40], [10, 220, 100], [0, 0, 0], [255, 255, 255]]], dtype=np.uint8)


def saved(image: Image.Image | np.ndarray, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, form, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, bits: int, colour: int, row: bytes, transparent: tuple[int, ...] = ()) -> bytes:
    """One row, in the PNG forms that Pillow does not write."""
    key = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + header + key + pixels + chunk(b"IEND", b"")


def tiff(width: int, bits: int, row: bytes, kind: int = 1) -> bytes:
    """One row of grey; kind: SampleFormat."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(row), 339: kind}
    body = row + b"\0" * (len(row) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, v) for tag, v in tags.items())
    return struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def white_is_zero() -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    return saved(DEEP, "TIFF", tiffinfo=tags)


def big(values: object) -> bytes:
    return np.array(values, dtype=">u2").tobytes()


GREY: dict[str, tuple[Callable[[], bytes], list[int]]] = {
    "PNG of 16 bits": (lambda: saved(DEEP, "PNG"), DEEP_IN_8),
    "TIFF of 16 bits": (lambda: saved(DEEP, "TIFF"), DEEP_IN_8),
    "TIFF of 16 bits, high byte first": (lambda: saved(DEEP.astype(">u2"), "TIFF"), DEEP_IN_8),
    "TIFF of 16 bits, white is zero": (white_is_zero, [255, 254, 127, 0]),
    "TIFF of 12 bits": (lambda: tiff(2, 12, bytes([0x80, 0x0F, 0xFF])), [128, 255]),
    "PGM of 16 bits": (lambda: b"P5 4 1 65535\n" + big(DEEP), DEEP_IN_8),
    "PGM of 12 bits": (lambda: b"P5 4 1 4095\n" + big([0, 16, 2048, 4095]), DEEP_IN_8),
    "PNG of 16 bits, a transparent grey": (lambda: png(4, 16, 0, big(DEEP), (257,)), [0, 255, 128, 255]),
    "PNG of 8 bits, a transparent grey": (lambda: png(4, 8, 0, bytes([0, 7, 8, 9]), (7,)), [0, 255, 8, 9]),
    "PNG of 4 bits, a transparent grey": (lambda: png(4, 4, 0, bytes([0x02, 0x4F]), (2,)), [0, 255, 68, 255]),
    "PNG of 2 bits, a transparent grey": (lambda: png(4, 2, 0, bytes([0b00011011]), (1,)), [0, 255, 170, 255]),
    "PNG of 1 bit, transparent black": (lambda: png(4, 1, 0, bytes([0b01010000]), (0,)), [255] * 4),
    "PNG of 1 bit": (lambda: png(4, 1, 0, bytes([0b01010000])), [0, 255, 0, 255]),
    "PNG of 16 bits with alpha": (lambda: png(2, 16, 4, big([0, 0, 30000, 65535])), [255, 117]),
}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("form", GREY)
def test_grey_of_every_depth_keeps_its_content(form: str, mode: str):
    make, expected = GREY[form]
    found = decode(form, make(), None, mode).pixels[0]
    assert found.reshape(len(expected), -1)[:, 0].tolist() == expected
    assert mode == "L" or (found == found[:, :1]).all()


def alpha(mode: str) -> Image.Image:
    """Black: transparent, opaque, half transparent."""
    image = Image.new("RGBA", (3, 1))
    for at, value in enumerate((0, 255, 128)):
        image.putpixel((at, 0), (0, 0, 0, value))
    return image.quantize(4) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize("form", ["PNG RGBA", "PNG LA", "PNG P", "WEBP RGBA", "TIFF RGBA", "TIFF LA"])
def test_what_is_transparent_is_laid_on_white(form: str):
    name, mode = form.split()
    options = {"lossless": True} if name == "WEBP" else {}
    for wanted in ("RGB", "L"):
        found = decode(form, saved(alpha(mode), name, **options), None, wanted).pixels
        assert found.reshape(3, -1)[:, 0].tolist() == [255, 0, 127]


def lab() -> Image.Image | None:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(Image.fromarray(COLOURS), *profiles, outputMode="LAB")


COLOUR: dict[str, Callable[[], bytes]] = {
    "RGB": lambda: saved(COLOURS, "BMP"),
    "RGB of 16 bits": lambda: png(4, 16, 2, big(COLOURS.astype(int) * 257)),
    "RGB of 16 bits, a transparent white": lambda: png(4, 16, 2, big(COLOURS.astype(int) * 257), (65535,) * 3),
    "RGB, a transparent white": lambda: png(4, 8, 2, COLOURS.tobytes(), (255,) * 3),
    "palette": lambda: saved(Image.fromarray(COLOURS).quantize(4), "GIF"),
    "CMYK": lambda: saved(Image.fromarray(COLOURS).convert("CMYK"), "TIFF"),
    "YCbCr": lambda: saved(Image.fromarray(COLOURS).convert("YCbCr"), "TIFF"),
    "LAB": lambda: saved(lab() or Image.new("L", (1, 1)), "TIFF"),
}


@pytest.mark.parametrize("form", COLOUR)
def test_colour_of_every_kind_keeps_its_content(form: str):
    found = decode(form, COLOUR[form](), None).pixels.astype(int)
    assert np.abs(found - COLOURS).max() <= {"YCbCr": 2, "LAB": 19}.get(form, 0)
    grey = decode(form, COLOUR[form](), None, "L").pixels.astype(int)
    assert np.abs(grey - found @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_orientation_is_applied(form: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    turned = pixels if orientation in (1, 2, 3, 4) else pixels.transpose(1, 0, 2)
    vertical, horizontal = (
        {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1)} | {5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
    )[orientation]
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(form, {})
    found = decode(form, saved(pixels, form, exif=exif, **options), None).pixels
    assert np.array_equal(found, turned[::vertical, ::horizontal])
    if form in ("PNG", "TIFF") and orientation == 6:
        deep = decode(form, saved(DEEP, form, exif=exif), None, "L").pixels
        assert deep[:, 0].tolist() == DEEP_IN_8


def test_exif_that_cannot_be_read_spoils_no_image():
    stream = saved(COLOURS, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(decode("x", stream, None).pixels, COLOURS)


def truncated(form: str) -> Callable[[], bytes]:
    whole = saved(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), form)
    return lambda: whole[: len(whole) // 2]


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "int32": (lambda: saved(DEEP.astype(np.int32), "TIFF"), "signed or 32-bit numbers have no defined range: scale"),
    "uint32": (lambda: tiff(1, 32, bytes(4)), "signed or 32-bit numbers have no defined range: scale"),
    "int16": (lambda: tiff(2, 16, bytes(4), kind=2), "signed or 32-bit numbers have no defined range: scale"),
    "int8": (lambda: tiff(2, 8, bytes([0, 255]), kind=2), "signed or 32-bit numbers have no defined range: scale"),
    "float": (lambda: saved(DEEP.astype(np.float32), "TIFF"), "floating-point numbers have no defined range: scale"),
    "PFM": (lambda: b"Pf\n1 1\n-1.0\n" + bytes(4), "floating-point numbers have no defined range: scale"),
    "empty": (lambda: b"", "no image of a format that is read here"),
    "text": (lambda: b"hello", "no image of a format that is read here"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a format"),
    **{f"half of a {form}": (truncated(form), "") for form in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP")},
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_is_refused_by_name_in_one_line(what: str):
    make, word = REFUSED[what]
    with pytest.raises(DataError) as error:
        decode("c00/a.png", make(), 16)
    line = str(error.value)
    assert line.startswith(f"c00/a.png ({word}")
    assert "\n" not in line


def test_a_library_below_says_nothing_of_its_own(capfd: pytest.CaptureFixture[str]):
    whole = bytearray(saved(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), "TIFF"))
    packed = bytearray(saved(Image.open(io.BytesIO(whole)), "TIFF", compression="tiff_lzw"))
    packed[300:400] = b"\xff" * 100
    with pytest.raises(DataError):
        decode("x", bytes(packed), 16)
    print("still there", file=sys.stderr)
    assert capfd.readouterr() == ("", "still there\n")


def test_a_missing_file_is_named():
    with pytest.raises(DataError, match=r"^c00/a.png \(No such file or directory\)$"):
        decode("c00/a.png", Path("/nowhere/a.png"), 16)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken_and_said(form: str):
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if form == "WEBP" else {}
    found = decode(form, saved(red, form, save_all=True, append_images=[blue], **options), None)
    assert (found.several, found.pixels[0, 0].tolist()) == (True, [255, 0, 0])
    assert not decode(form, saved(red, form, **options), None).several


def test_pillows_limit_is_not_ours(monkeypatch: pytest.MonkeyPatch):
    """An image between Pillow's limits, at which it only warns, and one beyond ours."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    stream = saved(np.zeros((8, 8), dtype=np.uint8), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode("x", stream, None).pixels.shape == (8, 8, 3)
    for ours, pillows in ((63, 50), (2**27, 31)):
        monkeypatch.setattr(images, "MAX_PIXELS", ours)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
        with pytest.raises(DataError, match=rf"^x \(more than {ours:,} pixels, the limit of an image: shrink it\)$"):
            decode("x", stream, None)


@pytest.mark.skipif(not os.access("/proc/kmsg", os.R_OK), reason="/proc/kmsg is not ours to read")
def test_a_file_that_has_nothing_to_be_read_yet_is_not_waited_for() -> None:
    with pytest.raises(DataError, match="it has nothing to be read yet"):
        decode("0.png", Path("/proc/kmsg"), 16)
    with pytest.raises(DataError, match="it has nothing to be read yet"), opened_hdf5(Path("/proc/kmsg")):
        pass
