"""The checks of a value, and the suggestions for a misspelt name."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

from memmeta_exp.config.older import name_of_today
from memmeta_exp.utils.errors import ConfigError

LARGEST_INT = 2**63 - 1


def shown(name: object) -> str:
    """A name from outside on one line: bytes that are no text, and control characters, as escapes."""
    text = str(name).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def closest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to `word`, or the choices where none is near; for a key that
    older versions had, what it is called now."""
    known = sorted(set(known) - {word})
    if (today := name_of_today(word)) in known:
        return f"; it is called {today} now"
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; choose from {', '.join(known)}" if 0 < len(known) <= 20 else ""


def one_of(key: str, value: Any, choices: tuple[Any, ...], use: str | None = None) -> None:
    """ConfigError unless `value` is among the `choices`; use: what it says of them, else the nearest choice."""
    if value not in choices:
        raise ConfigError(f"{key}={value} is unknown{f': use {use}' if use else closest(str(value), choices)}")


def at_most(key: str, value: int | float | None, high: int | float) -> None:
    """ConfigError unless `value` is None or <= `high`."""
    if value is not None and not value <= high:
        raise ConfigError(f"{key}={value} is out of range: it must be at most {high}")


def below(key: str, value: int | float, high: int | float) -> None:
    """ConfigError unless `value` < `high`."""
    if not value < high:
        raise ConfigError(f"{key}={value} is out of range: it must be below {high}")


def at_least(key: str, value: int | float | None, low: int | float, strict: bool = False) -> None:
    """ConfigError unless `value` is None, or finite and >= `low` (> `low` where `strict`); of whole numbers, unless
    they are 64-bit ones."""
    if value is None:
        return
    if isinstance(value, int) and value > LARGEST_INT:
        raise ConfigError(f"{key}={value} is out of range: it must be at most {LARGEST_INT}")
    if not math.isfinite(value) or value < low or (strict and value == low):
        finite = "" if math.isfinite(value) else " and finite"
        raise ConfigError(
            f"{key}={value} is out of range: it must be {'above' if strict else 'at least'} {low}{finite}"
        )
