"""Memory of the backbones: predicted to the byte, and what memory.checkpoint=block saves."""

import pytest
import torch

from memmeta_exp.backbones import require
from memmeta_exp.config import Config, ConfigError, MemoryConfig
from memmeta_exp.config.compose import jobs
from memmeta_exp.memory import budget
from memmeta_exp.memory.predict import predict
from tests.memory.test_predict import metered

SMALL = [
    "dataset=synthetic", "dataset.classes=3", "dataset.images_per_class=6", "ways=3", "shots=2", "queries=2",
    "threads=1", "batch_size=2", "tasks_per_pass=1",
]  # fmt: skip
BACKBONES = {
    "resnet12": ["backbone=resnet12", "backbone.filters=[4,5,6,8]"],
    "dropped": ["backbone=resnet12", "backbone.filters=[4,5,6,8]", "backbone.drop_rate=0.1"],
    "wrn": ["backbone=wrn28_10", "backbone.depth=10", "backbone.width=1"],
    "mlp": ["backbone=mlp", "backbone.hidden=[48,40]"],
    "timm resnet": ["backbone=timm", "backbone.model=test_resnet", "backbone.frozen=1"],
    "timm vit": ["backbone=timm", "backbone.model=test_vit"],
    "custom": ["backbone=custom", "backbone.target=tests.backbones.small_net.SmallNet"],
}
WITHOUT = "dla46_c"
BLOCK = "memory.checkpoint=block"
MAML = ["algorithm=maml", "algorithm.inner_steps=2", "tasks_per_pass=auto"]


def config(*overrides: str) -> Config:
    return jobs([*SMALL, *overrides], False)[0]


@pytest.fixture
def gpu_layout(monkeypatch) -> None:
    for module in ("experiment.builder", "backbones.backbone", "algorithms.learner"):
        monkeypatch.setattr(f"memmeta_exp.{module}.image_layout", lambda device: torch.contiguous_format)


def the_same_bytes(backbone: str, *overrides: str) -> None:
    of = config(*BACKBONES[backbone], *overrides)
    found, (meter, _) = predict(of), metered(of)
    assert found.tensors == meter.requested_above_baseline > 2**17


def test_the_same_bytes_as_on_the_cpu(gpu_layout) -> None:
    the_same_bytes("dropped", BLOCK)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [[], [BLOCK], MAML], ids=["proposed", "block", "maml"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_same_bytes_for_every_backbone(gpu_layout, backbone: str, overrides: list[str]) -> None:
    the_same_bytes(backbone, *overrides)


WAVES = ["dataset=sinusoid", "shots=40", "queries=40", "batch_size=12", "threads=1"]


@pytest.mark.parametrize("algorithm", ["proposed", "maml", pytest.param("imaml", marks=pytest.mark.slow)])
def test_the_same_bytes_on_sine_waves(algorithm: str) -> None:
    """Where all tasks of a batch, each with weights of its own, are one chunk."""
    (of,) = jobs([*WAVES, f"algorithm={algorithm}", "algorithm.inner_steps=2"], False)
    found, (meter, _) = predict(of), metered(of)
    assert found.tensors == meter.requested_above_baseline > 2**17


def peak(*overrides: str) -> int:
    return metered(config(*overrides))[0].requested_above_baseline


@pytest.mark.parametrize("backbone", ["resnet12", pytest.param("timm vit", marks=pytest.mark.slow)])
def test_blocks_that_are_run_twice_need_less(backbone: str) -> None:
    assert peak(*BACKBONES[backbone], BLOCK) < peak(*BACKBONES[backbone])


@pytest.mark.slow
def test_a_deep_network_needs_the_inputs_of_its_blocks() -> None:
    """Three blocks a group instead of one: without checkpoint the graph grows by all that they keep, with it by their
    inputs."""
    deep, flat = ["backbone=wrn28_10", "backbone.width=1"], "backbone.depth=10"
    growth, with_block = (peak(*deep, "backbone.depth=22", *w) - peak(*deep, flat, *w) for w in ([], [BLOCK]))
    assert growth > 3 * with_block > 0


@pytest.mark.parametrize("algorithm", ["maml", "fomaml", "imaml", "anil"])
def test_not_for_weights_that_are_gone(algorithm: str) -> None:
    recompute = ["algorithm.features=recompute"] if algorithm == "anil" else []
    with pytest.raises(ConfigError, match=r"memory\.checkpoint=block is for head-only algorithms"):
        config(f"algorithm={algorithm}", BLOCK, "tasks_per_pass=auto", *recompute)


def test_the_budget_chooses_it(monkeypatch) -> None:
    """The budget tries modes from fast to small: half_task, block checkpoints, both."""
    needs = {("task", "none"): 40, ("half_task", "none"): 30, ("task", "block"): 20, ("half_task", "block"): 10}
    needs |= {("images", "none"): 15, ("images", "block"): 5}
    monkeypatch.setattr(budget, "peak_mib", lambda c, device: needs[c.memory.mode, c.memory.checkpoint])
    for way, mib in list(needs.items())[:4]:
        memory = budget.fit_to_budget(config(f"memory.budget_mib={mib}"), torch.device("cuda")).memory
        assert (memory.mode, memory.checkpoint) == way
    fixed = budget.fit_to_budget(config("memory.budget_mib=25", BLOCK), torch.device("cuda")).memory
    assert (fixed.mode, fixed.checkpoint) == ("task", "block")
    alone = budget.fit_to_budget(config("memory.budget_mib=15", "backbone.norm=none"), torch.device("cuda")).memory
    assert (alone.mode, alone.checkpoint) == ("images", "none")
    with pytest.raises(ConfigError, match="budget_mib=10, the least that will do"):
        budget.fit_to_budget(config("memory.budget_mib=9"), torch.device("cuda"))


def test_a_model_that_cannot_run_blocks_twice(monkeypatch) -> None:
    """timm says so of some: they are refused, and a budget does without."""
    cannot = config("backbone=timm", f"backbone.model={WITHOUT}", "dataset.image_size=64", "memory.budget_mib=1")
    monkeypatch.setattr(budget, "peak_mib", lambda c, device: {"none": 2, "block": 0}[c.memory.checkpoint])
    with pytest.raises(ConfigError, match="cannot run its blocks twice in timm"):
        require(cannot.backbone, 3, 64, MemoryConfig(checkpoint="block"))
    with pytest.raises(ConfigError, match="budget_mib=2, the least that will do"):
        budget.fit_to_budget(cannot, torch.device("cuda"))


def test_what_has_no_bound_is_refused() -> None:
    vit = ["backbone=timm", "backbone.model=test_vit"]
    with pytest.raises(ConfigError, match="attention=fused cannot be predicted"):
        predict(config(*vit, "backbone.attention=fused"))
    with pytest.raises(ConfigError, match="no bound"):
        budget.fit_to_budget(config(*vit, "precision=bf16", "memory.budget_mib=1000"), torch.device("cpu"))
    with pytest.raises(ConfigError, match="which takes second derivatives"):
        config(*vit, "backbone.attention=fused", *MAML)
    assert config(*vit, "backbone.attention=fused", "algorithm=fomaml", "tasks_per_pass=auto")
    assert budget._bound(config(*vit, "backbone.attention=fused")).attention == "plain"
