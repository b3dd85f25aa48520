"""The command-line keys whose values are paths, with any characters that the file system allows."""

import os
from pathlib import Path

PATH_KEYS = (
    "data_root", "out", "details", "run", "resume", "dir", "path", "split_file", "support", "query", "weights",
    "dataset.path", "dataset.split_file", "backbone.weights", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir",
    "hydra.launcher.submitit_folder",
)  # fmt: skip


def is_path_key(key: str) -> bool:
    """Whether the value of `key`, with or without Hydra's prefix +, is a path."""
    return key.lstrip("+") in PATH_KEYS


def home_path(path: str) -> Path:
    """`path` with the home folder in place of ~ or ~NAME; as it is where nobody has that name."""
    return Path(os.path.expanduser(path))


def at_home(argument: str) -> str:
    """Expands ~ in KEY=~/PATH for path keys, since shells do not after `=`. Returns any other argument as it is."""
    key, equals, value = argument.partition("=")
    if not is_path_key(key) or not value.startswith("~"):
        return argument
    return f"{key}{equals}{os.path.expanduser(value)}"
