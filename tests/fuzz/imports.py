"""Datasets in their published forms with one file that is another: pickles, tables, HDF5, arrays and archives."""

import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.data import official
from tests.fuzz.checkpoints import PICKLES
from tests.fuzz.harness import Case, Fuzzer
from tests.fuzz.hdf5 import OBJECTS
from tests.fuzz.runs import TINY
from tests.fuzz.values import FILES, GONE, mutations, put

CHARACTERS = 3  # of each split of Omniglot, as tests.fuzz.server has it too
_FORMS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "mini cache": ("miniimagenet", lambda p: official.mini_cache(p, each=2)),
    "mini category": ("miniimagenet", lambda p: official.mini_category_split(p, each=2)),
    "mini tables": ("miniimagenet", lambda p: official.mini_csv(p, each=2, size=84)),
    "mini HDF5": ("miniimagenet", lambda p: official.torchmeta_mini(p, each=2)),
    "mini folders": ("miniimagenet", lambda p: official.tree(p, each=2)),
    "tiered PNG": ("tieredimagenet", official.tiered_png),
    "tiered arrays": ("tieredimagenet", official.tiered_npz),
    "tiered HDF5": ("tieredimagenet", official.torchmeta_tiered),
    "omniglot": ("omniglot", lambda p: official.omniglot_zips(p, _characters(), each=1)),
    "omniglot HDF5": ("omniglot", lambda p: _omniglot_hdf5(p)),
    "cifar100": ("cifar100", lambda p: _cifar100(p)),
}


def make(_fuzzer: Fuzzer, place: Path) -> dict[str, Path]:
    """Every form, small, in a folder of its own under `place`."""
    found = {}
    for form, (_, write) in _FORMS.items():
        found[form] = place / form
        found[form].mkdir(parents=True)
        write(found[form])
    found["torchmeta"] = place / "torchmeta"
    _torchmeta_cifar100(found["torchmeta"])
    return found


def _characters() -> dict[str, list[str]]:
    from memmeta_exp.data.prepare.readers import omniglot

    few = [name for split in official.SPLITS for name in omniglot.class_names(split)[:CHARACTERS]]
    return {part: [name.split("/", 1)[1] for name in few if name.startswith(part)] for part in omniglot._PARTS}


def _omniglot_hdf5(folder: Path) -> None:
    with h5py.File(folder / "data.hdf5", "w") as file:
        for part, names in _characters().items():
            for name in names:
                file[f"{part}/{name}"] = np.zeros((2, 105, 105), np.uint8)


