"""dataset=folder with an image, a folder, a name or a split file that is another."""

import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data.folders import SPLITS, tree
from tests.fuzz.harness import Case, Fuzzer
from tests.fuzz.imports import altered
from tests.fuzz.runs import TINY
from tests.fuzz.values import FILES, ODD, PLACES, mutations, put

_KEYS = ("dataset=folder", "dataset.path=run", "dataset.image_size=16")
TRAIN = ("train", *TINY, "backbone.filters=3", *_KEYS)
SKIP = (*TRAIN, "dataset.skip_damaged=true")
VERIFY = ("data", "verify", "folder", "run", "image_size=16")
LIST = ("data", "path=run")


def make(_fuzzer: Fuzzer, place: Path) -> dict[str, Path]:
    """Ten classes of three images, and the bytes of one image in every format."""
    formats = place / "formats"
    formats.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (18, 18, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"):
        Image.fromarray(pixels).save(formats / f"image.{suffix}")
    return {"folder": tree(place / "folder", 3), "formats": formats}


def _image(content: bytes, suffix: str = "png") -> Callable[[Path], object]:
    return lambda work: put(work / f"run/c00/0.{suffix}", content)


def images(bases: dict[str, Path]) -> Iterator[Case]:
    """An image as everything that a file can be, in every format with bytes changed and cut off, and crafted."""
    for kind, make_it in FILES.items():
        for command in (TRAIN, SKIP, VERIFY):
            yield Case(f"0.png: {kind}", command, lambda work, m=make_it: m(work / "run/c00/0.png"), bases["folder"])
    for file in sorted(bases["formats"].iterdir()):
        content, suffix = file.read_bytes(), file.suffix[1:]
        for seed in range(60):
            changed = altered(content, seed)
            for command in (TRAIN, SKIP):
                yield Case(f"{suffix}, bytes changed by {seed}", command, _image(changed, suffix), bases["folder"])
        for part in (0.05, 0.3, 0.9):
            cut = content[: int(part * len(content))]
            yield Case(f"{suffix}, {part} of it", TRAIN, _image(cut, suffix), bases["folder"])
        for other in ("png", "jpg", "tiff", "ppm"):
            yield Case(f"{suffix} named {other}", TRAIN, _image(content, other), bases["folder"])
    for kind, content in {**_crafted(), **_modes()}.items():
        for command in (TRAIN, SKIP, VERIFY):
            yield Case(f"0.png: {kind}", command, _image(content), bases["folder"])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, data: bytes, *more: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header), *more, _chunk(b"IDAT", data), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _crafted() -> dict[str, bytes]:
    zeros, bomb = zlib.compress(bytes(18 * 55)), zlib.compress(bytes(2**27))
    return {
        "2^31 x 2^31": _png(2**31 - 1, 2**31 - 1, zeros),
        "0 x 0": _png(0, 0, zeros),
        "10,000 x 10,000": _png(10_000, 10_000, zlib.compress(bytes(10_000 * 30_001))),
        "30,000 x 30,000": _png(30_000, 30_000, zeros),
        "100,000 x 1": _png(100_000, 1, zlib.compress(bytes(300_001))),
        "1 x 100,000": _png(1, 100_000, zlib.compress(bytes(400_000))),
        "1 x 1": _png(1, 1, zlib.compress(bytes(4))),
        "data of 128 MiB": _png(18, 18, bomb),
        "a text of 128 MiB": _png(18, 18, zeros, _chunk(b"zTXt", b"a\0\0" + bomb)),
        "an ICC profile of 128 MiB": _png(18, 18, zeros, _chunk(b"iCCP", b"a\0\0" + bomb)),
        "1,000 texts": _png(18, 18, zeros, *[_chunk(b"tEXt", b"a\0" + b"x" * 1000)] * 1000),
        "EXIF of zeros": _png(18, 18, zeros, _chunk(b"eXIf", bytes(100))),
        "EXIF in a circle": _png(18, 18, zeros, _chunk(b"eXIf", _exif(0x8769, 4, 8))),
        "EXIF, orientation 99": _png(18, 18, zeros, _chunk(b"eXIf", _exif(0x0112, 3, 99))),
        "EXIF, orientation a text": _png(18, 18, zeros, _chunk(b"eXIf", _exif(0x0112, 2, 0x41414141))),
        "a palette too short": _png(18, 18, zlib.compress(b"\xff" * 19 * 18), _chunk(b"PLTE", b"abc"), colour=3),
        "no palette": _png(18, 18, zlib.compress(bytes(19 * 18)), colour=3),
        "frames without end": _png(18, 18, zeros, _chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
        "a size below 0": _png(18, 18, zeros, struct.pack(">i", -5) + b"tEXtxxxxx"),
        "PPM of 10^9 pixels": b"P6 1000000000 1 255\n",
        "PPM of 9,999 digits": b"P6 " + b"9" * 9999 + b" 1 255\n",
        "PFM": b"Pf 2 2 -1.0\n" + struct.pack("<4f", float("nan"), 1, 2, 3),
        "PGM in words": b"P2 2 2 255\n1 2 x 4\n",
        "XBM": b"#define a_width 99999\n#define a_height 99999\nstatic char a[] = {0x00};",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(touch HARM) run\n",
        "DDS": b"DDS " + struct.pack("<31I", 124, 0x1007, 2**16, 2**16, *[0] * 27),
        "ICO of itself": b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, 2**31 - 1, 6),
    }


def _exif(tag: int, kind: int, value: int) -> bytes:
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, tag, kind, 1, value) + bytes(4)


