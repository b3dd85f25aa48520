"""Split files as people and spreadsheets write them, and the folders that they name."""

import json
import os
import re
from pathlib import Path
from unicodedata import normalize

import pytest

from memmeta_exp.data.folder import folder_files
from memmeta_exp.utils.errors import ConfigError
from tests.data.folders import SPLITS, image

CSV = "class,split\n" + "".join(f"{name},{split}\n" for split, names in SPLITS.items() for name in names)
JSON = json.dumps(SPLITS)
CAFE = [normalize(form, "café") for form in ("NFC", "NFD")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """c00 .. c09, an image each; beside them a link to c00, a folder in it, and a name in decomposed letters."""
    folder = tmp_path_factory.mktemp("birds")
    for at, name in enumerate([*(f"c{i:02}" for i in range(10)), "c00/chicks", CAFE[1]]):
        image(folder / name / "0.png", at)
    os.symlink("c00", folder / "link")
    return folder


def splits(root: Path, content: str | bytes, file: str = "split.csv") -> dict[str, list[str]]:
    for old in [path for path in root.iterdir() if path.is_file()]:
        old.unlink()
    (root / file).write_bytes(content.encode() if isinstance(content, str) else content)
    return {split: list(classes) for split, classes in folder_files(str(root), None).items()}


TAKEN = {
    "byte order mark": ("\ufeff" + CSV, "split.csv"),
    "line ends of Windows": (CSV.replace("\n", "\r\n"), "split.csv"),
    "blank lines": (CSV.replace("c05", "\n   \nc05") + "\n,\n\n", "split.csv"),
    "header in capitals and spaces": (
        CSV.replace("class,split", " Class , SPLIT").replace(",val", " , Val "),
        "split.csv",
    ),
    "semicolons after sep=": ("sep=;\n" + CSV.replace(",", ";"), "split.csv"),
    "Unicode text of Excel": (CSV.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"), "split.csv"),
    "quotes": (re.sub(r"[\w]+", r'"\g<0>"', CSV), "split.csv"),
    "a further column": (re.sub(r"(?m)^(.+)$", r"1,\1,x", CSV), "split.csv"),
    "suffix in capitals": (CSV, "Split.CSV"),
    "bars of Windows": (CSV.replace("c00", ".\\c00"), "split.csv"),
    "JSON with a byte order mark": ("\ufeff" + JSON, "split.json"),
    "JSON in UTF-16, keys in capitals": (JSON.replace("train", "Train ").encode("utf-16"), "split.JSON"),
    "JSON under the name of CSV": (JSON, "split.csv"),
    "detours": (JSON.replace("c00", "./c01/../c00/"), "split.json"),
}


@pytest.mark.parametrize("how", TAKEN)
def test_what_is_unambiguous_is_taken(root: Path, how: str) -> None:
    assert splits(root, *TAKEN[how]) == SPLITS


def added(split: str, name: str) -> str:
    return json.dumps({**SPLITS, split: [*SPLITS[split], name]})


REFUSED: dict[str, tuple[str | bytes, str, str]] = {
    "no comma": (CSV.replace("c05,val", "c05"), "split.csv", "split.csv, line 7: 1 fields, and the header has 2"),
    "no class": (CSV + ",test\n", "split.csv", "split.csv, line 12 names no class"),
    "another word": (
        CSV.replace(",val", ",validation"),
        "split.csv",
        "line 6: 'validation' is not a split: write 'val'",
    ),
    "no header": (CSV[12:], "split.csv", "has the header 'c00,train', without 'class'"),
    "Latin-1": ((CSV + "café,test\n").encode("latin-1"), "split.csv", "is not UTF-8 text (line 12, "),
    "empty": ("", "split.csv", "split.csv is empty"),
    "a split without classes": ("class,split\nc00,train\n", "split.csv", "and has none for val and test"),
    "JSON cut short": (JSON[:-1], "split.json", "is not valid JSON (line 1, column 100: "),
    "JSON without end": ("[" * 100_000, "split.json", "is not a split file (it nests too deeply)"),
    "an extra key": (JSON[:-1] + ', "name": "x"}', "split.json", "'name' is not a split: use train, val, test"),
    "an extra key with keys": (JSON[:-1] + ', "info": {"by": "me"}}', "split.json", "'info' is not a split: use"),
    "a key twice": (JSON[:-1] + ', "val": ["c05"]}', "split.json", "has the key 'val' twice"),
    "valid": (JSON.replace('"val"', '"valid"'), "split.json", "'valid' is not a split: write 'val'"),
    "no list": (
        JSON.replace('["c04", "c05", "c06"]', '"c04"'),
        "split.json",
        "classes of 'val' in a list, not as",
    ),
    "a number": (JSON.replace('"c04"', "4"), "split.json", "'val' lists 4, where a class folder is expected"),
    "letter case": (JSON.replace("c09", "C09"), "split.json", "names class 'C09', but"),
    "a NUL": (JSON.replace("c09", "c\\u0000"), "split.json", "names class 'c\\x00', but"),
    "outside": (JSON.replace("c09", "../c09"), "split.json", "class '../c09' is not below"),
    "a path from the root": (JSON.replace("c09", "/c09"), "split.json", "class '/c09' is not below"),
    "one name twice": (added("val", "c05"), "split.json", "class 'c05' is in val twice"),
    "a dot": (added("test", "./c00"), "split.json", "'c00' and './c00' are one class, in train and"),
    "a bar": (added("test", "c00/"), "split.json", "'c00' and 'c00/' are one class"),
    "a detour": (added("val", "c01/../c00"), "split.json", "'c00' and 'c01/../c00' are one class"),
    "a link": (added("test", "link"), "split.json", "'c00' and 'link' are one class"),
    "a folder within": (added("val", "c00/chicks"), "split.json", "'c00/chicks' of val lies within class 'c00' of tr"),
    "within by a link": (added("val", "link/chicks"), "split.json", "'link/chicks' of val lies within class 'c00' of"),
    "two forms of Unicode": (
        json.dumps({**SPLITS, "train": CAFE[:1], "test": CAFE[1:]}),
        "split.json",
        "are one class",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_rest_is_refused_in_one_true_line(root: Path, what: str) -> None:
    content, file, words = REFUSED[what]
    with pytest.raises(ConfigError) as refused:
        splits(root, content, file)
    assert words in str(refused.value)
    assert str(root / file) in str(refused.value)
    assert str(refused.value).isprintable(), "one line"


def test_a_class_is_found_in_either_form_of_unicode(root: Path) -> None:
    for name in CAFE:
        assert splits(root, added("test", name), "split.json")["test"] == [*SPLITS["test"], name]


def test_a_split_file_that_is_no_file_is_refused(root: Path) -> None:
    os.mkfifo(root / "pipe.csv")
    for path, what in {"pipe.csv": "is not a file", "c00": "is not a file", "nowhere.csv": "does not exist"}.items():
        with pytest.raises(ConfigError, match=rf"{path} {what}: write JSON .* or name it with dataset.split_file"):
            folder_files(str(root), str(root / path))
