"""Numbers that the arithmetic of a run can hold."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from memmeta_exp.utils.errors import ConfigError

LARGEST = {"fp32": 3.4e38, "bf16": 3.4e38, "fp64": 1.79e308}  # bf16: parameters and feature space are fp32
LEAST = {"fp32": 1.2e-38, "bf16": 1.2e-38, "fp64": 2.3e-308}  # the least number of full accuracy


def check_numbers(values: Mapping[str, Any], precision: str) -> None:
    """ConfigError for one of the flat `values` that is not finite, whose square `precision` does not hold (optimisers
    and solvers multiply and divide what they are given), or that is 0 there though it is not here."""
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
