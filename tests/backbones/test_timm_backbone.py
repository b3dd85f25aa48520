"""timm's models: their weights from a file, what is frozen, their statistics, and what is refused."""

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memmeta_exp.backbones import build_model, require
from memmeta_exp.backbones.timm_backbone import TimmConfig, import_timm
from memmeta_exp.config import ConfigError, MemoryConfig

RESNET, VIT = TimmConfig(model="test_resnet"), TimmConfig(model="test_vit")
SIZE = 32


def built(config: TimmConfig, seed: int = 0, channels: int = 3) -> Any:
    return build_model(config, channels, SIZE, 3, False, seed)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A whole test_resnet with its classifier, as timm publishes it, its statistics not those of an untrained one."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        net = import_timm().create_model("test_resnet")
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    return tmp_path / "net.pt"


def test_weights_from_a_file(weights: Path) -> None:
    net = built(dataclasses.replace(RESNET, weights=str(weights))).backbone.net
    stored = torch.load(weights, weights_only=True)
    compared = [torch.equal(value, stored[name]) for name, value in net.named_parameters()]
    assert all(compared)
    assert len(compared) > 20


def test_weights_from_safetensors(weights: Path) -> None:
    from safetensors.torch import save_file

    file = weights.with_suffix(".safetensors")
    save_file(torch.load(weights, weights_only=True), file)
    a, b = (built(dataclasses.replace(RESNET, weights=str(f))).state_dict() for f in (weights, file))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_weights_meet_another_number_of_channels(weights: Path) -> None:
    """Grey images: timm sums the first convolution over colours."""
    net = built(dataclasses.replace(RESNET, weights=str(weights)), channels=1).backbone.net
    stored = torch.load(weights, weights_only=True)["conv1.0.weight"]
    assert torch.allclose(net.conv1[0].weight, stored.sum(1, keepdim=True))


def test_the_statistics_of_the_weights_or_of_the_task(weights: Path, generator: torch.Generator) -> None:
    """fixed: an image's features do not depend on the others, in training too, and nothing is updated."""
    x = torch.rand(1, 4, 3, SIZE, SIZE, generator=generator)
    fixed = built(dataclasses.replace(RESNET, weights=str(weights), norm="fixed")).train()
    before = {name: t.clone() for name, t in fixed.named_buffers()}
    z = fixed.backbone(x)
    assert torch.allclose(fixed.backbone(x[:, :1]), z[:, :1], atol=1e-5)
    assert all(torch.equal(t, before[name]) for name, t in fixed.named_buffers())
    task = built(dataclasses.replace(RESNET, weights=str(weights)))
    assert not torch.allclose(task.backbone(x), z, atol=1e-3)
    assert not torch.allclose(task.backbone(x[:, :2]), task.backbone(x)[:, :2], atol=1e-3)
    assert torch.equal(task.eval().backbone(x), task.train().backbone(x)), "no other layer tells training"


def test_fixed_statistics_are_batch_norm_of_the_published_model(weights: Path, generator: torch.Generator) -> None:
    """The features are those of timm's own model on normalised images."""
    x = torch.rand(1, 4, 3, SIZE, SIZE, generator=generator)
    net = import_timm().create_model("test_resnet").eval()
    net.load_state_dict(torch.load(weights, weights_only=True))
    expected = net.forward_head(net.forward_features((x[0] - 0.5) / 0.5), pre_logits=True)
    found = built(dataclasses.replace(RESNET, weights=str(weights), norm="fixed")).backbone(x)[0]
    assert torch.allclose(found, expected, atol=1e-5)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("config", [RESNET, VIT], ids=lambda c: c.model)
def test_frozen_groups_are_no_parameters(config: TimmConfig, generator: torch.Generator) -> None:
    whole, frozen = built(config), built(dataclasses.replace(config, frozen=2))
    names = [{name for name, _ in model.named_parameters()} for model in (whole, frozen)]
    gone = names[0] - names[1]
    first = {"test_resnet": ("conv1.", "bn1.", "layer1."), "test_vit": ("cls_token", "pos_embed", "reg_token",
             "patch_embed.", "norm_pre.", "blocks.0.")}[config.model]  # fmt: skip
    assert gone == {name for name in names[0] if name.startswith(tuple(f"backbone.net.{part}" for part in first))}
    x = torch.rand(1, 3, 3, SIZE, SIZE, generator=generator)
    assert torch.equal(whole.backbone(x), frozen.backbone(x))
    assert whole.state_dict().keys() == frozen.state_dict().keys()
    grads = torch.autograd.grad(frozen.backbone(x).square().sum(), list(frozen.parameters()))
    assert all(g.isfinite().all() for g in grads)


def test_fused_attention_is_the_same_function(generator: torch.Generator) -> None:
    x = torch.rand(1, 3, 3, SIZE, SIZE, generator=generator)
    plain, fused = (built(dataclasses.replace(VIT, attention=a)) for a in ("plain", "fused"))
    assert torch.allclose(plain.backbone(x), fused.backbone(x), atol=1e-5)
    found = [{node.name() for node in _graph(m.backbone(x).grad_fn)} for m in (plain, fused)]
    assert any("ScaledDotProduct" in name for name in found[1] - found[0])


def _graph(node: Any) -> set[Any]:
    seen, todo = set(), [node]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    return seen