def _modes() -> dict[str, bytes]:
    """An image of every mode, in the formats that take it."""
    found = {}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"):
        for form in ("PNG", "TIFF", "JPEG", "WEBP", "GIF", "ICO", "TGA", "PCX", "JPEG2000", "IM", "SGI"):
            out = io.BytesIO()
            try:
                Image.new(mode, (18, 18), 5 if mode not in ("RGB",) else (1, 2, 3)).save(out, form)
            except (OSError, ValueError, TypeError, KeyError, SystemError):
                continue
            found[f"{mode} as {form}"] = out.getvalue()
    return found


_NAMES = [
    b"\xff.png", b"\xc3\xa9.PNG", b"e\xcc\x81.png", b".png", b"._0.png", b"a\nb.png", b"a\x1b[31m.png",
    b"x" * 251 + b".png", b"=1.png", b"-.png", b"0.png.png",
    b"0.PnG", b"0.heic", b"0.svg", b"0.jpg", b"0.tif", b"Thumbs.db", b"0.png~",
]  # fmt: skip


def names(bases: dict[str, Path]) -> Iterator[Case]:
    """Other names of an image, of a class and of the folder, and other things than a folder in their places."""
    for name in _NAMES:
        for command in (TRAIN, VERIFY, LIST):
            yield Case(f"an image {name[:20]!r}", command, _renamed(b"c00/0.png", b"c00/" + name), bases["folder"])
            yield Case(f"a class {name[:20]!r}", command, _renamed(b"c00", name), bases["folder"])
            yield Case(f"one more {name[:20]!r}", command, _link(b"c01/0.png", b"c00/" + name), bases["folder"])
    for target in (".", "..", "../run", "/", "/proc", "/dev", "c01", "c05", "c00"):
        for command in (TRAIN, VERIFY, LIST):
            prepare = _replaced("c00", lambda path, target=target: path.symlink_to(target))
            yield Case(f"a class that links to {target}", command, prepare, bases["folder"])
    for kind, make_it in PLACES.items():
        for command in (TRAIN, VERIFY, LIST):
            yield Case(f"a class: {kind}", command, _replaced("c00", make_it), bases["folder"])
            yield Case(f"the folder: {kind}", command, _replaced("", make_it), bases["folder"])


def _renamed(name: bytes, new: bytes) -> Callable[[Path], object]:
    def prepare(work: Path) -> None:
        root = bytes(work / "run") + b"/"
        Path((root + name).decode("utf-8", "surrogateescape")).rename((root + new).decode("utf-8", "surrogateescape"))

    return prepare


def _link(name: bytes, new: bytes) -> Callable[[Path], object]:
    def prepare(work: Path) -> None:
        path = Path((bytes(work / "run") + b"/" + new).decode("utf-8", "surrogateescape"))
        path.unlink(missing_ok=True)
        path.symlink_to(work / "run" / name.decode())

    return prepare


def _replaced(name: str, make_it: Callable[[Path], object]) -> Callable[[Path], object]:
    def prepare(work: Path) -> None:
        place = work / "run" / name
        place.rename(work / "aside")
        make_it(place)

    return prepare


_ENTRIES = [
    "c00", "./c01", "c00/../c01", "../run/c01", "/etc", "", ".", "..", " c01", "c01 ", "C01", "c01/", "c01//", "c10",
    "*", "c01\0", "\ud800", "c" * 5000, "split.json", "c00/0.png", "~", "$HOME", "c01\n", 5, None, [], {}, ["c01"],
    True, 1.5,
]  # fmt: skip
_LINES = [
    "c00", "c00,", ",train", ",", "c00,train,x", "c00,other", "c00,TRAIN", "c00,val", "c01,train", "../run/c01,train",
    '"c00', '"c00"x,train', "c\0,train", "c10,train", "1" * 200_000 + ",train", "c00," + "t" * 200_000, "\ud800,train",
    "c00;train", "c00\ttrain", "/etc,train", ".,train", "=c00,train", "#c00,train", "c00,train\r\r", "c00, train ",
]  # fmt: skip


def split_files(bases: dict[str, Path]) -> Iterator[Case]:
    """split.json as everything that a file can be, its values as others, and split.csv with other lines."""
    for kind, make_it in FILES.items():
        for command in (TRAIN, VERIFY, LIST):
            yield Case(
                f"split.json: {kind}", command, lambda work, m=make_it: m(work / "run/split.json"), bases["folder"]
            )
    values: list[Any] = [*ODD, *[[entry] for entry in _ENTRIES], [*SPLITS["train"], *SPLITS["val"]], SPLITS]
    for what, value in mutations(SPLITS, 2, values) + [(f"also {v!a}"[:30], SPLITS | {"more": v}) for v in values[:9]]:
        text = json.dumps(value)
        yield Case(f"split.json: {what}", TRAIN, lambda work, t=text: put(work / "run/split.json", t), bases["folder"])
    lines = ["class,split", *[f"{name},{split}" for split, found in SPLITS.items() for name in found]]
    draw = random.Random(0)
    for line in _LINES:
        for at in (0, 1, len(lines) - 1):
            text = "\n".join([*lines[:at], line, *lines[at + 1 :]]) + draw.choice(["", "\n", "\r\n\r\n"])
            for command in (TRAIN, LIST):
                yield Case(f"split.csv, line {at}: {line[:30]!a}", command, _as_csv(text), bases["folder"])


def _as_csv(text: str) -> Callable[[Path], object]:
    def prepare(work: Path) -> None:
        (work / "run/split.json").unlink()
        put(work / "run/split.csv", text)

    return prepare
