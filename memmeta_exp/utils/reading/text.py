"""Reads text files: UTF-8, with or without a byte order mark, or UTF-16 with one."""

import codecs
from pathlib import Path

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading.files import TEXT_LIMIT, read_bytes


def read_text(path: Path, limit: int = TEXT_LIMIT) -> str:
    """The text of a file, without its byte order mark. Line ends are kept.

    Raises FileNotFoundError, and DataError if it is not a regular file, larger than `limit` bytes or not text.
    """
    return decoded(read_bytes(path, limit), path)


def decoded(content: bytes, path: Path) -> str:
    """As `read_text`, for `content` that was read from `path`."""
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        what = "UTF-16" if utf_16 else "UTF-8"
        line = content.count(b"\n", 0, error.start) + 1
        where = f"line {line}, byte {error.start + 1}"
        raise DataError(f"{path} is not {what} text ({where}): save it as UTF-8") from None
    if "\0" in text:
        raise DataError(f"{path} is not text, it holds a NUL character: save it as UTF-8")
    return text
