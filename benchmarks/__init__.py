"""Measurements, each a program of its own: the targets `make bench-...`."""
