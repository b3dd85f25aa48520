"""Measurements of a step: peak memory, time, and their phases."""
