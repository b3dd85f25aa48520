"""What is put in a file's place, in a text's place and in a value's place."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def put(path: Path, content: bytes | str) -> None:
    """Half a pair of surrogates in a text is written as it is."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _socket(path: Path) -> None:
    """Bound by its name alone: the address of a socket is short."""
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.fchdir(here)
    os.close(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


_PLACES: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "socket": _socket,
    "folder": Path.mkdir,
    "1 TiB of nothing": _sparse,
    "/dev/zero": _link("/dev/zero"),
    "/dev/urandom": _link("/dev/urandom"),
    "/dev/tty": _link("/dev/tty"),
    "/dev/null": _link("/dev/null"),
    "/proc/kmsg": _link("/proc/kmsg"),
    "/proc/self/mem": _link("/proc/self/mem"),
    "link to nothing": _link("nowhere"),
}


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def _in_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def placed(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)

    return placed


def _holding(content: bytes | str) -> Callable[[Path], None]:
    return lambda path: put(path, content)


PLACES = {name: _in_place(make) for name, make in (_PLACES | {"link to itself": _link_to_itself}).items()}
"""Other things than a regular file, each made at a path."""

_ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]" for i in range(20)
)
_INTERPOLATIONS = "a0: xx\n" + "\n".join(f"a{i + 1}: ${{a{i}}}${{a{i}}}" for i in range(60))
_HEADER = "task,accuracy,loss,classes,items\n"

TEXTS: dict[str, bytes | str] = {
    # bytes
    "nothing": "",
    "NULs": "\0" * 100,
    "all bytes": bytes(range(256)),
    "Latin-1": b'{"a": "\xe9"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "half of UTF-16": b"\xff\xfe\x00\xd8",
    "byte order mark": b"\xef\xbb\xbf{}",
    "control character": "a: \x07",
    "a line of 8 MiB": "a" * 2**23,
    # one value
    "number": "5",
    "text": '"x"',
    "null": "null",
    "true": "true",
    "NaN": "NaN",
    "list": "[1, 2]",
    "list of lists": "[[1]]",
    "mapping": "{}",
    # depth and size
    "2,000 lists": "[" * 2000 + "]" * 2000,
    "100,000 lists": "[" * 100_000 + "]" * 100_000,
    "2,000 mappings": '{"a":' * 2000 + "1" + "}" * 2000,
    "2,000 levels": "\n".join(" " * i + "a:" for i in range(2000)),
    "500,000 items": "- a\n" * 500_000,
    "key of 4 MiB": '{"' + "k" * 2**22 + '": 1}',
    # YAML
    "aliases of aliases": _ALIASES,
    "anchor in itself": "a: &a [*a]\n",
    "anchor as its key": "&a {*a : *a}\n",
    "merge of a list": "<<: [1]\n",
    "tag": "!!binary aGk=",
    "tag of Python": "!!python/object/apply:os.system ['touch HARM']\n",
    "set": "? a\n? b\n",
    "key twice": "seed: 1\nseed: 2\n",
    "no date": "seed: 2001-99-99\n",
    "interpolation in a circle": "a: ${b}\nb: ${a}\n",
    "interpolations that double": _INTERPOLATIONS,
    "environment": "seed: ${oc.env:HOME}\n",
    # numbers
    "5,000 digits": "iterations: " + "9" * 5000,
    "5,000 digits in JSON": '{"iteration": ' + "9" * 5000 + "}",
    "6,000 digits of base 16": "seed: 0x" + "f" * 6000,
    "3,000 parts of base 60": "seed: " + ":".join(["1"] * 3000),
    "infinity": '{"iteration": 1e999}',
    # texts in JSON and YAML
    "half a pair": '{"title": "\\ud800", "state": "running"}',
    "half a pair in YAML": 'a: "\\ud800"',
    # tables
    "other header": "job,state\nx\n",
    "short row": _HEADER + "1\n",
    "100,000 columns": ",".join(["a"] * 100_000),
    "field of 200,000": _HEADER + "1" * 200_000 + "\n",
    "quote without end": 'task,accuracy\n"1',
    "row of 5,000 digits": _HEADER + "9" * 5000 + ",1,1,1,1\n",
    "row of text": _HEADER + "1,x,1,1,1\n",
    # lines of JSON
    "line of a list": "[]\n",
    "line with a text": '{"iteration": "x"}\n',
    "line with a text as value": '{"iteration": 1, "train/loss": "x"}\n',
    "line with a mapping": '{"iteration": 1, "train/loss": {"a": 1}}\n',
    "lines out of order": '{"iteration": 2}\n{"iteration": 1}\n',
    "line below 0": '{"iteration": -5}\n',
    "line beyond 64 bits": '{"iteration": 99999999999999999999}\n',
    "line without iteration": '{"train/loss": 1}\n',
    "lines of large numbers": '{"iteration": 1, "val/acc": 1e308, "time/step_seconds": 1e308}\n'
    '{"iteration": 2, "val/acc": -1e308}\n',
}

