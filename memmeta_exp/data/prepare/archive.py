"""Unpacks archives without trusting them: only regular files, only below the target folder, with bounded size."""

import bz2
import errno
import gzip
import io
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO, NoReturn

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import open_regular

GIB = 2**30
MAX_BYTES = 64 * GIB
MAX_FILES = 2_000_000
MAX_RATIO = 200  # unpacked / packed bytes; images and pickles of images compress to a third at best
_FREE_RATIO_BYTES = 2**24  # up to this size the ratio is not checked
_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BLOCK = 2**20
_READ = 2**24  # most bytes per read of an archive's structure
_PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open, b"\x5d\0\0": lzma.open}
_BROKEN = (  # errors that the libraries raise for damaged archives
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, LookupError,
    NotImplementedError, RuntimeError, ArithmeticError, MemoryError,
)  # fmt: skip

Member = tuple[str, IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether the suffix of `path` is that of an archive."""
    return path.name.lower().endswith(_SUFFIXES)


def extract(archive: Path, into: Path, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
    """Unpacks every file of a zip or tar archive below the folder `into`.

    Raises DataError, before the member is written, for an absolute path, a path with "..", a link or special file, an
    encrypted or repeated member, or more than `max_files` files. Also raises it for more than `max_bytes` bytes, or
    MAX_RATIO times the archive's bytes, in total; unpacked bytes are counted, not declared ones.
    """
    budget = _Budget(archive, max_bytes, max_files)
    try:
        with _opened(archive) as members:
            for name, content in members:
                _write(content, _target(archive, into, name), budget)
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"{archive} is damaged or no archive ({_first_line(error)})") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(f"{archive} has a member whose name is too long; it was not unpacked further") from None
        if error.errno in (None, errno.EINVAL):  # gzip and bzip2 raise plain ones for damage, zip seeks to nowhere
            raise DataError(f"{archive} is damaged ({_first_line(error)})") from None
        raise


class _Budget:
    """The files and bytes that may still be written."""

    def __init__(self, archive: Path, max_bytes: int, max_files: int) -> None:
        self.archive, self.files = archive, max_files
        self.bytes = min(max_bytes, max(_FREE_RATIO_BYTES, MAX_RATIO * archive.stat().st_size))

    def take_file(self) -> None:
        self.files -= 1
        if self.files < 0:
            raise DataError(f"{self.archive} holds too many files: it was not unpacked further")

    def take_bytes(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise DataError(f"{self.archive} unpacks to far more than it should: it was not unpacked further")


@contextmanager
def _opened(archive: Path) -> Iterator[Iterator[Member]]:
    with open_regular(archive) as stream:
        if zipfile.is_zipfile(stream):
            with zipfile.ZipFile(stream) as file:
                yield _zip_members(archive, file)
        else:
            with tarfile.open(fileobj=_Sparing(_unpacking(stream)), mode="r:") as file:
                yield _tar_members(archive, file)


def _unpacking(stream: BinaryIO) -> IO[bytes]:
    """A stream that decompresses `stream` while reading; `stream` itself if it is not compressed."""
    stream.seek(0)
    start = stream.read(8)
    stream.seek(0)
    return next((opened(stream) for mark, opened in _PACKED.items() if start.startswith(mark)), stream)


class _Sparing(io.BufferedIOBase):
    """A stream that allows at most _READ bytes per read, since a tar file declares the length of its extended headers
    itself."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, count: int | None = -1, /) -> bytes:
        if count is None or not 0 <= count <= _READ:
            raise ValueError(f"a header of more than {_READ} bytes")
        return self._stream.read(count)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _zip_members(archive: Path, file: zipfile.ZipFile) -> Iterator[Member]:
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            _refuse(archive, info.filename, "is a link or a special file")
        if info.flag_bits & 1:
            _refuse(archive, info.filename, "is encrypted")
        if not info.is_dir():
            with file.open(info) as content:
                yield info.filename, content


def _tar_members(archive: Path, file: tarfile.TarFile) -> Iterator[Member]:
    for info in file:
        if info.isdir():
            continue
        content = file.extractfile(info) if info.isreg() else None
        if content is None or info.issparse():
            _refuse(archive, info.name, "is a link or a special file")
        yield info.name, content


def _target(archive: Path, into: Path, name: str) -> Path:
    path = PurePosixPath(name)
    windows = PureWindowsPath(name)
    if path.is_absolute() or windows.drive or windows.root or "\\" in name or "\0" in name:
        _refuse(archive, name, "has an absolute or foreign path")
    if ".." in path.parts or not path.parts:
        _refuse(archive, name, "leads out of the folder")
    return into / path


def _write(content: IO[bytes], target: Path, budget: _Budget) -> None:
    budget.take_file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while block := content.read(_BLOCK):
                budget.take_bytes(len(block))
                file.write(block)
    except (FileExistsError, NotADirectoryError):
        _refuse(budget.archive, target.name, "is there twice, or lies in a file")
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _refuse(budget.archive, f"{target.name[:40]}...", "has too long a name")


def _refuse(archive: Path, name: str, why: str) -> NoReturn:
    raise DataError(f"{archive}: the member {name!r} {why}; it was not unpacked further")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def unpacked(path: Path, work: Path, names: tuple[str, ...]) -> Path:
    """The folder with the content of `path`.

    This is `work` with the content of an archive `path`, or the folder `path` itself. If the folder contains archives
    of these `names`, it is `work` with their contents and links to the other files.
    """
    if path.is_file():
        extract(path, work)
        return work
    archives = [path / name for name in names if (path / name).is_file()]
    if not archives:
        return path
    for archive in archives:
        extract(archive, work)
    for entry in path.iterdir():
        if entry not in archives and not (work / entry.name).exists():
            (work / entry.name).symlink_to(entry.resolve())
    return work


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of `folder`, or of its nearest existing parent."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
