"""Backbones from the command line: trained, tested again, refused in one line."""

import json

import pytest

from tests.commands.conftest import TINY

SHORT = [o for o in TINY if not o.startswith("backbone.")] + ["iterations=1", "eval_every=1"]
TIMM = ["backbone=timm", "backbone.model=test_vit", "dataset.image_size=32"]
RESNET = ["backbone=resnet12", "backbone.filters=[4,5,6,8]", "backbone.drop_rate=0.1", "backbone.norm=running"]


@pytest.mark.parametrize("backbone", [RESNET, [*TIMM, "backbone.frozen=2", "memory.checkpoint=block"]], ids=" ".join)
def test_train_and_evaluate(memmeta, backbone: list[str]) -> None:
    """A run's weights, frozen ones and running statistics with them, come back from its checkpoint."""
    result = memmeta("train", *SHORT, *backbone)
    assert result.code == 0, result.err
    folder = result.summary.parent
    assert json.loads(result.summary.read_text())["memory/peak_mib"] > 0
    again = memmeta("evaluate", f"run={folder}")
    assert again.code == 0, again.err
    assert "5 tasks score as stored" in again.out
