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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone.model=test_vti"], "did you mean 'test_vit'?"),
        (["backbone.weights=nowhere.pt"], "nowhere.pt does not exist"),
        (["backbone.frozen=99"], "set backbone.frozen to 6 or less"),
        (["images.normalise=imagenet"], "leave images.normalise=none"),
        (["dataset.image_size=28"], "does not take images of 3 channels and 28x28"),
        (["algorithm=imaml", "backbone.attention=fused"], "leave backbone.attention=plain"),
        (["algorithm=maml", "memory.checkpoint=block"], "memory.checkpoint=block is for head-only algorithms"),
        (
            ["backbone.model=dla46_c", "dataset.image_size=64", "memory.checkpoint=block"],
            "memory.checkpoint=none",
        ),
    ],
)
def test_one_line_before_anything_is_made(memmeta, tmp_path, overrides: list[str], message: str) -> None:
    result = memmeta("train", *SHORT, *TIMM, *overrides)
    assert result.code == 2, result.err
    assert message in result.err
    assert len(result.err.splitlines()) == 1, result.err
    assert list(tmp_path.iterdir()) == []
