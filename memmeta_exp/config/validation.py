"""Range checks of values, and suggestions for misspelt names."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

from memmeta_exp.config.older import name_of_today
from memmeta_exp.utils.errors import ConfigError

LARGEST_INT = 2**63 - 1


def shown(name: object) -> str:
    """`name` (of a file, a class) as one printable line: undecodable bytes and control characters are escaped."""
    text = str(name).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def closest(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error message about the unknown `word`.

    It names the current name of a renamed key, else the nearest known word, else all known words if they are at most
    20, else it is empty.
    """
    known = sorted(set(known) - {word})
    if (today := name_of_today(word)) in known:
        return f"; it is called {today} now"
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; choose from {', '.join(known)}" if 0 < len(known) <= 20 else ""


def one_of(key: str, value: Any, choices: tuple[Any, ...], use: str | None = None) -> None:
    """Raises ConfigError if `value` is not among the `choices`. use: the hint of the message; None: `closest`."""
    if value not in choices:
        raise ConfigError(f"{key}={value} is unknown{f': use {use}' if use else closest(str(value), choices)}")


def at_most(key: str, value: int | float | None, high: int | float) -> None:
    """Raises ConfigError unless `value` is None or <= `high`."""
    if value is not None and not value <= high:
        raise ConfigError(f"{key}={value} is out of range: it must be at most {high}")


def below(key: str, value: int | float, high: int | float) -> None:
    """Raises ConfigError unless `value` < `high`."""
    if not value < high:
        raise ConfigError(f"{key}={value} is out of range: it must be below {high}")


def at_least(key: str, value: int | float | None, low: int | float, strict: bool = False) -> None:
    """Raises ConfigError unless `value` is None, or finite and >= `low` (> `low` if `strict`). An int must also fit in
    64 bits."""
    if value is None:
        return
    if isinstance(value, int) and value > LARGEST_INT:
        raise ConfigError(f"{key}={value} is out of range: it must be at most {LARGEST_INT}")
    if not math.isfinite(value) or value < low or (strict and value == low):
        finite = "" if math.isfinite(value) else " and finite"
        raise ConfigError(
            f"{key}={value} is out of range: it must be {'above' if strict else 'at least'} {low}{finite}"
        )
