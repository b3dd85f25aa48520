"""Archives that mean harm."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from memmeta_exp.data.prepare.archive import extract, unpacked
from memmeta_exp.utils.errors import DataError


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:  # pyright: ignore[reportArgumentType, reportCallIssue]
        for info, content in members:
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, *members: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for info, content in members:
            file.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def plain(name: str, content: bytes = b"content") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def special(kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo("member")
    info.type, info.linkname = kind, target
    return info, b""


def in_zip(name: str, mode: int = 0, content: bytes = b"content") -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info, content


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "zip"])
def test_plain_files_arrive_in_their_folders(tmp_path: Path, suffix: str):
    if suffix == "zip":
        archive = zipped(
            tmp_path / "a.zip", in_zip("one/"), in_zip("one/two/file"), in_zip("top", stat.S_IFREG | 0o4755)
        )
    else:
        folder = tarfile.TarInfo("one")
        folder.type = tarfile.DIRTYPE
        mode = "w" if suffix == "tar" else "w:gz"
        archive = tar(tmp_path / f"a.{suffix}", (folder, b""), plain("one/two/file"), plain("./top"), mode=mode)
    extract(archive, tmp_path / "out")
    files = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert files == ["one/two/file", "top"]
    assert not (tmp_path / "out" / "top").stat().st_mode & 0o7111, "no permission comes from an archive"


HARM: dict[str, Callable[[Path], Path]] = {
    "absolute": lambda p: tar(p / "a.tar.gz", plain("/tmp/memmeta-harm")),
    "parent": lambda p: tar(p / "a.tar.gz", plain("../harm")),
    "hidden parent": lambda p: tar(p / "a.tar.gz", plain("one/../../harm")),
    "symlink": lambda p: tar(p / "a.tar.gz", special(tarfile.SYMTYPE, "/etc/passwd")),
    "hard link": lambda p: tar(p / "a.tar.gz", special(tarfile.LNKTYPE, "/etc/passwd")),
    "device": lambda p: tar(p / "a.tar.gz", special(tarfile.CHRTYPE)),
    "pipe": lambda p: tar(p / "a.tar.gz", special(tarfile.FIFOTYPE)),
    "twice": lambda p: tar(p / "a.tar.gz", plain("one"), plain("one")),
    "long name": lambda p: tar(p / "a.tar.gz", plain("n" * 300)),
    "deep": lambda p: tar(p / "a.tar.gz", plain("n/" * 3000 + "x")),
    "in a file": lambda p: tar(p / "a.tar.gz", plain("one"), plain("one/two")),
    "zip absolute": lambda p: zipped(p / "a.zip", in_zip("/tmp/memmeta-harm")),
    "zip parent": lambda p: zipped(p / "a.zip", in_zip("../harm")),
    "zip drive": lambda p: zipped(p / "a.zip", in_zip("C:/harm")),
    "zip backslash": lambda p: zipped(p / "a.zip", in_zip("..\\harm")),
    "zip symlink": lambda p: zipped(p / "a.zip", in_zip("link", stat.S_IFLNK | 0o777, b"/etc/passwd")),
    "zip device": lambda p: zipped(p / "a.zip", in_zip("device", stat.S_IFCHR | 0o666)),
}


@pytest.mark.parametrize("harm", HARM)
def test_harm_is_refused(tmp_path: Path, harm: str):
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = HARM[harm](outside)
    with pytest.raises(DataError, match=r"the member .* not unpacked further") as error:
        extract(archive, tmp_path / "work" / "out")
    assert "\n" not in str(error.value)
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p != archive]
    assert not [p for p in written if p != tmp_path / "work" / "out" / "one"]
    assert not Path("/tmp/memmeta-harm").exists()


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_bomb_is_stopped_by_what_it_unpacks_to(tmp_path: Path, kind: str):
    bomb = bytes(2**25)
    path = tmp_path / f"a.{kind}"
    archive = zipped(path, in_zip("zeros", 0, bomb)) if kind == "zip" else tar(path, plain("zeros", bomb))
    with pytest.raises(DataError, match="far more than it should"):
        extract(archive, tmp_path / "out")
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file()) < 2**24 + 1


def test_limits_of_bytes_and_files(tmp_path: Path):
    archive = tar(tmp_path / "a.tar", *(plain(str(i)) for i in range(5)), mode="w")
    with pytest.raises(DataError, match="too many files"):
        extract(archive, tmp_path / "out", max_files=4)
    with pytest.raises(DataError, match="far more"):
        extract(archive, tmp_path / "out2", max_bytes=20)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip", "a.tar"])
@pytest.mark.parametrize("content", [b"", b"no archive at all", None])
def test_damage_is_said_in_one_line(tmp_path: Path, name: str, content: bytes | None):
    path = tmp_path / name
    if content is None:
        whole = zipped(path, in_zip("f")) if name == "a.zip" else tar(path, plain("f", bytes(20000)), mode="w:gz")
        content = whole.read_bytes()[: len(whole.read_bytes()) // 2]
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        extract(path, tmp_path / "out")


def test_known_archives_in_a_folder_are_unpacked_beside_its_files(tmp_path: Path):
    folder, work = tmp_path / "folder", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    tar(folder / "known.tar.gz", plain("inside"))
    tar(folder / "other.tar.gz", plain("elsewhere"))
    (folder / "list.csv").write_text("a")
    found = unpacked(folder, work, ("known.tar.gz", "absent.zip"))
    assert sorted(p.name for p in found.iterdir()) == ["inside", "list.csv", "other.tar.gz"]
    assert unpacked(folder, work, ("absent.zip",)) == folder


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("place", [30, 60, -40, -5])
def test_bytes_that_changed_are_refused_or_do_no_harm(tmp_path: Path, kind: int, place: int):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", kind) as file:
        file.writestr("name", bytes(range(256)) * 20)
    whole = bytearray((tmp_path / "a.zip").read_bytes())
    whole[place] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(whole)
    with suppress(DataError):
        extract(tmp_path / "a.zip", tmp_path / "out")
        assert [p.read_bytes() for p in (tmp_path / "out").iterdir()] == [bytes(range(256)) * 20]
