"""Pickles read as data: arrays, numbers, strings and containers of them, and nothing that can run.

A pickle names the functions that rebuild its objects, so reading a stranger's one with `pickle.load` runs a stranger's
code. Here only the names that numpy's arrays and scalars are pickled under resolve; any other is refused before it is
called. Strings of Python 2 are read as latin-1, which keeps the bytes of its arrays.
"""

import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from memmeta_exp.errors import DataError


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes in protocol 2, which has no type for them."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes text as {encoding}")
    return text.encode("latin-1")


def _default_dict(factory: Any = None) -> dict[Any, Any]:
    if factory not in (None, list, int, dict):
        raise pickle.UnpicklingError("it has a defaultdict of an unknown factory")
    return defaultdict(factory)


def _names_of_numpy() -> dict[tuple[str, str], Any]:
    """What arrays and scalars are pickled under, found as numpy itself names it: the modules moved between versions."""
    reconstruct, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    from_buffer = np.zeros(1).__reduce_ex__(5)[0]
    cores = ("numpy.core", "numpy._core")
    rebuilt = {("multiarray", "_reconstruct"): reconstruct, ("multiarray", "scalar"): scalar}
    rebuilt |= {("numeric", "_frombuffer"): from_buffer}
    found = {(f"{core}.{module}", name): value for core in cores for (module, name), value in rebuilt.items()}
    return found | {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}


_CONTAINERS = (list, dict, int, set, tuple, bytearray)
_ALLOWED: dict[tuple[str, str], Any] = {
    **_names_of_numpy(),
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): _default_dict,
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in _CONTAINERS},
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}")
        return _ALLOWED[module, name]


def read_pickle(path: Path) -> Any:
    """The content of a pickle of arrays; DataError where it holds anything else or is damaged."""
    try:
        with path.open("rb") as file:
            return _Reader(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} is no pickle of plain arrays ({_first_line(error)}): it was not read further"
        ) from None
    except (EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, UnicodeError) as error:
        raise DataError(f"{path} is damaged or no pickle ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
