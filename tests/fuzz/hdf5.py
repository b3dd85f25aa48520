"""What can stand in an HDF5 file where a dataset of images is expected, each made in a group under a name."""

from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

_IMAGES = (2, 84, 84, 3)


def _filled(value: Any, **keywords: Any) -> Callable[[h5py.Group, str], object]:
    return lambda group, name: group.create_dataset(name, data=value, **keywords)


def _empty(shape: Any, dtype: Any, **keywords: Any) -> Callable[[h5py.Group, str], object]:
    return lambda group, name: group.create_dataset(name, shape, dtype, **keywords)


def _at(link: Any) -> Callable[[h5py.Group, str], None]:
    def make(group: h5py.Group, name: str) -> None:
        group[name] = link

    return make


def _circle(group: h5py.Group, name: str) -> None:
    """Two links that lead to one another."""
    group[name] = h5py.SoftLink(f"{group.name}/other")
    group["other"] = h5py.SoftLink(f"{group.name}/{name}")


def _own_parent(group: h5py.Group, name: str) -> None:
    """A hard link from a group to itself."""
    group[name] = group


def _deep(group: h5py.Group, name: str) -> None:
    for _ in range(2000):
        group = group.create_group(name)


def _virtual(group: h5py.Group, name: str) -> None:
    layout = h5py.VirtualLayout(_IMAGES, np.uint8)
    layout[0] = h5py.VirtualSource("/dev/zero", "x", _IMAGES[1:])
    group.create_virtual_dataset(name, layout)


def _null(group: h5py.Group, name: str) -> None:
    group[name] = h5py.Empty(np.uint8)


def _type(group: h5py.Group, name: str) -> None:
    group[name] = np.dtype(np.uint8)


def _other_names(group: h5py.Group, name: str) -> None:
    for other in (b"\xe9", b"a\nb", b"x" * 5000, b"\xff\xfe"):
        group.create_group(other)  # pyright: ignore[reportArgumentType]
    group[name] = 5


def _variable(values: list[Any], dtype: Any) -> Callable[[h5py.Group, str], None]:
    def make(group: h5py.Group, name: str) -> None:
        made = group.create_dataset(name, (len(values),), dtype)
        for at, value in enumerate(values):
            made[at] = value

    return make


_BYTES = h5py.vlen_dtype(np.uint8)

OBJECTS: dict[str, Callable[[h5py.Group, str], object]] = {
    "nothing": lambda group, name: None,
    "a group": lambda group, name: group.create_group(name),
    "2,000 groups in one another": _deep,
    "a link to nothing": _at(h5py.SoftLink("/nowhere")),
    "a link to the root": _at(h5py.SoftLink("/")),
    "links in a circle": _circle,
    "a group in itself": _own_parent,
    "a link to another file": _at(h5py.ExternalLink("/dev/zero", "/x")),
    "a link to a text file": _at(h5py.ExternalLink("/etc/hostname", "/x")),
    "a number": _filled(5),
    "a text": _filled("x"),
    "texts": _filled(["x", "y"]),
    "texts of fixed length": _filled(np.array([b"x", b"y"])),
    "nothing of a type": _null,
    "a type": _type,
    "names that are no text": _other_names,
    "floats": _filled(np.zeros(_IMAGES, np.float32)),
    "signed": _filled(np.zeros(_IMAGES, np.int8)),
    "16 bits": _filled(np.zeros(_IMAGES, np.uint16)),
    "truth values": _filled(np.zeros(_IMAGES, bool)),
    "complex": _filled(np.zeros(3, np.complex64)),
    "records": _filled(np.zeros(2, [("a", "u1")])),
    "an array type": _empty((2,), np.dtype((np.uint8, (84, 84, 3)))),
    "references": _empty((2,), h5py.ref_dtype),
    "an enumeration": _empty(_IMAGES, h5py.enum_dtype({"a": 1}, np.uint8)),
    "opaque": _empty((2,), np.dtype("V8")),
    "other images": _filled(np.zeros((2, 84, 84), np.uint8)),
    "one dimension": _filled(np.zeros(10, np.uint8)),
    "no images": _empty((0, 84, 84, 3), np.uint8),
    "2^40 images": _empty((2**40, 84, 84, 3), np.uint8, chunks=(1, 84, 84, 3)),
    "2^40 images of 32 x 32": _empty((2**40, 32, 32, 3), np.uint8, chunks=(1, 32, 32, 3)),
    "2^40 strokes": _empty((2**40, 105, 105), np.uint8, chunks=(1, 105, 105)),
    "2^20 images that are nowhere": _empty((2**20, 84, 84, 3), np.uint8, chunks=(1, 84, 84, 3)),
    "chunks of 1 GiB": _empty((50_000, 84, 84, 3), np.uint8, chunks=(50_000, 84, 84, 3), compression=1),
    "in another file": _empty(_IMAGES, np.uint8, external=[("/dev/zero", 0, 10**6)]),
    "of other datasets": _virtual,
    "bytes that are no image": _variable([np.zeros(5, np.uint8)], _BYTES),
    "bytes of nothing": _variable([np.zeros(0, np.uint8)], _BYTES),
    "bytes never written": _empty((2,), _BYTES),
    "2^40 times bytes": _empty((2**40,), _BYTES, chunks=(1,)),
    "bytes in two dimensions": _empty((2, 2), _BYTES),
    "numbers of varying length": _variable([np.zeros(5)], h5py.vlen_dtype(np.float64)),
    "with fill value and filter": _empty(_IMAGES, np.uint8, chunks=True, compression="lzf", fillvalue=7, shuffle=True),
}
