"""`memmeta data fetch`, `import` and `verify`, and a step of training on what they leave."""

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memmeta_exp.config import DatasetFacts, from_omegaconf
from memmeta_exp.config.compose import composed
from memmeta_exp.data import cache_contents, cifar100_torchmeta
from memmeta_exp.data.cifar100_torchmeta import hdf5_path
from memmeta_exp.data.datasets import MiniImagenetConfig, OmniglotConfig, TieredImagenetConfig
from memmeta_exp.data.prepare import download, fetch
from memmeta_exp.data.prepare.readers import images, omniglot
from memmeta_exp.data.prepare.urls import PAGES, RELEASES, Release, RemoteFile
from memmeta_exp.experiment.builder import build
from memmeta_exp.experiment.optimizers import build_optimizer
from memmeta_exp.experiment.train_step import TrainStep
from tests.commands.conftest import Result
from tests.data import official
from tests.data.servers import Server, serving
from tests.data.test_cache import released

Memmeta = Callable[..., Result]
STEP = [
    "backbone.filters=4", "ways=2", "shots=1", "queries=2", "batch_size=2", "iterations=1", "val_tasks=2",
    "test_tasks=2", "convergence_tasks=2", "threads=1", "tracking=disabled", "progress=false",
]  # fmt: skip
CLASSES = {"train": 3, "val": 2, "test": 2}


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published sets cut down to what official.py writes; no cache but here."""
    monkeypatch.setenv("MEMMETA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEMMETA_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    totals = {split: sum(map(len, official.unequal(split).values())) for split in official.SPLITS}
    monkeypatch.setattr(MiniImagenetConfig, "facts", lambda _: DatasetFacts(CLASSES, 4, 3, 84))
    monkeypatch.setattr(TieredImagenetConfig, "facts", lambda _: DatasetFacts(CLASSES, 4, 3, 84, totals))
    names = {split: omniglot.class_names(split)[: CLASSES[split]] for split in official.SPLITS}
    monkeypatch.setattr(omniglot, "class_names", names.__getitem__)

    def facts(config: OmniglotConfig) -> DatasetFacts:
        return DatasetFacts({s: n * (4 if config.rotations else 1) for s, n in CLASSES.items()}, 3, 1, 28)

    monkeypatch.setattr(OmniglotConfig, "facts", facts)


def step(*overrides: str) -> float:
    """One training iteration of a configuration; the norm of the gradient that it stepped along."""
    experiment = build(from_omegaconf(composed([*STEP, *overrides])))
    optimizer, _ = build_optimizer(experiment.config, experiment.model)
    report = TrainStep(experiment, optimizer)(1)
    assert bool(report.loss.isfinite().all())
    return float(sum(p.grad.norm() for p in experiment.model.parameters() if p.grad is not None))


def omniglot_files(folder: Path) -> Path:
    every = [name.split("/", 1) for split in official.SPLITS for name in omniglot.class_names(split)]
    parts = {part: [name for of, name in every if of == part] for part in omniglot._PARTS}
    return official.omniglot_zips(folder, parts, each=3)


FILES: dict[str, Callable[[Path], Path]] = {
    "miniimagenet": official.mini_cache,
    "tieredimagenet": official.tiered_png,
    "omniglot": omniglot_files,
}


@pytest.mark.parametrize("name", FILES)
def test_imported_files_are_verified_and_trained_on(memmeta: Memmeta, tmp_path: Path, name: str) -> None:
    root = f"data_root={tmp_path / 'data'}"
    source = FILES[name](tmp_path / "source")
    imported = memmeta("data", "import", name, str(source), root)
    assert imported.code == 0, imported.err
    assert imported.out.strip() == str(tmp_path / "data" / name / "store")
    verified = memmeta("data", "verify", name, root)
    lines = verified.out.splitlines()
    assert "ok            train: pixels: are those converted from" in verified.out
    assert any(line.startswith("no reference  pixels: no reference hash of the published pixels") for line in lines)
    assert sum("counts: " in line and line.startswith("ok") for line in lines) == 3
    assert verified.code == int(name == "miniimagenet"), "these class names are not miniImageNet's, and it says so"
    assert f"{name}: present" in memmeta("data", root).out
    assert step(f"dataset={name}", root) > 0


def test_a_whole_run_on_imported_files(memmeta: Memmeta, tmp_path: Path) -> None:
    root = f"data_root={tmp_path / 'data'}"
    memmeta("data", "import", "tieredimagenet", str(official.tiered_png(tmp_path / "source")), root)
    trained = memmeta("train", "dataset=tieredimagenet", root, *STEP, "images.normalise=dataset")
    assert trained.code == 0, trained.err
    again = memmeta("evaluate", f"run={trained.summary.parent}")
    assert "2 tasks score as stored" in again.out, "on classes of unequal size, normalised as in the run"


def test_verify_finds_other_pixels_classes_and_counts(memmeta: Memmeta, tmp_path: Path) -> None:
    root = f"data_root={tmp_path / 'data'}"
    memmeta("data", "import", "tieredimagenet", str(official.tiered_npz(tmp_path / "source")), root)
    store = tmp_path / "data" / "tieredimagenet" / "store"
    assert memmeta("data", "verify", "tieredimagenet", root).code == 0
    content = bytearray((store / "val.npy").read_bytes())
    content[-1] ^= 1
    (store / "val.npy").write_bytes(content)
    found = memmeta("data", "verify", "tieredimagenet", root)
    assert found.code == 1
    assert [line for line in found.out.splitlines() if "FAILED" in line] == [
        line for line in found.out.splitlines() if "val: pixels: are NOT" in line
    ]
    index = json.loads((store / "index.json").read_text())
    index["splits"]["train"]["mean"] = index["splits"]["train"]["mean"][::-1]
    (store / "index.json").write_text(json.dumps(index))
    assert "FAILED        train: statistics" in memmeta("data", "verify", "tieredimagenet", root).out


def test_rotations_of_omniglot_are_classes_of_their_own(memmeta: Memmeta, tmp_path: Path) -> None:
    from memmeta_exp.data import load_split

    root = tmp_path / "data"
    memmeta("data", "import", "omniglot", str(omniglot_files(tmp_path / "source")), f"data_root={root}")
    plain, turned = (load_split(OmniglotConfig(rotations=r), "val", str(root)) for r in (False, True))
    assert turned.images.shape == (8, 3, 1, 28, 28)
    for k in range(4):
        assert np.array_equal(turned.images[2 * k : 2 * k + 2].numpy(), np.rot90(plain.images.numpy(), k, (3, 4)))
    assert len(set(turned.class_names)) == 8


@pytest.mark.parametrize("name", ["miniimagenet", "tieredimagenet"])
def test_torchmetas_own_files_are_converted_at_the_first_use(memmeta: Memmeta, tmp_path: Path, name: str) -> None:
    root = tmp_path / "data"
    make = official.torchmeta_mini if name == "miniimagenet" else official.torchmeta_tiered
    make(root / name)
    assert "converted once at the first use" in memmeta("data", f"data_root={root}").out
    first = memmeta("data", "verify", name, f"data_root={root}")
    assert "converting" in first.err
    assert (root / name / "store" / "index.json").is_file()
    assert step(f"dataset={name}", f"data_root={root}", "images.normalise=dataset") > 0
    assert "converting" not in memmeta("data", "verify", name, f"data_root={root}").err


def test_a_read_only_data_root_is_converted_to_the_cache(
    memmeta: Memmeta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    official.torchmeta_mini(root / "miniimagenet")
    before = sorted(root.rglob("*"))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    memmeta("data", "verify", "miniimagenet", f"data_root={root}")
    assert sorted(root.rglob("*")) == before
    assert list((tmp_path / "cache").glob("miniimagenet-*/index.json"))


@pytest.mark.parametrize("name", ["quadratic", "sinusoid"])
def test_a_problem_without_images_is_verified_as_in_conf(memmeta: Memmeta, name: str) -> None:
    result = memmeta("data", "verify", name)
    assert (result.code, result.err) == (0, "")
    assert "it has no images: tasks are generated from a seed" in result.out


SPLIT = {
    "train": ["train/n01", "train/n02", "train/n03"],
    "val": ["val/n04", "val/n05"],
    "test": ["test/n06", "test/n07"],
}


def own_folder(folder: Path, split: object = SPLIT) -> Path:
    official.tree(folder, size=40)
    (folder / "split.json").write_text(split if isinstance(split, str) else json.dumps(split))
    return folder


def test_the_list_says_whether_your_folder_is_there(memmeta: Memmeta, tmp_path: Path) -> None:
    own_folder(tmp_path / "birds")
    (tmp_path / "nothing").mkdir()
    for arguments, expected in {
        (): ["folder: not here", "no folder is named: memmeta data path=DIR looks at one"],
        ("path=birds",): ["folder: present", "birds: classes: 3 train, 2 val, 2 test; images of a class: 4 or more"],
        ("dataset.path=nowhere",): ["folder: not here", "dataset.path=nowhere is not a folder"],
        ("path=nothing",): ["folder: not here", "nothing/split.json (or split.csv) does not exist"],
        ("path=birds", "split_file=mine.csv"): ["folder: not here", "mine.csv does not exist"],
    }.items():
        result = memmeta("data", *arguments)
        assert (result.code, result.err) == (0, "")
        state, _, detail = result.out[result.out.index("folder: ") :].splitlines()[:3]
        assert state == expected[0]
        assert expected[1] in detail


def test_a_folder_of_your_own_is_imported_verified_and_trained_on(memmeta: Memmeta, tmp_path: Path) -> None:
    folder = own_folder(tmp_path / "birds")
    imported = memmeta("data", "import", "folder", str(folder), "image_size=20")
    assert imported.code == 0, imported.err
    command = imported.out.splitlines()[-1].split()
    assert command[:2] == ["memmeta", "train"]
    assert memmeta("data", "verify", "folder", str(folder), "image_size=20").code == 0
    before = list((tmp_path / "cache" / "folders").rglob("*.npy"))
    assert step(*command[2:], "images.flip=true") > 0
    assert list((tmp_path / "cache" / "folders").rglob("*.npy")) == before, "the import has converted it"
    (folder / "val" / "n04" / "3.png").unlink()
    again = memmeta("data", "verify", "folder", str(folder), "image_size=20")
    assert "converting" in again.err, "a changed folder is converted again"
    assert "no reference  val: counts: 2 classes of 3 to 4 images, 7 in all" in again.out


def test_verify_fails_on_images_of_one_colour(memmeta: Memmeta, tmp_path: Path) -> None:
    """White ink on a transparent page shows nothing on white."""
    from PIL import Image

    folder = own_folder(tmp_path / "birds")
    page = Image.new("RGBA", (20, 20), (255, 255, 255, 0))
    page.putpixel((5, 5), (255, 255, 255, 255))
    page.save(folder / "val" / "n05" / "1.png")
    imported = memmeta("data", "import", "folder", str(folder), "image_size=20")
    assert f"memmeta: 1 of 28 images of {folder} have a single colour: val/n05/1.png" in imported.err
    found = memmeta("data", "verify", "folder", str(folder), "image_size=20")
    assert found.code == 1
    assert [line for line in found.out.splitlines() if "FAILED" in line] == [
        "FAILED        val: constant images: 1 of 8 images have a single colour: val/n05/1.png"
    ]


def test_a_csv_split_file_and_grey_images(memmeta: Memmeta, tmp_path: Path) -> None:
    folder = own_folder(tmp_path / "birds")
    rows = "\n".join(f"{name},{split}" for split, names in SPLIT.items() for name in names)
    (tmp_path / "mine.csv").write_text(f"class,split\n{rows}\n")
    options = ["dataset=folder", f"dataset.path={folder}", f"dataset.split_file={tmp_path / 'mine.csv'}"]
    assert step(*options, "dataset.channels=1", "dataset.image_size=16") > 0


BAD_SPLITS = {
    "no json": ("{", "is not valid JSON"),
    "no val": ({"train": ["train/n01"], "test": ["test/n06"]}, "must name classes for each of train, val and test"),
    "no list": ({**SPLIT, "val": "val/n04"}, "must name classes"),
    "twice": ({**SPLIT, "val": ["train/n01"]}, "class 'train/n01' is in train and in val; name it once"),
    "absent": ({**SPLIT, "val": ["val/n99"]}, "is not a folder"),
    "elsewhere": ({**SPLIT, "val": ["../x"]}, "is not below"),
    "absolute": ({**SPLIT, "val": ["/etc"]}, "is not below"),
    "empty": ({**SPLIT, "val": ["val"]}, "holds no images"),
}


@pytest.mark.parametrize("what", BAD_SPLITS)
def test_a_bad_split_file_is_refused(memmeta: Memmeta, tmp_path: Path, what: str) -> None:
    split, word = BAD_SPLITS[what]
    folder = own_folder(tmp_path / "birds", split)
    result = memmeta("train", "dataset=folder", f"dataset.path={folder}", *STEP)
    assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
    assert word in result.err
    assert not (tmp_path / "outputs").exists()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves both releases of miniImageNet, `one` of three pickles and `two` of an archive; each of two addresses."""
    folder = official.mini_cache(tmp_path / "files")
    files = {f"/one/{path.name}": path.read_bytes() for path in folder.iterdir()}
    import tarfile

    with tarfile.open(tmp_path / "two.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(folder, "mini-imagenet")
    files["/two/mini-imagenet.tar.gz"] = (tmp_path / "two.tar.gz").read_bytes()
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    with serving(files) as server:
        monkeypatch.setitem(RELEASES, "miniimagenet", tuple(map(release(server), ("one", "two"))))
        yield server


def release(server: Server) -> Callable[[str], Release]:
    def made(name: str) -> Release:
        paths = [path for path in server.files if path.startswith(f"/{name}/")]
        files = [
            RemoteFile(
                path.rpartition("/")[2],
                (server.url(f"/dead{path}"), server.url(path)),
                hashes=(f"md5:{hashlib.md5(server.files[path]).hexdigest()}",),
            )
            for path in paths
        ]
        return Release(name, tuple(files))

    return made


def test_fetch_tries_the_addresses_in_turn_converts_and_cleans_up(
    memmeta: Memmeta, tmp_path: Path, site: Server
) -> None:
    root = tmp_path / "data"
    result = memmeta("data", "fetch", "miniimagenet", f"data_root={root}")
    assert result.code == 0, result.err
    assert sorted(p.name for p in root.rglob("*") if p.is_file()) == ["index.json", "test.npy", "train.npy", "val.npy"]
    assert not (root / "downloads").exists()
    asked = len(site.requests)
    assert asked == 6, "of each file the dead address, then the other"
    assert "mini-imagenet-cache-val.pkl" in result.err, "progress is shown"
    assert memmeta("data", "fetch", "miniimagenet", f"data_root={root}").code == 0
    assert len(site.requests) == asked, "what is here is not fetched again"


def test_fetch_goes_on_to_the_next_release(memmeta: Memmeta, tmp_path: Path, site: Server) -> None:
    site.misdeeds["/one/mini-imagenet-cache-train.pkl"] = ["403"]
    result = memmeta("data", "fetch", "miniimagenet", f"data_root={tmp_path / 'data'}")
    assert result.code == 0, result.err
    assert site.requests[-1][0] == "/two/mini-imagenet.tar.gz"


def test_the_first_conversion_stops_at_once_and_begins_anew(
    memmeta: Memmeta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_folder(tmp_path / "birds")
    command = ["train", "dataset=folder", f"dataset.path={folder}", *STEP, "plots=false", "hydra.run.dir=run"]
    real, seen = images.decode, []

    def stopped(name: str, *arguments: Any) -> Any:
        seen.append(name)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(name, *arguments)

    monkeypatch.setattr(images, "decode", stopped)
    result = memmeta(*command)
    assert (result.code, result.err.splitlines()[-1]) == (128 + signal.SIGTERM, "memmeta: stopped by signal 15")
    assert len(seen) == 3
    assert len(result.err.splitlines()) == 3, "what is converted, the split, and the end"
    assert list((tmp_path / "cache" / "folders").iterdir()) == []
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "interrupted"
    assert memmeta(*command).code == 0
    assert len(seen) == 3 + 28


def test_the_cache_is_listed_and_emptied(memmeta: Memmeta, tmp_path: Path) -> None:
    folder = own_folder(tmp_path / "birds")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mine.txt").write_text("no part of it")
    for size in (16, 20):
        memmeta("data", "import", "folder", str(folder), f"image_size={size}")
    first, second = cache_contents.entries()
    half = second.path.with_name(f".{second.path.name}-abcdefgh")
    half.mkdir()
    listed = memmeta("data", "cache").out.splitlines()
    assert listed[0] == str(first.path)
    assert f"0.0 MiB, of {folder}, images 3 x 16 x 16, last used 20" in listed[1]
    assert listed[1].endswith(", in use"), "by this process"
    assert listed[4:6] == [str(half), "    incomplete, removed before the next conversion"]
    assert listed[-1] == f"{tmp_path / 'cache'}: 0.00 of at most 50 GiB (MEMMETA_CACHE_GIB)"
    released(first.path)
    emptied = memmeta("data", "cache", "clear=true")
    assert emptied.code == 0
    assert emptied.out.splitlines()[0] == str(second.path), "what is in use stays, and is said"
    assert [p for p in (first.path, second.path, half) if p.exists()] == [second.path]
    released(second.path)
    memmeta("data", "cache", "clear=true")
    assert sorted(p.name for p in (tmp_path / "cache").rglob("*")) == ["folders", "mine.txt"]


def test_what_a_killed_import_left_is_removed_by_the_next(memmeta: Memmeta, tmp_path: Path) -> None:
    source, root = official.mini_cache(tmp_path / "source"), tmp_path / "data"
    (root / ".import-0a1b2c3d" / "unpacked").mkdir(parents=True)
    (root / "miniimagenet" / ".store-0a1b2c3d").mkdir(parents=True)
    assert memmeta("data", "import", "miniimagenet", str(source), f"data_root={root}").code == 0
    assert sorted(p.name for p in root.rglob("*") if p.is_dir()) == ["miniimagenet", "store"]


def test_fetch_that_was_broken_off_goes_on_next_time(
    memmeta: Memmeta, tmp_path: Path, site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RELEASES, "miniimagenet", RELEASES["miniimagenet"][:1])
    path = "/one/mini-imagenet-cache-train.pkl"
    site.misdeeds[path] = ["break off", "403"]
    assert memmeta("data", "fetch", "miniimagenet", f"data_root={tmp_path / 'data'}").code == 1
    assert list((tmp_path / "data" / "downloads").rglob("*.part"))
    site.misdeeds[path] = ["none"]
    assert memmeta("data", "fetch", "miniimagenet", f"data_root={tmp_path / 'data'}").code == 0
    resumed = [wanted for asked, wanted in site.requests if asked == path and wanted]
    assert resumed
    assert int(resumed[-1][len("bytes=") : -1]) > 10_000


def test_fetch_that_fails_everywhere_says_what_was_tried_and_what_to_do(
    memmeta: Memmeta, tmp_path: Path, site: Server
) -> None:
    site.misdeeds["/one/mini-imagenet-cache-train.pkl"] = ["web page"]
    site.misdeeds["/two/mini-imagenet.tar.gz"] = ["wrong file"]
    result = memmeta("data", "fetch", "miniimagenet", f"data_root={tmp_path / 'data'}")
    assert result.code == 1
    line = result.err.splitlines()[-1]
    for word in ("HTTP 404", "web page", "sent another file (md5", PAGES["miniimagenet"]):
        assert word in line
    assert f"`memmeta data import miniimagenet PATH data_root={tmp_path / 'data'}`" in line
    assert not (tmp_path / "data" / "miniimagenet").exists()
    arrived = sorted(p.name for p in (tmp_path / "data" / "downloads").rglob("*.pkl"))
    assert arrived in ([], ["mini-imagenet-cache-test.pkl", "mini-imagenet-cache-val.pkl"]), "kept for the next call"


def test_a_right_hash_of_a_harmful_pickle_still_runs_nothing(
    memmeta: Memmeta, tmp_path: Path, site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/one/mini-imagenet-cache-train.pkl"
    site.files[path] = b"cos\nsystem\n(S'touch harm'\ntR."
    monkeypatch.setitem(RELEASES, "miniimagenet", (release(site)("one"),))
    result = memmeta("data", "fetch", "miniimagenet", f"data_root={tmp_path / 'data'}")
    assert result.code == 1
    assert "wants to call os.system" in result.err
    assert not (tmp_path / "harm").exists()


def cifar_parts() -> tuple[dict, dict]:
    """100 classes of 5 + 1 images, in 20 coarse ones."""
    generator, parts = np.random.default_rng(5), {}
    for name, each in (("train", 5), ("test", 1)):
        fine = generator.permutation(np.repeat(np.arange(100), each))
        images = generator.integers(0, 256, (len(fine), 32, 32, 3), dtype=np.uint8)
        parts[name] = (images, fine.tolist(), (fine // 5).tolist())
    names = {
        "fine_label_names": [f"f{i:02}" for i in range(100)],
        "coarse_label_names": [f"man-made_c{i:02}" for i in range(20)],
    }
    return parts, names


def test_cifar100_of_the_official_archive_becomes_torchmetas_file(
    memmeta: Memmeta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import h5py

    parts, names = cifar_parts()
    archive = official.cifar100_archive(tmp_path / "cifar-100-python.tar.gz", parts, names)
    refused = memmeta("data", "import", "cifar100", str(archive), f"data_root={tmp_path / 'data'}")
    assert refused.code == 2
    assert "is not CIFAR-100 as published" in refused.err
    assert not list((tmp_path / "data").iterdir())
    monkeypatch.setattr(cifar100_torchmeta, "verify", lambda _: True)
    result = memmeta("data", "import", "cifar_fs", str(archive), f"data_root={tmp_path / 'data'}")
    assert result.code == 0, result.err
    with h5py.File(hdf5_path(tmp_path / "data")) as file:
        assert len(file) == 20
        images, fine, _ = parts["train"]
        of_class = np.concatenate([images[np.array(fine) == 37], parts["test"][0][np.array(parts["test"][1]) == 37]])
        assert np.array_equal(np.asarray(file["man-made_c07/f37"]), of_class)
    assert json.loads((tmp_path / "data/cifar100/fine_names.json").read_text())["man-made_c01"] == [
        f"f{i:02}" for i in range(5, 10)
    ]


@pytest.mark.slow
def test_the_real_cifar100_through_its_official_archive(
    data_root_of_session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published pixels, packed as their author packs them, arrive to the bit."""
    import h5py

    parts: dict = {"train": ([], [], []), "test": ([], [], [])}
    coarse_names, fine_names = [], []
    with h5py.File(hdf5_path(data_root_of_session)) as file:
        for coarse, group in file.items():
            coarse_names.append(coarse)
            for fine, pixels in group.items():  # pyright: ignore[reportAttributeAccessIssue]
                for name, rows in (("train", pixels[:500]), ("test", pixels[500:])):
                    parts[name][0].append(rows)
                    parts[name][1].extend([len(fine_names)] * len(rows))
                    parts[name][2].extend([len(coarse_names) - 1] * len(rows))
                fine_names.append(fine)
    packed = {name: (np.concatenate(images), fine, coarse) for name, (images, fine, coarse) in parts.items()}
    names = {"fine_label_names": fine_names, "coarse_label_names": coarse_names}
    archive = official.cifar100_archive(tmp_path / "cifar-100-python.tar.gz", packed, names)
    path = fetch.import_files("cifar100", archive, tmp_path / "data")
    assert path == hdf5_path(tmp_path / "data")
    assert cifar100_torchmeta.verify(tmp_path / "data")


@pytest.mark.parametrize("name", ["cifar_fs", "fc100"])
def test_the_real_cifar100_is_what_it_should_be(memmeta: Memmeta, data_root_of_session: Path, name: str) -> None:
    result = memmeta("data", "verify", name, f"data_root={data_root_of_session}")
    assert result.code == 0
    assert all(line.startswith("ok") for line in result.out.splitlines())
    assert len(result.out.splitlines()) == 10


REAL = os.environ.get("MEMMETA_DATA")


@pytest.fixture
def data_root_of_session() -> Path:
    if not REAL:
        pytest.skip("MEMMETA_DATA is unset: no real datasets on this machine")
    return Path(REAL)


BAD = {
    ("fetch",): "needs a name; choose from cifar100",
    ("fetch", "imagenet", "data_root=x"): "did you mean 'miniimagenet'?",
    ("fetch", "miniimagenet"): "set data_root=DIR",
    ("fetch", "folder", "data_root=x"): "unknown",
    ("fech", "miniimagenet"): "did you mean 'fetch'?",
    ("download=cifar100",): "memmeta data fetch cifar100",
    ("import", "miniimagenet"): "needs one path",
    ("import", "miniimagenet", "nowhere", "data_root=x"): "nowhere does not exist",
    (
        "import",
        "miniimagenet",
        "empty",
        "data_root=x",
    ): "holds none of the formats of miniimagenet: expected mini-imagenet",
    ("import", "omniglot", "file.txt", "data_root=x"): "is no archive",
    ("import", "cifar100", "empty", "data_root=x"): "holds no CIFAR-100",
    ("import", "folder", "empty"): "needs a split file",
    ("import", "folder", "nowhere"): "is not a folder",
    ("import", "folder", "empty", "image_size=big"): "numbers",
    ("import", "folder", "empty", "skip_damaged=1"): "skip_damaged=1 is unknown: use true or false",
    ("verify", "miniimagenet", "data_root=x"): "memmeta data fetch miniimagenet data_root=x",
    ("verify", "nothing"): "unknown",
    ("rot=x",): "data_root",
    ("cache", "clear=all"): "clear=all is unknown: use true or false",
    ("cache", "empty"): "'empty' is not an option: write KEY=VALUE",
    ("split_file=x",): "needs its folder of images: add path=DIR",
}


@pytest.mark.parametrize("arguments", BAD)
def test_wrong_commands_are_one_line(memmeta: Memmeta, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    result = memmeta("data", *arguments)
    assert result.code == 2, result.err
    assert len(result.err.splitlines()) == 1, result.err
    assert BAD[arguments] in result.err
    assert result.out == ""


def test_files_of_another_set_are_not_taken_for_it(memmeta: Memmeta, tmp_path: Path) -> None:
    source = official.mini_cache(tmp_path / "source", each=3)
    result = memmeta("data", "import", "miniimagenet", str(source), f"data_root={tmp_path / 'data'}")
    assert result.code == 2
    assert "the train split has 3 classes and 9 images, at least 3 each; miniimagenet has 3, 12, 4" in result.err
    assert not list((tmp_path / "data" / "miniimagenet").iterdir())
