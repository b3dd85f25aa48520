"""Measurements of a step: peak memory, time, and the phases they divide into."""
