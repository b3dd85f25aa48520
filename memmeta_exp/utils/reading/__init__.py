"""Safe readers of files from outside or from an earlier run.

Only regular files are opened. Sizes are bounded before memory is allocated, and the content is checked against an
expected type. Any problem is a one-line DataError that names the file. files: opening. text, tables, documents: text,
CSV, JSON and YAML. structure: the expected type.
"""

from memmeta_exp.utils.reading.documents import parse_yaml, read_json, read_json_lines, read_yaml
from memmeta_exp.utils.reading.files import open_handle, open_regular, read_bytes, tail
from memmeta_exp.utils.reading.structure import Count, Plain, Rule, mismatch
from memmeta_exp.utils.reading.tables import csv_rows
from memmeta_exp.utils.reading.text import read_text

__all__ = [
    "Count", "Plain", "Rule", "csv_rows", "mismatch", "open_handle", "open_regular", "parse_yaml", "read_bytes",
    "read_json", "read_json_lines", "read_text", "read_yaml", "tail",
]  # fmt: skip
