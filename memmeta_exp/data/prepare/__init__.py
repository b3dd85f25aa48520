"""Puts datasets into DATA_ROOT: download, unpacking, conversion and verification."""
