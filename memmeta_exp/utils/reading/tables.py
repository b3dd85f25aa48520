"""Reads CSV files as spreadsheet programs write them."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading.files import TEXT_LIMIT
from memmeta_exp.utils.reading.text import read_text

_DELIMITERS = (",", ";", "\t")
_SHOWN = 80  # characters of a header in a message

Line = tuple[int, dict[str, str]]


def csv_rows(path: Path, columns: Sequence[str], limit: int = TEXT_LIMIT) -> list[Line]:
    """The rows of a CSV file with a header: (line number, {column: its text, stripped}).

    Accepted are a byte order mark, UTF-16, any line end, blank lines, `;` or tabs between fields, a first line `sep=;`,
    and a header in other letter case. columns: the required columns; other columns are kept. Raises FileNotFoundError,
    and DataError for a header without a required column, a row with a wrong number of fields, or a file that is not
    CSV.
    """
    text = read_text(path, limit)
    first, _, rest = text.partition("\n")
    marked = first.strip().lower().startswith("sep=") and len(first.strip()) == len("sep=") + 1
    delimiters = (first.strip()[-1],) if marked else _DELIMITERS
    lines = _split(path, rest if marked else text, delimiters, columns, 1 if marked else 0)
    if not lines:
        raise DataError(f"{path} is empty: it needs the header {','.join(columns)}")
    (_, header), *rows = lines
    names = _names(path, header, columns)
    return [(number, _row(path, number, names, fields)) for number, fields in rows]


def _split(
    path: Path, text: str, delimiters: Sequence[str], columns: Sequence[str], before: int
) -> list[tuple[int, list[str]]]:
    """Line number and fields of every line that is not blank, split at the first of `delimiters` that fits the header.
    before: number of lines of the file before `text`."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    wanted = {column.casefold() for column in columns}

    def fits(delimiter: str) -> bool:
        return wanted <= {name.strip().strip('"').strip().casefold() for name in head.split(delimiter)}

    delimiter = next((one for one in delimiters if fits(one)), delimiters[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines = []
    try:
        for fields in reader:
            stripped = [field.strip() for field in fields]
            if any(stripped):
                lines.append((reader.line_num + before, stripped))
    except csv.Error as error:
        raise DataError(f"{path} is not valid CSV (line {reader.line_num + before}: {error})") from None
    return lines


def _names(path: Path, header: list[str], columns: Sequence[str]) -> list[str]:
    """The header, with `columns` in the letter case of the argument. Raises DataError if one is missing or repeated."""
    spelt = {column.casefold(): column for column in columns}
    names = [spelt.get(name.casefold(), name) for name in header]
    shown = ",".join(header)[:_SHOWN]
    for column in columns:
        if column not in names:
            raise DataError(f"{path} has the header '{shown}', without '{column}': it needs {','.join(columns)}")
        if names.count(column) > 1:
            raise DataError(f"{path} has the header '{shown}', with '{column}' twice: remove one")
    return names


def _row(path: Path, number: int, names: list[str], fields: list[str]) -> dict[str, str]:
    while len(fields) > len(names) and not fields[-1]:  # spreadsheets pad rows with empty fields
        fields = fields[:-1]
    if len(fields) != len(names):
        raise DataError(f"{path}, line {number}: {len(fields)} fields, and the header has {len(names)}")
    return dict(zip(names, fields, strict=True))
