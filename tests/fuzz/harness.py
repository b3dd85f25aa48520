"""Runs cases and tells which of them end otherwise than a mistake in a file should."""

import itertools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.training.conftest import serving

SECONDS = 12
MIB = 600  # beside what the process has that imported everything
_FAIR_FAILURES = re.compile("diverged|No space left")  # with exit code 1: of a run that began as it was asked to


@dataclass(frozen=True)
class Case:
    """A command line in a folder of its own, which `prepare` is given; with `base`, in it is a copy of that as run/.

    says: a word that a refusal has to have, most often the file's name.
    """

    name: str
    argv: tuple[str, ...]
    prepare: Callable[[Path], object]
    base: Path | None = None
    says: str = ""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """status: the exit code, or minus the signal; mib: of memory, beside what the process has that imported all."""

    status: int
    seconds: float
    mib: float
    printed: str


def fault(ended: Ended, says: str = "") -> str | None:
    """What is wrong with how a case ended, None where nothing is."""
    lines = ended.printed.splitlines() or [""]
    told = [line for line in lines if line.startswith("memmeta: ")]
    if "Traceback" in ended.printed:
        return f"traceback: {lines[-1][:300]}"
    if ended.status < 0:
        return f"signal {-ended.status}: {lines[-1][:100]}"
    unsound = any(line.startswith("FAILED") for line in lines)  # what `memmeta data verify` finds
    if ended.status == 1 and not unsound and not (told and _FAIR_FAILURES.search(told[-1])):
        return f"exit code 1: {lines[-1][:300]}"
    if ended.status not in (0, 1, 2):
        return f"exit code {ended.status}: {lines[-1][:300]}"
    if ended.status == 2 and not told:
        return f"no line: {lines[-1][:300]}"
    if ended.status == 2 and not any(says in line for line in told):
        return f"no word of {says}: {told[-1][:300]}"
    if any("Warning:" in line for line in lines if not line.startswith("memmeta: ")):
        return f"warning: {next(line for line in lines if 'Warning:' in line)[:300]}"
    if ended.seconds > SECONDS:
        return f"{ended.seconds:.0f} s"
    if ended.mib > MIB:
        return f"{ended.mib:.0f} MiB"
    return None


class Fuzzer:
    """Runs cases in forked children of a server, in folders under `place` that are gone afterwards."""

    def __init__(self, server: "subprocess.Popen[str]", place: Path) -> None:
        self._server, self._place = server, place

    def run(self, case: Case) -> Ended:
        """How `case` ended."""
        work = Path(tempfile.mkdtemp(dir=self._place))
        try:
            if case.base is not None:
                shutil.copytree(case.base, work / "run", symlinks=True)
            case.prepare(work)
            return self._ended(case, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def make(self, folder: Path, *argv: str) -> Path:
        """The folder `folder` after a command that has to succeed has run in its parent."""
        ended = self._ended(Case("", argv, lambda _: None), folder.parent)
        assert ended.status == 0, ended.printed
        return folder

    def _ended(self, case: Case, work: Path) -> Ended:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        environment = {"MEMMETA_CACHE": str(work / "cache"), **case.environment}
        request = {"argv": list(case.argv), "cwd": str(work), "environment": environment}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        took: dict[str, Any] = json.loads(self._server.stdout.readline())
        output = work / "output.txt"
        printed = output.read_text(errors="replace") if output.exists() else ""
        output.unlink(missing_ok=True)
        printed += "Traceback: code of a file has run" if (work / "HARM").exists() else ""
        return Ended(took["status"], took["seconds"], took["mib"], printed)


@contextmanager
def fuzzing(place: Path) -> Iterator[Fuzzer]:
    """A fuzzer whose cases run under `place`."""
    place.mkdir(parents=True, exist_ok=True)
    with serving("tests.fuzz.server") as server:
        yield Fuzzer(server, place)


def judged(fuzzer: Fuzzer, cases: Iterable[Case], stride: int = 1) -> Iterator[tuple[str, str | None]]:
    """Runs every `stride`-th case: its name, and what is wrong with how it ended, if anything."""
    for case in itertools.islice(cases, 0, None, stride):
        yield f"{case.name} | memmeta {' '.join(case.argv)}", fault(fuzzer.run(case), case.says)
