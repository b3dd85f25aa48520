"""Every configuration key with type, default, range or choices and meaning, read off the code.

What stands in conf/config.yaml (the top-level keys, memory, training, images) has its meaning in the comment beside its
value. The keys of a group's options have theirs in the docstring of the options' dataclass, for several options share
one (maml, fomaml, anil, itd_bio; adam, adamw, sgd; the trackings) and would each repeat a comment. So a meaning is said
once, and read nowhere else: comments in conf/GROUP/ say where an option's value is from. In a docstring `key: ...`, or
`key, key: ...`, begins where a sentence, a clause after a semicolon or a paragraph does, and goes on to the next key or
the end of the paragraph. Types are the dataclasses', defaults those of conf/, ranges and choices what the checks ask.
"""

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import OmegaConf

from memmeta_exp.config import NESTED, SECTIONS, Config, from_omegaconf
from memmeta_exp.config.compose import composed, options
from memmeta_exp.config.overrides import conf_dir
from memmeta_exp.config.validation import Rule, recorded

_KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):[^#]*(?:# (?P<comment>.*))?")
_MORE = re.compile(r" +# (?P<comment>.*)")


@dataclasses.dataclass(frozen=True)
class Key:
    """name: as on the command line; type, meaning: in words; default, allowed: in words, by option where they differ,
    of the options that have the key."""

    name: str
    type: str
    default: str
    allowed: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Table:
    """The keys of one dataclass. group: that of the options, or the section, or empty for the top level; options: those
    that are configured by it, none outside a group; chosen: which of them is the default; about: what it is."""

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
    """All of them: top level, sections of config.yaml, and each group in the order of `SECTIONS`."""
    text = (conf_dir() / "config.yaml").read_text()
    meanings, values = comments(text), _values("config.yaml")
    with recorded() as rules:
        from_omegaconf(composed([]))
    tables = [_of_config_yaml("", Config, values, rules, meanings)]
    for section, schema in NESTED.items():
        with recorded() as rules:
            schema()
        tables.append(_of_config_yaml(section, schema, values[section], rules, meanings))
    chosen = {group: option for line in values["defaults"] if isinstance(line, dict) for group, option in line.items()}
    for group in SECTIONS:
        tables += _of_group(group, chosen[group])
    return tables


def comments(text: str) -> dict[str, str]:
    """The comment beside each key of a YAML text, lines that hold nothing else added, by dotted key."""
    found: dict[str, str] = {}
    section = key = ""
    for line in text.splitlines():
        if more := _MORE.fullmatch(line):
            found[key] = f"{found.get(key, '')} {more['comment']}".strip()
        elif match := _KEY.fullmatch(line):
            section = section if match["indent"] else match["key"]
            key = f"{section}.{match['key']}" if match["indent"] else section
            found[key] = (match["comment"] or "").strip()
    return found


def described(schema: type) -> tuple[str, dict[str, str]]:
    """What the docstring of a dataclass says before its first key, and the meaning of each key that it names."""
    names = {field.name for field in dataclasses.fields(schema)}
    about, found = [], {}
    for paragraph in re.split(r"\n\s*\n", schema.__doc__ or ""):
        text = " ".join(paragraph.split())
        starts = [m for m in re.finditer(r"(?:^|(?<=[.;] ))(\w+(?:, \w+)*): ", text) if names.issuperset(_listed(m))]
        if not found:
            about.append(text[: starts[0].start()] if starts else text)
        for match, end in zip(starts, [*(m.start() for m in starts[1:]), len(text)], strict=False):
            found |= dict.fromkeys(_listed(match), text[match.end() : end].rstrip(" ;."))
    return " ".join(about).strip(), found


def _listed(match: re.Match[str]) -> list[str]:
    return match[1].split(", ")


def _of_config_yaml(
    section: str, schema: type, values: Mapping[str, Any], rules: Mapping[str, Rule], meanings: Mapping[str, str]
) -> Table:
    """A field that config.yaml does not hold is a section of its own (of Config)."""
    prefix, hints, keys = f"{section}." if section else "", typing.get_type_hints(schema), []
    for field in dataclasses.fields(schema):
        name = f"{prefix}{field.name}"
        if field.name in values and name not in NESTED:
            default, allowed = f"`{_plain(values[field.name])}`", _allowed(rules.get(name))
            keys.append(Key(name, _type(field, hints), default, allowed, meanings.get(name, "")))
    return Table(section, (), "", meanings.get(section, ""), tuple(keys))


def _of_group(group: str, chosen: str) -> list[Table]:
    files = {option: _values(f"{group}/{option}.yaml") for option in sorted(options(group))}
    order = list(SECTIONS[group])
    by_schema: dict[type, list[str]] = {}
    for option in sorted(files, key=lambda o: (o != chosen, order.index(files[o]["name"]))):
        by_schema.setdefault(SECTIONS[group][files[option]["name"]], []).append(option)
    return [_of_options(group, chosen, schema, {o: files[o] for o in its}) for schema, its in by_schema.items()]


def _of_options(group: str, chosen: str, schema: type, files: Mapping[str, Mapping[str, Any]]) -> Table:
    rules = {option: _rules(schema, values) for option, values in files.items()}
    (about, meanings), hints, keys = described(schema), typing.get_type_hints(schema), []
    for field in dataclasses.fields(schema):
        name = f"{group}.{field.name}"
        having = [option for option in files if field.name in files[option]]
        if field.name != "name":
            defaults = {option: f"`{_plain(files[option][field.name])}`" for option in having}
            allowed = {option: _allowed(rules[option].get(name)) for option in having}
            default, whole = _by_option(defaults, list(files)), _by_option(allowed, having)
            keys.append(Key(name, _type(field, hints), default, whole, meanings.get(field.name, "")))
    return Table(group, tuple(files), chosen, about, tuple(keys))


def _rules(schema: type, values: Mapping[str, Any]) -> dict[str, Rule]:
    with recorded() as rules:
        schema(**{key: value for key, value in values.items() if key != "defaults"})
    return rules


def _values(file: str) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.load(conf_dir() / file))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _by_option(values: Mapping[str, str], everyone: list[str]) -> str:
    """One value where all of `everyone` have it, else each with those that do."""
    who: dict[str, list[str]] = {}
    for option, value in values.items():
        who.setdefault(value, []).append(option)
    if len(who) == 1 and len(values) == len(everyone):
        return next(iter(who))
    return ", ".join(f"{value} ({', '.join(names)})" for value, names in who.items())


def _type(field: dataclasses.Field[Any], hints: Mapping[str, Any]) -> str:
    return field.metadata.get("type") or _type_name(hints[field.name])


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_type_name(part) for part in typing.get_args(hint))
    if hint is type(None):
        return "null"
    return str(hint) if typing.get_args(hint) else hint.__name__


def _plain(value: Any) -> str:
    """As on the command line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _allowed(rule: Rule | None) -> str:
    if rule is None:
        return ""
    if rule.choices:
        return _quoted(rule.choices)
    low = "" if rule.low is None else f"{'above' if rule.strict else 'from'} {_number(rule.low)}"
    high = "" if rule.high is None else f"to {'below ' if rule.below_high else ''}{_number(rule.high)}"
    return f"{low} {high}".strip()


def _quoted(values: Iterable[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _number(value: int | float) -> str:
    """Large powers of 2 as such."""
    if isinstance(value, int) and value >= 2**20:
        for exact, rest in ((value, ""), (value + 1, " - 1")):
            if exact & (exact - 1) == 0:
                return f"2^{exact.bit_length() - 1}{rest}"
    return str(value)
