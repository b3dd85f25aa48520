"""Regular files alone are opened."""

import os
import socket
from pathlib import Path

import pytest

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import open_handle, open_regular, read_bytes


def special(folder: Path) -> dict[str, Path]:
    """One of each that is no regular file."""
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("fifo")
    (folder / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "socket"))
    names = ("fifo", "folder", "link", "loop", "socket")
    return {name: folder / name for name in names} | {"device": Path("/dev/zero"), "NUL": Path("a\0b")}


SAID = {
    "fifo": "is a FIFO", "folder": "is a folder", "link": "is a FIFO", "loop": "Too many levels of symbolic links",
    "socket": "is a socket", "device": "is a device", "NUL": "is not a file name",
}  # fmt: skip


@pytest.mark.parametrize("kind", SAID)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_RDWR | os.O_CREAT])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str, flags: int) -> None:
    file = special(tmp_path)[kind]
    with pytest.raises(DataError, match=SAID[kind]) as refusal:
        open_handle(file, flags)
    assert kind == "NUL" or str(refusal.value).startswith(f"{file} ")


def test_links_to_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", 3) == b"abc"
    with pytest.raises(DataError, match="too large: 3 bytes, and at most 2"):
        read_bytes(tmp_path / "link", 2)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_a_file_that_says_it_is_empty_is_bounded_too() -> None:
    with pytest.raises(DataError, match="too large"):
        read_bytes(Path("/proc/self/stat"), 3)


@pytest.mark.parametrize("file", [Path("/proc/self/mem"), Path("/proc/kmsg")], ids=str)
def test_a_file_that_opens_and_cannot_be_read(file: Path) -> None:
    """An error of reading, as of a broken disk, and a file that has nothing to be read yet."""
    if not os.access(file, os.R_OK):
        pytest.skip(f"{file} is not ours to read")
    with pytest.raises(DataError, match=f"{file} cannot be read: ") as refusal, open_regular(file) as stream:
        stream.seek(0, os.SEEK_END) if file.name == "mem" else stream.read(1)
    assert "\n" not in str(refusal.value)
