"""Builds a checked `Config` from what Hydra composed, or from a stored config.yaml."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from memmeta_exp.config.fits import check_tasks_fit
from memmeta_exp.config.older import as_of_today
from memmeta_exp.config.paths import absolute
from memmeta_exp.config.plugins import modules_of, plug_in
from memmeta_exp.config.registry import GROUPS, option_class, options
from memmeta_exp.config.run import Config, group_digest
from memmeta_exp.config.sections import NESTED
from memmeta_exp.config.validation import closest
from memmeta_exp.utils.errors import ConfigError, DataError
from memmeta_exp.utils.reading import mismatch, parse_yaml, read_text


def _join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _whose(values: Mapping[str, Any]) -> str:
    """Names the option: an experiment may set keys of an option that the command line has replaced."""
    return f" ({values['name']} is chosen; an experiment may set keys of another option)" if "name" in values else ""


def _structured(key: str, schema: type, values: Mapping[str, Any]) -> Any:
    """`values` checked against `schema` by OmegaConf: unknown keys and wrong types are one-line errors."""
    hints = get_type_hints(schema)
    known = {f.name: hints[f.name] for f in dataclasses.fields(schema)}
    for name, value in values.items():
        path = _join(key, str(name))
        if name not in known:
            raise ConfigError(f"unknown key '{path}'{closest(path, [_join(key, k) for k in known])}{_whose(values)}")
        if get_origin(known[name]) is list and not isinstance(value, list):
            raise ConfigError(f"{path}={value} is not a list: write {path}=[A,B,...]{_whose(values)}")
        if known[name] in (int, int | None) and isinstance(value, float):
            fix = f": write {path}={int(value)}" if value.is_integer() else ""
            raise ConfigError(f"{path}={value:g} is not a whole number{fix}{_whose(values)}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), dict(values)))
    except OmegaConfBaseException as error:
        path = _join(key, str(error.full_key or ""))
        raise ConfigError(f"{path}: {str(error.msg or error).splitlines()[0]}") from None
    except OverflowError:  # OmegaConf does not catch it
        raise ConfigError(f"{key or 'a key'} holds an integer too large for a float: write a smaller one") from None


DEFAULTS = {  # the option of a group if a section has no `name`
    "algorithm": "proposed",
    "dataset": "glyphs",
    "backbone": "conv4",
    "head": "linear",
    "optimizer": "adam",
    "tracking": "wandb",
}
MAY_BE_MISSING = ("head",)  # older versions wrote no such section


def section(group: str, values: Mapping[str, Any]) -> Any:
    """The section of `group` with `values`, as in conf/GROUP/OPTION.yaml. Raises ConfigError if they are invalid."""
    return _structured(group, option_class(group, str(values.get("name", DEFAULTS[group]))), values)


def from_dict(values: Mapping[str, Any]) -> Config:
    """The `Config` of a plain dictionary (a resolved config.yaml). Imports its plug-ins first.

    Raises ConfigError if it is invalid.
    """
    values, sections = dict(values), {}
    values["plugins"] = modules_of(values.get("plugins", []))
    plug_in(values["plugins"])
    for group in GROUPS:
        chosen = values.pop(group, {} if group in MAY_BE_MISSING else None)
        if not isinstance(chosen, Mapping):
            raise ConfigError(f"{group}={chosen} is not a section: choose it with {group}={DEFAULTS[group]}")
        sections[group] = section(group, chosen)
    values.pop("experiment", None)
    for key, schema in NESTED.items():
        nested = values.pop(key, {})
        if not isinstance(nested, Mapping):
            fields = [f"{key}.{f.name}" for f in dataclasses.fields(schema)]
            raise ConfigError(f"{key}={nested} is not a section: set {', '.join(fields[:-1])} or {fields[-1]}")
        sections[key] = _structured(key, schema, nested)
    known = {f.name: f.type for f in dataclasses.fields(Config) if f.name not in sections}
    scalars = dataclasses.make_dataclass(
        "Scalars", [(f.name, f.type, f) for f in dataclasses.fields(Config) if f.name in known]
    )
    plain = _structured("", scalars, values)
    return Config(**sections, **{name: getattr(plain, name) for name in known})


_LIMIT = 2**20  # bytes of a config.yaml


def _read(file: Path) -> dict[str, Any]:
    try:
        text = read_text(file, _LIMIT)
        values = parse_yaml(text)
    except DataError as error:
        raise ConfigError(str(error)) from None
    except ValueError as error:
        raise ConfigError(f"{file} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file} is damaged: it holds no mapping of keys to values")
    if "${" in text:
        raise ConfigError(f"{file} is damaged: it holds an interpolation ${{..}}, and a run writes values only")
    odd = mismatch(values, dict[str, Any])
    if odd:
        raise ConfigError(f"{file} is damaged: {odd}")
    return as_of_today(values)


def stored_values(file: Path) -> dict[str, Any]:
    """The values of a run's config.yaml, which another version may have written.

    Keys that this version knows are checked for their type; others are kept. Raises FileNotFoundError and ConfigError.
    """
    values = _read(file)
    known: dict[str, Any] = {"": Config, **NESTED}
    for group in GROUPS:
        stored = values.get(group, {})
        known[group] = options(group).get(str(stored.get("name"))) if isinstance(stored, dict) else None
    for group, schema in known.items():
        stored = values.get(group, {}) if group else {k: v for k, v in values.items() if k not in known}
        found = mismatch(stored, dict[str, Any], group) or _mistyped(stored, schema, group)
        if found:
            raise ConfigError(f"{file} is damaged: {found}")
    try:
        group_digest(values)
    except TypeError:
        raise ConfigError(f"{file} is damaged: it has keys that are not strings") from None
    return values


def _mistyped(section: dict[str, Any], schema: type | None, group: str) -> str | None:
    """Describes the first key whose value does not have the type that `schema` declares; None if there is none."""
    hints = get_type_hints(schema) if schema else {}
    mismatches = (mismatch(value, hints[key], _join(group, key)) for key, value in section.items() if key in hints)
    return next((found for found in mismatches if found), None)


def from_yaml(file: Path, changes: Mapping[str, Any] | None = None) -> Config:
    """The `Config` of a run's config.yaml, with `changes` by dotted keys. Reads no other file.

    Raises ConfigError, which names the file, if it is missing or damaged.
    """
    try:
        values = _read(file)
    except FileNotFoundError:
        raise ConfigError(f"{file} does not exist: name a run folder that memmeta train wrote") from None
    try:
        plug_in(modules_of(values.get("plugins", [])))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    try:
        config = from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{file} is damaged: {error}") from None
    return from_dict(changed(values, changes)) if changes else config


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the nested `values` with `changes`, whose keys are dotted."""
    found = dict(values)
    for key, value in changes.items():
        section, _, rest = key.partition(".")
        found[section] = changed(found.get(section) or {}, {rest: value}) if rest else value
    return found


def from_omegaconf(cfg: DictConfig, folder: str = ".") -> Config:
    """The `Config` of what Hydra composed. Its relative paths are taken from `folder` and made absolute.

    Raises ConfigError if it is invalid, or its dataset is too small for its tasks.
    """
    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error.msg or error).splitlines()[0]) from None
    assert isinstance(values, dict)
    config = absolute(from_dict({str(k): v for k, v in values.items()}), folder)
    check_tasks_fit(config)
    return config
