"""Operators with hand-derived second derivatives."""
