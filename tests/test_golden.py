"""Three seeded iterations of every algorithm against the bits of tests/golden.json (made as tests/golden.py says)."""

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from memmeta_exp.config import SECTIONS

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.fixture(scope="module")
def runs() -> dict:
    made_with = (GOLDEN["torch"], GOLDEN["libc"], "x86_64")
    here = (version("torch").partition("+")[0], " ".join(platform.libc_ver()), platform.machine())
    if here != made_with:
        pytest.skip(f"the bits are those of torch, libc and processor {made_with}; here they are {here}")
    command = [sys.executable, "-m", "tests.golden"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout)["runs"]


@pytest.mark.parametrize("algorithm", SECTIONS["algorithm"])
def test_to_the_bit(runs: dict, algorithm: str) -> None:
    assert runs[algorithm] == GOLDEN["runs"][algorithm]


def test_the_algorithms_are_told_apart() -> None:
    digests = {run["weights_sha256"] for run in GOLDEN["runs"].values()}
    assert len(digests) == len(GOLDEN["runs"]) == len(SECTIONS["algorithm"])