FILES = PLACES | {name: _holding(content) for name, content in TEXTS.items()}
"""Everything that can stand where a file is, each made at a path."""

GONE = object()
"""Stands for a value that is left out."""

ODD: list[Any] = [
    5, -1, 0, 2**60, 1.5, 1e308, 5e-324, "x", "", [], {}, None, True, [[]], {"a": {"b": 1}}, ["x"], [1, "x", None],
    "\ud800", "x" * 5000, "../../x", "a\nb", "${seed}", "/dev/zero", GONE,
]  # fmt: skip
"""Values of JSON and YAML."""


def _nested(levels: int, width: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = dict.fromkeys("ab"[:width], value)
    return value


def _in_itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = value
    return value


TENSORS = [
    torch.zeros(3), torch.zeros(()), torch.zeros(0), torch.zeros(2, dtype=torch.int64),
    torch.zeros(1).expand(2**34), torch.empty(3, device="meta"), torch.zeros(3).to_sparse(),
    torch.zeros(2, dtype=torch.complex64), torch.tensor(float("nan")), torch.zeros(3, dtype=torch.bool),
    torch.zeros(3, dtype=torch.float8_e4m3fn), torch.empty_strided((2, 2), (0, 0)),
]  # fmt: skip
STORED: list[Any] = [
    *[value for value in ODD if value is not GONE], *TENSORS, _in_itself(), _nested(60, 2), _nested(300, 1), (1, 2),
    b"x", {1}, 10**700, float("nan"), float("inf"), -0.0, {"state": {}, "param_groups": []}, torch.Size([3]),
    torch.device("cpu"), torch.float32, {5: 5}, {None: 1, "a": 2}, GONE,
]  # fmt: skip
"""Values that a checkpoint can hold."""


def shown(value: Any) -> str:
    """A few characters of it."""
    if value is GONE:
        return "left out"
    if isinstance(value, dict | torch.Tensor):
        return type(value).__name__ + (f" {tuple(value.shape)}" if isinstance(value, torch.Tensor) else "")
    return ascii(value)[:20]


def places(value: Any, depth: int, first: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys that lead to every value of it down to `depth`; of lists and mappings of tensors, two."""
    found = [first]
    keys: list[Any] = []
    if isinstance(value, dict):
        alike = all(isinstance(item, torch.Tensor) for item in value.values())
        keys = list(value)[: 2 if alike else None]
    elif isinstance(value, list):
        keys = list(range(len(value)))[:2]
    return found + [place for key in keys * bool(depth) for place in places(value[key], depth - 1, (*first, key))]


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A copy in which the value at `place` is `new`."""
    if not place:
        return new
    copy = value.copy()
    if len(place) == 1 and new is GONE:
        del copy[place[0]]
    else:
        copy[place[0]] = changed(copy[place[0]], place[1:], new)
    return copy


def mutations(value: Any, depth: int, values: list[Any], below: tuple[Any, ...] = ()) -> list[tuple[str, Any]]:
    """(what was changed, the changed value) for every place down to `depth` and every one of `values`; below: only
    for places within that one."""
    found = [place for place in places(value, depth) if place[: len(below)] == below and (not below or place != below)]
    return [
        (f"{'.'.join(map(str, place)) or 'all'} = {shown(new)}", changed(value, place, new))
        for place in found
        for new in values
        if place or new is not GONE
    ]