BAD = {
    "did you mean 'test_vit'": {"model": "test_vitt"},
    "does not exist": {"weights": "/nowhere/x.pt"},
    "set backbone.frozen to 4 or less": {"frozen": 5},
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_found_before_anything_is_made(message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require(dataclasses.replace(RESNET, **BAD[message]), 3, SIZE, MemoryConfig())


def test_images_that_a_model_does_not_take() -> None:
    with pytest.raises(ConfigError, match="does not take images of 3 channels and 28x28"):
        require(VIT, 3, 28, MemoryConfig())


def test_a_file_of_other_weights(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.pt").write_bytes(weights.read_bytes()[:1000])
    torch.save({"something": torch.ones(3)}, tmp_path / "other.pt")
    for file, message in (("torn.pt", "no file of weights"), ("other.pt", "not the weights of test_resnet")):
        with pytest.raises(ConfigError, match=message) as refused:
            built(dataclasses.replace(RESNET, weights=str(tmp_path / file)))
        assert "\n" not in str(refused.value)


def _prefixed(weights: dict[str, Any], *prefixes: str) -> dict[str, Any]:
    return {f"{prefix}{key}": value for prefix in prefixes for key, value in weights.items()}


WRAPPED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "model_sd": lambda w: {"model_sd": w, "model": "resnet18", "epoch": 3},
    "state_dict": lambda w: {"state_dict": w, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    "model_state_dict": lambda w: {"model_state_dict": w, "loss": torch.tensor(0.1)},
    "net": lambda w: {"net": w, "acc": 93.1},
    "params": lambda w: {"params": _prefixed(w, "encoder.")},
    "of data parallel": lambda w: {"state_dict": _prefixed(w, "module.")},
    "compiled": lambda w: _prefixed(w, "_orig_mod.module."),
    "nested": lambda w: {"checkpoint": {"models": [{"backbone": w}]}},
    "pairs": lambda w: list(w.items()),
    "with other values": lambda w: {**w, "epoch": 3, "name": "resnet", "best": None},
    "with a head of its own": lambda w: _prefixed(w, "backbone.") | {"head.weight": torch.ones(5, 64)},
    "with its options": lambda w: {"model": w, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.9)},
    "with an average": lambda w: {"model": {k: v * 0 for k, v in w.items()}, "model_ema": w},
    "twice the same": lambda w: {"model": w, "last": w},
    "parameters": lambda w: {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in w.items()},
    "in half precision": lambda w: {k: v.half().float() if v.is_floating_point() else v for k, v in w.items()},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_weights_in_what_people_save(weights: Path, tmp_path: Path, wrapper: str) -> None:
    torch.save(WRAPPED[wrapper](torch.load(weights)), tmp_path / "wrapped.pt")
    expected, found = (
        dict(built(dataclasses.replace(RESNET, weights=str(file))).named_parameters())
        for file in (weights, tmp_path / "wrapped.pt")
    )
    assert all(torch.allclose(found[name], expected[name], atol=1e-3) for name in expected)


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a module": (lambda w: torch.nn.Linear(2, 2), "it holds torch.nn.modules.linear.Linear, and to read that could"),
    "a list of tensors": (lambda w: list(w.values()), "it holds no tensors with names"),
    "no tensors": (lambda w: {"model": "resnet18"}, "it holds no tensors with names"),
    "a tensor": (lambda w: torch.ones(3), "it holds no tensors with names"),
    "two sets": (
        lambda w: {"student": w, "teacher": {k: v * 2 for k, v in w.items()}},
        r"holds several sets of weights \(student, teacher\): save one",
    ),
    "not finite": (lambda w: w | {"conv1.0.weight": w["conv1.0.weight"] / 0}, "conv1.0.weight holds numbers that are"),
    "another shape": (lambda w: w | {"layer1.0.conv1.weight": torch.ones(2, 2)}, "size mismatch for layer1.0.conv1"),
    "a part": (lambda w: dict(list(w.items())[:5]), "not the weights of test_resnet"),
}


@pytest.mark.parametrize("content", REFUSED)
def test_what_is_no_set_of_weights_is_one_true_line(weights: Path, tmp_path: Path, content: str) -> None:
    make, message = REFUSED[content]
    torch.save(make(torch.load(weights)), tmp_path / "other.pt")
    with pytest.raises(ConfigError, match=message) as refused:
        built(dataclasses.replace(RESNET, weights=str(tmp_path / "other.pt")))
    assert "\n" not in str(refused.value)


def test_a_script_and_a_folder_are_no_weights(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    for file, message in (("script.pt", "a TorchScript archive: save its state dict"), ("", "is no file")):
        with pytest.raises(ConfigError, match=message):
            built(dataclasses.replace(RESNET, weights=str(tmp_path / file)))


def test_a_file_that_would_run_code(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Path}, tmp_path / "code.pt")
    with pytest.raises(ConfigError, match="no file of weights"):
        built(dataclasses.replace(RESNET, weights=str(tmp_path / "code.pt")))


def test_weights_of_the_hub_without_a_network(monkeypatch) -> None:
    timm = import_timm()

    def unreachable(*arguments: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", unreachable)
    with pytest.raises(ConfigError, match="no route to host; fetch them on another machine"):
        built(dataclasses.replace(RESNET, pretrained=True))


def test_without_timm(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"pip install 'memmeta\[timm\]'"):
        require(RESNET, 3, SIZE, MemoryConfig())
