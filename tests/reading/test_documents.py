"""JSON and YAML that are damaged, hostile or of another structure."""

from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import pytest

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import Count, Plain, mismatch, read_json, read_json_lines, read_yaml


def nested(levels: int) -> str:
    return "\n".join(" " * level + "a:" for level in range(levels))


def laughs(levels: int) -> str:
    """Each of nine aliases of the level before: 9^levels values."""
    lines = ["a0: &a0 x"] + [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


JSON = {
    "brackets": ("[" * 100_000, "nests deeper than 64"),
    "brackets that end": ("[" * 2000 + "]" * 2000, "nests deeper than 64"),
    "a deep mapping": ('{"a":' * 70 + "1" + "}" * 70, "nests deeper than 64"),
    "digits": ("9" * 5000, "an integer of 5000 digits"),
    "65 bits": (str(2**64), "more than 64 bits"),
    "beyond a float": ("1e999", "too large for a float"),
    "NaN": ("NaN", "NaN is not valid JSON"),
    "nothing": ("", "Expecting value"),
    "half": ('{"a": 1', "Expecting"),
}
YAML = {
    "a recursive anchor": ("a: &a [*a]", "line 1 has an anchor or alias"),
    "aliases of aliases": (laughs(12), "line 1 has an anchor or alias"),
    "levels": (nested(500), "nests deeper than 64"),
    "brackets": ("[" * 100_000, "nests deeper than 64"),
    "digits": ("a: " + "9" * 5000, "line 1 has a number of 5000 digits"),
    "hexadecimal digits": ("a: 0x" + "f" * 5000, "line 1 has a number of 5002 digits"),
    "sexagesimal digits": ("a: 1" + ":1" * 500, "line 1 has a number of 1001 digits"),
    "100 bits": ("a: 0x" + "f" * 25, "more than 64 bits"),
    "a tag": ("!!python/object/apply:os.system [ls]", "line 1 has a tag"),
    "a key twice": ("a: 1\na: 2", "line 2 repeats the key 'a'"),
    "a key of lists": ("? [a]\n: b", "a list or a mapping for a key"),
    "two documents": ("a: 1\n---\nb: 2", "more than one document"),
    "many values": ("[" + "a," * 200_000 + "]", "more than 100000 values"),
    "a control character": ("a: \x07", "is not valid YAML"),
    "not valid YAML": ("a: [b", "is not valid YAML"),
}


@pytest.mark.parametrize(("read", "kind"), [*((read_json, k) for k in JSON), *((read_yaml, k) for k in YAML)])
def test_it_is_refused_in_one_line_that_names_the_file(tmp_path: Path, read, kind: str) -> None:
    file, (content, said) = tmp_path / "file", (JSON if read is read_json else YAML)[kind]
    file.write_text(content)
    with pytest.raises(DataError) as refusal:
        read(file)
    assert str(refusal.value).startswith(f"{file} is damaged: ")
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_half_a_pair_is_replaced_and_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"title": "x\\ud800y", "\\udfff": ["\\ud83d\\ude00"]}')
    assert read_json(tmp_path / "a") == {"title": "x\N{REPLACEMENT CHARACTER}y", "\N{REPLACEMENT CHARACTER}": ["😀"]}


def test_what_people_write_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("\ufeffa: 1\r\nb: [x, 0.5, 1e-3, null, yes]\r\nc: 2001-02-30\r\n".encode())
    assert read_yaml(tmp_path / "a") == {"a": 1, "b": ["x", 0.5, "1e-3", None, True], "c": "2001-02-30"}


def test_lines_are_numbered_and_one_without_its_end_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    assert read_json_lines(tmp_path / "a", dict[str, int]) == [{"a": 1}, {"a": 2}]
    (tmp_path / "a").write_text('{"a": 1}\n{"a": "x"}\n')
    with pytest.raises(DataError, match=r"damaged: line 2: 'a' is 'x', expected a whole number"):
        read_json_lines(tmp_path / "a", dict[str, int])


class Inner(TypedDict, total=False):
    count: Count
    kind: Literal["a", "b"]


class Outer(TypedDict):
    name: str
    inner: list[Inner]
    share: NotRequired[float | None]


FAULTS = [
    (5, "it is 5, expected a mapping"),
    ({"name": "x"}, "it has no 'inner'"),
    ({"name": None, "inner": []}, "'name' is None, expected a text"),
    ({"name": "x", "inner": {}}, "'inner' is a mapping, expected a list"),
    ({"name": "x", "inner": [{}, {"count": -1}]}, "'inner.1.count' is -1, expected a whole number from 0"),
    ({"name": "x", "inner": [{"count": True}]}, "'inner.0.count' is True, expected a whole number"),
    ({"name": "x", "inner": [{"kind": "c"}]}, "'inner.0.kind' is 'c', expected a or b"),
    ({"name": "x", "inner": [], "share": "y"}, "'share' is 'y', expected a number or nothing"),
    ({"name": "x", "inner": [{"count": 2, "more": []}], "share": 1}, None),
]


@pytest.mark.parametrize(("value", "said"), FAULTS)
def test_the_first_place_that_does_not_fit_is_named(value: object, said: str | None) -> None:
    assert mismatch(value, Outer) == said


def test_plain_values_are_bounded_however_they_refer_to_each_other() -> None:
    cycle: dict[str, object] = {}
    cycle["a"] = cycle
    shared: dict[str, object] = {}
    for _ in range(60):
        shared = {"a": shared, "b": shared}
    for value in (cycle, shared, {"a": (1,)}, {"a": 2**64}):
        assert mismatch(value, Plain) == "it is a mapping, expected a mapping of plain values"
    assert mismatch({"a": [1, {"b": None}]}, Plain) is None
