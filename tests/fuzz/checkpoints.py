"""Checkpoints whose digest agrees and whose content is another."""

import io
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from memmeta_exp.training import checkpoint
from tests.fuzz.harness import Case
from tests.fuzz.runs import EVALUATE, RESUME, make
from tests.fuzz.values import GONE, STORED, mutations, put

__all__ = ["archives", "make", "values"]


def _last(content: Callable[[], bytes]) -> Callable[[Path], object]:
    """Puts a sealed archive in the place of both checkpoints that a run goes on from."""

    def prepare(work: Path) -> None:
        for name in ("last.pt", "previous.pt"):
            put(work / "run/checkpoints" / name, content())

    return prepare


def _saved(state: Any, *names: str) -> Callable[[Path], object]:
    def prepare(work: Path) -> None:
        for name in names:
            checkpoint.save(work / "run/checkpoints" / name, state)

    return prepare


def values(bases: dict[str, Path]) -> Iterator[Case]:
    """Every value of last.pt and of best.pt as each value that a checkpoint can hold."""
    last = checkpoint.load(bases["run"] / "checkpoints/last.pt")
    for what, state in mutations(last, 1, STORED):
        yield Case(f"last.pt: {what}", RESUME, _saved(state, "last.pt", "previous.pt"), bases["run"])
    few = [{}, "x", torch.zeros(3), GONE]  # for what is compared as a whole
    for key in last:
        for what, state in mutations(last, 4, few if key in ("config", "images") else STORED, (key,)):
            yield Case(f"last.pt: {what}", RESUME, _saved(state, "last.pt", "previous.pt"), bases["run"])
    best = checkpoint.load(bases["run"] / "checkpoints/best.pt")
    for what, state in mutations(best, 2, STORED):
        yield Case(f"best.pt: {what}", EVALUATE, _saved(state, "best.pt"), bases["run"])


def archives(bases: dict[str, Path]) -> Iterator[Case]:
    """Archives that torch.save did not write, and one that it wrote with bytes changed, each with its digest."""
    whole = (bases["run"] / "checkpoints/last.pt").read_bytes()
    inner = whole[: -checkpoint._COMMENT - 2] + b"\0\0"
    made = {f"pickle: {name}": _zipped(_members(pickle)) for name, pickle in PICKLES.items()}
    made |= {
        "no members": _zipped({}),
        "two pickles": _zipped({"archive/data.pkl": b"N.", "other/data.pkl": b"N."}),
        "2 GiB of zeros, deflated": _zipped(_members(b"\x80\x02N.") | {"archive/data/1": bytes(2**31)}, deflated=True),
        "encrypted": _encrypted(_zipped(_members(b"N."))),
        "no archive": b"x" * 100 + b"\0\0",
        "form of before 1.6": _legacy(),
    }
    for name, content in made.items():
        sealed = checkpoint._seal(content)
        yield Case(f"archive: {name}", RESUME, _last(lambda sealed=sealed: sealed), bases["run"], "last.pt")
    start = inner.index(b"data.pkl")
    for seed in range(250):
        draw, content = random.Random(seed), bytearray(inner)
        first, end = (0, len(content) - 22) if seed < 150 else (start, start + 2500)
        for _ in range(draw.choice([1, 1, 4, 50])):
            content[draw.randrange(first, end)] = draw.randrange(256)
        sealed = checkpoint._seal(bytes(content))
        yield Case(f"archive: bytes changed by {seed}", RESUME, _last(lambda sealed=sealed: sealed), bases["run"])


def _zipped(members: dict[str, bytes], deflated: bool = False) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()


def _members(pickle: bytes) -> dict[str, bytes]:
    rest = {"archive/version": b"3\n", "archive/byteorder": b"little", "archive/data/0": b"xxxx"}
    return {"archive/data.pkl": pickle, **rest}


def _encrypted(archive: bytes) -> bytes:
    """With the flag of encryption in its headers."""
    for mark in (b"PK\x01\x02\x14\x03\x14\x00", b"PK\x03\x04\x14\x00"):
        archive = archive.replace(mark + b"\x00\x00", mark + b"\x01\x00")
    return archive


def _legacy() -> bytes:
    out = io.BytesIO()
    torch.save({"a": 1}, out, _use_new_zipfile_serialization=False)
    return out.getvalue() + b"\0\0"


def _called(module: str, name: str, argument: bytes) -> bytes:
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + argument + b"\x85R."


_HUGE = b"J\x00\x00\x00\x7f"
PICKLES = {
    "nothing": b"",
    "stops at once": b".",
    "a text beyond the file": b"\x80\x02X\xff\xff\xff\x7fx.",
    "a place in the memo far out": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "5,000 lists": b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
    "a bytearray of 2 GiB": _called("builtins", "bytearray", _HUGE),
    "a tensor of 2 GiB": _called("torch", "FloatTensor", _HUGE),
    "a Tensor of 2 GiB": _called("torch", "Tensor", _HUGE),
    "a program": _called("os", "system", b"X\x0a\x00\x00\x00touch HARM"),
    "a counter": _called("collections", "Counter", b"X\x04\x00\x00\x00abcd"),
    "an empty set": b"\x80\x02cbuiltins\nset\n)R.",
    "a storage beyond the file": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpuJ\x00\x00\x00\x70tQ.",
    "a tensor of no device": b"\x80\x02ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n"
    + _HUGE
    + b"\x85K\x01\x85\x89tR.",
}
