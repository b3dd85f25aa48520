"""`plugins=[MODULE,...]`: a user's own modules. What they enter with `register` is an option like any other.

They are imported before a configuration is composed or read. A run's config.yaml names them, so that whoever goes on
with the run, tests it or shares its tasks imports them too.
"""

import importlib
from collections.abc import Iterable
from typing import Any

from memmeta_exp.config.registry import GROUPS, options
from memmeta_exp.config.section import Component
from memmeta_exp.utils.errors import ConfigError
from memmeta_exp.utils.import_path import search_current_folder, why_not_imported

_imported: set[str] = set()


def modules_of(value: Any) -> list[str]:
    """The modules that plugins=`value` names: those of a list, or one name alone. ConfigError for anything else."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(
            f"plugins={value} names no modules: write plugins=[my_module] or plugins=[package.module,...]"
        )
    return names


def plug_in(modules: Iterable[str]) -> None:
    """Imports `modules`. They are looked for as Python does, and in the current folder.

    ConfigError, in one line, where one cannot be imported, enters nothing or a name that is there already, or enters a
    component that lacks a method.
    """
    for module in modules:
        if module not in _imported:
            _import(module)
            _imported.add(module)


def _import(module: str) -> None:
    before = _registered()
    search_current_folder()
    try:
        namespace = vars(importlib.import_module(module))
    except ConfigError as error:
        raise ConfigError(f"plugins={module}: {error}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's module raises is the user's to read
        raise ConfigError(f"plugins={module} {why_not_imported(module, error)}") from None
    own = [c for c in _registered() if c not in before or _belongs(c, module) or c in namespace.values()]
    if not own:
        raise ConfigError(
            f"plugins={module} enters nothing: put `@register` of memmeta_exp.config above the dataclass of a component"
        )
    for component in own:
        _require_methods(module, component)


def _registered() -> list[type[Component]]:
    """Every component there is, the package's own included."""
    return [component for group in GROUPS for component in options(group).values()]


def _belongs(component: type, module: str) -> bool:
    return f"{component.__module__}.".startswith(f"{module}.")


def _require_methods(module: str, component: type[Component]) -> None:
    """ConfigError where a method that its base only declares is missing."""
    missing = [name for name in dir(component) if getattr(getattr(component, name), "__isabstractmethod__", False)]
    if missing:
        raise ConfigError(
            f"plugins={module}: {component.group}={component.name} has no method {missing[0]}: write it in "
            f"{component.__qualname__}, as memmeta_exp/config/components.py says"
        )
