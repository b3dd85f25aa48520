"""Sections of a configuration: frozen dataclasses whose fields carry their range, their choices and their meaning.

    @register
    @dataclass(frozen=True)
    class ReptileConfig(AlgorithmConfig):
        name: str = "reptile"
        inner_lr: float = option(0.1, "size of an inner step", above=0)

What a field says of itself is written once: the checks, `memmeta keys` and docs/configuration.md are made from it.
"""

import copy
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar

from memmeta_exp.config.validation import at_least, at_most, below, one_of

META = "memmeta"  # the key of `Option` in a field's metadata


@dataclass(frozen=True)
class Option:
    """What a key may be. meaning: one clause, in words; choices: the values it may take, none meaning any; hint: what a
    refusal says in place of the nearest choice; low, high: the range of a number (of every number of a list), `low`
    itself excluded where `above`, `high` where `below`; type: its type in words, where the
    annotation cannot say it; path: it names a file or a folder."""

    meaning: str
    choices: tuple[Any, ...] = ()
    hint: str | None = None
    low: int | float | None = None
    above: bool = False
    high: int | float | None = None
    below: bool = False
    type: str | None = None
    path: bool = False

    def check(self, key: str, value: Any) -> None:
        """ConfigError unless `value` (None always passes) is one that `key` may take."""
        if value is None:
            return
        if self.choices:
            one_of(key, value, self.choices, self.hint)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float):
                self._check_number(key, number)

    def _check_number(self, key: str, number: int | float) -> None:
        if self.low is not None:
            at_least(key, number, self.low, strict=self.above)
        if self.high is not None:
            (below if self.below else at_most)(key, number, self.high)


def option(
    default: Any,
    meaning: str,
    *,
    choices: tuple[Any, ...] = (),
    hint: str | None = None,
    at_least: int | float | None = None,
    above: int | float | None = None,
    at_most: int | float | None = None,
    below: int | float | None = None,
    type: str | None = None,
    path: bool = False,
) -> Any:
    """A field of a `Section`: its default, its meaning and what it may be (see `Option`)."""
    about = Option(
        meaning,
        choices,
        hint,
        low=at_least if above is None else above,
        above=above is not None,
        high=at_most if below is None else below,
        below=below is not None,
        type=type,
        path=path,
    )
    return _field(default, about)


def same_option(section: type, name: str, default: Any) -> Any:
    """The field `name` of another section with another default."""
    return _field(default, option_of(next(f for f in fields(section) if f.name == name)))


def _field(default: Any, about: Option) -> Any:
    metadata = {META: about}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def option_of(of: Field[Any]) -> Option:
    """What a field says of itself; an `Option` without a meaning where it says nothing."""
    return of.metadata.get(META, Option(""))


def default_of(of: Field[Any]) -> Any:
    """A field's default value."""
    factory: Callable[[], Any] | Any = of.default_factory
    return of.default if factory is MISSING else factory()


@dataclass(frozen=True)
class Section:
    """Base of every part of a configuration. group: what stands before its keys, as in algorithm.mu; empty at the top
    level. A value out of its range is a ConfigError when the section is made."""

    group: ClassVar[str] = ""

    def __post_init__(self) -> None:
        prefix = f"{self.group}." if self.group else ""
        for each in fields(self):
            option_of(each).check(f"{prefix}{each.name}", getattr(self, each.name))
        self.check()

    def check(self) -> None:
        """ConfigError where keys of this section do not go together."""


@dataclass(frozen=True)
class Component(Section):
    """Base of the options of a Hydra group. name: as in GROUP=NAME. label: its name in tables and figures."""

    label: ClassVar[str] = ""
    name: str = ""
