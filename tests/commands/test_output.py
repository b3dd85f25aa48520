"""What is printed decides nothing: a reader that leaves, a full device and a closed output."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from memmeta_exp.cli import main
from memmeta_exp.sweeps import job
from memmeta_exp.sweeps.sweep_folder import SweepFolder
from memmeta_exp.utils.output import lossy_text
from memmeta_exp.utils.signals import Stopped
from tests.commands.conftest import TINY

ROOT = Path(__file__).parents[2]


def text_on(fd: int) -> TextIO:
    return io.TextIOWrapper(io.FileIO(fd, "w"), "utf-8", write_through=True)


def left() -> TextIO:
    """A pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    return text_on(writer)


def full() -> TextIO:
    return text_on(os.open("/dev/full", os.O_WRONLY))


@pytest.fixture(autouse=True)
def output_again() -> Iterator[None]:
    before = sys.stdout, sys.stderr
    yield
    sys.stdout, sys.stderr = before


@pytest.mark.parametrize("place", [left, full])
def test_a_run_is_finished_whatever_becomes_of_its_lines(memmeta, monkeypatch, place) -> None:
    monkeypatch.setattr("sys.stdout", place())
    monkeypatch.setattr("sys.stderr", place())
    assert main(["train", *TINY, "hydra.run.dir=run"]) == 0
    assert json.loads(Path("run/status.json").read_text())["state"] == "finished"
    assert Path("run/summary.json").is_file()


@pytest.mark.parametrize(("place", "code"), [(left, 0), (full, 1)])
def test_a_result_that_cannot_be_printed_is_no_success(monkeypatch, capsys, place, code: int) -> None:
    monkeypatch.setattr("sys.stdout", place())
    assert main(["keys", "lr"]) == code
    said = "memmeta: standard output could not be written (No space left on device): free some disk space\n"
    assert capsys.readouterr().err == (said if code else "")


@pytest.mark.parametrize(("redirection", "code"), [("| true", 0), (">/dev/full", 1), (">&-", 0), (">&- 2>&- <&-", 0)])
def test_the_process_ends_without_a_traceback(redirection: str, code: int) -> None:
    line = f"set -o pipefail; {sys.executable} -m memmeta_exp --help {redirection}"
    done = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == code
    assert done.stderr.count("\n") == code


def test_a_closed_output_gives_its_number_to_no_file() -> None:
    code = (
        "from memmeta_exp.utils.output import lossy_output\nwith lossy_output(): assert open('/dev/null').fileno() > 2"
    )
    done = subprocess.run(["bash", "-c", f'{sys.executable} -c "{code}" >&- 2>&- <&-'], cwd=ROOT)
    assert done.returncode == 0


def test_a_job_of_a_sweep_outlives_its_log(tmp_path, monkeypatch) -> None:
    folder = SweepFolder(tmp_path)
    (tmp_path / "log").mkdir()
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(job, "open_handle", lambda *_: full)
    assert job.here(folder, "job", lambda: print("a line", flush=True)) == 0
    assert folder.ended("job")["exit_code"] == 0


def test_an_output_that_does_not_block_loses_nothing() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.extend(iter(lambda: os.read(reader, 4096), b"")))
    stream = lossy_text(writer)
    threading.Timer(0.2, thread.start).start()
    print("x" * 300_000, file=stream, flush=True)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert len(b"".join(found)) == 300_001


def test_what_the_encoding_lacks_is_escaped() -> None:
    reader, writer = os.pipe()
    print("caf\udce9 \N{GREEK SMALL LETTER MU}", file=lossy_text(writer, encoding="ascii"), flush=True)
    os.close(writer)
    with open(reader, "rb") as stream:
        assert stream.read() == rb"caf\udce9 \u03bc" + b"\n"


def test_a_title_is_no_markup(train, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_NAME", "[/red] [bold]x")
    result = train()
    assert result.code == 0
    assert "[/red] [bold]x" in result.out


def test_a_stop_that_a_library_makes_an_error_of_its_own_is_a_stop(memmeta, monkeypatch) -> None:
    """As Python 3.11 does with what is raised while a class is being made, at an import."""

    def stopped(_: list[str]) -> int:
        try:
            raise Stopped(signal.SIGTERM)
        except Stopped as error:
            raise RuntimeError("Error calling __set_name__") from error

    monkeypatch.setattr("memmeta_exp.commands.keys.main", stopped)
    result = memmeta("keys")
    assert (result.code, result.err) == (143, "memmeta: stopped by signal 15\n")
