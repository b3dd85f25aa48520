"""Pickles of arrays, and pickles that would run something."""

import os
import pickle
import subprocess
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memmeta_exp.data.unpickle import read_pickle
from memmeta_exp.errors import DataError
from tests.data.official import python2_pickle

IMAGES = np.arange(2 * 3 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 3) + np.uint8(150)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_the_releases_hold_is_read(tmp_path: Path, protocol: int):
    data = {
        "images": IMAGES,
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        "labels": [np.int64(3), 4, None, 0.5, True],
        "pngs": [np.array([[1], [255]], dtype=np.uint8), b"\x89PNG\xff"],
        "names": ("n01", "löwe", {1, 2}),
        "classes": OrderedDict(a=[1]),
        "rows": defaultdict(list, b=[2]),
    }
    read = read_pickle(written(tmp_path / "a.pkl", pickle.dumps(data, protocol)))
    for key in ("images", "fortran"):
        assert read[key].dtype == data[key].dtype
        assert np.array_equal(read[key], data[key])
    assert (read["labels"], read["names"], dict(read["classes"])) == (data["labels"], data["names"], {"a": [1]})
    assert np.array_equal(read["pngs"][0], data["pngs"][0])
    assert read["pngs"][1] == data["pngs"][1]
    assert read["rows"] == {"b": [2]}


def test_pickles_of_python_2_are_read(tmp_path: Path):
    data = {"image_data": IMAGES, "class_dict": {"n01532829": [0, 1]}}
    read = read_pickle(written(tmp_path / "a.pkl", python2_pickle(data)))
    assert np.array_equal(read["image_data"], IMAGES)
    assert read["class_dict"] == data["class_dict"]


class Runs:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


FORBIDDEN = {
    "os.system": Runs(os.system, ("touch harm",)),
    "subprocess": Runs(subprocess.check_output, (["touch", "harm"],)),
    "eval": Runs(eval, ("open('harm', 'w')",)),
    "getattr": Runs(getattr, (np.ndarray, "tofile")),
    "numpy load": Runs(np.load, ("harm.npy",)),
    "codecs": Runs(__import__("_codecs").encode, ("harm", "rot13")),
    "factory": Runs(defaultdict, (os.getcwd,)),
    "nested": np.array([Runs(os.system, ("touch harm",))], dtype=object),
}


@pytest.mark.parametrize("kind", FORBIDDEN)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, protocol: int):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "a.pkl", pickle.dumps({"image_data": FORBIDDEN[kind]}, protocol))
    with pytest.raises(DataError, match="no pickle of plain arrays") as error:
        read_pickle(path)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pkl"]


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04\x95", pickle.dumps({"a": IMAGES})[:-40]])
def test_damage_is_said_in_one_line(tmp_path: Path, content: bytes):
    with pytest.raises(DataError) as error:
        read_pickle(written(tmp_path / "a.pkl", content))
    assert "\n" not in str(error.value)
