"""What several benchmarks ask of their options: one line and exit code 2 where they cannot be met."""

import argparse
from collections.abc import Callable, Iterable

import torch


def at_least(least: int) -> Callable[[str], int]:
    """The type of a whole number that is no less than `least`."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    number.__name__ = "whole number"  # what argparse says of a text that is none
    return number


def names(parser: argparse.ArgumentParser, kind: str, text: str, known: Iterable[str]) -> list[str]:
    """The names of `text`, between commas, each of them `known`."""
    given = [name for name in text.split(",") if name]
    for name in given:
        if name not in known:
            parser.error(f"unknown {kind} {name!r}: choose from {', '.join(known)}")
    return given


def found_device(parser: argparse.ArgumentParser, text: str) -> torch.device:
    """The CPU, or a GPU that is there."""
    try:
        found = torch.device(text)
    except RuntimeError:
        parser.error(f"{text!r} is no device: cpu, cuda or cuda:N")
    if found.type not in ("cpu", "cuda"):
        parser.error(f"{text!r} is not measured here: cpu, cuda or cuda:N")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        parser.error(f"torch finds no {text} here; --device cpu tries the command without it")
    return found
