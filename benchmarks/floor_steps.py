"""The two sides of the floor benchmark: a supervised step, and the train step of every algorithm on the same images."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.algorithms import Execution, FeatureGradient, FeatureSpaceLearner, build_algorithm
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.backbones import MetaModel, build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.config import MemoryConfig
from memmeta_exp.data import TaskBatch

HALF_TASK = MemoryConfig(mode="half_task")
BY_STEPS = ProposedConfig(
    inner_solver="gd", inner_steps=20, inner_tolerance=None, linear_solver="cg", linear_steps=20, linear_tolerance=None
)
ALL_WEIGHTS: dict[str, Any] = {"adapted_params": "all", "features": "recompute"}
ALGORITHMS: dict[str, tuple[Any, MemoryConfig | None]] = {
    "proposed": (ProposedConfig(), None),
    "proposed_k20": (BY_STEPS, None),
    "proposed_without_head": (ProposedConfig(), None),
    "proposed_same_chunk": (ProposedConfig(), None),
    "proposed_k20_same_chunk": (BY_STEPS, None),
    "proposed_half_task": (ProposedConfig(), HALF_TASK),
    "anil": (AnilConfig(name="anil"), None),
    "itd_bio": (AnilConfig(name="itd_bio", mu=1e-4, inner_steps=20, head_start="fixed"), None),
    "fomaml": (AnilConfig(name="fomaml", inner_steps=5, first_order=True, **ALL_WEIGHTS), None),
    "maml": (AnilConfig(name="maml", inner_steps=5, **ALL_WEIGHTS), None),
    "maml_checkpoint": (
        AnilConfig(name="maml", inner_steps=5, **ALL_WEIGHTS), MemoryConfig(checkpoint="inner_step")
    ),
    "imaml": (ImamlConfig(inner_steps=5, inner_lr=0.01, linear_steps=5, lam=50.0), None),
}  # fmt: skip
WAYS, SHOTS, QUERIES, SIZE = 5, 5, 5, 32
IMAGES_PER_TASK = WAYS * (SHOTS + QUERIES)
WITHOUT_HEAD = "_without_head"
Step = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """The settings that both sides share."""

    device: torch.device
    bf16: bool
    filters: int
    tasks: int
    workers: int

    def model(self, learned: bool) -> MetaModel:
        model = build_model(Conv4Config(filters=self.filters), 3, SIZE, WAYS, learned, seed=0).to(self.device)
        if self.device.type == "cpu":
            model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return model

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def adam(model: torch.nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=1e-4, foreach=True)


def supervised(setting: Setting, batch: TaskBatch, chunk: int, run_parallel: bool = False) -> tuple[Step, list[Any]]:
    """The supervised step on the images of `batch`, `chunk` images at a time, and its persistent tensors. run_parallel:
    each thread processes its own chunks, as workers process tasks; else the threads share each operator."""
    model = setting.model(learned=True)
    optimizer, parameters = adam(model), list(model.parameters())
    images = torch.cat([x.flatten(0, 1) for x, _ in (batch.support(), batch.query())]).float().div_(255)
    labels = torch.cat([y.flatten() for _, y in (batch.support(), batch.query())])
    if setting.device.type == "cpu":
        images = images.contiguous(memory_format=torch.channels_last)

    def loss(at: int) -> Tensor:
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.bf16):
            logits = model(images[at : at + chunk][None])[0]
        return F.cross_entropy(logits.float(), labels[at : at + chunk], reduction="sum").div(len(images))

    apart = run_parallel and setting.workers > 1
    pool = ThreadPoolExecutor(setting.workers, initializer=lambda: torch.set_num_threads(1)) if apart else None
    threads = 1 if apart else setting.workers

    starts = range(0, len(images), chunk)

    def chunks() -> None:
        for at in starts:
            loss(at).backward()

    def step() -> None:
        torch.set_num_threads(threads)
        optimizer.zero_grad(set_to_none=True)
        if pool is None:
            chunks()
        else:
            for gradients in pool.map(lambda at: torch.autograd.grad(loss(at), parameters), starts):
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        optimizer.step()

    return step, [model, optimizer, images, labels]


def meta(
    setting: Setting, batch: TaskBatch, name: str, chunk: int | None = None, run_parallel: bool = True
) -> tuple[Step, list[Any]]:
    """The train step of algorithm `name` on `batch`, and its persistent tensors. chunk: tasks at a time, of head-only
    algorithms; None: the default. run_parallel: threads process different tasks; else they share each operator."""
    config, memory = ALGORITHMS[name]
    model = setting.model(config.head_start == "learned")
    optimizer = adam(model)
    whole = setting.device.type == "cuda" and config.head_only
    workers = setting.workers if run_parallel else 1
    execution = Execution(chunk or (len(batch) if whole else 1), setting.bf16, workers, setting.workers // workers)
    learner = build_algorithm(config, model, execution, memory)
    if name.endswith(WITHOUT_HEAD):
        assert isinstance(learner, FeatureSpaceLearner)
        learner._gradient = first_of_its_size(learner._gradient)

    def step() -> None:
        torch.set_num_threads(execution.threads_each)
        optimizer.zero_grad(set_to_none=True)
        learner.step(batch)
        optimizer.step()

    return step, [model, optimizer, batch.image_set.images, batch.classes, batch.items]


def first_of_its_size(gradient: Callable[..., FeatureGradient]) -> Callable[..., FeatureGradient]:
    """Wraps `gradient` so that it computes once per number of tasks, and later returns the first result for that
    number."""
    known: dict[int, FeatureGradient] = {}

    def again(support: tuple[Tensor, Tensor], *others: Any) -> FeatureGradient:
        size = len(support[0])
        if size not in known:
            known[size] = gradient(support, *others)
        return known[size]

    return again
