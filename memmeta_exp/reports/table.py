"""Tables and their formats: CSV with every value, Markdown and HTML with the formatted columns."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from memmeta_exp.reports.meanings import MEANINGS

Row = dict[str, Any]
DASH = "\N{EN DASH}"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


@dataclass(frozen=True)
class Column:
    """A column. key: of the values in a row and in the CSV. title: heading, with unit. show: formats the row's value.
    numeric: right-aligned."""

    key: str
    title: str
    show: Callable[[Row], str]
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table. name: of its files. rows: unrounded values; the CSV has all of them."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def cells(self) -> list[list[str]]:
        """The rows as text, with a dash for missing values."""
        return [[column.show(row) or DASH for column in self.columns] for row in self.rows]

    def meanings(self) -> list[tuple[str, str]]:
        """Each column's title, and what it means."""
        return [(column.title, MEANINGS[column.key]) for column in self.columns]

    def csv(self) -> str:
        """Every value of every row, unrounded."""
        return as_csv(self.rows)

    def markdown(self) -> str:
        """The table as Markdown, below its caption."""
        head = [column.title for column in self.columns]
        rule = ["---:" if column.numeric else "---" for column in self.columns]
        lines = [head, rule, *self.cells()]
        body = "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)
        return f"{_escaped(self.caption)}\n\n{body}\n"


def as_csv(rows: Sequence[Row]) -> str:
    """CSV with one line per row; the columns are all keys of all rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def table(name: str, caption: str, columns: Sequence[Column], rows: Sequence[Row], more: str = "") -> Table | None:
    """A table without the columns that are empty in all rows; None without rows. more: the end of the caption."""
    kept = tuple(c for c in columns if any(c.show(row) for row in rows))
    caption += f": {more}" if more else ""
    return Table(name, caption, kept, tuple(rows)) if rows else None


def number(key: str, title: str, form: str = "{:.2f}", half: str = "") -> Column:
    """A numeric column with the format `form`. half: the key of an interval's half-width, shown after +-."""

    def show(row: Row) -> str:
        if row.get(key) is None:
            return ""
        spread = f" {PLUS_MINUS} {form.format(row[half])}" if half and row.get(half) is not None else ""
        return form.format(row[key]) + spread

    return Column(key, title, show)


def words(key: str, title: str) -> Column:
    """A text column."""
    return Column(key, title, lambda row: "" if row.get(key) is None else str(row[key]), numeric=False)
