"""Reads pickles as data only: arrays, numbers, strings and containers of them.

A pickle names functions that rebuild its objects, so `pickle.load` of an untrusted file can run any code. Here only the
names under which NumPy arrays and scalars are pickled are allowed, and they resolve to safe replacements. Any other
name raises an error before it is called. Allocated memory is bounded by the size of the file. Strings of Python 2 are
read as latin-1, which keeps the bytes of arrays.
"""

import math
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import open_regular
from memmeta_exp.utils.reading.pickled import scan

_DTYPE = re.compile(r"([|<>=]?)([biufcSUO])(\d{0,4})")
_RECONSTRUCT: Any = np.zeros(1).__reduce__()[0]
_COPIES = 4  # the values of a file may take this many times its size
_FREE = 2**20  # additional bytes that are always allowed


class _Name:
    """The replacement of a name in a pickle. It is immutable; the opcode BUILD could change a function or class."""

    __slots__ = ("call",)
    call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "call", call)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("it changes what it names")

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class _Dtype:
    """A dtype as a pickle builds it: first a type code, then the byte order."""

    def __init__(self, code: Any) -> None:
        match = _DTYPE.fullmatch(code) if isinstance(code, str) else None
        if match is None:
            raise pickle.UnpicklingError(f"it has an array of another type than numbers ({str(code)[:40]!r})")
        self.type = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 8 or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("it has an array with fields")
        if state[1] in ("<", ">"):
            self.type = self.type.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that a pickle fills, within its memory budget."""

    budget: "_Budget"

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, fortran, content = state if len(state) == 5 else (0, *state)
        kind, count = _type(dtype), _count(shape)
        if kind.hasobject:
            if not isinstance(content, list) or len(content) != count:
                raise pickle.UnpicklingError("it has an array of another length than its shape")
            self.budget.take(8 * count)
        elif not isinstance(content, bytes | str) or len(content) != count * kind.itemsize:
            raise pickle.UnpicklingError("it has an array of another length than its shape")
        self.budget.take(count * kind.itemsize)
        filled: Any = (version, shape, kind, bool(fortran), content)
        super().__setstate__(filled)


class _Budget:
    """The bytes that values may still take."""

    def __init__(self, size: int) -> None:
        self.left = _COPIES * size + _FREE

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise pickle.UnpicklingError("it unpacks to far more than the file holds")


def _type(dtype: Any) -> np.dtype:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("it has an array without a type")
    return dtype.type


def _count(shape: Any) -> int:
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**40 for n in shape) or len(shape) > 8:
        raise pickle.UnpicklingError("it has an array without a shape")
    return math.prod(shape)


def _names(budget: _Budget) -> dict[str, Any]:
    """The names under which arrays, scalars and containers are pickled, with their replacements. NumPy's modules have
    different names in different versions."""

    class Array(_Array):
        pass

    Array.budget = budget

    def reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
        return _RECONSTRUCT(Array, (0,), b"b")

    def from_buffer(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
        count = _count(shape)
        if not isinstance(content, bytes | bytearray) or len(content) != count * _type(dtype).itemsize:
            raise pickle.UnpicklingError("it has an array of another length than its shape")
        return np.frombuffer(content, _type(dtype)).reshape(shape, order="F" if order == "F" else "C")

    def scalar(dtype: Any, content: Any) -> Any:
        kind = _type(dtype)
        raw = content.encode("latin-1") if isinstance(content, str) else content
        if kind.hasobject or not isinstance(raw, bytes) or len(raw) != kind.itemsize:
            raise pickle.UnpicklingError("it has a number of another length than its type")
        return np.frombuffer(raw, kind)[0]

    def encode(text: str, encoding: str = "latin1") -> bytes:
        """Decodes bytes of Python 3 in protocol 2, which has no type for them."""
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"it encodes text as {encoding}")
        budget.take(len(text))
        return text.encode("latin-1")

    def made_of(kind: type) -> Callable[..., Any]:
        def make(*arguments: Any) -> Any:
            if any(isinstance(a, np.ndarray | int) for a in arguments):
                raise pickle.UnpicklingError(f"it makes a {kind.__name__} of something else than a list")
            budget.take(sum(64 * len(a) for a in arguments[:1]))
            return kind(*arguments)

        return make

    containers = {kind: _Name(made_of(kind)) for kind in (list, dict, set, tuple, bytearray)}
    whole = _Name(lambda *arguments: 0 if not arguments else arguments[0].__index__())
    factories = (containers[list], containers[dict], whole, None)

    def default_dict(factory: Any = None) -> dict[Any, Any]:
        if not any(factory is known for known in factories):
            raise pickle.UnpicklingError("it has a defaultdict of an unknown factory")
        return {}  # a plain dictionary: a pickle could change the attributes of a defaultdict

    found: dict[str, Callable[..., Any]] = {"_codecs.encode": encode, "collections.OrderedDict": made_of(dict)}
    found |= {"collections.defaultdict": default_dict, "numpy.dtype": lambda code, *_: _Dtype(code)}
    found["numpy.ndarray"] = _not_called
    for core in ("numpy.core", "numpy._core"):
        found |= {f"{core}.multiarray._reconstruct": reconstruct, f"{core}.multiarray.scalar": scalar}
        found[f"{core}.numeric._frombuffer"] = from_buffer
    known: dict[str, Any] = {name: _Name(call) for name, call in found.items()}
    for module in ("builtins", "__builtin__"):
        known |= {f"{module}.{kind.__name__}": name for kind, name in containers.items()} | {f"{module}.int": whole}
    return known


def _not_called(*_: Any) -> None:
    raise pickle.UnpicklingError("it makes an array without content")


class _Reader(pickle.Unpickler):
    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, encoding="latin1")
        self._known = _names(_Budget(size))

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self._known:
            raise pickle.UnpicklingError(f"it wants to call {full}")
        return self._known[full]


def read_pickle(path: Path) -> Any:
    """The content of a pickle of arrays. Raises DataError if it has other objects or is damaged."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            scan(file, size)
            file.seek(0)
            return _Reader(file, size).load()
        except pickle.UnpicklingError as error:
            raise DataError(
                f"{path} is no pickle of plain arrays ({_first_line(error)}): it was not read further"
            ) from None
        except (MemoryError, OSError) as error:
            raise DataError(f"{path} cannot be read ({_first_line(error)})") from None
        except (EOFError, ArithmeticError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise DataError(f"{path} is damaged or no pickle ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
