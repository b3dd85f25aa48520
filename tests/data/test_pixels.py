"""Augmentation and normalisation."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from memmeta_exp.backbones import image_layout
from memmeta_exp.config import from_omegaconf
from memmeta_exp.config.compose import composed
from memmeta_exp.data import UNCHANGED, EpisodeSampler, ImageSet, ImageTransforms, load_split
from memmeta_exp.data.counter_rng import children, root_key, uniform
from memmeta_exp.data.datasets import SyntheticConfig
from memmeta_exp.data.torchmeta_compat import import_torchmeta
from memmeta_exp.experiment.builder import build

N, SIZE = 400, 7
LAYOUT = image_layout(torch.device("cpu"))
EVERYTHING = ImageTransforms(2, True, 0.4, 0.4, 0.4, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, (N, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


KEYS = children(torch.tensor([root_key("test")]), N)[0]


def floats(pixels: ImageTransforms, images: Tensor, keys: Tensor | None = KEYS) -> Tensor:
    return pixels.floats(images, keys, torch.float32, LAYOUT)


def test_without_settings_images_are_scaled_alone(images: Tensor):
    plain = floats(UNCHANGED, images, None)
    assert torch.equal(plain, images.to(torch.float32, memory_format=LAYOUT).div_(255))
    assert not UNCHANGED.augments
    assert plain.is_contiguous(memory_format=torch.channels_last)


def test_a_crop_is_a_window_of_the_padded_image(images: Tensor):
    cropped = (floats(ImageTransforms(crop_padding=2), images) * 255).round().to(torch.uint8)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for before, after in zip(padded, cropped, strict=True):
        found = [
            (y, x) for y in range(5) for x in range(5) if torch.equal(before[:, y : y + SIZE, x : x + SIZE], after)
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 25, "every window comes up"


def test_half_of_the_images_are_mirrored(images: Tensor):
    flipped = (floats(ImageTransforms(flip=True), images) * 255).round().to(torch.uint8)
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 150 < int(mirrored.sum()) < 250


def test_crop_and_flip_together_are_both(images: Tensor):
    both, crop = (
        floats(ImageTransforms(crop_padding=2, flip=True), images),
        floats(ImageTransforms(crop_padding=2), images),
    )
    centre = floats(ImageTransforms(flip=True), images)
    assert not torch.equal(both, crop)
    kept = (centre == floats(UNCHANGED, images, None)).flatten(1).all(1)
    assert torch.equal(both[kept], crop[kept]), "the window does not depend on the flip"


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_the_jitter_is_that_of_torchvision(images: Tensor, name: str):
    functional: Any = import_torchmeta("torchvision.transforms.functional")
    draw = ("brightness", "contrast", "saturation").index(name) + 3
    factors = 1 + 0.4 * (2 * uniform(children(KEYS, 6))[:, draw] - 1)
    adjust = getattr(functional, f"adjust_{name}")
    scaled = images.float() / 255
    expected = torch.stack([adjust(image, float(f)) for image, f in zip(scaled, factors, strict=True)])
    found = floats(replace(UNCHANGED, **{name: 0.4}), images)
    assert torch.allclose(found, expected, atol=2e-6)
    assert 0.6 <= float(factors.min()) < 0.65
    assert 1.35 < float(factors.max()) <= 1.4


def test_normalisation_is_subtraction_and_division(images: Tensor):
    found = floats(replace(UNCHANGED, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)), images, None)
    for c, (mean, std) in enumerate(((0.5, 0.2), (0.4, 0.3), (0.3, 0.4))):
        assert torch.allclose(found[:, c], (images[:, c].float() / 255 - mean) / std, atol=1e-6)


def test_an_image_depends_on_its_key_alone(images: Tensor):
    whole = floats(EVERYTHING, images)
    parts = torch.cat([floats(EVERYTHING, images[:3], KEYS[:3]), floats(EVERYTHING, images[3:], KEYS[3:])])
    assert torch.equal(whole, parts)
    order = torch.randperm(N)
    assert torch.equal(floats(EVERYTHING, images[order], KEYS[order]), whole[order])
    assert not torch.equal(floats(EVERYTHING, images, KEYS + 1), whole)


def test_uniform_numbers_are_uniform():
    numbers = uniform(children(torch.tensor([root_key("x")]), 20_000)[0])
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    assert abs(float(numbers.mean()) - 0.5) < 0.01
    assert float(numbers.histc(20, 0, 1).min()) > 850


def sampler(stream: str = "train", seed: int = 0, **changes: int) -> EpisodeSampler:
    shape = {"ways": 4, "shots": 2, "queries": 3} | changes
    split = load_split(SyntheticConfig(classes=9, images_per_class=9, image_size=16), "train")
    return EpisodeSampler(split, stream, seed, **shape, pixels=EVERYTHING)


def test_a_position_in_the_stream_fixes_the_augmentation():
    whole = sampler().draw(0, 8)
    assert whole.keys is not None
    for part in (sampler().draw(3, 2), whole[3:5]):
        assert part.keys is not None
        assert torch.equal(part.keys, whole.keys[3:5])
    more = sampler(ways=6, queries=5).draw(0, 8)
    assert more.keys is not None
    assert torch.equal(more.keys[:, :4, :5], whole.keys), "more ways or queries leave it as it was"
    distinct = {int(key) for s in ("train", "val") for seed in (0, 1) for key in keys_of(s, seed)}
    assert len(distinct) == 4 * 8 * 4 * 5


def keys_of(stream: str, seed: int) -> Tensor:
    keys = sampler(stream, seed).draw(0, 8).keys
    assert keys is not None
    return keys.flatten()


def test_many_tasks_are_drawn_as_few_are():
    small, large = sampler().draw(250, 10), sampler().draw(0, 300)
    assert small.keys is not None
    assert large.keys is not None
    assert torch.equal(small.keys, large.keys[250:260])


TINY = [
    "dataset=synthetic", "dataset.image_size=16", "dataset.classes=6", "dataset.images_per_class=8",
    "backbone.filters=6", "ways=3", "shots=2", "queries=2", "batch_size=4", "device=cpu", "threads=1",
]  # fmt: skip
AUGMENTED = [
    "images.crop_padding=3", "images.flip=true", "images.brightness=0.4", "images.contrast=0.4",
    "images.saturation=0.4", "images.normalise=dataset",
]  # fmt: skip


def experiment(*overrides: str) -> Any:
    return build(from_omegaconf(composed([*TINY, *overrides])))


@pytest.fixture(scope="module")
def plain() -> Any:
    return experiment()


def seen(e: Any, stream: str) -> Tensor:
    return e.learner._scaled(e.samplers[stream].draw(0, 4).half("support"))


@pytest.mark.parametrize("override", [*AUGMENTED, "images.normalise=imagenet"])
def test_every_key_changes_what_training_sees_and_only_normalisation_the_rest(plain: Any, override: str):
    changed = experiment(override)
    assert not torch.equal(seen(plain, "train"), seen(changed, "train"))
    for stream in ("val", "test", "reference"):
        assert torch.equal(seen(plain, stream), seen(changed, stream)) == ("normalise" not in override)


def test_normalised_by_the_dataset_the_training_images_have_mean_0_and_deviation_1():
    e = experiment("images.normalise=dataset")
    images = e.samplers["train"].image_set.images.flatten(0, 1)
    found = e.samplers["train"].pixels.floats(images, None, torch.float32, LAYOUT)
    assert torch.allclose(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(found.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4)


def gradients(*overrides: str) -> Tensor:
    e = experiment(*AUGMENTED, *overrides)
    e.learner.step(e.samplers["train"].draw(8, 4))
    return torch.cat([p.grad.flatten() for p in e.model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    ("algorithm", "overrides"),
    [
        ("proposed", ["memory.mode=half_task"]),
        ("proposed", ["tasks_per_pass=3"]),
        ("maml", ["memory.checkpoint=inner_step"]),
    ],
)
def test_every_pass_and_every_way_to_run_sees_the_same_images(algorithm: str, overrides: list[str]):
    """half_task passes the support twice, checkpoints run the backbone again, chunks cut the batch elsewhere: a second
    look at other pixels would change the gradient at once."""
    one, two = gradients(f"algorithm={algorithm}"), gradients(f"algorithm={algorithm}", *overrides)
    assert float(one.norm()) > 1e-4
    assert torch.allclose(one, two, rtol=1e-3, atol=1e-4 * float(one.abs().max()))


@pytest.mark.parametrize("algorithm", ["proposed", "maml"])
def test_workers_see_the_same_to_the_bit(algorithm: str):
    one = gradients(f"algorithm={algorithm}", "workers=1")
    assert torch.equal(one, gradients(f"algorithm={algorithm}", "workers=2", "threads=2"))


def test_mirrored_tasks_are_judged_as_their_mirror_images_are():
    """And only then: training, and the measure of convergence, see images as without it."""
    e, plain = experiment("images.test_time_flip=true"), experiment()
    tasks, images = e.samplers["val"].draw(0, 6), e.samplers["val"].image_set
    turned = replace(tasks, image_set=replace(images, images=images.images.flip(-1).contiguous()))
    loss, other = e.learner.evaluate(tasks)[1], e.learner.evaluate(turned)[1]
    assert torch.allclose(loss, other, rtol=1e-4)
    plainly = plain.learner.evaluate(plain.samplers["val"].draw(0, 6))[1]
    assert not torch.allclose(loss, plainly, rtol=1e-2)
    for stream in ("train", "reference"):
        a, b = (x.learner.step(x.samplers[stream].draw(0, 4)).loss for x in (e, plain))
        assert torch.equal(a, b)


def test_grey_images_jitter_too(images: Tensor):
    grey = images[:, :1].contiguous()
    found = floats(ImageTransforms(brightness=0.4, contrast=0.4), grey)
    assert found.shape == grey.shape
    assert not torch.equal(found, grey.float() / 255)


def test_a_constant_channel_cannot_be_normalised(monkeypatch: pytest.MonkeyPatch):
    from memmeta_exp.data import DataError
    from memmeta_exp.data.datasets import SyntheticConfig

    flat = ImageSet(torch.zeros(6, 8, 3, 16, 16, dtype=torch.uint8), tuple("abcdef"))
    monkeypatch.setattr(SyntheticConfig, "load", lambda *_: flat)
    with pytest.raises(DataError, match="is constant"):
        experiment("images.normalise=dataset")