def _cifar100(folder: Path) -> None:
    """The official archive, of one image a class, unpacked."""
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    labels = list(range(100)), [i // 5 for i in range(100)]
    names = {"fine_label_names": [f"f{i}" for i in range(100)], "coarse_label_names": [f"c{i}" for i in range(20)]}
    parts: dict[str, Any] = dict.fromkeys(("train", "test"), (images, *labels))
    archive = official.cifar100_archive(folder / "cifar-100-python.tar.gz", parts, names)
    import tarfile

    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    archive.unlink()
    for path in (folder / "cifar-100-python").iterdir():
        path.rename(folder / path.name)
    (folder / "cifar-100-python").rmdir()


def _torchmeta_cifar100(folder: Path) -> None:
    """torchmeta's cifar100/data.hdf5 with the classes of FC100's splits, packed."""
    from memmeta_exp.data.torchmeta_compat import torchmeta_asset

    (folder / "cifar100").mkdir(parents=True)
    with h5py.File(folder / "cifar100/data.hdf5", "w") as file:
        for split in official.SPLITS:
            for coarse in torchmeta_asset("cifar100", "fc100", f"{split}.json"):
                for fine in "abcde":
                    pixels = np.full((600, 32, 32, 3), ord(fine), np.uint8)
                    file.create_dataset(f"{coarse}/{fine}", data=pixels, chunks=(600, 32, 32, 3), compression=1)


def _case(bases: dict[str, Path], form: str, name: str, prepare: Callable[[Path], object], says: str = "") -> Case:
    argv = ("data", "import", _FORMS[form][0], "run", "data_root=out")
    return Case(f"{form}, {name}", argv, prepare, bases[form], says)


def _file(name: str, make_it: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda work: make_it(work / "run" / name)


def _put(name: str, content: bytes | str) -> Callable[[Path], object]:
    return lambda work: put(work / "run" / name, content)


_PLACES = {
    "mini cache": ["mini-imagenet-cache-val.pkl"],
    "mini category": ["miniImageNet_category_split_val.pickle"],
    "mini tables": ["val.csv", "images/n0500000000.png"],
    "mini HDF5": ["val_data.hdf5", "val_labels.json"],
    "mini folders": ["val/n05/0.png"],
    "tiered PNG": ["val_images_png.pkl", "val_labels.pkl"],
    "tiered arrays": ["val_images.npz", "val_labels.pkl"],
    "tiered HDF5": ["val_data.hdf5", "val_labels.json"],
    "omniglot": ["images_background.zip"],
    "omniglot HDF5": ["data.hdf5"],
    "cifar100": ["train", "meta"],
}


def whole_files(bases: dict[str, Path]) -> Iterator[Case]:
    """Every kind of file of a form as everything that a file can be, cut off, and with bytes changed."""
    for form, names in _PLACES.items():
        for name in names:
            for kind, make_it in FILES.items():
                yield _case(bases, form, f"{name}: {kind}", _file(name, make_it))
            content = (bases[form] / name).read_bytes()
            for part in (0.1, 0.5, 0.9, 0.999):
                yield _case(bases, form, f"{name}: {part} of it", _put(name, content[: int(part * len(content))]))
            for seed in range(40):
                yield _case(bases, form, f"{name}: bytes changed by {seed}", _put(name, altered(content, seed)))


def altered(content: bytes, seed: int) -> bytes:
    """With a few bytes changed, most of them near the start or the end, where the structure is."""
    draw, changed = random.Random(seed), bytearray(content)
    for _ in range(draw.choice([1, 1, 4, 50])):
        first = draw.choice([0, 0, max(0, len(changed) - 1000), draw.randrange(len(changed))])
        changed[min(len(changed) - 1, first + draw.randrange(600))] = draw.randrange(256)
    return bytes(changed)


_ARRAYS = [
    np.zeros(3), np.zeros((), np.uint8), np.zeros((0, 84, 84, 3), np.uint8), np.zeros((2, 84, 84), np.uint8),
    np.zeros((4, 84, 84, 3), np.float32), np.zeros((1, 84, 84, 3), np.uint8), np.array([2**63 - 1]),
    np.array(["x"]), np.array([b"x"]), np.array([None], dtype=object), np.array([1 + 2j]), np.array([np.nan]),
    np.array(["2001-01-01"], dtype="M8[D]"), np.zeros(2, dtype=[("a", "i4")]), np.array([True]), np.zeros((2, 2)),
]  # fmt: skip
_VALUES = [
    5, -1, 2**60, 10**700, 1.5, float("nan"), "x", "", "x" * 5000, "../x", "a\nb", "a\0b", "\ud800", b"x", None, True,
    [], {}, [[]], [[1], [2, 3]], ["x"], [1, "x", None], [2**70], [1.5], [-1], [10**6], (1, 2), {1}, {"a": 1}, {1: [0]},
    {"a": [0], "b": "x"}, {"": [0]}, {"a/b": [0]}, {"..": [0]}, {"a": [[0]]}, {"a": [2**40]}, {"a": 5}, {5: 5},
    *_ARRAYS, GONE,
]  # fmt: skip
_PICKLED = [
    ("mini cache", "mini-imagenet-cache-val.pkl", 2), ("mini category", "miniImageNet_category_split_val.pickle", 2),
    ("tiered PNG", "val_images_png.pkl", 1), ("tiered PNG", "val_labels.pkl", 2),
    ("tiered arrays", "val_labels.pkl", 2), ("cifar100", "train", 1), ("cifar100", "meta", 2),
]  # fmt: skip


def pickles(bases: dict[str, Path]) -> Iterator[Case]:
    """Every value of the pickles as each other value, and pickles that nobody's data is in."""
    for form, name, depth in _PICKLED:
        content = (bases[form] / name).read_bytes()
        whole: Any = pickle.loads(content, encoding="latin1")
        for what, value in mutations(whole, depth, _VALUES):
            for protocol in (2, 5):
                changed = pickle.dumps(value, protocol)
                yield _case(bases, form, f"{name}, protocol {protocol}: {what}", _put(name, changed))
        for kind, changed in PICKLES.items():
            yield _case(bases, form, f"{name}: {kind}", _put(name, changed))


_ROWS = [
    "n0500000000.png", "n0500000000.png,", ",n05", ",", ",,,", "n0500000000.png,n05,x", "n0500000000.png;n05",
    "../val.csv,n05", "/etc/passwd,n05", "a\0b,n05", "x.png,n05", "n0500000000.png,../..", '"n0500000000.png,n05',
    '"a""b",n05', "n" * 5000 + ".png,n05", "1" * 200_000 + ",n05", "n0500000000.png," + "n" * 5000, ".,n05", "..,n05",
    "\ud800,n05", "n0500000000.png,\ud800", "images,n05", "\t", "\x07,\x07", "n0500000000.png,n05\r", "=1+1,n05",
    "n0500000000.png,n05\n" * 3, "\u202e.png,n05", "con,nul", "~/x,n05", "${x},n05", "*,n05",
]  # fmt: skip
_HEADERS = [
    "", "filename", "filename,label,", "label,filename", "Filename;Label", "filename,filename", "filename,label,label",
    "\ufefffilename,label", "sep=;\nfilename;label", "filename\tlabel", '"filename","label"', "x" * 200_000,
    "filename,label\r", "FILENAME,LABEL", " filename , label ", "filename,label" + ",x" * 10_000, "\ud800,label",
]  # fmt: skip


def tables(bases: dict[str, Path]) -> Iterator[Case]:
    """miniImageNet's lists with another row, in the middle and at the end, and with another header."""
    lines = (bases["mini tables"] / "val.csv").read_text().splitlines()
    for row in _ROWS:
        for at in (2, len(lines)):
            text = "\n".join([*lines[:at], row, *lines[at + 1 :]])
            yield _case(bases, "mini tables", f"row {at}: {row[:30]!a}", _put("val.csv", text))
    for header in _HEADERS:
        text = "\n".join([header, *lines[1:], ""])
        yield _case(bases, "mini tables", f"header {header[:30]!a}", _put("val.csv", text))
        for encoding in ("utf-16", "utf-16-le", "latin-1", "utf-32", "cp500"):
            encoded = text.encode(encoding, "replace")
            yield _case(bases, "mini tables", f"header {header[:30]!a} in {encoding}", _put("val.csv", encoded))


_LISTS = [
    [], {}, "x", 5, None, [5], [None], [[]], ["x"], ["n05", "n05"], ["n05", 5], ["../n05"], ["n05/x"], [""], ["."],
    ["/"], ["n05", "a\0b"], ["\ud800"], ["n" * 5000], ["datasets"], ["n05"] * 100_000, {"n05": 1}, ["n05/.."], ["n04 "],
]  # fmt: skip


def hdf5(bases: dict[str, Path]) -> Iterator[Case]:
    """Every kind of object in the place of a dataset, of its group and of the class list."""
    for form, name, group, dataset in (
        ("mini HDF5", "val_data.hdf5", "datasets", "datasets/n05"),
        ("tiered HDF5", "val_data.hdf5", "datasets", "datasets/n05"),
        (
            "omniglot HDF5",
            "data.hdf5",
            "images_background",
            f"images_background/{_characters()['images_background'][0]}",
        ),
    ):
        for place in (dataset, group):
            for kind, make_it in OBJECTS.items():
                yield _case(bases, form, f"{place}: {kind}", _object(name, place, make_it))
    for form in ("mini HDF5", "tiered HDF5"):
        for names in _LISTS:
            text = json.dumps(names)
            yield _case(bases, form, f"val_labels.json: {text[:30]}", _put("val_labels.json", text))
    commands = {
        "verify": ("data", "verify", "fc100", "data_root=run"),
        "train": ("train", *TINY, "backbone.filters=3", "dataset=fc100", "data_root=run"),
        "fetch": ("data", "data_root=run"),
    }
    with h5py.File(bases["torchmeta"] / "cifar100/data.hdf5") as file:
        group = sorted(file)[0]
    for command, argv in commands.items():
        for place in (group, f"{group}/a"):
            for kind, make_it in OBJECTS.items():
                prepare = _object("cifar100/data.hdf5", place, make_it)
                yield Case(f"data.hdf5, {command}, {place}: {kind}", argv, prepare, bases["torchmeta"])
        for kind, make_it in FILES.items():
            prepare = _file("cifar100/data.hdf5", make_it)
            yield Case(f"data.hdf5, {command}: {kind}", argv, prepare, bases["torchmeta"])


def damaged_hdf5(bases: dict[str, Path]) -> Iterator[Case]:
    """HDF5 files with bytes changed where their structure is."""
    for form, name in (
        ("mini HDF5", "val_data.hdf5"),
        ("tiered HDF5", "val_data.hdf5"),
        ("omniglot HDF5", "data.hdf5"),
    ):
        content = (bases[form] / name).read_bytes()
        for seed in range(100, 300):
            yield _case(bases, form, f"{name}: bytes changed by {seed}", _put(name, altered(content, seed)))
    content = (bases["torchmeta"] / "cifar100/data.hdf5").read_bytes()
    for seed in range(100):
        prepare = _put("cifar100/data.hdf5", altered(content, seed))
        argv = ("data", "verify", "fc100", "data_root=run")
        yield Case(f"data.hdf5: bytes changed by {seed}", argv, prepare, bases["torchmeta"])


def _object(name: str, place: str, make_it: Callable[[h5py.Group, str], object]) -> Callable[[Path], object]:
    def prepare(work: Path) -> None:
        with h5py.File(work / "run" / name, "r+") as file:
            group, _, last = place.rpartition("/")
            parent = file[group or "/"]
            assert isinstance(parent, h5py.Group)
            del parent[last]
            make_it(parent, last)

    return prepare


def _npy(header: str, content: bytes = bytes(100), version: tuple[int, int] = (1, 0)) -> bytes:
    width = 2 if version == (1, 0) else 4
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(width, "little") + text + content


def _described(shape: str, descr: str = "'|u1'", fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


_NPY = {
    "no header": b"", "text": b"x" * 100, "cut off": b"\x93NUMPY\x01\x00", "version 9": _npy("{}", version=(9, 9)),
    "a header beyond the file": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f",
    **{f"header {text[:30]}": _npy(text) for text in (
        "", "{}", "[" * 5000, "(" * 200, "{'shape': ()}", "__import__('os').system('touch HARM')", "\x00", "9" * 10_000,
    )},
    **{f"shape {shape[:30]}": _npy(_described(shape)) for shape in (
        "()", "(2,)", "(-1, 84, 84, 3)", "(2**40, 84, 84, 3)", "(4611686018427387904, 84, 84, 3)", "(0, 84, 84, 3)",
        "(9, 84, 84, 3)", "'x'", "(1.5,)", "(None,)", "(" + "1," * 40 + ")", "(" + "9" * 400 + ",)",
    )},
    **{f"type {descr}": _npy(_described("(9, 84, 84, 3)", descr)) for descr in (
        "'|O'", "'<f8'", "'x'", "'V1000000000'", "[('a', '|u1')]", "5", "'|S0'", "'<M8[D]'", "None", "','",
    )},
    "in Fortran's order": _npy(_described("(9, 84, 84, 3)", fortran="True")),
    "objects": _npy(_described("(1,)", "'|O'"), b"cos\nsystem\n(S'touch HARM'\ntR."),
}  # fmt: skip


def arrays(bases: dict[str, Path]) -> Iterator[Case]:
    """tieredImageNet's arrays with another header, packed by every method, and in archives that lie."""
    name = "val_images.npz"
    whole = (bases["tiered arrays"] / name).read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        images = file.read("images.npy")
    made = {kind: _archive({"images.npy": content}) for kind, content in _NPY.items()}
    made |= {
        "another name": _archive({"image.npy": images}),
        "a path above": _archive({"../images.npy": images}),
        "an array too": _archive({"images.npy": images, "more.npy": images}),
        "1 GiB of zeros": _archive({"images.npy": images + bytes(2**30)}, zipfile.ZIP_DEFLATED),
        "shorter": _archive({"images.npy": images[:-1]}),
        "longer": _archive({"images.npy": images + b"x"}),
    }
    methods = {"LZMA": zipfile.ZIP_LZMA, "bzip2": zipfile.ZIP_BZIP2, "deflated": zipfile.ZIP_DEFLATED}
    packed = {method: _archive({"images.npy": images}, number) for method, number in methods.items()}
    for method, archive in packed.items():
        made |= {f"{method}, bytes changed by {seed}": altered(archive, seed) for seed in range(40)}
        made |= {f"{method}, {at} of it": archive[: int(at * len(archive))] for at in (0.2, 0.9)}
    for kind, content in made.items():
        yield _case(bases, "tiered arrays", f"{name}: {kind}", _put(name, content))


def _archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()
