"""Crafted files end in one line and an exit code: some of every group; `python -m tests.fuzz` runs all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.groups import GROUPS, made
from tests.fuzz.harness import MIB, SECONDS, Ended, Fuzzer, fault, fuzzing, judged

STRIDE = 13  # of the cases of a group, one in so many


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory) -> Iterator[Fuzzer]:
    with fuzzing(tmp_path_factory.mktemp("cases")) as found:
        yield found


@pytest.fixture(scope="module")
def bases(fuzzer: Fuzzer, tmp_path_factory) -> dict[str, Path]:
    return made(fuzzer, tmp_path_factory.mktemp("bases"), GROUPS)


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_crafted_files_end_in_one_line(fuzzer: Fuzzer, bases: dict[str, Path], group: str) -> None:
    assert {case: wrong for case, wrong in judged(fuzzer, GROUPS[group](bases), STRIDE) if wrong} == {}


LINE = "memmeta: run/status.json is damaged"
JUDGED = {
    "done": (0, 0.1, 1, "summary: run/summary.json", None),
    "refused": (2, 0.1, 1, LINE, None),
    "diverged": (1, 0.1, 1, "memmeta: diverged at iteration 3", None),
    "not verified": (1, 0.1, 1, "FAILED        train: constant images: 1 of 12", None),
    "another file": (2, 0.1, 1, "memmeta: run/config.yaml is damaged", "no word of status.json"),
    "a traceback": (99, 0.1, 1, "Traceback (most recent call last):\nTypeError: x", "traceback: TypeError: x"),
    "a failure": (1, 0.1, 1, "memmeta: Invalid argument", "exit code 1"),
    "an exit code of another meaning": (5, 0.1, 1, LINE, "exit code 5"),
    "killed": (-11, 0.1, 1, "", "signal 11"),
    "no line": (2, 0.1, 1, "usage: memmeta", "no line"),
    "a warning": (0, 0.1, 1, "x.py:1: RuntimeWarning: overflow", "warning: x.py:1: RuntimeWarning: overflow"),
    "slow": (2, SECONDS + 1, 1, LINE, "13 s"),
    "large": (2, 0.1, MIB + 1, LINE, "601 MiB"),
}


@pytest.mark.parametrize("how", JUDGED)
def test_what_is_a_fault(how: str) -> None:
    status, seconds, mib, printed, wrong = JUDGED[how]
    found = fault(Ended(status, seconds, mib, printed), "status.json")
    assert found is None if wrong is None else found is not None and found.startswith(wrong)
