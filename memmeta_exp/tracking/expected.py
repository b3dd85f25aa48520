"""What the files of a run folder are expected to hold; docs/outputs.md says what it means.

Keys are optional and others may be there: files are also those of other versions.
"""

from typing import Annotated, Any, TypedDict, get_args

from memmeta_exp.utils.reading import Count, Plain, Rule

TEXTS = ("memory/kind",)  # keys with a `/` whose values are texts; all others are numbers


class _Counts(TypedDict, total=False):
    tasks_seen: float | None
    iterations: float | None


def _numbers(values: dict[str, Any]) -> bool:
    """Whether what is named like a measurement is a number, or null, which stands for one that is not finite."""
    return all(
        isinstance(value, str) if key in TEXTS else value is None or type(value) in (int, float)
        for key, value in values.items()
        if "/" in key
    )


Summary = Annotated[
    _Counts, *get_args(Plain)[1:], Rule("numbers under the keys with a /", _numbers)
]  # .json; profile.json


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
    """status.json."""

    state: str
    pid: int
    host: str
    started: str
    updated: str
    iteration: Count | None
    reason: str | None
    title: str


class Env(TypedDict, total=False):
    """env.json."""

    versions: dict[str, str | None]
    command: list[str]
    earlier: list[dict[str, Any]]


class _Numbered(TypedDict):
    iteration: Count


Row = Annotated[_Numbered, Rule("numbers under the keys with a /", _numbers)]  # of metrics.jsonl


class End(TypedDict, total=False):
    """How a job of a sweep ended: log/ID.json."""

    exit_code: int
    reason: str | None
    seconds: float
    host: str


Overrides = list[str]
