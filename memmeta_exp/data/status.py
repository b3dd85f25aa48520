"""What is known of every dataset on this machine, for `memmeta data`."""

from dataclasses import dataclass
from inspect import getdoc
from pathlib import Path

from memmeta_exp.config import SECTIONS
from memmeta_exp.errors import DataError

_Row = tuple[bool, bool | None, str]


@dataclass(frozen=True)
class DatasetStatus:
    """present: usable now; verified: its content was compared with the known one, None where there is nothing to
    compare; detail: one line, what to do where either is missing."""

    name: str
    description: str
    present: bool
    verified: bool | None
    detail: str


def status(data_root: str | None = None) -> list[DatasetStatus]:
    """Every dataset of the configuration, in its order; hashes the pixels of what is on disk (under a second)."""
    synthetic: _Row = (True, None, "generated at every start")
    rows = {"glyphs": _glyphs(), "synthetic": synthetic}
    rows |= dict.fromkeys(("miniimagenet", "tieredimagenet"), (False, None, "cannot be read yet"))
    rows |= dict.fromkeys(("quadratic", "logistic"), synthetic)
    rows |= {name: _cifar100(name, data_root) for name in ("cifar_fs", "fc100")}
    return [DatasetStatus(name, _description(name), *rows[name]) for name in SECTIONS["dataset"]]


def _description(name: str) -> str:
    return (getdoc(SECTIONS["dataset"][name]) or "").splitlines()[0]


def _cifar100(name: str, data_root: str | None) -> _Row:
    from memmeta_exp.data import torchmeta_sets
    from memmeta_exp.data.registry import resolve_root

    path = None
    try:
        root = resolve_root(data_root, name)
        path = torchmeta_sets.hdf5_path(root)
        torchmeta_sets.class_dataset(name)
        sound = torchmeta_sets.verify(root)
    except DataError as error:
        return False, False if path and path.is_file() else None, str(error)
    return True, sound, str(path) if sound else _not_cifar100(path)


def _not_cifar100(path: Path) -> str:
    root = path.parent.parent
    return f"{path} is not CIFAR-100 as published: `memmeta data download=cifar100 data_root={root}` replaces it"


def _glyphs() -> _Row:
    from memmeta_exp.data import cache, glyphs

    path = glyphs.cache_path()
    if cache.read(path, glyphs.recipe()) is None:
        return True, None, "drawn in seconds at the first use"
    return True, True, str(path)
