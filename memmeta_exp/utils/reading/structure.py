"""Checks a value read from a file against a type: `mismatch(value, Status)`, with a TypedDict, `dict[str, float]`, ...

A readable file may still have any content, since another program or a person may have written it.
"""

import types
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

_SHOWN = 40  # characters of a value in a message
_LEAVES = {int: (int,), float: (float, int), str: (str,), bool: (bool,), type(None): (type(None),), None: (type(None),)}
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "nothing"}


@dataclass(frozen=True)
class Rule:
    """A condition for Annotated that a type cannot express. holds: the condition; words: it in words, for messages."""

    words: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Rule("a whole number from 0", lambda value: 0 <= value < 2**53)]


MOST_VALUES = 2**21  # per file
DEPTH = 64  # most levels of nested lists and mappings
BITS = 64  # most bits of an integer


def require_plain(value: Any) -> None:
    """Raises ValueError for types that JSON does not have, too deep or cyclic nesting, more than MOST_VALUES values and
    integers of more than BITS bits. A value that is reached several times counts several times."""
    level, depth, count = [value], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > DEPTH:
            raise ValueError(f"it nests deeper than {DEPTH} levels")
        if count > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES} values")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += [*item, *item.values()]
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, int):
                if not -(2 ** (BITS - 1)) <= item < 2**BITS:
                    raise ValueError(f"it holds an integer of more than {BITS} bits")
            elif not isinstance(item, str | float | None):
                raise ValueError(f"it holds a {type(item).__name__}")
            if len(inner) > MOST_VALUES:
                raise ValueError(f"it holds more than {MOST_VALUES} values")
        level = inner


def _is_plain(value: Any) -> bool:
    try:
        require_plain(value)
    except ValueError:
        return False
    return True


Plain = Annotated[dict[str, Any], Rule("a mapping of plain values", _is_plain)]


def mismatch(value: Any, expected: Any, where: str = "") -> str | None:
    """Describes in one clause the first place where `value` does not have the type `expected`; None if it has it.

    expected: int, float (accepts integers), str, bool, None, any other class, Any, list[..], dict[.., ..], A | B,
    Literal, Annotated with a `Rule`, a TypedDict (the value may have more keys), or a dataclass (a mapping with exactly
    its fields). True and False are not numbers. where: the dotted path of `value`, for the message.
    """
    leaves = _leaves(expected)
    if leaves is not None:
        return None if type(value) in leaves else _other(value, expected, where)
    if expected is Any:
        return None
    origin, arguments = get_origin(expected), get_args(expected)
    if origin in (Required, NotRequired):
        return mismatch(value, arguments[0], where)
    if origin is Annotated:
        return mismatch(value, arguments[0], where) or _ruled(value, arguments[1:], where)
    if origin is Literal:
        return None if value in arguments and type(value) in map(type, arguments) else _other(value, expected, where)
    if origin in (Union, types.UnionType):
        return _in_union(value, arguments, where)
    if is_typeddict(expected) or is_dataclass(expected):
        return _in_typed(value, expected, where)
    if not isinstance(value, origin or expected):
        return _other(value, expected, where)
    return _inside(value, origin, arguments, where)


@lru_cache(maxsize=256)
def _leaves(expected: Any) -> frozenset[type] | None:
    """The classes of allowed values, if the class alone decides; else None."""
    if expected in _LEAVES:
        return frozenset(_LEAVES[expected])
    if get_origin(expected) in (Union, types.UnionType):
        parts = [_leaves(part) for part in get_args(expected)]
        return None if None in parts else frozenset().union(*(part for part in parts if part))
    return None


def _ruled(value: Any, rules: tuple[Rule, ...], where: str) -> str | None:
    broken = next((rule for rule in rules if not rule.holds(value)), None)
    return None if broken is None else f"{_place(where)} is {_shown(value)}, expected {broken.words}"


def _in_union(value: Any, arguments: tuple[Any, ...], where: str) -> str | None:
    mismatches = [mismatch(value, argument, where) for argument in arguments]
    if None in mismatches:
        return None
    inner = [found for found in mismatches if found and not found.startswith(f"{_place(where)} is ")]
    return inner[0] if inner else f"{_place(where)} is {_shown(value)}, expected {_words(Union[arguments])}"  # noqa: UP007


@lru_cache(maxsize=64)
def _hints(expected: type) -> dict[str, Any]:
    return get_type_hints(expected, include_extras=True)


def _in_typed(value: Any, expected: Any, where: str) -> str | None:
    if not isinstance(value, dict):
        return _other(value, dict, where)
    hints = _hints(expected)
    missing = sorted(getattr(expected, "__required_keys__", hints.keys()) - value.keys())
    if missing:
        return f"{_place(where)} has no '{missing[0]}'"
    if is_dataclass(expected) and value.keys() - hints.keys():
        return f"{_place(where)} has a key '{_shown(next(iter(value.keys() - hints.keys())), bare=True)}', unknown here"
    for key, hint in hints.items():
        if key in value and (found := mismatch(value[key], hint, _joined(where, key))):
            return found
    return None


def _inside(value: Any, origin: Any, arguments: tuple[Any, ...], where: str) -> str | None:
    """Describes the first mismatch in a list or a mapping; None if there is none."""
    if origin is list:
        return next((f for i, item in enumerate(value) if (f := mismatch(item, arguments[0], _joined(where, i)))), None)
    if origin is dict:
        for key, item in value.items():
            found = mismatch(key, arguments[0], f"{where}, a key" if where else "a key") or mismatch(
                item, arguments[1], _joined(where, key)
            )
            if found:
                return found
    return None


def _joined(where: str, key: Any) -> str:
    return f"{where}.{_shown(key, bare=True)}" if where else _shown(key, bare=True)


def _place(where: str) -> str:
    return f"'{where}'" if where else "it"


def _other(value: Any, expected: Any, where: str) -> str:
    return f"{_place(where)} is {_shown(value)}, expected {_words(expected)}"


def _words(expected: Any) -> str:
    if get_origin(expected) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(part) for part in get_args(expected)))
    if get_origin(expected) is Literal:
        return " or ".join(map(str, get_args(expected)))
    if is_dataclass(expected) or expected is dict or get_origin(expected) is dict or is_typeddict(expected):
        return "a mapping"
    if expected is list or get_origin(expected) is list:
        return "a list"
    return _WORDS.get(expected, getattr(expected, "__name__", str(expected)))


def _shown(value: Any, bare: bool = False) -> str:
    """A short description of `value` on one line. bare: strings without quotes."""
    if isinstance(value, dict | list | tuple | set):
        return {dict: "a mapping", list: "a list"}.get(type(value), f"a {type(value).__name__}")
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    if not isinstance(value, str | int | float | bytes | None):
        return f"a {type(value).__name__}"
    text = value if bare and isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
