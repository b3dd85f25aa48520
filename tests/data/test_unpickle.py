"""Pickles of arrays, and pickles that would run something."""

import os
import pickle
import resource
import subprocess
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memmeta_exp.data.prepare.safe_pickle import read_pickle
from memmeta_exp.utils.errors import DataError
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


_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
_U1 = (
    b"cnumpy\ndtype\n(X\x02\x00\x00\x00u1\x89\x88tR(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)
_RAW = b"B\x00\x00\x10\x00" + bytes(2**20) + b"q\x00"  # 1 MiB, in the memo
BOMBS = {
    "bytes": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",
    "a bytearray": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x.",
    "a text": b"\x80\x02X" + (2**31).to_bytes(4, "little") + b"x.",
    "a frame": b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b"N.",
    "a memo index": b"\x80\x02Nr" + (2**29).to_bytes(4, "little") + b".",
    "zeros": b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x70\x85R.",
    "an array by its shape": b"\x80\x02cnumpy\nndarray\n(J\x00\x00\x00\x70tR.",
    "a large number": b"\x80\x02\x8b\x00\x10\x00\x00" + b"\x7f" * 4096 + b".",
    "copies": b"\x80\x03" + _RAW + b"](" + 20 * (_ARRAY + b"(K\x01(J\x00\x00\x10\x00t" + _U1 + b"\x89h\x00tb") + b"e.",
    "lists of bytes": b"\x80\x03" + _RAW + b"](" + 20 * b"cbuiltins\nlist\nh\x00\x85R" + b"e.",
    "not an opcode": b"\x80\x04\xff.",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_asks_for_more_than_it_holds_is_refused_before_it_is_made(tmp_path: Path, kind: str):
    path = written(tmp_path / "a.pkl", BOMBS[kind])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="no pickle") as error:
        read_pickle(path)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 2**10, "KiB"


def test_a_copy_of_what_is_there_is_no_bomb(tmp_path: Path):
    content = b"\x80\x03" + _RAW + b"](" + 2 * (_ARRAY + b"(K\x01(J\x00\x00\x10\x00t" + _U1 + b"\x89h\x00tb") + b"e."
    first, second = read_pickle(written(tmp_path / "a.pkl", content))
    assert first.shape == second.shape == (2**20,)


BUILDS = {  # the opcode BUILD on a name, which would change it for every pickle that follows
    "a function": b"\x80\x02c_codecs\nencode\n(N}X\x04\x00\x00\x00callNstb.",
    "a dictionary": b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x05sb.",
}


@pytest.mark.parametrize("kind", BUILDS)
def test_a_pickle_changes_nothing_but_its_own_arrays(tmp_path: Path, kind: str):
    with pytest.raises(DataError, match="no pickle"):
        read_pickle(written(tmp_path / "a.pkl", BUILDS[kind]))
