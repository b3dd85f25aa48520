"""dataset=folder: what people have in folders, and what becomes of it."""

from pathlib import Path

import pytest

from memmeta_exp.commands.compose import composed
from memmeta_exp.config import SPLITS, FolderConfig, from_omegaconf
from memmeta_exp.data import load_split
from memmeta_exp.data.verify import verify
from memmeta_exp.errors import ConfigError
from tests.data.folders import tree


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMMETA_CACHE", str(tmp_path / "cache"))


def folder(root: Path, **keys: object) -> FolderConfig:
    return FolderConfig(path=str(root), image_size=16, **keys)  # pyright: ignore[reportArgumentType]


TWO_MORE = dict.fromkeys(("c04", "c05", "c06"), 2)
UNEVEN = {  # images more in some classes: the number of dimensions of train, val and test
    "one class": ({"c00": 1}, [4, 5, 5]),
    "one class of the last split": ({"c09": 3}, [5, 5, 4]),
    "splits that differ, each even": (TWO_MORE, [5, 5, 5]),
    "splits that differ, one uneven": ({**TWO_MORE, "c07": 1}, [5, 5, 4]),
    "all": ({"c00": 1, "c04": 2, "c08": 3}, [4, 4, 4]),
}


@pytest.mark.parametrize("which", UNEVEN)
def test_uneven_classes_load_and_verify(tmp_path: Path, which: str) -> None:
    more, dimensions = UNEVEN[which]
    config = folder(tree(tmp_path / "birds", 3, more))
    sets = [load_split(config, split) for split in SPLITS]
    assert [s.images.dim() for s in sets] == dimensions
    assert [tuple(s.images.shape) for s in sets] == [config.facts().shape(split) for split in SPLITS]
    assert sum(len(s.flat) for s in sets) == 30 + sum(more.values())
    checks = list(verify(config))
    assert not [check for check in checks if check.passed is False]


def test_a_task_too_large_names_class_split_and_key(tmp_path: Path) -> None:
    root = tree(tmp_path / "birds", 4, {"c08": -2})
    overrides = ["dataset=folder", f"dataset.path={root}", "dataset.image_size=16", "ways=3", "training.queries=1"]
    from_omegaconf(composed([*overrides, "shots=1", "queries=1"]))
    with pytest.raises(ConfigError, match=r"shots=1 .* more than the 2 images of class 'c08' of folder's test split"):
        from_omegaconf(composed([*overrides, "shots=1", "queries=2"]))
