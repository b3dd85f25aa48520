"""Checks what a pickle would allocate, from its opcodes, before it is loaded.

Unpickling allocates strings, frames and memo entries before it checks that the file is long enough. So each length is
first compared with the rest of the file, and the opcodes are counted.
"""

import pickletools
from typing import BinaryIO

MOST_OPCODES = 2**24  # tieredImageNet's 448,695 images take about 5 million
LARGEST_INTEGER = 255  # bytes
_NAME = 512  # bytes of a module's or function's name


class Oversized(ValueError):
    """A pickle would allocate more than its size, or is invalid; the text is one clause."""


_FIXED = {
    "uint1": 1, "uint2": 2, "int4": 4, "uint4": 4, "uint8": 8, "float8": 8,
}  # fmt: skip
_PREFIXED = {  # bytes of the length field before the value
    "string1": 1, "string4": 4, "bytes1": 1, "bytes4": 4, "bytes8": 8, "bytearray8": 8, "unicodestring1": 1,
    "unicodestring4": 4, "unicodestring8": 8, "long1": 1, "long4": 4,
}  # fmt: skip
_LINES = {"stringnl": 1, "stringnl_noescape": 1, "stringnl_noescape_pair": 2, "unicodestringnl": 1, "floatnl": 1,
          "decimalnl_short": 1, "decimalnl_long": 1}  # fmt: skip
_TEXTS = ("stringnl", "unicodestringnl")
_CODES = {ord(op.code): (op.name, op.arg.name if op.arg else None) for op in pickletools.opcodes}


def scan(stream: BinaryIO, size: int) -> set[str]:
    """The names "module.function" that the pickle in `stream`, of `size` bytes, loads by GLOBAL or INST.

    Raises Oversized for a length beyond the end of the file, a memo index out of order or an invalid opcode, and
    EOFError if the pickle is cut off.
    """
    names: set[str] = set()
    at = 0
    for count in range(MOST_OPCODES):
        code = stream.read(1)
        if not code:
            raise EOFError("it is cut off")
        name, argument = _CODES.get(code[0], (None, None))
        if name is None:
            raise Oversized(f"byte {at + 1} is not an opcode")
        if name == "STOP":
            return names
        value, taken = _argument(stream, argument, size - at - 1)
        at += 1 + taken
        if name in ("GLOBAL", "INST"):
            names.add(".".join(str(value).split("\n")[:2]))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT") and _number(value) > count + 1:
            raise Oversized("it uses a memo index out of order")
        elif name == "FRAME" and _number(value) > size - at:
            raise Oversized(f"it has a frame of {value} bytes, beyond the end of the file")
    raise Oversized(f"it has more than {MOST_OPCODES} opcodes")


def _number(value: int | str) -> int:
    return int(value) if len(str(value)) < LARGEST_INTEGER else 2**63


def _argument(stream: BinaryIO, kind: str | None, left: int) -> tuple[int | str, int]:
    """The value of an opcode's argument (of a prefixed one its length), and the bytes it takes. left: bytes left."""
    if kind is None:
        return 0, 0
    if kind in _FIXED:
        return int.from_bytes(stream.read(_FIXED[kind]), "little"), _FIXED[kind]
    if kind in _PREFIXED:
        prefix = _PREFIXED[kind]
        length = int.from_bytes(stream.read(prefix), "little")
        if length > left - prefix:
            raise Oversized(f"it has a value of {length} bytes, beyond the end of the file")
        if kind.startswith("long") and length > LARGEST_INTEGER:
            raise Oversized(f"it has an integer of {length} bytes")
        stream.seek(length, 1)
        return length, prefix + length
    limit = left if kind in _TEXTS else _NAME
    lines = [stream.readline(limit) for _ in range(_LINES[kind])]
    if not all(line.endswith(b"\n") for line in lines):
        raise Oversized("it has a line that is too long or has no end")
    return b"".join(lines).decode("latin-1"), sum(map(len, lines))
