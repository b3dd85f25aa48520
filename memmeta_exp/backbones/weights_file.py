"""Reads files of weights: a state dict alone or inside a training checkpoint, with or without name prefixes."""

import argparse
import pathlib
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from memmeta_exp.utils.errors import ConfigError
from memmeta_exp.utils.path_keys import home_path
from memmeta_exp.utils.reading import open_regular
from memmeta_exp.utils.reading.arrays import archive_of_tensors

DEEPEST = 4  # most nested mappings that are searched
HARMLESS: list[Any] = [  # types allowed beside torch's own: options and scores in training checkpoints
    argparse.Namespace, pathlib.PosixPath, np.dtype, type(np.dtype("float64")), type(np.dtype("float32")),
    type(np.dtype("int64")), (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
]  # fmt: skip
WRAPPERS = ("module.", "_orig_mod.", "model.")
SAVE = "save its state dict alone, torch.save(model.state_dict(), FILE)"


class Found(NamedTuple):
    """Weights at `place` in a file. known: how many of them have a name of the model."""

    place: str
    known: int
    weights: dict[str, Tensor]


def read_weights(file: str, names: Collection[str], key: str = "backbone.weights") -> dict[str, Tensor]:
    """The set of tensors in `file` that has the most of `names`, the names of a model's weights.

    Prefixes such as `module.` are removed, and other content of a checkpoint is ignored. ConfigError where there is no
    set of tensors, where several differing sets fit equally well, or where a weight is not finite; it names
    the configuration key `key`.
    """
    found = sorted(_sets(_loaded(file, key), frozenset(names)), key=lambda one: -one.known)
    if not found:
        raise ConfigError(f"{key}={file} is no file of weights: it holds no tensors with names; {SAVE}")
    best = [one for one in found if one.known == found[0].known]
    best = [one for one in best if "ema" in one.place.lower()] or best
    if not best[0].known:
        best = [max(best, key=lambda one: len(one.weights))]
    if any(not _same(best[0].weights, other.weights) for other in best[1:]):
        places = ", ".join(one.place or "the top" for one in best)
        raise ConfigError(f"{key}={file} holds several sets of weights ({places}): save one of them alone")
    for name, weight in best[0].weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise ConfigError(f"{key}={file}: {name} holds numbers that are not finite; take another file")
    return best[0].weights


def _loaded(file: str, key: str) -> Any:
    path = home_path(file)
    try:
        with open_regular(path) as stream:
            if zipfile.is_zipfile(stream):
                archive_of_tensors(stream, path)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - safetensors, zip and pickle raise errors of their own
        raise ConfigError(f"{key}={file} is no file of weights{_why(error)}") from None


def _why(error: Exception) -> str:
    said = str(error)
    if "TorchScript" in said:
        return f" alone but a TorchScript archive: {SAVE}"
    held = re.search(r"GLOBAL (\S+)", said)
    if held:
        return f" alone: it holds {held[1]}, and to read that could run code; {SAVE}"
    return f": {(said.splitlines() or [''])[0] or type(error).__name__}"


def _sets(content: Any, names: frozenset[str], place: str = "", depth: int = 0) -> Iterator[Found]:
    """Every set of named tensors in `content`, one for each prefix under which it has some of `names`."""
    if isinstance(content, list | tuple):
        pairs = all(isinstance(item, tuple) and len(item) == 2 for item in content)
        content = dict(content) if pairs else dict(enumerate(content))
        tensors: dict[str, Tensor] = {} if not pairs else _tensors(content)
    elif isinstance(content, Mapping):
        tensors = _tensors(content)
    else:
        return
    if tensors:
        yield from _by_prefix(tensors, names, place)
    for key, value in content.items() if depth < DEEPEST else ():
        yield from _sets(value, names, f"{place}.{key}".lstrip("."), depth + 1)


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _by_prefix(tensors: dict[str, Tensor], names: frozenset[str], place: str) -> Iterator[Found]:
    counts = Counter(prefix for key in tensors if (prefix := _prefix(key, names)) is not None)
    for prefix, known in counts.items():
        inner = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        yield Found(f"{place}.{prefix}".strip("."), known, inner)
    if not counts:  # names of another library, which timm may know
        while wrapper := next((w for w in WRAPPERS if all(key.startswith(w) for key in tensors)), None):
            tensors = {key.removeprefix(wrapper): value for key, value in tensors.items()}
        yield Found(place, 0, tensors)


def _prefix(key: str, names: frozenset[str]) -> str | None:
    """The prefix of `key` before one of `names`; None where `key` ends with none of them."""
    starts = [0, *(dot.end() for dot in re.finditer(r"\.", key))]
    return next((key[:start] for start in starts if key[start:] in names), None)


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
