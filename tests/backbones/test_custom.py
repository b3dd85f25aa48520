"""backbone=custom: a plain torch network by its import path."""

from pathlib import Path
from typing import Any

import pytest
import torch

from memmeta_exp.backbones import build_model, require
from memmeta_exp.backbones.custom import CustomConfig
from memmeta_exp.config import ConfigError, MemoryConfig
from memmeta_exp.config.compose import jobs
from memmeta_exp.memory.predict import predict

SIZE = 16
TINY = [
    "dataset=synthetic", "dataset.image_size=16", "dataset.classes=5", "dataset.images_per_class=8", "ways=3",
    "shots=2", "queries=2", "batch_size=3", "convergence_tasks=2", "threads=1", "backbone=custom",
    "backbone.target=mynet.Net", "backbone.arguments={width: 5}", "precision=fp64",
]  # fmt: skip
MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, norm=True):
        super().__init__()
        norms = [nn.BatchNorm2d(width)] if norm else []
        ends = [nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Dropout(0.5)]
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3, 2), *norms, *ends)

    def forward(self, x):
        return self.layers(x)

class Looks(Net):
    def forward(self, x):
        return super().forward(x * (1.0 if x.sum().item() < 1e9 else 2.0))

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(7))

def fails():
    return nn.Sequential(nn.Flatten(0))

def indices():
    return nn.Sequential(nn.Flatten(), Argmax())

class Argmax(nn.Module):
    def forward(self, x):
        return x.argmax(1, keepdim=True)

def nothing():
    return None

WIDTH = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, plugging) -> Path:
    (tmp_path / "mynet.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def built(name: str = "Net", seed: int = 0, **arguments: Any) -> Any:
    return build_model(CustomConfig(target=f"mynet.{name}", arguments=arguments), 3, SIZE, 3, False, seed)


def weights(model: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_initial_values_follow_the_seed_and_nothing_else_does() -> None:
    torch.manual_seed(1)
    first = torch.rand(1)
    torch.manual_seed(1)
    one = weights(built(seed=3))
    assert torch.equal(torch.rand(1), first), "torch's global generator is as it was"
    assert torch.equal(one, weights(built(seed=3)))
    assert not torch.allclose(one, weights(built(seed=4)))


@pytest.mark.parametrize("norm", [True, False])
def test_features_are_those_of_the_network_for_each_task_alone(norm: bool, generator: torch.Generator) -> None:
    model = built(width=6, norm=norm)
    x = torch.rand(2, 5, 3, SIZE, SIZE, generator=generator)
    z = model.backbone(x)
    assert z.shape == (2, 5, 6 * 4)
    assert z.std() > 1e-3
    layers = model.backbone.net.layers[:-1]  # without dropout
    assert torch.allclose(z, torch.stack([layers(task).flatten(1) for task in x]), atol=1e-6)
    assert torch.equal(z, model.eval().backbone(x)), "evaluation takes the statistics of the task as training does"


def test_memory_is_predicted_where_the_network_runs_on_meta_tensors() -> None:
    looks = [*TINY, "backbone.target=mynet.Looks"]
    assert jobs(TINY, False)[0].run_name == "proposed-synthetic-Net-3w2s-s0"
    twelve = predict(jobs([*TINY, "precision=fp32", "backbone.arguments={width: 12}"], False)[0])
    assert twelve.tensors > predict(jobs([*TINY, "precision=fp32"], False)[0]).tensors > 0
    require(jobs(looks, False)[0].backbone, 3, SIZE, MemoryConfig())
    with pytest.raises(ConfigError, match=r"mynet\.Looks cannot be predicted: it does not run on meta tensors"):
        predict(jobs(looks, False)[0])


def test_lazy_layers_get_their_weights() -> None:
    model = built("lazy")
    assert model.backbone(torch.rand(1, 2, 3, SIZE, SIZE)).shape == (1, 2, 7)
    assert len(weights(model)) == 7 * (3 * SIZE**2 + 1)


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ("Net", {}, "backbone.target=Net names no network: write backbone.target=MODULE.NAME"),
        (None, {}, "names no network"),
        (
            "no_such.Net",
            {},
            "the module no_such is not found: there is no module no_such; install it, start memmeta in",
        ),
        ("mynet.Ned", {}, "the module mynet has no Ned; did you mean 'Net'?"),
        ("mynet.WIDTH", {}, "is neither a class nor a function"),
        ("mynet.nothing", {}, "makes a NoneType: name a class or function that makes a torch.nn.Module"),
        ("mynet.Net", {"widht": 3}, r"cannot be made with .*TypeError: .* unexpected keyword argument 'widht'"),
        ("mynet.fails", {}, r"gives float32 \[2304\] for \[3, 3, 16, 16\] images: it has to give features \[N, d\]"),
        ("mynet.indices", {}, r"gives int64 \[3, 1\] for"),
    ],
)
def test_what_is_refused(target: str | None, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        require(CustomConfig(target=target, arguments=arguments), 3, SIZE, MemoryConfig())
    assert "\n" not in str(refused.value)


def test_images_that_the_network_does_not_take() -> None:
    with pytest.raises(ConfigError, match=r"does not take images of 1x16x16 \(channels, pixels\): RuntimeError"):
        require(CustomConfig(target="mynet.Net"), 1, SIZE, MemoryConfig())
