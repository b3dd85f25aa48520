"""A downloader and a server of its own for each test of downloads."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from memmeta_exp.data.prepare import answers
from memmeta_exp.data.prepare.answers import SourceError
from memmeta_exp.data.prepare.download import Downloader
from memmeta_exp.data.prepare.urls import RemoteFile
from tests.data.servers import CONTENT, FILE, Server, serving


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(answers, "_BLOCK", 40)
    with serving({"/file": CONTENT, "/mirror": CONTENT}) as server:
        yield server


class Setup:
    def __init__(self, folder: Path) -> None:
        self.folder, self.slept, self.seen = folder, [], []
        self.downloader = Downloader(folder, lambda *event: self.seen.append(event), self.slept.append)

    def get(self, site: Server, path: str = "/file", file: RemoteFile = FILE) -> Path:
        return self.downloader.get(file, site.url(path))

    def refused(self, site: Server, path: str = "/file", file: RemoteFile = FILE) -> str:
        with pytest.raises(SourceError) as error:
            self.get(site, path, file)
        assert "\n" not in str(error.value)
        assert not (self.folder / file.name).exists()
        return str(error.value)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)
