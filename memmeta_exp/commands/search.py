"""Hyperparameter searches by a Hydra sweeper: their requirements and their objective."""

import logging
from collections.abc import Mapping
from importlib.util import find_spec

from memmeta_exp.config import ConfigError
from memmeta_exp.config.overrides import draws

OBJECTIVE = "val/acc_best (minus val/mse_best or minus val/loss_best if there is no accuracy)"
OPTUNA = "hydra/sweeper=optuna"
EXTRAS = {  # override: (the Hydra plugin that it needs, the extra of memmeta that installs it)
    OPTUNA: ("hydra_optuna_sweeper", "optuna"),
    "hydra/launcher=slurm": ("hydra_submitit_launcher", "slurm"),
}

logger = logging.getLogger("memmeta")


def require_extras(overrides: list[str]) -> None:
    """Raises ConfigError if `overrides` choose a Hydra launcher or sweeper that is not installed."""
    for override in overrides:
        package, extra = EXTRAS.get(override, (None, None))
        if package and (find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{package}") is None):
            raise ConfigError(f"{override} needs {package.replace('_', '-')}: pip install 'memmeta[{extra}]'")


def require_a_search(overrides: list[str]) -> None:
    """Raises ConfigError for interval(...) without a sweeper that draws from it."""
    if any(override.lstrip("+").startswith("hydra/sweeper=") for override in overrides):
        return
    for override in filter(draws, overrides):
        raise ConfigError(f"{override}: an interval needs a search; list values, A,B,C, or add {OPTUNA}")


def maximised(overrides: list[str]) -> list[str]:
    """`overrides` with Optuna's direction set to maximise OBJECTIVE, unless they set a direction."""
    if OPTUNA not in overrides or any(o.lstrip("+").startswith("hydra.sweeper.direction=") for o in overrides):
        return overrides
    logger.info("the search maximises %s", OBJECTIVE)
    return [*overrides, "hydra.sweeper.direction=maximize"]


def objective(summary: Mapping[str, float]) -> float:
    """The OBJECTIVE that a Hydra sweeper maximises, from a run's `summary`."""
    if "val/acc_best" in summary:
        return float(summary["val/acc_best"])
    return -float(summary["val/mse_best"] if "val/mse_best" in summary else summary["val/loss_best"])
