"""Checks that the numbers of a configuration fit the precision of the run."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from memmeta_exp.utils.errors import ConfigError

LARGEST = {"fp32": 3.4e38, "bf16": 3.4e38, "fp64": 1.79e308}  # bf16: parameters and features are fp32
LEAST = {"fp32": 1.2e-38, "bf16": 1.2e-38, "fp64": 2.3e-308}  # the smallest normal number


def check_numbers(values: Mapping[str, Any], precision: str) -> None:
    """Raises ConfigError if a float x of the flat `values` is out of range for `precision`.

    The range is x = 0 or LEAST <= |x| <= sqrt(LARGEST): optimisers and solvers square numbers, and smaller ones lose
    accuracy.
    """
    most, least = math.sqrt(LARGEST[precision]), LEAST[precision]
    for key, number in _floats(values):
        if not math.isfinite(number):
            raise ConfigError(f"{key}={number} is out of range: it must be finite")
        instead = "" if precision == "fp64" else ", or set precision=fp64"
        if abs(number) > most:
            raise ConfigError(
                f"{key}={number} is out of range: precision={precision} takes at most {most:.1e}{instead}"
            )
        if 0 < abs(number) < least:
            raise ConfigError(
                f"{key}={number} is out of range: precision={precision} takes 0 or at least {least:.1e}{instead}"
            )


def _floats(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float):
                yield key, number
