"""Paths in any form that the file system allows, in every command that Hydra reads."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from memmeta_exp.config.compose import choices, composed
from memmeta_exp.config.overrides import quote_paths, text_of

NAMES = [
    "ünï", "日本", "a=b", "(x86)", "a b", "a, b", "[a]", "{a}", "it's", '"q"', "a:b", "#1", "~a", "$a", "1e3", "true",
    "2024", "a\\b", "end\\", "a;b|c&d", "!^`", "glob(a)", "choice(a,b)", "'", "a\nb", "%j",
]  # fmt: skip
KEYS = ["data_root", "+dataset.path", "++dataset.split_file", "backbone.weights", "hydra.run.dir"]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_what_it_says(name: str) -> None:
    for path in (f"./{name}", f"/x/{name}/y", *([] if name == '"q"' else [name])):  # "q" is q, in quotes
        assert [text_of(quote_paths(f"{key}={path}")) for key in KEYS] == [path] * len(KEYS)
        config = composed([f"data_root={path}", "dataset=folder", f"++dataset.path={path}"])
        assert (config.data_root, config.dataset.path) == (path, path)


@pytest.mark.parametrize(
    ("override", "paths"),
    [
        ("dataset.path=/x/ünï,/y/a=b", ["/x/ünï", "/y/a=b"]),
        ("dataset.path=choice(/x/(a),/y)", ["/x/(a)", "/y"]),
        ("dataset.path='/x/a,b',/y", ["/x/a,b", "/y"]),
        ("dataset.path=exists,b", ["exists,b"]),
        ("hydra.sweep.dir=a,b", ["a,b"]),
        ("data_root=~/é,~/b", [str(Path.home() / "é"), str(Path.home() / "b")]),
        ("dataset.path=null", ["null"]),
        ("data_root=/x/${now:%Y}", ["/x/${now:%Y}"]),
    ],
)
def test_several_paths_of_a_multirun_stay_several(tmp_path, monkeypatch, override: str, paths: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exists,b").mkdir()
    ((key, singles),) = choices([override])
    assert [single.removeprefix(f"{key}=") for single in singles] == paths


def images(folder: Path) -> None:
    for name in ("a", "b", "c", "d", "e", "f"):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            pixels = torch.randint(256, (16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
            Image.fromarray(pixels.numpy()).save(folder / name / f"{number}.png")
    (folder / "split=1.json").write_text('{"train": ["a", "b"], "val": ["c", "d"], "test": ["e", "f"]}')


RUN = [
    "dataset=folder", "dataset.image_size=16", "dataset.channels=1", "backbone.filters=3", "ways=2", "shots=1",
    "queries=1", "batch_size=1", "iterations=1", "val_tasks=2", "test_tasks=2", "convergence_tasks=1", "threads=1",
    "tracking=disabled",
]  # fmt: skip


def test_a_run_from_and_to_such_paths(memmeta, monkeypatch) -> None:
    where = Path("ünï's (x=86), #1")
    monkeypatch.setenv("MEMMETA_CACHE", "cache")
    images(where / "images")
    data = [f"dataset.path={where}/images", f"dataset.split_file={where}/images/split=1.json"]
    result = memmeta("train", *RUN, *data, f"hydra.run.dir={where}/run")
    assert result.code == 0, result.err
    assert result.summary == Path.cwd() / where / "run/summary.json"
    assert memmeta("train", f"resume={where}/run", "iterations=2").code == 0
    assert memmeta("evaluate", f"run={where}/run", "tasks=2", "dataset=folder", *data, *RUN[1:3]).code == 0
    assert memmeta("evaluate", f"run={where}/run", f"out={where}/found.json").code == 0
    assert (where / "found.json").is_file()
    result = memmeta("train", "-m", *RUN, *data, "seed=0,1", f"hydra.sweep.dir={where}/many")
    assert result.code == 0, result.err
    assert (where / "many/1/summary.json").is_file()
    result = memmeta("profile", *RUN, *data, "steps=1", f"++hydra.run.dir={where}/profile")
    assert result.code == 0, result.err
    assert (where / "profile/profile.json").is_file()


def test_what_is_no_path_is_told_to_be_quoted(memmeta) -> None:
    result = memmeta("train", "tracking.project=ünï")
    assert result.code == 2
    assert "write KEY=VALUE, with quotes around special characters: tracking.project='ünï'" in result.err


def test_an_interval_needs_a_search(memmeta) -> None:
    result = memmeta("train", "-m", "optimizer.lr=tag(log,interval(1e-4,1e-2))")
    assert result.code == 2
    assert "an interval needs a search; list values, A,B,C, or add hydra/sweeper=optuna" in result.err
    assert list(Path().iterdir()) == []


def test_a_glob_is_of_the_options(memmeta) -> None:
    result = memmeta("train", "-m", "algorithm=glob(*maml,exclude=i*)", "ways=90")
    assert "ways=90 is more than" in result.err
    assert [choice for _, choice in choices(["algorithm=glob(*maml,exclude=i*)"])] == [
        ["algorithm=fomaml", "algorithm=maml"]
    ]
