import pytest
import torch
from torch import nn

from memmeta_exp.backbones import Conv4, build_model
from memmeta_exp.backbones.conv4 import Conv4Config


def test_equals_the_textbook_order_of_layers(generator) -> None:
    """conv, batch norm, max-pool, ReLU computes what conv, batch norm, ReLU, max-pool does."""
    net = Conv4(3, 8, generator).double()
    images = torch.rand(2, 6, 3, 32, 32, dtype=torch.float64, generator=generator)
    for task, features in zip(images, net(images), strict=True):
        x = task
        for conv, norm in zip(net.convs, net.norms, strict=True):
            textbook = nn.BatchNorm2d(8, track_running_stats=False).double()
            textbook.load_state_dict({"weight": norm.weight, "bias": norm.bias})
            x = nn.functional.max_pool2d(nn.functional.relu(textbook(conv(x))), 2)
        assert x.flatten(1).abs().max() > 0.1
        assert torch.allclose(features, x.flatten(1), atol=1e-12)


@pytest.mark.parametrize(
    ("norm", "block", "mode"),
    [("task", "plain", True), ("running", "plain", True), ("running", "fused", False), ("none", "fused", True)],
)
def test_tasks_of_a_chunk_are_as_each_by_itself(norm, block, mode, generator) -> None:
    net = Conv4(3, 8, generator, norm, block).double().train(mode)
    images = torch.rand(3, 5, 3, 32, 32, dtype=torch.float64, generator=generator)
    together, apart = net(images), torch.cat([net(task[None]) for task in images])
    assert torch.allclose(together, apart, atol=1e-12)
    slopes = [torch.autograd.grad(z.square().sum(), list(net.parameters())) for z in (together, apart)]
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(*slopes, strict=True))


@pytest.mark.parametrize(("norm", "block", "mode"), [("task", "plain", True), ("running", "fused", False)])
def test_all_at_once_as_on_a_gpu_is_the_same(norm, block, mode, generator, monkeypatch) -> None:
    net = Conv4(3, 8, generator, norm, block).double().train(mode)
    net.blend_batch_norm(0.3)
    images = torch.rand(3, 5, 3, 32, 32, dtype=torch.float64, generator=generator)
    apart = net(images)
    monkeypatch.setattr(Conv4, "norm_task_by_task", lambda self, device: False)
    assert torch.allclose(net(images), apart, atol=1e-12)


def test_tasks_of_a_chunk_in_bfloat16_are_as_each_by_itself(generator) -> None:
    """Under autocast batch norm takes one task after the other."""
    net, images = Conv4(3, 8, generator), torch.rand(3, 5, 3, 32, 32, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        together, apart = net(images), torch.cat([net(task[None]) for task in images])
    assert torch.allclose(together.float(), apart.float(), atol=0.05)
    assert together.float().std() > 0.3
    assert not torch.allclose(together.float(), net(images), atol=1e-4)  # it is bfloat16 that was looked at


def test_feature_counts_of_the_papers_table() -> None:
    assert Conv4(3, 64).features(32) == 256
    assert Conv4(3, 32).features(84) == 800


def test_parameters_and_initial_values(generator) -> None:
    net = Conv4(3, 64, generator)
    assert sum(p.numel() for p in net.parameters()) == 64 * 27 + 3 * 64 * 576 + 4 * 128
    bound = (6 / (27 + 64 * 9)) ** 0.5
    values = dict(net.named_parameters())
    assert 0.95 * bound < values["convs.0.weight"].abs().max().item() <= bound
    for name, value in values.items():
        if name.endswith("bias"):
            assert not value.any(), name
        elif name.startswith("norms"):
            assert 0 <= value.min().item() < 0.1
            assert 0.9 < value.max().item() <= 1


def test_initial_values_are_a_function_of_the_seed() -> None:
    a, b, other = (build_model(Conv4Config(filters=8), 3, 32, 5, False, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["head_start"], other["head_start"])
    assert not torch.equal(a["backbone.convs.0.weight"], other["backbone.convs.0.weight"])
    assert 0.9 < a["head_start"].abs().max().item() * 32**0.5 <= 1  # 8 filters leave 32 features


def test_running_statistics_are_the_mean_over_the_tasks_of_an_iteration(generator) -> None:
    """One update, by MOMENTUM here; evaluation uses them, training does not."""
    net = Conv4(3, 4, generator, norm="running").double()
    tasks = [torch.rand(1, 5, 3, 16, 16, dtype=torch.float64, generator=generator) for _ in range(3)]
    x = [net.convs[0](task[0]) for task in tasks]
    mean = torch.stack([y.mean((0, 2, 3)) for y in x]).mean(0)
    var = torch.stack([y.var((0, 2, 3)) for y in x]).mean(0)
    net.update_running_stats(tasks)
    norm = net.norms[0]
    assert torch.allclose(norm.running_mean, 0.1 * mean)  # pyright: ignore[reportArgumentType]
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * var)  # pyright: ignore[reportArgumentType]
    training = net(tasks[0])
    net.eval()
    evaluated = net(tasks[0])
    assert not torch.allclose(training, evaluated)
    alone = net(tasks[0][:, :1])
    assert torch.allclose(alone, evaluated[:, :1]), "in evaluation an image does not depend on the others"
    net.update_running_stats([])
    assert net.fuses(torch.device("cpu")) is False
    net.train()
    assert net.fuses(torch.device("cpu")) is True
