"""Tables, and how they are written: CSV with every value, Markdown and HTML with what a reader wants."""

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
    """key: of a row's values and in the CSV; title: with its unit; show: the value as text; numeric: right-aligned."""

    key: str
    title: str
    show: Callable[[Row], str]
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """name: of its files; rows: raw values, written to the CSV whole."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def cells(self) -> list[list[str]]:
        """The rows as text, a dash for what is not there."""
        return [[column.show(row) or DASH for column in self.columns] for row in self.rows]

    def meanings(self) -> list[tuple[str, str]]:
        """Each column's title, and what it means."""
        return [(column.title, MEANINGS[column.key]) for column in self.columns]

    def csv(self) -> str:
        """Every value of every row, unrounded."""
        return as_csv(self.rows)

    def markdown(self) -> str:
        """The table as Markdown, its caption above."""
        head = [column.title for column in self.columns]
        rule = ["---:" if column.numeric else "---" for column in self.columns]
        lines = [head, rule, *self.cells()]
        body = "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)
        return f"{_escaped(self.caption)}\n\n{body}\n"


def as_csv(rows: Sequence[Row]) -> str:
    """A line a row under the keys that any row has."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def table(name: str, caption: str, columns: Sequence[Column], rows: Sequence[Row], more: str = "") -> Table | None:
    """Without the columns that no row has a value for; None without rows. more: what the caption ends with."""
    kept = tuple(c for c in columns if any(c.show(row) for row in rows))
    caption += f": {more}" if more else ""
    return Table(name, caption, kept, tuple(rows)) if rows else None


def number(key: str, title: str, form: str = "{:.2f}", half: str = "") -> Column:
    """A value by `form`, with half of its interval where `half` names one."""

    def show(row: Row) -> str:
        if row.get(key) is None:
            return ""
        spread = f" {PLUS_MINUS} {form.format(row[half])}" if half and row.get(half) is not None else ""
        return form.format(row[key]) + spread

    return Column(key, title, show)


def words(key: str, title: str) -> Column:
    """A value as it is."""
    return Column(key, title, lambda row: "" if row.get(key) is None else str(row[key]), numeric=False)
