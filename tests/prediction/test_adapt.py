"""Adaptation to images at hand: the tests of `memmeta evaluate`, image forms, labels, and heads of other sizes."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from memmeta_exp.config import options
from memmeta_exp.config.compose import jobs
from memmeta_exp.experiment.builder import build
from memmeta_exp.prediction import TrainedModel
from memmeta_exp.utils.errors import ConfigError, DataError

TINY = [
    "dataset=synthetic", "dataset.image_size=16", "dataset.classes=6", "dataset.images_per_class=12",
    "backbone.filters=4", "ways=3", "shots=3", "queries=8", "device=cpu", "threads=1",
]  # fmt: skip
SETTINGS = {
    **{name: [f"algorithm={name}"] for name in options("algorithm")},
    "ridge": ["head=ridge"],
    "cosine": [
        *("head=cosine", "convergence_gradient=own", "algorithm.inner_solver=gd", "algorithm.inner_lr=0.1"),
        *("algorithm.linear_solver=cg", "algorithm.head_start=learned"),
    ],
    "prototypes": ["algorithm.head_start=prototype"],
    "exact": ["algorithm=anil", "test_adaptation=exact"],
    "normalised": ["images.normalise=dataset", "images.test_time_flip=true"],
    "powers": ["algorithm=baseline", "algorithm.power=0.5"],
}


def experiment_and_model(*overrides: str) -> tuple[Any, TrainedModel]:
    (config,) = jobs([*TINY, *overrides], multirun=False)
    experiment = build(config)
    return experiment, TrainedModel(config, experiment.model, experiment.samplers["test"].pixels, 0)


def image_arrays(half: tuple[torch.Tensor, torch.Tensor]) -> tuple[np.ndarray, list[str]]:
    """uint8 [n, H, W, C] and labels of the one task of a half."""
    return half[0][0].permute(0, 2, 3, 1).numpy(), [f"class {k}" for k in half[1][0].tolist()]


@pytest.mark.parametrize("setting", SETTINGS)
def test_adapt_and_predict_score_as_evaluate(setting: str) -> None:
    experiment, model = experiment_and_model(*SETTINGS[setting])
    for k in range(2):
        tasks = experiment.samplers["test"].draw(k, 1)
        experiment.model.train()
        accuracy, loss, _ = experiment.learner.evaluate(tasks, experiment.adapt)
        (x, y), (others, truth) = image_arrays(tasks.support()), image_arrays(tasks.query())
        classifier = model.adapt(x, y)
        p = classifier.predict_proba(others)
        assert classifier.score(others, truth) == pytest.approx(float(accuracy), abs=1e-12)
        assert -np.log(p[np.arange(len(p)), [int(t[-1]) for t in truth]]).mean() == pytest.approx(float(loss), rel=1e-4)
        assert p.sum(1) == pytest.approx(1)


def test_every_form_of_an_image_is_the_same_image(tmp_path) -> None:
    _, model = experiment_and_model()
    x = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    pillow = [Image.fromarray(one) for one in x]
    paths = [tmp_path / f"{at}.png" for at in range(6)]
    for image, path in zip(pillow, paths, strict=True):
        image.save(path)
    tensor = torch.from_numpy(x).permute(0, 3, 1, 2)
    for form in (x, list(x), tensor, tensor / 255, x / 255.0, pillow, paths, [*map(str, paths)], iter(pillow)):
        assert torch.equal(model.bytes_of(form), tensor), type(form)
    assert torch.equal(model.bytes_of(paths[0]), tensor[:1])
    assert torch.equal(model.bytes_of(x[..., 0]), tensor[:, :1].expand(-1, 3, -1, -1)), "grey becomes colour"
    transparent = np.concatenate([x, np.zeros_like(x[..., :1])], -1)
    assert (model.bytes_of(transparent) == 255).all()


def test_another_size_is_resized_and_said(caplog) -> None:
    _, model = experiment_and_model("dataset.channels=1")
    logging.getLogger("memmeta").propagate = True
    assert model.bytes_of(np.full((2, 40, 30, 3), 7, np.uint8)).shape == (2, 1, 16, 16)
    assert "images of 30x40 resized to the model's 16x16" in caplog.text


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 16, 16), np.uint8), "not a batch of images"),
        (np.zeros((2, 16, 16), np.int32), "int32 have no defined range"),
        (np.full((2, 16, 16), 2.0), r"must be in \[0, 1\]"),
        ([3], "int is not an image"),
        ([], "there are no images"),
        ("nowhere.png", "nowhere.png"),
    ],
)
def test_what_is_no_image_is_one_line(images: Any, message: str) -> None:
    _, model = experiment_and_model()
    with pytest.raises(DataError, match=message) as refused:
        model.bytes_of(images)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "b", "a"], ["a", "b"]),
        ([7, 3, 7, 3], [3, 7]),
        (np.array([True, False, True, False]), [False, True]),
        (torch.tensor([2, 1, 2, 1]), [1, 2]),
        ([("x", 1), None, ("x", 1), None], [("x", 1), None]),
        (["1", 1, "1", 1], ["1", 1]),
    ],
)
def test_labels_of_any_kind(labels: Any, classes: list[Any]) -> None:
    _, model = experiment_and_model()
    x = np.repeat(np.array([250, 5, 250, 5], np.uint8), 16 * 16 * 3).reshape(4, 16, 16, 3)
    x[:, ::3] //= 2
    classifier = model.adapt(x, labels)
    assert classifier.classes_.tolist() == classes
    assert classifier.score(x, labels) == 1


def test_labels_that_do_not_fit() -> None:
    _, model = experiment_and_model()
    x = np.zeros((2, 16, 16), np.uint8)
    for labels, message in (([1], "2 images have 1 labels"), ([1, 1], "the same label"), ("ab", "is not a list")):
        with pytest.raises(DataError, match=message):
            model.adapt(x, labels)


def test_heads_of_fewer_and_of_more_classes() -> None:
    x = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    for name, ways in (("proposed", 8), ("proposed", 2), ("maml", 2)):
        _, model = experiment_and_model(f"algorithm={name}", "ways=3")
        labels = [at % ways for at in range(8)]
        assert model.adapt(x, labels).predict_proba(x).shape == (8, ways)
    with pytest.raises(ConfigError, match="8 classes for a model that starts from a learned head of 3"):
        model.adapt(x, list(range(8)))
