"""Collects all configuration keys from the metadata of dataclass fields and the values of conf/."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Mapping
from inspect import getdoc
from typing import Any

from memmeta_exp.config import GROUPS, NESTED, Config, Section, option_class
from memmeta_exp.config.compose import group_options, group_values
from memmeta_exp.config.section import Option, default_of, option_of


@dataclasses.dataclass(frozen=True)
class Key:
    """One row of a table. name: as on the command line. type, default, allowed, meaning: as text; if the options of the
    table differ in default or allowed values, these are listed by option."""

    name: str
    type: str
    default: str
    allowed: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Table:
    """The keys that a section has, or that several options of a group have with the same names and meanings.

    group: the group or section; empty: the top level. options: the options of the group that have these keys; empty
    outside a group. chosen: the default option of the group. about: a description.
    """

    group: str
    options: tuple[str, ...]
    chosen: str
    about: str
    keys: tuple[Key, ...]

    @property
    def title(self) -> str:
        """`GROUP=OPTION`, or the section's name."""
        return ", ".join(f"{self.group}={option}" for option in self.options) or self.group


def reference() -> list[Table]:
    """All tables: the top level, the sections of config.yaml, and each group."""
    tables = [_of_section("", Config, "")]
    tables += [_of_section(name, schema, _first_line(schema)) for name, schema in NESTED.items()]
    chosen = group_values("config")["defaults"]
    defaults = {group: option for line in chosen if isinstance(line, dict) for group, option in line.items()}
    for group in GROUPS:
        tables += _of_group(group, str(defaults[group]))
    return tables


def keys_of(schema: type[Section]) -> list[dataclasses.Field[Any]]:
    """The fields of `schema` that are keys: neither `name` nor a nested section."""
    sections = {*GROUPS, *NESTED}
    return [f for f in dataclasses.fields(schema) if f.name != "name" and f.name not in sections]


def _of_section(section: str, schema: type[Section], about: str) -> Table:
    prefix, keys = f"{section}." if section else "", []
    for field in keys_of(schema):
        about_it = option_of(field)
        default = f"`{_plain(default_of(field))}`"
        keys.append(Key(f"{prefix}{field.name}", _type(field, schema), default, _allowed(about_it), about_it.meaning))
    return Table(section, (), "", about, tuple(keys))


def _of_group(group: str, chosen: str) -> list[Table]:
    """The tables of a group. Options whose keys have the same names and meanings share one."""
    together: dict[Any, list[str]] = {}
    for option in sorted(group_options(group), key=lambda o: o != chosen):
        schema = _schema(group, option)
        same = tuple((f.name, option_of(f).meaning) for f in keys_of(schema)) or option
        together.setdefault(same, []).append(option)
    return [_of_options(group, chosen, tuple(options)) for options in together.values()]


def _schema(group: str, option: str) -> type[Section]:
    return option_class(group, str(group_values(f"{group}/{option}")["name"]))


def _of_options(group: str, chosen: str, options: tuple[str, ...]) -> Table:
    schemas = {option: _schema(group, option) for option in options}
    values = {option: group_values(f"{group}/{option}") for option in options}
    keys = []
    for field in keys_of(schemas[options[0]]):
        fields = {o: next(f for f in dataclasses.fields(schemas[o]) if f.name == field.name) for o in options}
        having = [o for o in options if field.name in values[o]]
        default = _by_option({o: f"`{_plain(values[o][field.name])}`" for o in having}, options)
        allowed = _by_option({o: _allowed(option_of(fields[o])) for o in having}, having)
        name, meaning = f"{group}.{field.name}", option_of(field).meaning
        keys.append(Key(name, _type(field, schemas[options[0]]), default, allowed, meaning))
    about = " ".join(dict.fromkeys(_first_line(schema) for schema in schemas.values()))
    return Table(group, options, chosen, about, tuple(keys))


def _first_line(schema: type) -> str:
    """The first paragraph of the docstring of `schema`."""
    return " ".join((getdoc(schema) or "").partition("\n\n")[0].split())


def _by_option(values: Mapping[str, str], everyone: Iterable[str]) -> str:
    """The value, if every option of `everyone` has the same; else each value with its options in parentheses."""
    who: dict[str, list[str]] = {}
    for option, value in values.items():
        who.setdefault(value, []).append(option)
    if len(who) == 1 and len(values) == len(list(everyone)):
        return next(iter(who))
    return ", ".join(f"{value} ({', '.join(names)})" for value, names in who.items())


def _type(field: dataclasses.Field[Any], schema: type) -> str:
    return option_of(field).type or _type_name(typing.get_type_hints(schema)[field.name])


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_type_name(part) for part in typing.get_args(hint))
    if hint is type(None):
        return "null"
    return str(hint) if typing.get_args(hint) else hint.__name__


def _plain(value: Any) -> str:
    """`value` as written on the command line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _allowed(of: Option) -> str:
    if of.choices:
        return ", ".join(f"`{value}`" for value in of.choices)
    low = "" if of.low is None else f"{'above' if of.above else 'from'} {_number(of.low)}"
    high = "" if of.high is None else f"to {'below ' if of.below else ''}{_number(of.high)}"
    return f"{low} {high}".strip()


def _number(value: int | float) -> str:
    """`value` as text; a power of 2 from 2^20, or one less, as 2^N or 2^N - 1."""
    if isinstance(value, int) and value >= 2**20:
        for exact, rest in ((value, ""), (value + 1, " - 1")):
            if exact & (exact - 1) == 0:
                return f"2^{exact.bit_length() - 1}{rest}"
    return str(value)
