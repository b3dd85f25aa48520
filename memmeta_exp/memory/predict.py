"""The peak memory of a training iteration on a GPU, predicted on any machine and without data.

Training's own iteration runs on meta tensors, which have shapes but no values: it allocates everything and computes
nothing. docs/memory.md says what the numbers contain.
"""

import gc
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from memmeta_exp.config import Config
from memmeta_exp.data.tasks import Tasks
from memmeta_exp.experiment.builder import Experiment, build_on_meta
from memmeta_exp.experiment.optimizers import build_average, build_optimizer
from memmeta_exp.experiment.train_step import TrainStep
from memmeta_exp.profiling.meta_memory import (
    CUBLAS_WORKSPACE,
    CUBLAS_WORKSPACE_HOPPER,
    MetaKernelCache,
    MetaMemoryMeter,
    held_bytes,
)
from memmeta_exp.profiling.peak_memory import MIB, tensors_of
from memmeta_exp.utils.errors import ConfigError

CUDA = torch.device("cuda")
CHUNKS = 3  # full chunks of tasks to run; each further one adds to every number what the third added
STEPS = 3  # inner steps to run where none is stored; each further one allocates what the third did


@dataclass(frozen=True)
class Prediction:
    """Predicted bytes; matmul_threads is a count.

    tensors: requested at the peak, above what persists. On a GPU memory/above_baseline_mib is this plus scratch memory
    of kernels. parameters .. warm_starts: requested by what persists between iterations; optimizer_state includes the
    average of theta. rounding: excess of blocks of 512 bytes over the requests at the peak. unsplit_at_most: bound on
    what the allocator leaves unused in blocks for more than 1 MiB. convolution_headroom: a cuDNN workspace of up to
    this size does not raise the peak. matmul_threads: threads with a cuBLAS workspace of their own.
    """

    tensors: int
    parameters: int
    buffers: int
    optimizer_state: int
    images: int
    warm_starts: int
    rounding: int
    unsplit_at_most: int
    convolution_headroom: int
    matmul_threads: int

    @property
    def above_baseline_mib(self) -> float:
        """memory/above_baseline_mib on a GPU, without scratch memory of kernels."""
        return self.tensors / MIB

    def allocated(self, hopper: bool = False) -> int:
        """torch.cuda.max_memory_allocated, without unsplit blocks and scratch memory of kernels."""
        workspaces = self.matmul_threads * (CUBLAS_WORKSPACE_HOPPER if hopper else CUBLAS_WORKSPACE)
        persistent = self.parameters + self.buffers + self.optimizer_state + self.images + self.warm_starts
        return persistent + self.tensors + self.rounding + workspaces

    def to_dict(self) -> dict[str, Any]:
        """The content of profile.json."""
        return {
            "memory/kind": "cuda-predicted",
            "memory/above_baseline_mib": self.above_baseline_mib,
            "bytes": asdict(self),
            "max_memory_allocated": self.allocated(),
            "max_memory_allocated_hopper": self.allocated(hopper=True),
        }


def predict(config: Config, as_on: torch.device = CUDA) -> Prediction:
    """The predicted peak of an iteration of `config` on a GPU that holds the training images.

    as_on: the device whose execution strategy is emulated. Raises ConfigError where meta tensors cannot show what a GPU
    would run.
    """
    check_predictable(config)
    experiment = build_on_meta(_shortened(config))
    experiment.learner.execution = replace(experiment.learner.execution, as_on=as_on)
    if any("_orig_mod" in name.split(".") for name, _ in experiment.model.named_modules()):
        raise ConfigError("compiled code cannot be predicted: what it keeps for backward is decided on the GPU")
    optimizer, _ = build_optimizer(config, experiment.model)
    with MetaKernelCache():
        return _of_all_chunks(experiment, optimizer)


