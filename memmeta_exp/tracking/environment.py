"""Describes the software and hardware of a run, for env.json."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("memmeta", "torch", "torchvision", "torchmeta", "numpy", "hydra-core", "omegaconf", "wandb")
PACKAGE_DIR = Path(__file__).resolve().parents[1]


def describe_environment(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Software, hardware, source revision and command line, and `extra`. The hardware name is that of extra["device"],
    cpu by default."""
    import torch  # imported late: readers of run folders do not need torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "device_name": _device_name(torch.device(extra.get("device", "cpu"))),
        "cpu_model": cpu_model(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),  # intra-operator threads
        **git_state(PACKAGE_DIR),
        "command": list(sys.orig_argv),
        **extra,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device_name(device: Any) -> str:
    if device.type != "cuda":
        return cpu_model()
    import torch

    return torch.cuda.get_device_name(device)


def cpu_model() -> str:
    """The processor's model name if the system reports it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def git_state(directory: Path) -> dict[str, Any]:
    """{"git_revision", "git_dirty"} of the checkout that tracks `directory`; both None for an installed package."""
    tracked = _git(directory, "ls-files", "--error-unmatch", "__init__.py")
    revision = _git(directory, "rev-parse", "HEAD") if tracked else None
    changes = _git(directory, "status", "--porcelain") if revision else None
    return {"git_revision": revision, "git_dirty": None if changes is None else bool(changes)}


def _git(directory: Path, *arguments: str) -> str | None:
    """The output of git, stripped; None if git fails or is missing."""
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
