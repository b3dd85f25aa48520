"""What a configuration error is, and the checks that raise it."""

import difflib
import math
from collections.abc import Iterable

from memmeta_exp.errors import ConfigError


def closest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to `word`, or the choices where none is near."""
    known = sorted(set(known) - {word})
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; choose from {', '.join(known)}" if 0 < len(known) <= 20 else ""


def one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    """ConfigError unless `value` is among the `choices`."""
    if value not in choices:
        raise ConfigError(f"{key}={value} is unknown{closest(str(value), choices)}")


def at_most(key: str, value: int | float | None, high: int | float) -> None:
    """ConfigError unless `value` is None or <= `high`."""
    if value is not None and not value <= high:
        raise ConfigError(f"{key}={value} is out of range: it must be at most {high}")


def at_least(key: str, value: int | float | None, low: int | float, strict: bool = False) -> None:
    """ConfigError unless `value` is None, or finite and >= `low` (> `low` where `strict`)."""
    if value is None:
        return
    if not math.isfinite(value) or value < low or (strict and value == low):
        raise ConfigError(f"{key}={value} is out of range: it must be {'above' if strict else 'at least'} {low}")
