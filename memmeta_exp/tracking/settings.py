"""The `tracking` section: W&B tracking of a run."""

from dataclasses import dataclass
from typing import ClassVar

from memmeta_exp.config import option, register
from memmeta_exp.config.components import TrackingBase


@register
@dataclass(frozen=True)
class TrackingConfig(TrackingBase):
    """Tracking in W&B. Local files are written in every mode."""

    label: ClassVar[str] = "W&B"
    name: str = "wandb"
    mode: str = option(
        "offline",
        "online, offline (no account needed; upload later with `wandb sync`) or disabled",
        choices=("online", "offline", "disabled"),
    )
    project: str = option("memmeta", "W&B project")
    entity: str | None = option(None, "user or team that owns the project; null: the account's default")
    tags: list[str] = option([], "additional tags of the run; names of algorithm, dataset and backbone are always tags")
    init_timeout_s: float = option(4.0, "online: seconds to wait for the server before switching to offline", above=0)
