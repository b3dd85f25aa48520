"""Shared fixtures. One thread a process: the suite runs in two processes on two cores."""

import copy
import gc
import os
import sys
from collections.abc import Iterator

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from hydra.core.config_store import ConfigStore

from memmeta_exp.config import plugins, registry


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _modules_are_no_garbage() -> None:
    """The memory meter collects garbage, which takes 0.2 s a run while it looks through all that was imported."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture
def plugging(monkeypatch) -> Iterator[None]:
    """What a test plugs in is out again after it, and a module of the same name is another one in the next test."""
    for group in registry.GROUPS:
        registry.options(group)
    monkeypatch.setattr(registry, "_registered", copy.deepcopy(registry._registered))
    monkeypatch.setattr(plugins, "_imported", set())
    for group in registry.GROUPS:
        monkeypatch.setitem(ConfigStore.instance().repo, group, dict(ConfigStore.instance().repo.get(group, {})))
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None) or ""
        if name.startswith("examples.") or "pytest" in origin:
            del sys.modules[name]
