"""plugins=[MODULE]: what a user's module enters is an option like any other, and what is wrong with it is one line."""

from pathlib import Path

import pytest

from memmeta_exp.config import ConfigError, from_dict, from_yaml, to_dict
from memmeta_exp.config.compose import jobs

IMPORTS = """
from dataclasses import dataclass
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.config import AlgorithmConfig, BackboneConfig, DatasetConfig, option, register
"""
MINE = f"""{IMPORTS}
@register
@dataclass(frozen=True)
class MineConfig(AnilConfig):
    '''My own ANIL.'''
    name: str = "mine"
    pull: float = option(0.5, "how hard it pulls", above=0)
    weights: dict[str, float] = option({{}}, "of parts")
"""
PARTS = """
from dataclasses import dataclass
import torch
from memmeta_exp.algorithms.losses import RidgeLosses
from memmeta_exp.config import option, register
from memmeta_exp.config.components import HeadConfig
from memmeta_exp.experiment.optimizers import OptimizerConfig

@register
@dataclass(frozen=True)
class SharpConfig(HeadConfig):
    name: str = "sharp"
    sharpness: float = option(20.0, "scale of the outputs in f", above=0)
    def losses(self): return RidgeLosses(self.sharpness)

@register
@dataclass(frozen=True)
class NadamConfig(OptimizerConfig):
    name: str = "nadam"
    def build(self, parameters, lr): return torch.optim.NAdam(parameters, lr=lr)
"""
TWICE = MINE.replace('"mine"', '"maml"')
SHADOWED = f"""{IMPORTS}
@register
@dataclass(frozen=True)
class Config(BackboneConfig):
    name: str = "conv4_32"
    def build(self, channels, image_size, generator, materialise=True): ...
"""
BAD = {  # the module's text, None: there is none
    "there is no module bad; install it, start memmeta in the folder that contains it, or add that folder to": None,
    "cannot be imported: ModuleNotFoundError: No module named 'nowhere' (bad.py, line 2)": "\nimport nowhere",
    "cannot be imported: SyntaxError: expected ':' (bad.py, line 1)": "def f()\n    pass",
    "cannot be imported: NameError: name 'f' is not defined (bad.py, line 3)": "x = 1\n\nf(x)",
    "cannot be imported: SystemExit: 3 (bad.py, line 1)": "raise SystemExit(3)",
    "registers nothing: put `@register` of memmeta_exp.config above": "x = 1",
    "algorithm=maml is registered twice, by memmeta_exp.algorithms.maml.MamlConfig and bad.MineConfig": TWICE,
    "backbone=conv4_32 is defined twice, by a plug-in and by conf/backbone/conv4_32.yaml": SHADOWED,
    "algorithm=mine has no method build: write it in MineConfig": MINE.replace("(AnilConfig)", "(AlgorithmConfig)"),
    "dataset=mine has no method facts": MINE.replace("(AnilConfig)", "(DatasetConfig)"),
    "MineConfig is not a component: write `@register` above": MINE.replace("@dataclass(frozen=True)", ""),
    "C is not a component": f"{IMPORTS}\n@register\nclass C: ...",
}

pytestmark = pytest.mark.usefixtures("plugging")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The current folder, with the module mine.py in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


@pytest.mark.parametrize("message", BAD)
def test_a_bad_module_is_one_line(here, message: str) -> None:
    if BAD[message] is not None:
        (here / "bad.py").write_text(BAD[message])
    with pytest.raises(ConfigError) as refused:
        jobs(["plugins=[bad]"], multirun=False)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_command_line_says_it_in_one_line_and_leaves_nothing(memmeta, tmp_path) -> None:
    for command in ("train", "train --help", "profile", "keys", "data", "report .", "evaluate"):
        result = memmeta(*command.split(), "plugins=[nowhere]")
        assert result.code == 2
        assert result.err.startswith("memmeta: plugins=nowhere is not found: ")
        assert len(result.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm.pul=1"], "unknown key 'algorithm.pul'; did you mean 'algorithm.pull'?"),
        (["algorithm.pull=0"], "algorithm.pull=0.0 is out of range: it must be above 0"),
        (["algorithm.pull=[1"], "cannot read 'algorithm.pull=[1'"),
        (["algorithm=mime"], "unknown algorithm 'mime'; did you mean 'mine'?"),
        (["plugins=3"], "plugins=3 names no modules: write plugins=[my_module]"),
        (["plugins=[]"], "unknown algorithm 'mine'"),
    ],
)
def test_its_keys_are_checked_as_any_others(here, overrides: list[str], message: str) -> None:
    given = ["plugins=mine", "algorithm=mine"]
    kept = [g for g in given if not any(o.partition("=")[0] == g.partition("=")[0] for o in overrides)]
    with pytest.raises(ConfigError) as refused:
        jobs([*kept, *overrides], multirun=False)
    assert message in str(refused.value)


def test_its_values_come_from_the_dataclass_and_the_command_line(here) -> None:
    for plugins in ("plugins=mine", "plugins=[mine]", "++plugins=[mine]", "plugins=['mine']"):
        (config,) = jobs([plugins, "algorithm=mine", "algorithm.weights={a: 2}"], multirun=False)
        assert config.plugins == ["mine"]
        assert (config.algorithm.pull, config.algorithm.weights) == (0.5, {"a": 2.0})
        assert from_dict(to_dict(config)) == config
    both = jobs(["plugins=[mine]", "algorithm=mine,anil", "seed=0,1"], multirun=True)
    assert [config.algorithm.name for config in both] == ["mine", "mine", "anil", "anil"]


def test_its_keys_are_listed(here, memmeta) -> None:
    listed = memmeta("keys", "plugins=[mine]", "pulls")
    assert "algorithm=mine: My own ANIL." in listed.out
    assert "algorithm.pull  float: above 0; default 0.5" in listed.out
    helped = memmeta("train", "--help", "plugins=[mine]", "algorithm=mine", "algorithm.pull=0.25")
    assert "maml, mine, proposed" in helped.out
    assert "pull: 0.25" in helped.out


def test_a_stored_run_whose_module_is_gone_says_which(here, memmeta) -> None:
    file = here / "run" / "config.yaml"
    file.parent.mkdir()
    file.write_text("plugins: [gone.deeper]\nalgorithm: {name: mine}\n")
    with pytest.raises(ConfigError) as refused:
        from_yaml(file)
    assert str(refused.value).startswith(f"{file}: plugins=gone.deeper is not found: there is no module gone")
    assert "PYTHONPATH" in str(refused.value)
    for command in (("evaluate", "run=run"), ("train", "resume=run")):
        (here / "run" / "status.json").write_text("{}")
        result = memmeta(*command)
        assert (result.code, len(result.err.splitlines())) == (2, 1)
        assert "run/config.yaml: plugins=gone.deeper is not found" in result.err


def test_a_head_and_an_optimizer_train(here, train, memmeta) -> None:
    (here / "parts.py").write_text(PARTS)
    result = train("plugins=[parts]", "head=sharp", "head.sharpness=15", "optimizer=nadam", "hydra.run.dir=run")
    assert result.code == 0, result.err
    stored = from_yaml(here / "run" / "config.yaml")
    assert (stored.head.name, stored.head.sharpness, stored.optimizer.name) == ("sharp", 15.0, "nadam")
    tested = memmeta("evaluate", "run=run")
    assert "score as stored" in tested.out
