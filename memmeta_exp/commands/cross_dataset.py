"""The dataset that `memmeta evaluate ... dataset=OTHER` tests a run on: its configuration, and whether it fits."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from memmeta_exp.config import (
    Config,
    ConfigError,
    channels_and_size,
    check_tasks_fit,
    from_dict,
    option_class,
    path_keys,
    to_dict,
)
from memmeta_exp.config.compose import composed, text_of

GROUP = "dataset"


def split_paths(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Where files that the run names are now, by key, and the other arguments. Beside dataset=OTHER the keys of the
    dataset are that one's."""
    groups = {key.partition(".")[0] for key in path_keys() if "." in key}
    if any(argument.startswith(f"{GROUP}=") for argument in arguments):
        groups.discard(GROUP)
    keys = [key for key in path_keys() if key.partition(".")[0] in groups]
    ours = [a for a in arguments if a.partition("=")[0] in keys and "=" in a]
    return {a.partition("=")[0]: text_of(a) for a in ours}, [a for a in arguments if a not in ours]


def split_dataset(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Those of `arguments` that choose a dataset or set its keys, and the others."""
    ours = [a for a in arguments if a.partition("=")[0].partition(".")[0] == GROUP]
    return ours, [a for a in arguments if a not in ours]


def on_other_dataset(config: Config, overrides: list[str], shape: Mapping[str, int | None]) -> Config:
    """The configuration of a run with the dataset that `overrides` choose in place of its own, and the `shape` of tasks
    that is not None. ConfigError where they choose none, or one whose images the model cannot take."""
    if not any(override.startswith(f"{GROUP}=") for override in overrides):
        raise ConfigError(f"{overrides[0]} is a key of which dataset? Choose it too: {GROUP}=NAME")
    section: Any = OmegaConf.to_container(composed(overrides).dataset, resolve=True)
    for name in (section["name"], config.dataset.name):
        if not option_class("dataset", name).has_images:
            raise ConfigError(f"{overrides[0]}: a test on another dataset is for images, and {GROUP}={name} has none")
    try:
        asked: dict[str, Any] = {key: value for key, value in shape.items() if value is not None}
        if (
            config.algorithm.classifies
        ):  # training tasks leave no trace in the model, and may be of more classes than there are
            asked["training"] = {}
        moved = from_dict({**to_dict(config), GROUP: section, **asked})
        check_tasks_fit(moved)
    except ConfigError as error:
        raise ConfigError(f"the run cannot be tested on {GROUP}={section['name']}: {error}") from None
    ours, theirs = _images(config), _images(moved)
    if ours != theirs:
        set_them = f", or set {GROUP}.image_size and {GROUP}.channels" if "image_size" in section else ""
        raise ConfigError(
            f"{GROUP}={moved.dataset.name} has images of {theirs}, and the run on {config.dataset.name} takes {ours}: "
            f"name a dataset of that size and those channels{set_them}"
        )
    return moved


def _images(config: Config) -> str:
    channels, size = channels_and_size(config.dataset)
    return f"{size}x{size} pixels in {channels} channel{'s' if channels > 1 else ''}"
