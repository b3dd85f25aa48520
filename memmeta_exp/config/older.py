"""Configurations that older versions wrote, read as those of today."""

from collections.abc import Mapping
from typing import Any

REMOVED = frozenset({"cuda_graph"})
"""Top-level keys that are gone and that changed no number of a run: what a stored configuration says of them is left
out. On a command line they are unknown, as any other key that there is not."""


def as_of_today(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The keys and values of a config.yaml or checkpoint, in the keys of today."""
    return {key: value for key, value in stored.items() if key not in REMOVED}
