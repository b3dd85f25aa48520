"""Every group of cases by name."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.fuzz import checkpoints, folders, imports, runs, sweeps
from tests.fuzz.harness import Case, Fuzzer

GROUPS: dict[str, Callable[[dict[str, Path]], Iterator[Case]]] = {
    "whole files": runs.whole_files,
    "JSON values": runs.json_values,
    "YAML values": runs.yaml_values,
    "rows": runs.rows,
    "other results": runs.other_results,
    "checkpoint values": checkpoints.values,
    "archives": checkpoints.archives,
    "sweep files": sweeps.files,
    "sweep folders": sweeps.folders,
    "configurations of jobs": sweeps.configurations,
    "imported files": imports.whole_files,
    "imported pickles": imports.pickles,
    "imported tables": imports.tables,
    "imported arrays": imports.arrays,
    "imported HDF5": imports.hdf5,
    "damaged HDF5": imports.damaged_hdf5,
    "images": folders.images,
    "names": folders.names,
    "split files": folders.split_files,
}


def made(fuzzer: Fuzzer, place: Path, names: Iterable[str]) -> dict[str, Path]:
    """The folders that the cases of the groups `names` start from."""
    makers = dict.fromkeys(sys.modules[GROUPS[name].__module__].make for name in names)
    return {base: path for make in makers for base, path in make(fuzzer, place).items()}
