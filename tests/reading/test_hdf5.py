"""HDF5 files whose datasets are something else than images."""

import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading.hdf5 import blocks, encoded_in, images_in, opened_hdf5

IMAGES = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)


def external(file: h5py.File) -> None:
    file.create_dataset("x", shape=(5, 2, 2, 3), dtype=np.uint8, external=[("/etc/hostname", 0, 60)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(5, 2, 2, 3), dtype=np.uint8)
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(5, 2, 2, 3))
    file.create_virtual_dataset("x", layout)


def loop(file: h5py.File) -> None:
    file["x"] = h5py.SoftLink("/y")
    file["y"] = h5py.SoftLink("/x")


MADE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "nothing": (lambda f: None, "no dataset 'x'"),
    "a group": (lambda f: f.create_group("x"), "no dataset 'x'"),
    "a scalar": (lambda f: f.create_dataset("x", data=5), r"'x' is int64 \(\), expected uint8"),
    "null": (lambda f: f.create_dataset("x", dtype=np.uint8, data=h5py.Empty("u1")), "damaged"),
    "texts": (lambda f: f.create_dataset("x", data=["a", "b"]), "expected uint8"),
    "floats": (lambda f: f.create_dataset("x", data=IMAGES / 255), r"'x' is float64 \(5, 2, 2, 3\), expected uint8"),
    "another shape": (lambda f: f.create_dataset("x", data=IMAGES[:, :1]), r"expected uint8 \(N, 2, 2, 3\)"),
    "links in a circle": (loop, "'x' is a link"),
    "a link to another file": (lambda f: f.__setitem__("x", h5py.ExternalLink("other.h5", "/x")), "'x' is a link"),
    "bytes of another file": (external, "'/x' is kept in another file"),
    "a dataset of other files": (virtual, "'/x' is kept in another file"),
    "a chunk of 3 GB": (
        lambda f: f.create_dataset("x", (2**28, 2, 2, 3), np.uint8, chunks=(2**28, 2, 2, 3), compression="gzip"),
        "'/x' has chunks of more than",
    ),
    "a type": (lambda f: f.__setitem__("x", np.dtype(np.uint8)), "no dataset 'x'"),
}


@pytest.mark.parametrize("kind", MADE)
def test_what_holds_no_images_is_refused_before_it_is_read(tmp_path: Path, kind: str) -> None:
    make, said = MADE[kind]
    with h5py.File(tmp_path / "a.h5", "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(file)
    with pytest.raises(DataError, match=said) as refusal, opened_hdf5(tmp_path / "a.h5") as file:
        images_in(file, "x", (2, 2, 3))
    assert str(refusal.value).startswith(f"{tmp_path / 'a.h5'} is damaged (")


@pytest.mark.parametrize("name", ["", ".", "x/y", "\0", "no\0ne", "..", "x" * 5000])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=IMAGES)
    with pytest.raises(DataError, match="no dataset"), opened_hdf5(tmp_path / "a.h5") as file:
        images_in(file, name, (2, 2, 3))


def test_images_and_image_files_are_read_in_blocks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("group/x", data=IMAGES, chunks=(1, 2, 2, 3), compression="gzip")
        encoded = file.create_dataset("y", (2,), dtype=h5py.special_dtype(vlen=np.uint8))
        encoded[0], encoded[1] = np.arange(3, dtype=np.uint8), np.arange(4, dtype=np.uint8)
    with opened_hdf5(tmp_path / "a.h5") as file:
        assert np.array_equal(np.concatenate(list(blocks(images_in(file, "group/x", (2, 2, 3))))), IMAGES)
        assert [len(block[0]) for block in blocks(encoded_in(file, "y"))] == [3, 4]


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(200)])
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(DataError, match="is damaged"), opened_hdf5(tmp_path / "a.h5"):
        pass
