"""How every file is read that comes from outside or from an earlier run.

Only regular files are opened, sizes are bounded before anything is allocated, what is read is checked against the type
that is expected of it, and whatever goes wrong is a DataError of one line that names the file. files: opening; text,
tables, documents: text, CSV, JSON and YAML; structure: what a file is expected to hold.
"""

from memmeta_exp.utils.reading.documents import parse_yaml, read_json, read_json_lines, read_yaml
from memmeta_exp.utils.reading.files import open_handle, open_regular, read_bytes, tail
from memmeta_exp.utils.reading.structure import Count, Plain, Rule, fault
from memmeta_exp.utils.reading.tables import csv_rows
from memmeta_exp.utils.reading.text import read_text

__all__ = [
    "Count", "Plain", "Rule", "csv_rows", "fault", "open_handle", "open_regular", "parse_yaml", "read_bytes",
    "read_json", "read_json_lines", "read_text", "read_yaml", "tail",
]  # fmt: skip
