"""Datasets brought under DATA_ROOT: downloads, archives, readers, verification."""
