"""The cache of converted images: made by one process at a time, bounded, never taken from under a process."""

import logging
import os
import shutil
import threading
from pathlib import Path

import pytest

from memmeta_exp.data import aside, cache_contents, load_split
from memmeta_exp.data.cache_contents import entries, hold, tidy
from memmeta_exp.data.datasets import FolderConfig
from memmeta_exp.data.prepare import progress
from memmeta_exp.data.prepare.readers import images
from memmeta_exp.data.stored_datasets import folder_store
from memmeta_exp.utils.errors import ConfigError
from tests.data.folders import tree


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMMETA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "folders"


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return tree(tmp_path / "birds", 2)


def store(root: Path, size: int = 16) -> Path:
    """The store of a folder of images, which this process holds from now on."""
    return folder_store(FolderConfig(path=str(root), image_size=size)).folder


def released(folder: Path) -> None:
    """As if the process that holds a store had ended."""
    cache_contents._held.pop(folder / "index.json").close()


def test_the_store_longest_unused_makes_room(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (store(birds, size) for size in (16, 17, 18))
    for at, folder in enumerate((second, first, third)):
        os.utime(folder / "index.json", (at, at))
    assert [entry.path for entry in entries()] == [second, first, third]
    assert tidy() == []
    monkeypatch.setenv("MEMMETA_CACHE_GIB", str((entries()[1].size + entries()[2].size) / 2**30))
    assert tidy() == [], "all are in use"
    for folder in (first, second, third):
        released(folder)
    assert [entry.path for entry in tidy()] == [second]
    monkeypatch.setenv("MEMMETA_CACHE_GIB", "0")
    hold(first)
    assert [entry.path for entry in tidy()] == [third]
    fourth = store(birds, 20)
    assert [entry.path for entry in entries()] == [first, fourth], "what a conversion has made stays for its process"
    released(first)
    assert store(birds, 16).is_dir(), "made again"


def test_a_store_is_used_where_it_is_opened(birds: Path) -> None:
    folder = store(birds)
    os.utime(folder / "index.json", (5, 5))
    load_split(FolderConfig(path=str(birds), image_size=16), "val")
    assert entries()[0].last_used > 5
    assert entries()[0].in_use
    assert entries()[0].made_of == f"{birds}, images 3 x 16 x 16"
    released(folder)
    assert not entries()[0].in_use
    (folder / "val.npy").write_bytes(b"cut off")
    assert entries()[0].made_of == "damaged: rebuilt when it is needed"


@pytest.mark.parametrize("size", ["many", "-1", "nan", "inf"])
def test_a_limit_that_is_no_size_is_refused(birds: Path, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMMETA_CACHE_GIB", size)
    with pytest.raises(
        ConfigError, match=rf"^MEMMETA_CACHE_GIB={size} is not a size: use a number of GiB, such as 50$"
    ):
        store(birds)


def test_nothing_but_what_was_made_here_is_removed(birds: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMMETA_CACHE_GIB", "0")
    others = [cache.parent / "model-cafe", cache.parent / ".git-12345678", cache / "notes", cache / ".hidden-folder"]
    for other in others:
        other.mkdir(parents=True)
    away = shutil.copytree(birds, cache.parent.parent / "away")
    (cache / "0123456789abcdef").symlink_to(away)
    released(store(birds))
    tidy()
    assert all(other.is_dir() for other in others)
    assert (away / "split.json").is_file()


def test_what_killed_processes_left_is_removed_and_what_is_being_made_is_not(birds: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    with aside.work_folder(cache, "0123456789abcdef") as loop_status:
        dead = cache / ".0123456789abcdef-deadbeef"
        dead.mkdir()
        (cache / ".0123456789abcdef-deadbeef.lock").touch()
        arrays = cache.parent / ".glyphs.npz.x.partial"
        arrays.touch()
        os.utime(arrays, (5, 5))
        made = store(birds)
        assert loop_status.is_dir()
        assert sorted(p.name for p in cache.iterdir()) == sorted(
            [made.name, loop_status.name, loop_status.name + ".lock"]
        )
        assert not arrays.exists()
    assert list(cache.iterdir()) == [made]


def test_processes_that_need_a_store_at_once_make_it_once(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads: each opens lock files of its own, as processes do."""
    real, seen, together = images.decode, [], threading.Barrier(3)

    def counted(name: str, *arguments: object) -> object:
        seen.append(name)
        return real(name, *arguments)  # pyright: ignore[reportArgumentType]

    def convert() -> None:
        together.wait()
        found.append(store(birds))

    monkeypatch.setattr(images, "decode", counted)
    found: list[Path] = []
    threads = [threading.Thread(target=convert) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 3
    assert len(seen) == 20


def test_folders_put_in_one_place_at_once_leave_one_whole(tmp_path: Path) -> None:
    def put(content: str) -> None:
        for _ in range(50):
            with aside.work_folder(tmp_path, "store") as work:
                (work / "a").write_text(content)
                (work / "b").write_text(content)
                aside.put(work, tmp_path / "store")

    threads = [threading.Thread(target=put, args=(content,)) for content in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
    assert (tmp_path / "store" / "a").read_text() == (tmp_path / "store" / "b").read_text()


def test_progress_is_a_line_now_and_then_or_a_bar(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.logger, "propagate", True)
    caplog.set_level(logging.INFO, "memmeta")
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with progress.ShownProgress() as show:
        for done in range(11):
            show("converting train", done, 10)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["converting train", "converting train: 30%", "converting train: 60%", "converting train: 90%"]
    caplog.clear()
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, to rich
    with progress.ShownProgress() as show:
        show("converting val", 10, 10)
    assert "converting val" in capsys.readouterr().err
    assert not caplog.records
