"""The keys whose values are paths, which a command line may hold in any form that the file system allows."""

import os

PATH_KEYS = (  # what a sweep file holds is left as it is
    "data_root", "out", "details", "run", "resume", "dir", "path", "split_file", "support", "query", "weights",
    "dataset.path", "dataset.split_file", "backbone.weights", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir",
    "hydra.launcher.submitit_folder",
)  # fmt: skip


def is_path_key(key: str) -> bool:
    """Whether `key`, with Hydra's prefix or without, takes a path."""
    return key.lstrip("+") in PATH_KEYS


def at_home(argument: str) -> str:
    """KEY=~/PATH with the home folder in place of ~, which shells leave there behind a `=`; any other as it is."""
    key, equals, value = argument.partition("=")
    if not is_path_key(key) or not value.startswith("~"):
        return argument
    return f"{key}{equals}{os.path.expanduser(value)}"
