"""`memmeta data`: lists, downloads, imports and verifies datasets, and lists or clears the cache."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from memmeta_exp.commands.arguments import flag, parse
from memmeta_exp.config import ConfigError, closest, options, section
from memmeta_exp.config.compose import group_values, without_plugins
from memmeta_exp.config.validation import shown
from memmeta_exp.data.datasets import FolderConfig
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.path_keys import home_path

HELP = """memmeta data [data_root=DIR] [path=DIR]             lists every dataset and whether it is present
memmeta data fetch NAME [data_root=DIR]             downloads and converts it; run again to continue
memmeta data import NAME PATH [data_root=DIR]       converts files that you have, from a folder or an archive
memmeta data verify NAME [data_root=DIR]            compares counts, classes, pixels and statistics with references
memmeta data cache [clear=true]                     lists the cache of converted images, or removes it

fetch and import take cifar100 (for cifar_fs and fc100), miniimagenet, tieredimagenet or omniglot. import folder PATH
and verify folder PATH take your own images, with [split_file=FILE] [image_size=84] [channels=3] [skip_damaged=false] as
in dataset.*. path=DIR [split_file=FILE] adds your own images to the list. plugins=[MODULE,...] adds the datasets of
your own modules.
data_root is $MEMMETA_DATA by default. docs/datasets.md has the formats, the addresses and the checks."""

PUBLISHED = ("cifar100", "miniimagenet", "tieredimagenet", "omniglot")
_FOLDER = {"split_file": None, "image_size": "84", "channels": "3", "skip_damaged": "false"}


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    arguments = without_plugins(arguments)
    if arguments and arguments[0] in _COMMANDS:
        return _COMMANDS[arguments[0]](arguments[1:])
    for argument in arguments:
        if argument.startswith("download="):
            raise ConfigError(f"'{argument}' is unknown: use memmeta data fetch {argument.partition('=')[2]}")
        if "=" not in argument:
            raise ConfigError(f"unknown command 'data {argument}'{closest(argument, _COMMANDS)}")
    options = parse([a.removeprefix("dataset.") for a in arguments], dict.fromkeys(("data_root", "path", "split_file")))
    if options["split_file"] and not options["path"]:
        raise ConfigError(f"split_file={options['split_file']} needs its folder of images: add path=DIR")
    return _list(options["data_root"], options["path"], options["split_file"])


def _list(data_root: str | None, path: str | None, split_file: str | None) -> int:
    from memmeta_exp.data.prepare.status import status

    for row in status(data_root, path, split_file, _as_in_conf):
        verified = {True: ", content verified", False: ", content NOT as published", None: ""}[row.verified]
        print(f"{row.name}: {'present' if row.present else 'not here'}{verified}")
        print(f"    {row.description}\n    {row.detail}")
    return 0


def _fetch(arguments: list[str]) -> int:
    name, rest = _name("fetch", arguments, PUBLISHED)
    data_root = parse(rest, {"data_root": None})["data_root"]
    from memmeta_exp.data.prepare.fetch import fetch
    from memmeta_exp.data.prepare.progress import ShownProgress

    with ShownProgress() as progress:
        print(fetch(name, _root(data_root, name), progress))
    return 0


def _import(arguments: list[str]) -> int:
    name, rest = _name("import", arguments, (*PUBLISHED, "folder"))
    if name == "folder":
        return _import_folder(*_path("import folder", rest))
    path, rest = _path(f"import {name}", rest)
    data_root = parse(rest, {"data_root": None})["data_root"]
    from memmeta_exp.data.prepare.fetch import import_files
    from memmeta_exp.data.prepare.progress import ShownProgress

    with ShownProgress() as progress:
        print(import_files(name, home_path(path), _root(data_root, name), progress))
    return 0


def _import_folder(path: str, rest: list[str]) -> int:
    from memmeta_exp.data.stored_datasets import folder_store

    print(folder_store(_folder_config(path, rest)).folder)
    print(f"memmeta train {' '.join(['dataset=folder', f'dataset.path={path}', *(f'dataset.{r}' for r in rest)])}")
    return 0


def _verify(arguments: list[str]) -> int:
    names = (*(n for n in options("dataset")), "cifar100")
    name, rest = _name("verify", arguments, names)
    data_root = None
    if name == "folder":
        config = _folder_config(*_path("verify folder", rest))
    else:
        config = _as_in_conf("cifar_fs" if name == "cifar100" else name)
        data_root = parse(rest, {"data_root": None})["data_root"]
    from memmeta_exp.data.prepare.verify import verify

    failed = False
    for check in verify(config, data_root):
        word = {True: "ok", False: "FAILED", None: "no reference"}[check.passed]
        print(f"{word:<13} {check.what}: {check.detail}", flush=True)
        failed |= check.passed is False
    return int(failed)


def _cache(arguments: list[str]) -> int:
    clear = flag(parse(arguments, {"clear": None}), "clear")
    from memmeta_exp.data import cache_contents
    from memmeta_exp.data.aside import loop_status, remove_stale
    from memmeta_exp.data.cache import cache_folder

    unfinished, found = cache_contents.unfinished(), cache_contents.entries()
    if clear:
        unfinished = remove_stale(unfinished)
        found = [entry for entry in found if not cache_contents.remove(entry)]
    for entry in found:
        used = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        print(f"{entry.path}\n    {entry.size / 2**20:.1f} MiB, of {shown(entry.made_of)}, last used {used}", end="")
        print(", in use" if entry.in_use else "")
    for path in unfinished:
        print(
            f"{path}\n    {'being written' if loop_status(path) else 'incomplete, removed before the next conversion'}"
        )
    total, most = sum(entry.size for entry in found), cache_contents.limit()
    print(f"{cache_folder()}: {total / 2**30:.2f} of at most {most / 2**30:g} GiB ({cache_contents.LIMIT_VARIABLE})")
    return 0


def _as_in_conf(name: str) -> Any:
    """The configuration of a dataset with the values of conf/dataset/NAME.yaml."""
    values = {key: value for key, value in group_values(f"dataset/{name}").items() if key != "defaults"}  # of Hydra
    return section("dataset", {**values, "name": name})


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "fetch": _fetch,
    "import": _import,
    "verify": _verify,
    "cache": _cache,
}


def _name(command: str, arguments: list[str], names: tuple[str, ...]) -> tuple[str, list[str]]:
    if not arguments or "=" in arguments[0]:
        raise ConfigError(f"memmeta data {command} needs a name; choose from {', '.join(names)}")
    name = "cifar100" if arguments[0] in ("cifar_fs", "fc100") and "cifar_fs" not in names else arguments[0]
    if name not in names:
        raise ConfigError(f"memmeta data {command} {name}: unknown{closest(name, names)}")
    return name, arguments[1:]


def _path(command: str, arguments: list[str]) -> tuple[str, list[str]]:
    paths = [argument for argument in arguments if "=" not in argument or Path(argument).exists()]
    if len(paths) != 1:
        raise ConfigError(f"memmeta data {command} needs one path: memmeta data {command} PATH")
    return paths[0], [argument for argument in arguments if argument != paths[0]]


def _folder_config(path: str, rest: list[str]) -> FolderConfig:
    options = parse(rest, _FOLDER)
    try:
        image_size, channels = int(options["image_size"] or 0), int(options["channels"] or 0)
    except ValueError as error:
        raise ConfigError(f"image_size and channels are numbers ({error})") from None
    skip = flag(options, "skip_damaged")
    config = FolderConfig("folder", path, options["split_file"], image_size, channels, skip)
    config.facts()
    return config


def _root(data_root: str | None, name: str) -> Path:
    from memmeta_exp.data.loading import resolve_root

    try:
        return resolve_root(data_root, name)
    except DataError:
        raise ConfigError(
            f"{name} needs a folder to be stored in: set data_root=DIR or the environment variable MEMMETA_DATA"
        ) from None
