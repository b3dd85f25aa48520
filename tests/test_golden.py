"""Three seeded iterations of every algorithm against the bits of tests/golden.json (made as tests/golden.py says)."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from memmeta_exp.config import options
from tests.golden import FILE, made_with, vendor

GOLDEN = json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def runs() -> dict:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"the runs are those of x86-64 kernels; here the processor is {platform.machine()}")
    command = [sys.executable, "-m", "tests.golden", "--print"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout)


@pytest.mark.parametrize("algorithm", options("algorithm"))
def test_to_the_bit(runs: dict, algorithm: str) -> None:
    known = {name: GOLDEN[name] for name in ("torch", "libc")}
    if made_with() != known or vendor() not in GOLDEN["runs"]:
        pytest.skip(f"the bits are those of {known} on {list(GOLDEN['runs'])}; here they are {made_with()}, {vendor()}")
    assert runs[algorithm] == GOLDEN["runs"][vendor()][algorithm]


@pytest.mark.parametrize("of", GOLDEN["runs"])
@pytest.mark.parametrize("algorithm", options("algorithm"))
def test_to_rounding_on_every_machine(runs: dict, algorithm: str, of: str) -> None:
    here, there = runs[algorithm], GOLDEN["runs"][of][algorithm]
    for t, (ours, theirs) in enumerate(zip(here["loss"], there["loss"], strict=True)):
        assert [float.fromhex(loss) for loss in ours] == pytest.approx(list(map(float.fromhex, theirs)), rel=1e-4), t
    assert [float.fromhex(loss) for loss in here["test_loss"]] == pytest.approx(
        list(map(float.fromhex, there["test_loss"])), rel=1e-4
    )


def test_the_algorithms_are_told_apart() -> None:
    for runs in GOLDEN["runs"].values():
        digests = {run["weights_sha256"] for run in runs.values()}
        assert len(digests) == len(runs) == len(options("algorithm"))
