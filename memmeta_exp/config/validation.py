"""What a configuration error is, and the checks that raise it.

The checks are also what a reference of the keys is made from: `recorded` collects what they ask of each key.
"""

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from memmeta_exp.utils.errors import ConfigError

PATH = {"path": True}  # metadata of a field whose value names a file or a folder


@dataclass
class Rule:
    """What is asked of a key: one of `choices`, or a number from `low` on (above it where `strict`) to `high` (below it
    where `below_high`)."""

    choices: tuple[Any, ...] = ()
    low: int | float | None = None
    strict: bool = False
    high: int | float | None = None
    below_high: bool = False


_rules: ContextVar[dict[str, Rule] | None] = ContextVar("rules", default=None)


@contextmanager
def recorded() -> Iterator[dict[str, Rule]]:
    """Within it, every check enters what it asks of its key, whether the value passes or not."""
    found: dict[str, Rule] = {}
    token = _rules.set(found)
    try:
        yield found
    finally:
        _rules.reset(token)


def _record(key: str, **asked: Any) -> None:
    rules = _rules.get()
    if rules is not None:
        rule = rules.setdefault(key, Rule())
        for name, value in asked.items():
            setattr(rule, name, value)


def shown(name: object) -> str:
    """A name from outside on one line: bytes that are no text, and control characters, as escapes."""
    text = str(name).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def closest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to `word`, or the choices where none is near."""
    known = sorted(set(known) - {word})
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; choose from {', '.join(known)}" if 0 < len(known) <= 20 else ""


def one_of(key: str, value: Any, choices: tuple[Any, ...], use: str | None = None) -> None:
    """ConfigError unless `value` is among the `choices`; use: what it says of them, else the nearest choice."""
    _record(key, choices=choices)
    if value not in choices:
        raise ConfigError(f"{key}={value} is unknown{f': use {use}' if use else closest(str(value), choices)}")


def at_most(key: str, value: int | float | None, high: int | float) -> None:
    """ConfigError unless `value` is None or <= `high`."""
    _record(key, high=high)
    if value is not None and not value <= high:
        raise ConfigError(f"{key}={value} is out of range: it must be at most {high}")


def below(key: str, value: int | float, high: int | float) -> None:
    """ConfigError unless `value` < `high`."""
    _record(key, high=high, below_high=True)
    if not value < high:
        raise ConfigError(f"{key}={value} is out of range: it must be below {high}")


def at_least(key: str, value: int | float | None, low: int | float, strict: bool = False) -> None:
    """ConfigError unless `value` is None, or finite and >= `low` (> `low` where `strict`)."""
    _record(key, low=low, strict=strict)
    if value is None:
        return
    if not math.isfinite(value) or value < low or (strict and value == low):
        raise ConfigError(f"{key}={value} is out of range: it must be {'above' if strict else 'at least'} {low}")
