"""The registry of options: components registered with `register`, by this package or by a user's own module.

The built-in components are imported when an option is first looked up.
"""

import importlib
from typing import Any, TypeVar

from memmeta_exp.config.section import Component
from memmeta_exp.config.validation import closest
from memmeta_exp.utils.errors import ConfigError

GROUPS = ("algorithm", "dataset", "backbone", "head", "optimizer", "tracking")
BUILT_IN = (
    "memmeta_exp.algorithms",
    "memmeta_exp.data.datasets",
    "memmeta_exp.data.quadratic",
    "memmeta_exp.data.logistic",
    "memmeta_exp.data.sinusoid",
    "memmeta_exp.backbones",
    "memmeta_exp.experiment.optimizers",
    "memmeta_exp.tracking.settings",
)
C = TypeVar("C", bound=type[Component])

_registered: dict[str, dict[str, type[Component]]] = {group: {} for group in GROUPS}


def register(component: C) -> C:
    """Class decorator: registers a configuration dataclass as the option `name` of its `group`.

    Raises ConfigError if it is no component dataclass, if its group is unknown, if its name is empty, or if another
    class has the name.
    """
    if not (issubclass(component, Component) and "__dataclass_params__" in vars(component)):
        raise ConfigError(
            f"{component.__qualname__} is not a component: write `@register` above `@dataclass(frozen=True)` above a "
            "subclass of AlgorithmConfig, BackboneConfig, DatasetConfig or HeadConfig"
        )
    group, name = component.group, component.name
    if group not in _registered:
        raise ConfigError(f"{component.__qualname__}: group '{group}' is unknown{closest(group, GROUPS)}")
    if not name:
        raise ConfigError(f"{component.__qualname__} of group {group} has no name: give its field `name` a default")
    other = _registered[group].get(name)
    if other is not None and _origin(other) != _origin(component):
        raise ConfigError(
            f"{group}={name} is registered twice, by {'.'.join(_origin(other))} and {'.'.join(_origin(component))}: "
            "rename one"
        )
    _registered[group][name] = component
    return component


def _origin(component: type) -> tuple[str, str]:
    return component.__module__, component.__qualname__


def options(group: str) -> dict[str, Any]:
    """Every option of `group` by name, in the order of registration."""
    for module in BUILT_IN:
        importlib.import_module(module)
    return dict(_registered[group])


def option_class(group: str, name: str) -> Any:
    """The configuration class of GROUP=NAME. Raises ConfigError, with the nearest name, if there is none."""
    known = options(group)
    if name not in known:
        raise ConfigError(f"{group}.name={name} is unknown{closest(name, known)}")
    return known[name]
