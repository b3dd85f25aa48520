"""Keys whose values name files or folders. What they name decides nothing of a run that its content does not, so they
may change when files move."""

import os
from dataclasses import fields, is_dataclass, replace
from typing import Any

from memmeta_exp.config.registry import GROUPS, options
from memmeta_exp.config.run import Config
from memmeta_exp.config.section import option_of


def path_keys() -> tuple[str, ...]:
    """Every such key of every option, dotted: those whose fields are entered with `path=True`."""
    found = dict.fromkeys(_paths(Config))
    for group in GROUPS:
        found |= dict.fromkeys(f"{group}.{name}" for schema in options(group).values() for name in _paths(schema))
    return tuple(found)


def absolute(config: Config) -> Config:
    """`config` with its relative paths, which are relative to the current folder, made absolute."""
    sections = {f.name: value for f in fields(config) if is_dataclass(value := getattr(config, f.name))}
    return replace(_absolute(config), **{name: _absolute(section) for name, section in sections.items()})


def _paths(schema: Any) -> list[str]:
    return [f.name for f in fields(schema) if option_of(f).path]


def _absolute(section: Any) -> Any:
    given = {name: value for name in _paths(section) if (value := getattr(section, name))}
    return replace(section, **{name: os.path.abspath(os.path.expanduser(value)) for name, value in given.items()})
