"""Freed memory is used again: page faults, counted in processes of their own."""

import os
import platform
import subprocess
import sys

import pytest

TENSORS = """
import resource, torch
from memmeta_exp.utils.malloc import keep_freed_memory
said = keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10 * 2**20)  # 40 MiB, more than any glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(said, faults())
"""
PAGES = 10 * 10 * 2**10  # of 4 KiB, that ten tensors take


def counted(**environment: str) -> tuple[str, int]:
    """What `keep_freed_memory` says, and the page faults of ten tensors, one after the other."""
    inherited = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES" and not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", TENSORS],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    said, faults = done.stdout.split()
    return said, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")
def test_a_tensor_takes_the_place_of_one_that_was_freed() -> None:
    """Unless the environment says otherwise."""
    (said, kept), (refused, plain) = counted(), counted(MALLOC_TRIM_THRESHOLD_="131072")
    assert (said, refused) == ("True", "False")
    assert kept < PAGES / 100
    if plain < PAGES / 2:
        pytest.skip(f"{plain} page faults by default: malloc is another's, or pages are larger")
