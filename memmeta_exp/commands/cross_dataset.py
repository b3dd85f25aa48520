"""`memmeta evaluate run=DIR dataset=OTHER`: the configuration that tests a run on another dataset."""

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
    """The path arguments, by key, that say where files of the run are now, and the other arguments.

    If dataset=OTHER is given, dataset.* are keys of OTHER, so they count among the others.
    """
    groups = {key.partition(".")[0] for key in path_keys() if "." in key}
    if any(argument.startswith(f"{GROUP}=") for argument in arguments):
        groups.discard(GROUP)
    keys = [key for key in path_keys() if key.partition(".")[0] in groups]
    ours = [a for a in arguments if a.partition("=")[0] in keys and "=" in a]
    return {a.partition("=")[0]: text_of(a) for a in ours}, [a for a in arguments if a not in ours]


def split_dataset(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments that choose a dataset or set its keys, and the others."""
    ours = [a for a in arguments if a.partition("=")[0].partition(".")[0] == GROUP]
    return ours, [a for a in arguments if a not in ours]


def on_other_dataset(config: Config, overrides: list[str], shape: Mapping[str, int | None]) -> Config:
    """`config` on the dataset that `overrides` choose, with those values of `shape` (shots, queries) that are not None.

    Raises ConfigError if no dataset is chosen, or if the image shape of its images differs from the run's.
    """
    if not any(override.startswith(f"{GROUP}=") for override in overrides):
        raise ConfigError(f"{overrides[0]} is a dataset's key, and no dataset is chosen: add {GROUP}=NAME")
    section: Any = OmegaConf.to_container(composed(overrides).dataset, resolve=True)
    for name in (section["name"], config.dataset.name):
        if not option_class("dataset", name).has_images:
            raise ConfigError(f"{overrides[0]}: a test on another dataset needs images, and {GROUP}={name} has none")
    try:
        asked: dict[str, Any] = {key: value for key, value in shape.items() if value is not None}
        if (
            config.algorithm.classifies
        ):  # the model does not depend on training.*, whose ways may exceed the classes of this dataset
            asked["training"] = {}
        moved = from_dict({**to_dict(config), GROUP: section, **asked})
        check_tasks_fit(moved)
    except ConfigError as error:
        raise ConfigError(f"the run cannot be tested on {GROUP}={section['name']}: {error}") from None
    ours, theirs = _images(config), _images(moved)
    if ours != theirs:
        set_them = f", or set {GROUP}.image_size and {GROUP}.channels" if "image_size" in section else ""
        raise ConfigError(
            f"{GROUP}={moved.dataset.name} has images of {theirs}, and the run on {config.dataset.name} needs {ours}: "
            f"choose a dataset with this size and number of channels{set_them}"
        )
    return moved


def _images(config: Config) -> str:
    channels, size = channels_and_size(config.dataset)
    return f"{size}x{size} pixels in {channels} channel{'s' if channels > 1 else ''}"
