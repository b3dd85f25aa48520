"""memmeta_exp, configured as by `memmeta_exp.experiment.builder` on a CPU: one task per pass, channels-last."""

from pathlib import Path
from typing import Any

import torch

import memmeta_exp
from benchmarks.peer_libraries.problem import Settings, Step
from memmeta_exp.algorithms import Execution, build_algorithm
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.backbones import MetaModel, build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.data import ImageSet, TaskBatch
from memmeta_exp.utils.malloc import keep_freed_memory

LIBRARY = memmeta_exp


def _head_only(name: str, s: Settings) -> Any:
    start = "learned" if s.learned else "fixed"
    return AnilConfig(
        name=name, mu=s.mu, inner_steps=s.inner_steps, inner_lr=s.inner_lr, head_start=start, first_order=False
    )


def _all_weights(name: str, s: Settings) -> Any:
    return AnilConfig(
        name=name,
        adapted_params="all",
        features="recompute",
        head_start="learned",
        inner_steps=s.inner_steps,
        inner_lr=s.inner_lr,
        first_order=name == "fomaml",
    )


def _imaml(name: str, s: Settings) -> Any:
    return ImamlConfig(
        name=name,
        lam=s.lam,
        inner_steps=s.inner_steps,
        inner_lr=s.inner_lr,
        linear_steps=s.linear_steps,
        damping=0.0,
        head_start="learned",
    )


def _proposed(name: str, s: Settings) -> Any:
    """`proposed` with a fixed number of gradient and conjugate-gradient steps, which peers support too."""
    return ProposedConfig(
        name=name,
        mu=s.mu,
        inner_solver="gd",
        inner_steps=s.inner_steps,
        inner_lr=s.inner_lr,
        inner_tolerance=None,
        linear_solver="cg",
        linear_steps=s.linear_steps,
        linear_tolerance=None,
    )


ALGORITHMS = {
    "maml": _all_weights,
    "fomaml": _all_weights,
    "imaml": _imaml,
    "anil": _head_only,
    "itd_bio": _head_only,
    "proposed": _proposed,
}


def load(file: Path, algorithm: str, s: Settings, dtype: torch.dtype) -> tuple[MetaModel, Step]:
    """The meta-model with the stored weights, and its train step on the stored tasks. As in training, each step gathers
    and converts the images."""
    keep_freed_memory()
    stored = torch.load(file, weights_only=True)
    images, state = stored["images"], stored["state"]
    ways, size = images.shape[1], images.shape[-1]
    filters = (state["head_start"].shape[1] - 1) // (size // 16) ** 2
    model = build_model(Conv4Config(filters=filters), images.shape[3], size, ways, s.learned, seed=0)
    model.load_state_dict(state)
    model = model.to(dtype).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    learner = build_algorithm(ALGORITHMS[algorithm](algorithm, s), model, Execution(workers=torch.get_num_threads()))
    batch = _batch(images, stored["shots"])

    def step() -> None:
        learner.step(batch)

    return model, step


def _batch(images: torch.Tensor, shots: int) -> TaskBatch:
    """Tasks from images uint8 [T, ways, shots + queries, C, H, W]; classes of different tasks are different classes."""
    tasks, ways, each = images.shape[:3]
    image_set = ImageSet(images.flatten(0, 1), tuple(str(i) for i in range(tasks * ways)))
    classes = torch.arange(tasks * ways).unflatten(0, (tasks, ways))
    return TaskBatch(image_set, classes, torch.arange(each).expand(tasks, ways, each), shots)
