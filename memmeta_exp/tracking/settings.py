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
    project: str | None = option(None, "W&B's project; null: $WANDB_PROJECT, else memmeta")
    entity: str | None = option(None, "whose project it is; null: $WANDB_ENTITY, else the account's default")
    tags: list[str] = option([], "tags of the run in W&B, besides its own and $WANDB_TAGS")
    run_group: str | None = option(
        None, "W&B's group; null: $WANDB_RUN_GROUP, else one for all seeds of a configuration"
    )
    run_name: str | None = option(None, "the run's name in W&B; null: $WANDB_NAME, else algorithm, dataset and so on")
    notes: str | None = option(None, "a note to the run in W&B; null: $WANDB_NOTES")
    job_type: str | None = option(None, "the run's job type in W&B; null: $WANDB_JOB_TYPE, else train")
    init_timeout_s: float = option(4.0, "online, seconds to reach the server before going on offline", above=0)
