"""What jobs are called: by the values that tell them apart, `algorithm=maml batch_size=4 seed=0`."""

from collections.abc import Mapping, Sequence
from typing import Any


def varying(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that are not the same in all `jobs`, each a job's values by key."""
    keys = dict.fromkeys(key for job in jobs for key in job)
    return [key for key in keys if len({repr(job.get(key)) for job in jobs}) > 1]


def label(values: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The `values` of `keys`, those that are there."""
    return " ".join(f"{bare(key)}={_shown(values[key])}" for key in keys if key in values)


def bare(key: str) -> str:
    """A key of the command line without Hydra's prefix."""
    return key.lstrip("+~")


def titled(label: str, name: str) -> str:
    """The label, and the name that it stands for; the name alone where there is nothing to tell apart."""
    return f"{label} ({name})" if label else name


def _shown(value: Any) -> str:
    """As on a command line."""
    return {"True": "true", "False": "false", "None": "null"}.get(str(value), str(value))
