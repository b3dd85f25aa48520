"""Labels of jobs, from the values that differ between them: `algorithm=maml batch_size=4 seed=0`."""

from collections.abc import Mapping, Sequence
from typing import Any


def varying(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values differ between `jobs`, each a mapping of keys to values."""
    keys = dict.fromkeys(key for job in jobs for key in job)
    return [key for key in keys if len({repr(job.get(key)) for job in jobs}) > 1]


def label(values: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The `values` of those `keys` that it has, as KEY=VALUE."""
    return " ".join(f"{bare(key)}={_shown(values[key])}" for key in keys if key in values)


def bare(key: str) -> str:
    """A command-line key without Hydra's prefixes + and ~."""
    return key.lstrip("+~")


def titled(label: str, name: str) -> str:
    """`LABEL (NAME)`, or the name alone if the label is empty."""
    return f"{label} ({name})" if label else name


def _shown(value: Any) -> str:
    """`value` as written on a command line."""
    return {"True": "true", "False": "false", "None": "null"}.get(str(value), str(value))
