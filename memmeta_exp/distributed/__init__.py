"""Ranks: the process group, and the launcher's environment variables."""
