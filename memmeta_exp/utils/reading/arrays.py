"""Reads arrays from .npy files, zip archives of them (.npz) and archives written by torch.save.

Sizes stated in headers and archive directories are compared with the size of the file, or with what the caller expects,
before memory is allocated.
"""

import io
import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO, BinaryIO

import numpy as np

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading.files import open_regular

_HEADER_LIMIT = 2**16  # bytes
_BROKEN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, LookupError,
    NotImplementedError, RuntimeError, ArithmeticError, MemoryError, TypeError,
)  # fmt: skip

Header = tuple[tuple[int, ...], bool, np.dtype]


def npy_header(stream: IO[bytes]) -> Header:
    """(shape, Fortran order, dtype) of the .npy file at the start of `stream`. Reads the header only. Raises ValueError
    if there is none."""
    prefix = stream.read(8)
    width = 2 if prefix[6:7] == b"\x01" else 4
    length = stream.read(width)
    if not prefix.startswith(b"\x93NUMPY") or len(length) < width:
        raise ValueError("not a NumPy array")
    if int.from_bytes(length, "little") > _HEADER_LIMIT:
        raise ValueError(f"a header of {int.from_bytes(length, 'little')} bytes")
    header = io.BytesIO(length + stream.read(int.from_bytes(length, "little")))
    read = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(header)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError):
        raise ValueError("an invalid array header") from None
    if any(not 0 <= n < 2**62 for n in shape):
        raise ValueError(f"the shape {shape}")
    return shape, fortran, dtype


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turns what a damaged archive or array raises in the block into one DataError that names `path`."""
    try:
        yield
    except DataError:
        raise
    except _BROKEN as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DataError(f"{path} is damaged ({(str(error) or type(error).__name__).splitlines()[0]})") from None


@contextmanager
def opened_zip(path: Path, stored: bool = False) -> Iterator[zipfile.ZipFile]:
    """The zip archive at `path`. stored: its members must be uncompressed, so they cannot be larger than the file.

    Raises FileNotFoundError, and DataError, also for damage found within the block.
    """
    with open_regular(path) as stream, damage_named(path), zipfile.ZipFile(stream) as file:
        if stored:
            require_stored(file, os.fstat(stream.fileno()).st_size)
        yield file


def require_stored(file: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError unless all members of an archive of `size` bytes are uncompressed and fit in it."""
    members = file.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size for info in members):
        raise ValueError("it is compressed, which is not expected here")
    if sum(info.file_size for info in members) > size:
        raise ValueError("its members are larger than the file")


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an uncompressed .npz file, by name. Raises FileNotFoundError and DataError."""
    with opened_zip(path, stored=True) as file:
        found = {}
        for info in file.infolist():
            with file.open(info) as member:
                shape, fortran, dtype = npy_header(member)
                content = member.read()
            if dtype.hasobject or len(content) != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{info.filename} is {dtype} {shape} in {len(content)} bytes")
            array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
            found[info.filename.removesuffix(".npy")] = array.copy()
        return found


def archive_of_tensors(stream: BinaryIO, path: Path) -> None:
    """Raises DataError unless `stream` is an archive of torch.save that cannot allocate more than its own size. Leaves
    the stream at its start. path: for messages."""
    from memmeta_exp.utils.reading.pickled import scan

    stream.seek(0)
    with damage_named(path), zipfile.ZipFile(stream) as file:
        if any(info.filename.endswith("/constants.pkl") for info in file.infolist()):
            raise ValueError("it is a TorchScript archive, which is not expected here")
        require_stored(file, stream.seek(0, os.SEEK_END))
        pickles = [info for info in file.infolist() if info.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it has {len(pickles)} files data.pkl, expected one")
        names = scan(io.BytesIO(file.read(pickles[0])), pickles[0].file_size)
        sized = [
            name for name in names if name.endswith((".bytearray", "Tensor"))
        ]  # they allocate a size they are given
        if sized:
            raise ValueError(f"it calls {sized[0]}, which is not expected here")
    stream.seek(0)
