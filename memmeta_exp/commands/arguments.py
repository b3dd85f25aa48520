"""Parses the KEY=VALUE arguments of commands that do not use Hydra."""

from collections.abc import Mapping
from pathlib import Path

from memmeta_exp.config import ConfigError, closest


def parse(arguments: list[str], defaults: Mapping[str, str | None]) -> dict[str, str | None]:
    """`defaults` updated by the KEY=VALUE `arguments`. Raises ConfigError for a key not in `defaults` or no value."""
    values = dict(defaults)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals and key not in defaults:
            raise ConfigError(
                f"'{argument}' is not an option: write KEY=VALUE, such as {next(iter(defaults))}={argument}"
            )
        if key not in defaults:
            raise ConfigError(f"unknown option '{key}'{closest(key, defaults)}")
        if not equals or not value:
            raise ConfigError(f"'{argument}' has no value: write {key}=VALUE")
        values[key] = value
    return values


def folders_and_options(
    arguments: list[str], command: str, defaults: Mapping[str, str | None]
) -> tuple[list[Path], dict[str, str | None]]:
    """The folders among `arguments`, whose names may hold a `=` where they exist, and `parse` of the rest."""
    for argument in arguments:
        if argument.startswith("-"):
            taken = ", ".join(f"{key}=VALUE" for key in defaults)
            raise ConfigError(f"unknown flag '{argument}': {command} takes folders, {taken or 'no keys'} and --help")
    given = [a for a in arguments if "=" in a and not Path(a).is_dir()]
    return [Path(a) for a in arguments if a not in given], parse(given, defaults)


def whole_number(options: Mapping[str, str | None], key: str, least: int, most: int = 2**20) -> int | None:
    """The value of `key` as an int; None if it is not given. Raises ConfigError unless it is from `least` to `most`."""
    text = options[key]
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise ConfigError(f"{key}={text} is out of range: it must be a whole number from {least} to {most}")
    return int(text)


def flag(options: Mapping[str, str | None], key: str) -> bool:
    """The value of `key` as a bool; False if it is not given. Raises ConfigError unless it is true or false."""
    text = options[key] or "false"
    if text.lower() not in ("true", "false"):
        raise ConfigError(f"{key}={text} is unknown: use true or false")
    return text.lower() == "true"
