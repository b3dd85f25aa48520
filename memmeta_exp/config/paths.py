"""Keys whose values name files or folders. A run depends on the content of these files, not on their paths, so the
paths may change when files move."""

import os
from dataclasses import fields, is_dataclass, replace
from typing import Any

from memmeta_exp.config.registry import GROUPS, options
from memmeta_exp.config.run import Config
from memmeta_exp.config.section import option_of


def path_keys() -> tuple[str, ...]:
    """Every path key of every option, dotted: the fields declared with `path=True`."""
    found = dict.fromkeys(_paths(Config))
    for group in GROUPS:
        found |= dict.fromkeys(f"{group}.{name}" for schema in options(group).values() for name in _paths(schema))
    return tuple(found)


def absolute(config: Config, folder: str = ".") -> Config:
    """`config` with absolute paths; relative ones are taken from `folder`."""
    sections = {f.name: value for f in fields(config) if is_dataclass(value := getattr(config, f.name))}
    sections = {name: _absolute(section, folder) for name, section in sections.items()}
    return replace(_absolute(config, folder), **sections)


def _paths(schema: Any) -> list[str]:
    return [f.name for f in fields(schema) if option_of(f).path]


def _absolute(section: Any, folder: str) -> Any:
    given = {name: os.path.expanduser(value) for name in _paths(section) if (value := getattr(section, name))}
    return replace(section, **{name: os.path.abspath(os.path.join(folder, value)) for name, value in given.items()})
