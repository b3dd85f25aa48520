"""Shared fixtures. One thread a process: the suite runs in two processes on two cores."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def data_root() -> str:
    """The folder of real datasets; tests that need it skip where the environment names none."""
    root = os.environ.get("MEMMETA_DATA")
    if not root:
        pytest.skip("MEMMETA_DATA is unset: no real datasets on this machine")
    return root
