"""`python -m memmeta_exp` is the console script `memmeta`."""

import sys

from memmeta_exp.cli import main

if __name__ == "__main__":
    sys.exit(main())
