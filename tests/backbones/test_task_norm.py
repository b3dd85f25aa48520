import pytest
import torch

from memmeta_exp.backbones.conv4 import Conv4
from memmeta_exp.backbones.resnet12 import ResNet12
from memmeta_exp.backbones.task_norm import TaskBatchNorm2d


def statistics(x):
    return x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)


def test_a_mixture_is_what_both_batches_together_have(generator) -> None:
    """Running statistics of a batch of 6 and a share of 1/4 for one of 2: the statistics of all 8 images."""
    first, second = (torch.rand(n, 3, 4, 4, dtype=torch.float64, generator=generator) + n for n in (6, 2))
    norm = TaskBatchNorm2d(3, running=True).double().eval()
    norm.running_mean, norm.running_var = statistics(first)
    norm.task_stats_weight = 0.25
    mean, var = statistics(torch.cat([first, second]))
    expected = (second - mean[:, None, None]) / (var[:, None, None] + norm.eps).sqrt()
    assert torch.allclose(norm(second, 1), expected, atol=1e-12)
    assert (var - statistics(second)[1]).abs().min() > 0.1


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("make", [Conv4, ResNet12])
def test_tasks_of_a_chunk_are_as_each_by_itself(make, share, generator) -> None:
    net = make(3, [4, 4, 4, 4], generator, norm="running").double()
    net.blend_batch_norm(share)
    images = torch.rand(3, 5, 3, 16, 16, dtype=torch.float64, generator=generator)
    for _ in range(40):
        net.update_running_stats(task[None] for task in images)
    net.eval()
    together, apart = net(images), torch.cat([net(task[None]) for task in images])
    assert torch.allclose(together, apart, atol=1e-12)
    alone = net(images[:1, :2])
    assert torch.allclose(alone, together[:1, :2], atol=1e-12) is (share == 0), "by images, or not"


def test_a_share_lies_between_running_and_batch_statistics(generator) -> None:
    net = Conv4(3, 4, generator, norm="running").double()
    images = torch.rand(1, 5, 3, 16, 16, dtype=torch.float64, generator=generator)
    by_batch = net(images)
    net.update_running_stats([images + 1])
    net.eval()
    running, far = net(images), []
    for share in (0.5, 0.9, 0.999999):
        net.blend_batch_norm(share)
        far.append((net(images) - by_batch).abs().max().item())
    net.blend_batch_norm(0.0)
    assert torch.equal(net(images), running)
    assert far[0] > far[1] > far[2]
    assert far[2] < 1e-4 < far[1]


def test_training_does_not_see_the_share(generator) -> None:
    net = Conv4(3, 4, generator, norm="running", block="plain")
    images = torch.rand(2, 5, 3, 16, 16, generator=generator)
    before = net(images)
    net.blend_batch_norm(0.5)
    assert torch.equal(net(images), before)
