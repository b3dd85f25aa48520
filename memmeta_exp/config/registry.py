"""The options of every Hydra group: what is entered with `register`, in this package or in a user's own module.

The package's own components are modules like any other's: they are imported when an option is first asked for.
"""

import importlib
import os
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from memmeta_exp.config.section import Component
from memmeta_exp.config.validation import closest
from memmeta_exp.utils.errors import ConfigError

GROUPS = ("algorithm", "dataset", "backbone", "head", "optimizer", "tracking")
BUILT_IN = (
    "memmeta_exp.algorithms",
    "memmeta_exp.config.datasets",
    "memmeta_exp.config.problems",
    "memmeta_exp.config.regression",
    "memmeta_exp.backbones",
    "memmeta_exp.experiment.optimizers",
    "memmeta_exp.tracking.settings",
)
C = TypeVar("C", bound=type[Component])

_entered: dict[str, dict[str, type[Component]]] = {group: {} for group in GROUPS}


def register(component: C) -> C:
    """Enters a configuration dataclass as the option `name` of its `group`.

    ConfigError where the group is none, or another class has the name already.
    """
    group, name = component.group, component.name
    if group not in _entered:
        raise ConfigError(f"{component.__qualname__}: group '{group}' is unknown{closest(group, GROUPS)}")
    if not name:
        raise ConfigError(f"{component.__qualname__} of group {group} has no name: give its field `name` a default")
    other = _entered[group].get(name)
    if other is not None and _origin(other) != _origin(component):
        raise ConfigError(
            f"{group}={name} is entered twice, by {'.'.join(_origin(other))} and by {'.'.join(_origin(component))}: "
            "rename one"
        )
    _entered[group][name] = component
    return component


def _origin(component: type) -> tuple[str, str]:
    return component.__module__, component.__qualname__


def options(group: str) -> dict[str, Any]:
    """Every option of a group by name, in the order of entry."""
    for module in BUILT_IN:
        importlib.import_module(module)
    return dict(_entered[group])


def option_class(group: str, name: str) -> Any:
    """The configuration class of GROUP=NAME; ConfigError, with the nearest name, where there is none."""
    known = options(group)
    if name not in known:
        raise ConfigError(f"{group}.name={name} is unknown{closest(name, known)}")
    return known[name]


def plug_in(modules: Iterable[str]) -> None:
    """Imports modules that enter components. They are looked for as Python does, and in the current folder.

    ConfigError where one cannot be imported, or enters what is there already.
    """
    for group in GROUPS:
        options(group)
    for module in modules:
        _import(module)


def _import(module: str) -> None:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    try:
        importlib.import_module(module)
    except ConfigError as error:
        raise ConfigError(f"plugins={module}: {error}") from None
    except Exception as error:  # noqa: BLE001 - whatever a user's module raises is the user's to read
        text = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"plugins={module} cannot be imported ({type(error).__name__}: {text}): name an installed module, or one "
            "in the current folder or on PYTHONPATH"
        ) from None
