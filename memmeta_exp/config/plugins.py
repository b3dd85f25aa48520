"""`plugins=[MODULE,...]`: a user's own modules. The components they `register` are options like any other.

They are imported before a configuration is composed or read. A run's config.yaml names them, so resuming, evaluating
and worker ranks import them too.
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
    """The modules in the value of `plugins`, a list of names or one name. Raises ConfigError for anything else."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(
            f"plugins={value} names no modules: write plugins=[my_module] or plugins=[package.module,...]"
        )
    return names


def plug_in(modules: Iterable[str]) -> None:
    """Imports `modules` from Python's search path or the current folder.

    Raises a one-line ConfigError if a module cannot be imported, registers nothing, registers a name that is taken, or
    registers a component that lacks a method.
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
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module may raise anything
        raise ConfigError(f"plugins={module} {why_not_imported(module, error)}") from None
    own = [c for c in _registered() if c not in before or _belongs(c, module) or c in namespace.values()]
    if not own:
        raise ConfigError(
            f"plugins={module} registers nothing: put `@register` of memmeta_exp.config above a component's dataclass"
        )
    for component in own:
        _require_methods(module, component)


def _registered() -> list[type[Component]]:
    """Every registered component, built-in ones included."""
    return [component for group in GROUPS for component in options(group).values()]


def _belongs(component: type, module: str) -> bool:
    return f"{component.__module__}.".startswith(f"{module}.")


def _require_methods(module: str, component: type[Component]) -> None:
    """Raises ConfigError if an abstract method of the base class is not defined."""
    missing = [name for name in dir(component) if getattr(getattr(component, name), "__isabstractmethod__", False)]
    if missing:
        raise ConfigError(
            f"plugins={module}: {component.group}={component.name} has no method {missing[0]}: write it in "
            f"{component.__qualname__}, as memmeta_exp/config/components.py says"
        )
