"""CSV as spreadsheets write it, and files that are none."""

from pathlib import Path

import pytest

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import csv_rows

PLAIN = "class,split\ncafé,train\nb,val\n"
SAME = {
    "plain": PLAIN.encode(),
    "a byte order mark": PLAIN.encode("utf-8-sig"),
    "UTF-16 with tabs, Excel's Unicode text": PLAIN.replace(",", "\t").encode("utf-16"),
    "CRLF and a blank last line": PLAIN.replace("\n", "\r\n").encode() + b"\r\n",
    "the line ends of an old Mac": PLAIN.replace("\n", "\r").encode(),
    "no last line end": PLAIN.strip().encode(),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "sep= first": b"sep=;\r\n" + PLAIN.replace(",", ";").encode(),
    "letter case and spaces": PLAIN.replace("class,split", " Class , SPLIT").replace(",", " , ").encode(),
    "quotes": '"class","split"\n"café","train"\n"b","val"\n'.encode(),
    "padded": PLAIN.replace("train\n", "train,,\n").encode(),
    "rows of commas": PLAIN.encode() + b",\n,\n",
}


@pytest.mark.parametrize("written", SAME)
def test_what_spreadsheets_write_is_the_same(tmp_path: Path, written: str) -> None:
    file = tmp_path / "split.csv"
    file.write_bytes(SAME[written])
    rows = [row for _, row in csv_rows(file, ("class", "split"))]
    assert rows == [{"class": "café", "split": "train"}, {"class": "b", "split": "val"}]


def test_other_columns_are_kept_and_lines_are_numbered(tmp_path: Path) -> None:
    file = tmp_path / "split.csv"
    file.write_text("\nSplit,note,Class\n\ntrain,x,a\n")
    assert csv_rows(file, ("class", "split")) == [(4, {"split": "train", "note": "x", "class": "a"})]


REFUSED = {
    "a row too short": (PLAIN.encode() + b"c\n", "line 4: 1 fields, and the header has 2"),
    "a row too long": (PLAIN.encode() + b"c,train,x\n", "line 4: 3 fields"),
    "empty": (b"\xef\xbb\xbf\n", "is empty: it needs the header class,split"),
    "another header": (b"name,split\n", "without 'class': it needs class,split"),
    "a column twice": (b"class,split,Class\n", "with 'class' twice"),
    "Latin-1": (PLAIN.encode("latin-1"), "not UTF-8 text (line 2, byte 16): save it as UTF-8"),
    "half of UTF-16": (PLAIN.encode("utf-16")[:-1], "not UTF-16 text"),
    "a NUL": (PLAIN.encode() + b"\0,train\n", "holds a NUL"),
    "a huge field": (PLAIN.encode() + b"a" * 200_000 + b",train\n", "line 4: field larger than"),
    "a quote that never ends": (PLAIN.encode() + b'"c,train\n', "is not valid CSV"),
    "too large": (b"class,split\n" * 10, "is too large: 120 bytes"),
}


@pytest.mark.parametrize("written", REFUSED)
def test_what_is_no_such_table_is_refused_by_the_line(tmp_path: Path, written: str) -> None:
    file, (content, said) = tmp_path / "split.csv", REFUSED[written]
    file.write_bytes(content)
    with pytest.raises(DataError) as refusal:
        csv_rows(file, ("class", "split"), limit=100 if written == "too large" else 2**20)
    assert str(refusal.value).startswith(str(file))
    assert said in str(refusal.value)
