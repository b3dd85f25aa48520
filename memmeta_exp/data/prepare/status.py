"""The status of every dataset on this machine, for `memmeta data`."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import getdoc
from pathlib import Path
from typing import Any

from memmeta_exp.config import options
from memmeta_exp.data.datasets import FolderConfig
from memmeta_exp.data.folder import folder_files
from memmeta_exp.data.folder_entries import said
from memmeta_exp.data.own_files import left_out
from memmeta_exp.utils.errors import ConfigError, DataError, MemmetaError

_Row = tuple[bool, bool | None, str]


@dataclass(frozen=True)
class DatasetStatus:
    """present: usable now. verified: whether its content is as published; None: not compared. detail: one line, with
    the fix if it is not usable."""

    name: str
    description: str
    present: bool
    verified: bool | None
    detail: str


def _by_default(name: str) -> Any:
    return options("dataset")[name]()


def status(
    data_root: str | None = None,
    path: str | None = None,
    split_file: str | None = None,
    configured: Callable[[str], Any] = _by_default,
) -> list[DatasetStatus]:
    """The status of every registered dataset, in the order of registration. Hashes the pixels of CIFAR-100 (under a
    second), but not of larger datasets.

    path, split_file: of dataset=folder. configured: returns the configuration of a dataset by name.
    """
    known: dict[str, _Row] = {
        "glyphs": _glyphs(),
        **dict.fromkeys(("synthetic", "quadratic", "logistic", "sinusoid"), (True, None, "generated at every start")),
        "folder": _own_folder(path, split_file),
        **{name: _cifar100(name, data_root) for name in ("cifar_fs", "fc100")},
        **{name: _stored(name, data_root) for name in ("miniimagenet", "tieredimagenet", "omniglot")},
    }
    rows = {name: known.get(name) or _registered(name, configured, data_root) for name in options("dataset")}
    return [DatasetStatus(name, _description(name), *row) for name, row in rows.items()]


def _description(name: str) -> str:
    return (getdoc(options("dataset")[name]) or name).splitlines()[0]


def _registered(name: str, configured: Callable[[str], Any], data_root: str | None) -> _Row:
    """The status of a plug-in's dataset, from its `require` and `facts`."""
    try:
        config = configured(name)
        config.require(data_root)
        config.facts()
    except (MemmetaError, OSError) as error:
        return False, None, str(error).partition("\n")[0] or type(error).__name__
    return True, None, f"read by its own loader; `memmeta data verify {name}` counts what it holds"


def _cifar100(name: str, data_root: str | None) -> _Row:
    from memmeta_exp.data import cifar100_torchmeta
    from memmeta_exp.data.loading import resolve_root

    path = None
    try:
        root = resolve_root(data_root, name)
        path = cifar100_torchmeta.hdf5_path(root)
        cifar100_torchmeta.class_dataset(name)
        sound = cifar100_torchmeta.verify(root)
    except DataError as error:
        return False, False if path and path.is_file() else None, str(error)
    return True, sound, str(path) if sound else _not_cifar100(path)


def _not_cifar100(path: Path) -> str:
    root = path.parent.parent
    return f"{path} is not CIFAR-100 as published: `memmeta data fetch cifar100 data_root={root}` replaces it"


def _stored(name: str, data_root: str | None) -> _Row:
    from memmeta_exp.data import stored_datasets
    from memmeta_exp.data.loading import resolve_root

    folder = None
    try:
        root = resolve_root(data_root, name)
        folder = stored_datasets.store_folder(name, root)
        stored_datasets.require(name, root)
    except DataError as error:
        return False, False if folder and folder.is_dir() else None, str(error)
    if not folder.is_dir():
        return True, None, f"torchmeta's files in {root / name}, converted once at the first use"
    return True, None, f"{folder}; `memmeta data verify {name}` compares its content"


def _own_folder(path: str | None, split_file: str | None) -> _Row:
    if path is None:
        return False, None, "no folder is named: memmeta data path=DIR looks at one (docs/datasets.md)"
    try:
        facts = FolderConfig(path=path, split_file=split_file).facts()
        others = said(left_out(folder_files(path, split_file)))
    except ConfigError as error:
        return False, None, str(error)
    classes = ", ".join(f"{count} {split}" for split, count in facts.classes.items())
    detail = f"{path}: classes: {classes}; images of a class: {facts.images_per_class} or more"
    return True, None, f"{detail}; left out, for they are not read as images: {others}" if others else detail


def _glyphs() -> _Row:
    from memmeta_exp.data import cache, glyphs

    path = glyphs.cache_path()
    if cache.read(path, glyphs.recipe()) is None:
        return True, None, "drawn in seconds at the first use"
    return True, True, str(path)