def _of_all_chunks(experiment: Experiment, optimizer: torch.optim.Optimizer) -> Prediction:
    """The prediction for the whole batch, extrapolated from two numbers of chunks where it has more than CHUNKS."""
    config, chunk = experiment.config, experiment.learner.tasks_per_pass
    _iteration(experiment, optimizer, min(chunk, config.batch_size))(1)  # makes the optimiser's state
    full, rest = divmod(config.batch_size, chunk)
    if full <= CHUNKS or experiment.learner.warm:  # warm starts are rounded up once for the whole batch
        return _foretold(experiment, optimizer, config.batch_size)
    fewer, more = (_foretold(experiment, optimizer, chunks * chunk + rest) for chunks in (CHUNKS - 1, CHUNKS))
    values = {f.name: (getattr(fewer, f.name), getattr(more, f.name)) for f in fields(Prediction)}
    return Prediction(**{name: b + (full - CHUNKS) * (b - a) for name, (a, b) in values.items()})


def check_predictable(config: Config) -> None:
    """ConfigError where the iteration of `config` differs on meta tensors from what a GPU runs."""
    if config.dataset.has_finite_tasks:
        raise ConfigError(f"dataset={config.dataset.name} cannot be predicted: predictions are for networks on images")
    if config.precision == "bf16":
        raise ConfigError(
            "precision=bf16 cannot be predicted: torch ignores autocast on meta tensors; predict precision=fp32, which "
            "needs more, or measure on the GPU with memmeta profile"
        )
    if getattr(config.backbone, "attention", "plain") == "fused":
        raise ConfigError(
            "backbone.attention=fused cannot be predicted: the GPU decides which kernel runs and what it keeps; "
            "predict backbone.attention=plain, which needs more, or measure on the GPU with memmeta profile"
        )
    if config.workers not in ("auto", 1):
        raise ConfigError(
            f"workers={config.workers} cannot be predicted: how far the peaks of threads coincide is chance; leave "
            "workers=auto"
        )


def _shortened(config: Config) -> Config:
    a = config.algorithm
    if a.unrolls or not any(field.name == "inner_steps" for field in fields(a)):
        return config
    return replace(config, algorithm=replace(a, inner_steps=min(a.inner_steps, STEPS)))


class _FirstTasks:
    """Draws as `sampler` does, and returns the first `tasks` of the draw."""

    def __init__(self, sampler: Any, tasks: int) -> None:
        self.sampler, self.tasks, self.tensors = sampler, tasks, sampler.tensors

    def draw(self, first: int, count: int) -> Tasks:
        return self.sampler.draw(first, count)[: self.tasks]


def _iteration(experiment: Experiment, optimizer: torch.optim.Optimizer, tasks: int) -> TrainStep:
    """An iteration that draws the whole batch and runs its first `tasks`."""
    samplers = {"train": _FirstTasks(experiment.samplers["train"], tasks)}
    average = build_average(experiment.config, experiment.model)
    return TrainStep(replace(experiment, samplers=samplers), optimizer, average)


def _foretold(experiment: Experiment, optimizer: torch.optim.Optimizer, tasks: int) -> Prediction:
    """The prediction for an iteration with the first `tasks` of the batch."""
    learner, model = experiment.learner, experiment.model
    iteration = _iteration(experiment, optimizer, tasks)
    if learner.warm:  # one a task
        iteration(1)
    iteration.clear()
    persistent = {
        "parameters": held_bytes(list(model.parameters())),
        "buffers": held_bytes(list(model.buffers())),
        "optimizer_state": held_bytes(tensors_of(optimizer) + tensors_of(iteration.average)),
        "images": held_bytes(list(experiment.samplers["train"].tensors)),
        "warm_starts": held_bytes(list(learner.warm.values())),
    }
    gc.collect()
    with torch.compiler.set_stance("force_eager"), MetaMemoryMeter(iteration.persistent(), learner.warm) as meter:
        iteration(2)
    return Prediction(
        tensors=meter.requested_above_baseline,
        **persistent,
        rounding=meter.peak - meter.requested_peak,
        unsplit_at_most=meter.ceiling - meter.peak,
        convolution_headroom=meter.peak - meter.at_convolution,
        matmul_threads=meter.forward_products + meter.backward_products,
    )
