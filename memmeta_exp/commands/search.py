"""Searches by a sweeper of Hydra: what they need, and what they maximise."""

import logging
from collections.abc import Mapping
from importlib.util import find_spec

from memmeta_exp.config import ConfigError
from memmeta_exp.config.overrides import draws

OBJECTIVE = "val/acc_best (less val/mse_best or val/loss_best where there is no accuracy)"
OPTUNA = "hydra/sweeper=optuna"
EXTRAS = {  # override: the plugin of Hydra that it needs, and the extra of ours that installs it
    OPTUNA: ("hydra_optuna_sweeper", "optuna"),
    "hydra/launcher=slurm": ("hydra_submitit_launcher", "slurm"),
}

logger = logging.getLogger("memmeta")


def require_extras(overrides: list[str]) -> None:
    """ConfigError where a launcher or sweeper of Hydra is named whose package is not installed."""
    for override in overrides:
        package, extra = EXTRAS.get(override, (None, None))
        if package and (find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{package}") is None):
            raise ConfigError(f"{override} needs {package.replace('_', '-')}: pip install 'memmeta[{extra}]'")


def require_a_search(overrides: list[str]) -> None:
    """ConfigError for an interval that nothing draws from."""
    if any(override.lstrip("+").startswith("hydra/sweeper=") for override in overrides):
        return
    for override in filter(draws, overrides):
        raise ConfigError(f"{override}: only a search draws from an interval; list values, A,B,C, or add {OPTUNA}")


def maximised(overrides: list[str]) -> list[str]:
    """`overrides` that make Optuna maximise OBJECTIVE, where they set no direction; by default it minimises."""
    if OPTUNA not in overrides or any(o.lstrip("+").startswith("hydra.sweeper.direction=") for o in overrides):
        return overrides
    logger.info("the search maximises %s", OBJECTIVE)
    return [*overrides, "hydra.sweeper.direction=maximize"]


def objective(summary: Mapping[str, float]) -> float:
    """What a sweeper of Hydra maximises: val/acc_best, or less val/mse_best or val/loss_best where that is what the
    best theta is chosen by."""
    if "val/acc_best" in summary:
        return float(summary["val/acc_best"])
    return -float(summary["val/mse_best"] if "val/mse_best" in summary else summary["val/loss_best"])
