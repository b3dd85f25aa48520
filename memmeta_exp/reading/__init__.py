"""How every file is read that comes from outside or from an earlier run.

Only regular files are opened, sizes are bounded before anything is allocated, and whatever goes wrong is a DataError of
one line that names the file. files: opening; text, tables: text and CSV.
"""

from memmeta_exp.reading.files import open_handle, open_regular, read_bytes
from memmeta_exp.reading.tables import csv_rows
from memmeta_exp.reading.text import read_text

__all__ = ["csv_rows", "open_handle", "open_regular", "read_bytes", "read_text"]
