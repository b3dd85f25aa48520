"""Checks of options that several benchmarks share. An invalid option ends with one line and exit code 2."""

import argparse
from collections.abc import Callable, Iterable

import torch


def at_least(least: int) -> Callable[[str], int]:
    """The argparse type of an integer that is at least `least`."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    number.__name__ = "whole number"  # the name in argparse's error message
    return number


def names(parser: argparse.ArgumentParser, kind: str, text: str, known: Iterable[str]) -> list[str]:
    """The comma-separated names in `text`. Exits with an error for a name that is not in `known`."""
    given = [name for name in text.split(",") if name]
    for name in given:
        if name not in known:
            parser.error(f"unknown {kind} {name!r}: choose from {', '.join(known)}")
    return given


def found_device(parser: argparse.ArgumentParser, text: str) -> torch.device:
    """The device named by `text`. Exits with an error unless it is the CPU or an available GPU."""
    try:
        found = torch.device(text)
    except RuntimeError:
        parser.error(f"{text!r} is no device: cpu, cuda or cuda:N")
    if found.type not in ("cpu", "cuda"):
        parser.error(f"{text!r} is not measured here: cpu, cuda or cuda:N")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        parser.error(f"torch finds no {text} here; --device cpu tries the command without it")
    return found
