"""What holds for every backbone: shapes, seeds, each task's own statistics, blocks that are run twice."""

import random
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memmeta_exp.backbones import build_model, require
from memmeta_exp.backbones.backbone import Backbone
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.backbones.resnet12 import Resnet12Config
from memmeta_exp.backbones.wide_resnet import WideResnetConfig
from memmeta_exp.config import BackboneConfig, ConfigError, MemoryConfig, options
from tests.backbones.conftest import TINY

SIZE = 32


def built(config: Any, seed: int = 0) -> Any:
    return build_model(config, 3, SIZE, 3, False, seed).double()


def images(tasks: int, generator: torch.Generator) -> Tensor:
    return torch.rand(tasks, 4, 3, SIZE, SIZE, dtype=torch.float64, generator=generator)


def keys(config: Any, tasks: int) -> tuple[tuple[int, ...], ...]:
    return (tuple(range(100, 100 + tasks)),) if getattr(config, "drop_rate", 0) else ()


def theta_gradient(model: Any, x: Tensor, *keys: Any) -> list[Tensor]:
    z = model.backbone(x, *keys)
    weights = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view_as(z)
    return list(torch.autograd.grad((z * weights).sum(), list(model.parameters())))


class OfTorch(Backbone):
    """A network as people write one: torch's layers, a lazy one among them, and draws of NumPy's and Python's own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 6), nn.LazyLinear(5))
        self.scale = nn.Parameter(torch.tensor([np.random.rand(), random.random()]))  # noqa: NPY002

    def features(self, image_size: int) -> int:
        return self(torch.zeros(1, 1, 3, image_size, image_size)).shape[-1]

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.flatten(0, 1)).unflatten(0, images.shape[:2]) * self.scale.sum()


@dataclass(frozen=True)
class OfTorchConfig(BackboneConfig):
    def build(self, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True) -> OfTorch:
        return OfTorch()


def test_a_network_of_ones_own_is_a_function_of_the_seed() -> None:
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist(), random.getstate()  # noqa: NPY002
    a, again, other = (built(OfTorchConfig(), seed).state_dict() for seed in (2**63 - 1, 2**63 - 1, 1))
    assert all(torch.equal(a[key], again[key]) for key in a)
    differing = [key for key in a if not torch.equal(a[key], other[key])]
    assert len(differing) == len(a) == 6
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state(legacy=False)["state"]["key"].tolist(), random.getstate()) == before[1:]  # noqa: NPY002


def test_every_option_is_here() -> None:
    assert {config.name for config in TINY.values()} == {
        name for name, option in options("backbone").items() if option.dataset is None
    }


@pytest.mark.parametrize("name", TINY)
def test_each_task_has_its_own_statistics(name: str, generator: torch.Generator) -> None:
    """Features and gradients of three tasks at once are those of each alone."""
    config = TINY[name]
    model, x = built(config), images(3, generator)
    key = keys(config, 3)
    together = model.backbone(x, *key)
    alone = [model.backbone(x[t : t + 1], *(k[t : t + 1] for k in key)) for t in range(3)]
    assert together.shape == (3, 4, model.head_start.shape[1] - 1)
    assert together.std() > 1e-3
    assert torch.allclose(together, torch.cat(alone), atol=1e-10)
    z = torch.randn(together.shape, dtype=together.dtype, generator=generator)
    parameters = list(model.parameters())
    whole = torch.autograd.grad((together * z).sum(), parameters)
    parts = torch.autograd.grad((torch.cat(alone) * z).sum(), parameters)
    for a, b in zip(whole, parts, strict=True):
        assert torch.allclose(a, b, atol=1e-9 * max(1, float(a.abs().max())))


@pytest.mark.parametrize("name", TINY)
def test_blocks_that_are_run_twice_give_the_same(name: str, generator: torch.Generator) -> None:
    config = TINY[name]
    model, x = built(config), images(2, generator)
    kept = theta_gradient(model, x, *keys(config, 2))
    model.backbone.checkpoint_blocks()
    again = theta_gradient(model, x, *keys(config, 2))
    assert sum(float(g.abs().sum()) for g in kept) > 1e-3
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


@pytest.mark.parametrize("name", TINY)
def test_initial_values_are_a_function_of_the_seed(name: str) -> None:
    a, b, other = (built(TINY[name], seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], other[key]) for key in a if key != "head_start")


def test_sizes_of_the_published_networks() -> None:
    """Convolutions and batch norms counted by hand; 12.4 and 36.5 million are the published figures."""
    resnet, wide = (build_model(c, 3, 84, 5, False, 0, False) for c in (Resnet12Config(), WideResnetConfig()))
    by_hand, at = 0, 3
    for width in (64, 160, 320, 640):
        by_hand += 9 * (at * width + 2 * width * width) + at * width + 4 * 2 * width
        at = width
    assert sum(p.numel() for p in resnet.backbone.parameters()) == by_hand == 12_424_320
    assert 36.4e6 < sum(p.numel() for p in wide.backbone.parameters()) < 36.6e6
    assert (resnet.head_start.shape[1], wide.head_start.shape[1]) == (641, 641)
    assert all(t.is_meta for t in [*resnet.parameters(), *wide.parameters()])


@pytest.mark.parametrize("name", ["resnet12", "wrn"])
def test_running_statistics_are_for_evaluation(name: str, generator: torch.Generator) -> None:
    import dataclasses

    model, x = built(dataclasses.replace(TINY[name], norm="running")), images(2, generator)
    model.backbone.update_running_stats(task[None] for task in x)
    training = model.backbone(x)
    model.eval()
    evaluated = model.backbone(x)
    assert not torch.allclose(training, evaluated)
    assert torch.allclose(model.backbone(x[:, :1]), evaluated[:, :1]), "an image does not depend on the others"


@pytest.mark.parametrize("name", [*TINY, "conv4 without norm"])
def test_memory_mode_images_is_for_backbones_that_take_each_image_alone(name: str, generator: torch.Generator) -> None:
    config = TINY.get(name) or Conv4Config(filters=4, norm="none")
    backbone, x = built(config).backbone, images(1, generator)
    whole, first = (backbone(some, *keys(config, 1)) for some in (x, x[:, :2]))
    alone = torch.allclose(whole[:, :2], first, atol=1e-10)
    assert backbone.mixes_images != alone
    with nullcontext() if alone else pytest.raises(ConfigError, match=r"memory\.mode=images: this backbone"):
        require(config, 3, SIZE, MemoryConfig(mode="images"))


def test_images_that_are_too_small() -> None:
    for config in (Resnet12Config(), TINY["conv4"]):
        with pytest.raises(ConfigError, match="no features"):
            require(config, 3, 15, MemoryConfig())


@pytest.mark.parametrize(
    ("option", "bad", "message"),
    [
        ("conv4", {"filters": [4, 5]}, "one for each of the 4 blocks"),
        ("conv4", {"filters": "many"}, "not a number of filters"),
        ("conv4", {"filters": [1, 2, 3, True]}, "not a number of filters"),
        ("resnet12", {"filters": [1, 2, 3]}, "one for each of the 4 blocks"),
        ("resnet12", {"drop_rate": 1.0}, "below 1"),
        ("resnet12", {"drop_block": 0}, "at least 1"),
        ("resnet12", {"norm": "none"}, "backbone.norm=none"),
        ("wrn28_10", {"depth": 27}, "use 22 or 28"),
        ("wrn28_10", {"depth": 4}, "use 10 or 16"),
        ("wrn28_10", {"width": 0}, "at least 1"),
        ("timm", {"norm": "fixed"}, "without weights"),
        ("timm", {"norm": "running"}, "backbone.norm=running"),
        ("timm", {"pretrained": True, "weights": "x"}, "two sources"),
        ("timm", {"attention": "flash"}, "backbone.attention=flash"),
    ],
)
def test_what_a_section_refuses(option: str, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options("backbone")[option](**bad)
