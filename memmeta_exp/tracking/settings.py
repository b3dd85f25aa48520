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
    project: str | None = option(None, "W&B project; null: $WANDB_PROJECT, else memmeta")
    entity: str | None = option(None, "user or team of the project; null: $WANDB_ENTITY, else the account's default")
    tags: list[str] = option([], "additional tags of the run, besides $WANDB_TAGS and the names of its components")
    run_group: str | None = option(
        None, "W&B's group; null: $WANDB_RUN_GROUP, else one for all seeds of a configuration"
    )
    run_name: str | None = option(None, "the run's name in W&B; null: $WANDB_NAME, else algorithm, dataset and so on")
    notes: str | None = option(None, "a note on the run in W&B; null: $WANDB_NOTES")
    job_type: str | None = option(None, "the run's job type in W&B; null: $WANDB_JOB_TYPE, else train")
    init_timeout_s: float = option(4.0, "online: seconds to wait for the server before switching to offline", above=0)
