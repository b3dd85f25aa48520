"""Dropout and DropBlock: what is dropped, and on what it depends."""

import pytest
import torch

from memmeta_exp.backbones.drop_block import drop, drop_block

ONES = torch.ones(8, 3, 10, 10)


def test_squares_by_hand() -> None:
    """Every 0 lies in a square of zeros that is 3 wide, and what stays is scaled to a mean of 1."""
    x = drop_block(ONES, 0.1, 3, (7,))
    gone = x == 0
    assert 0.02 < gone.float().mean() < 0.2
    whole = -torch.nn.functional.max_pool2d(-gone.float(), 3, stride=1)  # corners of squares that are all 0
    covered = torch.nn.functional.max_pool2d(torch.nn.functional.pad(whole, (2,) * 4), 3, stride=1)
    assert torch.equal(covered.bool(), gone)
    assert x.mean().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("dropped", [lambda x, k: drop(x, 0.3, k), lambda x, k: drop_block(x, 0.3, 3, k)])
def test_a_task_depends_on_its_key_alone(dropped) -> None:
    """Sample-major: row i*T + t is image i of task t."""
    x = torch.rand(4 * 2, 3, 6, 6)
    both = dropped(x, (5, 6)).unflatten(0, (4, 2))
    assert torch.equal(both[:, 0], dropped(x.unflatten(0, (4, 2))[:, 0], (5,)))
    assert torch.equal(both[:, 1], dropped(x.unflatten(0, (4, 2))[:, 1], (6,)))
    assert not torch.equal(dropped(x, (5, 6)), dropped(x, (5, 7)))
    assert not torch.equal(both == 0, both.flip(1) == 0)


def test_the_share_dropped() -> None:
    many = torch.ones(50, 8, 20, 20)
    assert (drop(many, 0.3, (1,)) == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert drop(many, 0.3, (1,)).mean().item() == pytest.approx(1, abs=0.01)
    share = (drop_block(many, 0.1, 5, (1,)) == 0).float().mean().item()
    assert 0.07 < share < 0.1, "overlaps leave a little less than asked for"


def test_a_square_is_no_larger_than_the_image() -> None:
    x = drop_block(torch.ones(100, 4, 2, 2), 0.5, 5, (3,))
    gone = (x == 0).flatten(2)
    assert torch.equal(gone.any(2), gone.all(2))
    assert 0.3 < gone.float().mean() < 0.7
