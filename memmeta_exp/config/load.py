"""From what Hydra composed, or from a config.yaml, to a checked `Config`."""

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
from memmeta_exp.utils.reading import fault, parse_yaml, read_text


def _join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _whose(values: Mapping[str, Any]) -> str:
    """An experiment may set keys of an option that the command line has replaced by another."""
    return (
        f" (of {values['name']}; an experiment may set keys that only its own choice has)" if "name" in values else ""
    )


def _structured(key: str, schema: type, values: Mapping[str, Any]) -> Any:
    """`values` checked against `schema` by OmegaConf: unknown keys and wrong types are one-line errors."""
    hints = get_type_hints(schema)
    known = {f.name: hints[f.name] for f in dataclasses.fields(schema)}
    for name, value in values.items():
        path = _join(key, str(name))
        if name not in known:
            raise ConfigError(f"unknown key '{path}'{closest(path, [_join(key, k) for k in known])}{_whose(values)}")
        if get_origin(known[name]) is list and not isinstance(value, list):
            raise ConfigError(f"{path}={value} is no list: write {path}=[A,B,...]{_whose(values)}")
        if known[name] in (int, int | None) and isinstance(value, float):
            fix = f": write {path}={int(value)}" if value.is_integer() else ""
            raise ConfigError(f"{path}={value:g} is no whole number{fix}{_whose(values)}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), dict(values)))
    except OmegaConfBaseException as error:
        path = _join(key, str(error.full_key or ""))
        raise ConfigError(f"{path}: {str(error.msg or error).splitlines()[0]}") from None
    except OverflowError:  # which OmegaConf lets through
        raise ConfigError(f"{key or 'a key'} holds a whole number that no float can hold: write it smaller") from None


DEFAULTS = {  # the option of a group where a section names none
    "algorithm": "proposed",
    "dataset": "glyphs",
    "backbone": "conv4",
    "head": "linear",
    "optimizer": "adam",
    "tracking": "wandb",
}
MAY_BE_MISSING = ("head",)  # of runs whose config.yaml is from before there was a choice


def section(group: str, values: Mapping[str, Any]) -> Any:
    """The section of `group` that `values` (as in conf/GROUP/OPTION.yaml) describe; ConfigError where there is none."""
    return _structured(group, option_class(group, str(values.get("name", DEFAULTS[group]))), values)


def from_dict(values: Mapping[str, Any]) -> Config:
    """The `Config` that a plain dictionary (a resolved config.yaml) describes, once its plug-ins are imported;
    ConfigError where it cannot be run."""
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
        raise ConfigError(f"{file} is damaged: it holds ${{..}}, and a run writes the values themselves")
    odd = fault(values, dict[str, Any])
    if odd:
        raise ConfigError(f"{file} is damaged: {odd}")
    return as_of_today(values)


def stored_values(file: Path) -> dict[str, Any]:
    """The values in a run's config.yaml, also of one of another version: what this version knows has its type. Raises
    FileNotFoundError and ConfigError."""
    values = _read(file)
    known: dict[str, Any] = {"": Config, **NESTED}
    for group in GROUPS:
        stored = values.get(group, {})
        known[group] = options(group).get(str(stored.get("name"))) if isinstance(stored, dict) else None
    for group, schema in known.items():
        stored = values.get(group, {}) if group else {k: v for k, v in values.items() if k not in known}
        found = fault(stored, dict[str, Any], group) or _mistyped(stored, schema, group)
        if found:
            raise ConfigError(f"{file} is damaged: {found}")
    try:
        group_digest(values)
    except TypeError:
        raise ConfigError(f"{file} is damaged: it has keys that are no texts") from None
    return values


def _mistyped(section: dict[str, Any], schema: type | None, group: str) -> str | None:
    """The first key that `schema` knows and whose value has another type than it says, in one clause."""
    hints = get_type_hints(schema) if schema else {}
    faults = (fault(value, hints[key], _join(group, key)) for key, value in section.items() if key in hints)
    return next((found for found in faults if found), None)


def from_yaml(file: Path, changes: Mapping[str, Any] | None = None) -> Config:
    """The `Config` of a run's config.yaml, with `changes` by dotted keys; ConfigError, which names the file, otherwise.
    No file but this one is looked at."""
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
    """Nested `values` with `changes`, whose keys are dotted."""
    found = dict(values)
    for key, value in changes.items():
        section, _, rest = key.partition(".")
        found[section] = changed(found.get(section) or {}, {rest: value}) if rest else value
    return found


def from_omegaconf(cfg: DictConfig, folder: str = ".") -> Config:
    """The `Config` of what Hydra composed, its paths relative to `folder` made absolute. ConfigError where it is none,
    or its dataset is missing or too small."""
    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error.msg or error).splitlines()[0]) from None
    assert isinstance(values, dict)
    config = absolute(from_dict({str(k): v for k, v in values.items()}), folder)
    check_tasks_fit(config)
    return config
