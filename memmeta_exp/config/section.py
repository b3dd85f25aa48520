"""Sections of a configuration: frozen dataclasses whose fields declare their range, choices and meaning.

    @register
    @dataclass(frozen=True)
    class ReptileConfig(AlgorithmConfig):
        name: str = "reptile"
        inner_lr: float = option(0.1, "size of an inner step", above=0)

The checks, `memmeta keys` and docs/configuration.md are all made from these declarations.
"""

import copy
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar

from memmeta_exp.config.validation import at_least, at_most, below, one_of

META = "memmeta"  # the key of `Option` in a field's metadata


@dataclass(frozen=True)
class Option:
    """The declaration of a key.

    meaning: one clause in words. choices: the allowed values; empty: any. hint: what an error message suggests instead
    of the nearest choice. low, high: the range of a number, or of every number of a list; `above` excludes `low`,
    `below` excludes `high`. type: its type in words, if the annotation does not show it. path: it names a file or
    folder.
    """

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
        """Raises ConfigError if `value` is not allowed for `key`. None is always allowed."""
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
    """A field of a `Section` with its default, its meaning and its allowed values (see `Option`)."""
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
    """The field `name` of the dataclass `section`, with the default `default`."""
    return _field(default, option_of(next(f for f in fields(section) if f.name == name)))


def _field(default: Any, about: Option) -> Any:
    metadata = {META: about}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def option_of(of: Field[Any]) -> Option:
    """The `Option` of a field; one with an empty meaning if the field declares none."""
    return of.metadata.get(META, Option(""))


def default_of(of: Field[Any]) -> Any:
    """A field's default value."""
    factory: Callable[[], Any] | Any = of.default_factory
    return of.default if factory is MISSING else factory()


@dataclass(frozen=True)
class Section:
    """Base of every part of a configuration. Construction raises ConfigError for a value that is not allowed.

    group: the prefix of its keys, as in algorithm.mu; empty at the top level.
    """

    group: ClassVar[str] = ""

    def __post_init__(self) -> None:
        prefix = f"{self.group}." if self.group else ""
        for each in fields(self):
            option_of(each).check(f"{prefix}{each.name}", getattr(self, each.name))
        self.check()

    def check(self) -> None:
        """Raises ConfigError if keys of this section contradict each other."""


@dataclass(frozen=True)
class Component(Section):
    """Base of the options of a Hydra group. name: as in GROUP=NAME. label: its name in tables and figures."""

    label: ClassVar[str] = ""
    name: str = ""
