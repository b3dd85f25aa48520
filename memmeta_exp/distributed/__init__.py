"""Ranks: the process group and what a launcher tells a process."""
