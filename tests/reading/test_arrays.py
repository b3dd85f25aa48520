"""Arrays and archives that say they are larger than they are."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading.arrays import archive_of_tensors, npy_header, read_npz


def npy(header: str | None = None, length: int | None = None, version: int = 1) -> bytes:
    text = (header or "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }").encode()
    size = (len(text) if length is None else length).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + b"abc"


def test_a_header_is_read_and_no_more() -> None:
    stream = io.BytesIO(npy())
    assert npy_header(stream) == ((3,), False, np.dtype(np.uint8))
    assert stream.read() == b"abc"


HEADERS = {
    "nothing": b"",
    "another file": b"PNG" * 10,
    "cut": npy()[:30],
    "a header of 4 GB": npy(length=2**32 - 1, version=2),
    "no literal": npy("import os"),
    "a negative shape": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }"),
    "a shape beyond 64 bits": npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**80},), }}"),
    "brackets": npy("(" * 5000),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_what_is_no_header_is_refused(tmp_path: Path, kind: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", HEADERS[kind])
    with pytest.raises(DataError, match=r"a\.npz is damaged \(.+\)$"):
        read_npz(tmp_path / "a.npz")


def test_an_npz_is_read_as_numpy_reads_it(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"a": np.asfortranarray(np.arange(6).reshape(2, 3)), "b": np.array("x"), "c": np.zeros(0)}
    np.savez(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2**24, np.uint8))
    with pytest.raises(DataError, match="it is compressed"):
        read_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as file:
        file.writestr("a.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,), }"))
    with pytest.raises(DataError, match="in 3 bytes"):
        read_npz(tmp_path / "b.npz")


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="is object"):
        read_npz(tmp_path / "a.npz")


def saved(**members: bytes) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(f"archive/{name}.pkl", content)
    return stream


PICKLES = {
    "bytes of 1.9 GB": (b"\x80\x02cbuiltins\nbytearray\nJ\0\0\0\x70\x85R.", "calls builtins.bytearray"),
    "a tensor by its size": (b"\x80\x02ctorch\nFloatTensor\nJ\0\0\0\x70\x85R.", "calls torch.FloatTensor"),
    "a text of 2 GB": (b"\x80\x02X\xff\xff\xff\x7fx.", "beyond the end of the file"),
    "nothing": (b"", "is cut off"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_archives_of_tensors_that_ask_for_more_than_they_hold(kind: str) -> None:
    content, said = PICKLES[kind]
    with pytest.raises(DataError, match=said):
        archive_of_tensors(saved(data=content), Path("a.pt"))
    with pytest.raises(DataError, match=r"0 files data\.pkl"):
        archive_of_tensors(saved(other=content), Path("a.pt"))


def test_what_torch_saves_is_such_an_archive() -> None:
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(3), "b": torch.nn.Linear(2, 2).state_dict()}, stream)
    archive_of_tensors(stream, Path("a.pt"))
    assert torch.load(stream, weights_only=True).keys() == {"a", "b"}
