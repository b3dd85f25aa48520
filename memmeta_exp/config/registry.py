"""The options of every Hydra group: what is entered with `register`, in this package or in a user's own module.

The package's own components are modules like any other's: they are imported when an option is first asked for.
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
    """Enters a configuration dataclass as the option `name` of its `group`.

    ConfigError where it is no dataclass, the group is none, or another class has the name already.
    """
    if not (issubclass(component, Component) and "__dataclass_params__" in vars(component)):
        raise ConfigError(
            f"{component.__qualname__} is no component: write `@register` above `@dataclass(frozen=True)` above a "
            "class whose base is AlgorithmConfig, BackboneConfig, DatasetConfig or HeadConfig"
        )
    group, name = component.group, component.name
    if group not in _registered:
        raise ConfigError(f"{component.__qualname__}: group '{group}' is unknown{closest(group, GROUPS)}")
    if not name:
        raise ConfigError(f"{component.__qualname__} of group {group} has no name: give its field `name` a default")
    other = _registered[group].get(name)
    if other is not None and _origin(other) != _origin(component):
        raise ConfigError(
            f"{group}={name} is entered twice, by {'.'.join(_origin(other))} and by {'.'.join(_origin(component))}: "
            "rename one"
        )
    _registered[group][name] = component
    return component


def _origin(component: type) -> tuple[str, str]:
    return component.__module__, component.__qualname__


def options(group: str) -> dict[str, Any]:
    """Every option of a group by name, in the order of entry."""
    for module in BUILT_IN:
        importlib.import_module(module)
    return dict(_registered[group])


def option_class(group: str, name: str) -> Any:
    """The configuration class of GROUP=NAME; ConfigError, with the nearest name, where there is none."""
    known = options(group)
    if name not in known:
        raise ConfigError(f"{group}.name={name} is unknown{closest(name, known)}")
    return known[name]
