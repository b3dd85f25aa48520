"""Reads JSON, JSON lines and YAML into plain values of an expected type and bounded size.

Floats are finite, and integers have at most 64 bits. Lone surrogates in text are replaced, so it can always be printed
and written. YAML must have no anchors, aliases, tags or repeated keys.
"""

import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import yaml

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading.files import MIB, TEXT_LIMIT, open_regular
from memmeta_exp.utils.reading.structure import BITS, DEPTH, mismatch, require_plain
from memmeta_exp.utils.reading.text import decoded, read_text

_YAML_LIMIT = MIB
_YAML_VALUES = 100_000  # most values of one file, since parsing YAML is slow
_LINE_LIMIT = 4 * MIB  # bytes per line of a JSON-lines file
_HALF = re.compile("[\ud800-\udfff]")
_HALF_BUT_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_NUMBER = re.compile(r"[-+0-9a-fA-FxXoO_:.]+")


def read_json(path: Path, expected: Any = Any, limit: int = TEXT_LIMIT, file_names: bool = False) -> Any:
    """The content of a JSON file. expected: its type, as in `structure.mismatch`.

    file_names: keep the lone surrogates that stand for undecodable bytes in file names. Raises FileNotFoundError, and
    DataError for a file that is unreadable, too large or not of the type `expected`.
    """
    parse = partial(_parse_json, replaced=_HALF_BUT_BYTES) if file_names else _parse_json
    return _value(path, read_text(path, limit), parse, expected)


def read_yaml(path: Path, expected: Any = Any, limit: int = _YAML_LIMIT) -> Any:
    """The content of a YAML file, of the type `expected`. Raises as `read_json`."""
    return _value(path, read_text(path, limit), parse_yaml, expected)


def read_json_lines(path: Path, expected: Any = Any) -> list[Any]:
    """The values of a file with one JSON value per line, in order.

    A last line without a line end, left by a killed process, is dropped. Raises as `read_json`, with the line number.
    """
    values = []
    with open_regular(path) as stream:
        while line := stream.readline(_LINE_LIMIT):
            number = len(values) + 1
            if len(line) == _LINE_LIMIT:
                raise DataError(f"{path} is damaged: line {number} has {_LINE_LIMIT} bytes or more")
            if not line.endswith(b"\n"):
                break
            values.append(_value(path, decoded(line, path), _parse_json, expected, f"line {number}: "))
    return values


def _value(path: Path, text: str, parse: Callable[[str], Any], expected: Any, place: str = "") -> Any:
    try:
        value = parse(text)
    except ValueError as error:
        raise DataError(f"{path} is damaged: {place}{error}") from None
    found = mismatch(value, expected)
    if found:
        raise DataError(f"{path} is damaged: {place}{found}")
    return value


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises ValueError, with a one-clause text, if it is not allowed here."""
    try:
        _require_no_anchors(text)
        value = yaml.load(text, _Loader)
        require_plain(value)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not valid YAML: {_error_text(error)}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ValueError(_error_text(error)) from None
    return _whole_text(value)


def _parse_json(text: str, replaced: re.Pattern[str] = _HALF) -> Any:
    """The value of a JSON text. Raises ValueError, with a one-clause text, if it is invalid or not allowed here."""
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_no_number)
        if text.count("[") + text.count("{") > DEPTH:
            require_plain(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(_error_text(error)) from None
    return _whole_text(value, replaced) if "\\u" in text else value


def _error_text(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return f"it nests deeper than {DEPTH} levels"
    return " ".join(str(error).split()) or type(error).__name__


def _whole(digits: str) -> int:
    if len(digits) > BITS or not -(2 ** (BITS - 1)) <= int(digits) < 2**BITS:
        raise ValueError(f"an integer of {len(digits)} digits has more than {BITS} bits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {digits[:BITS]} is too large for a float")
    return value


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is not valid JSON: write null instead")


def _whole_text(value: Any, half: re.Pattern[str] = _HALF) -> Any:
    """`value` with a replacement character for each lone surrogate that `half` matches."""
    if isinstance(value, str):
        return half.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [_whole_text(item, half) for item in value]
    if isinstance(value, dict):
        return {_whole_text(key, half): _whole_text(item, half) for key, item in value.items()}
    return value


_Fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the implementation in C, if available


class _Loader(_Fast):
    """Reads dates as strings, and rejects repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, dict | list):
                raise ValueError(f"line {key_node.start_mark.line + 1} has a list or a mapping for a key")
            if key in values:
                raise ValueError(f"line {key_node.start_mark.line + 1} repeats the key '{key}': remove one")
            values[key] = self.construct_object(value_node, deep=True)
        return values


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _Loader.construct_mapping)


def _require_no_anchors(text: str) -> None:
    """Raises ValueError, before any value is built, for anchors, aliases and tags, and for too deep or too many values.

    Aliases can make a small file a huge or cyclic value; tags make types that JSON does not have.
    """
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, _Loader)):
        if getattr(event, "anchor", None) is not None:
            line = event.start_mark.line + 1
            raise ValueError(f"line {line} has an anchor or alias (& or *): write the value out")
        if getattr(event, "tag", None) not in (None, "!"):
            raise ValueError(f"line {event.start_mark.line + 1} has a tag (!): leave it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if depth > DEPTH:
            raise ValueError(f"it nests deeper than {DEPTH} levels")
        if count > _YAML_VALUES:
            raise ValueError(f"it holds more than {_YAML_VALUES} values")
        if documents > 1:
            raise ValueError("it holds more than one document")
        plain = isinstance(event, yaml.ScalarEvent) and event.implicit[0]
        if plain and len(event.value) > BITS and _NUMBER.fullmatch(event.value):
            raise ValueError(f"line {event.start_mark.line + 1} has a number of {len(event.value)} digits")
