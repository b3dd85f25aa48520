"""The expected types of the files in a run folder; docs/outputs.md explains their keys.

Keys are optional, and unknown keys are allowed, since other versions may have written the files.
"""

from typing import Annotated, Any, TypedDict, get_args

from memmeta_exp.utils.reading import Count, Plain, Rule

TEXTS = ("memory/kind",)  # keys with a `/` whose values are text; all others with a `/` are numbers


class _Counts(TypedDict, total=False):
    tasks_seen: float | None
    iterations: float | None


def _numbers(values: dict[str, Any]) -> bool:
    """Whether all values of keys with a `/` are numbers, except TEXTS. null stands for a number that is not finite."""
    return all(
        isinstance(value, str) if key in TEXTS else value is None or type(value) in (int, float)
        for key, value in values.items()
        if "/" in key
    )


Summary = Annotated[
    _Counts, *get_args(Plain)[1:], Rule("numbers under the keys with a /", _numbers)
]  # summary.json, profile.json


LARGEST = 1e150


def within_reach(value: Any) -> Any:
    """`value` with None, as for what is not finite, for every number in it beyond LARGEST, of which figures and means
    overflow."""
    if isinstance(value, dict):
        return {key: within_reach(item) for key, item in value.items()}
    if isinstance(value, list):
        return [within_reach(item) for item in value]
    return None if isinstance(value, int | float) and abs(value) > LARGEST else value


class Status(TypedDict, total=False):
    """The content of status.json."""

    state: str
    pid: int
    host: str
    started: str
    updated: str
    iteration: Count | None
    reason: str | None
    title: str


class Env(TypedDict, total=False):
    """The content of env.json."""

    versions: dict[str, str | None]
    command: list[str]
    earlier: list[dict[str, Any]]


class _Numbered(TypedDict):
    iteration: Count


Row = Annotated[_Numbered, Rule("numbers under the keys with a /", _numbers)]  # of metrics.jsonl


class End(TypedDict, total=False):
    """The content of log/ID.json: how a job of a sweep ended."""

    exit_code: int
    reason: str | None
    seconds: float
    host: str


Overrides = list[str]
