"""The `tracking` section: how a run appears in W&B."""

from dataclasses import dataclass
from typing import ClassVar

from memmeta_exp.config import option, register
from memmeta_exp.config.components import TrackingBase


@register
@dataclass(frozen=True)
class TrackingConfig(TrackingBase):
    """W&B, besides the local files, which are written in every mode."""

    label: ClassVar[str] = "W&B"
    name: str = "wandb"
    mode: str = option(
        "offline",
        "online, offline (no account needed; `wandb sync` sends it later) or disabled",
        choices=("online", "offline", "disabled"),
    )
    project: str = option("memmeta", "W&B's project")
    entity: str | None = option(None, "the user or team whose project it is; null: the account's default")
    tags: list[str] = option([], "tags of the run in W&B, besides its own")
    init_timeout_s: float = option(4.0, "online, seconds to reach the server before going on offline", above=0)
