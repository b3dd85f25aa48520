"""The prediction on meta tensors against the meter on CPU tensors, to the byte."""

import time
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

import memmeta_exp.memory.predict
from memmeta_exp.backbones.conv4 import Conv4
from memmeta_exp.config import Config, ConfigError
from memmeta_exp.config.compose import jobs
from memmeta_exp.experiment.builder import build, build_on_meta
from memmeta_exp.experiment.execution import resolve_execution
from memmeta_exp.experiment.optimizers import build_optimizer
from memmeta_exp.experiment.train_step import TrainStep
from memmeta_exp.memory.predict import predict
from memmeta_exp.profiling.meta_memory import CUBLAS_WORKSPACE, MetaKernelCache
from memmeta_exp.profiling.peak_memory import ALLOCATOR_BLOCK, PeakMeter

SMALL = ["dataset=synthetic", "dataset.classes=5", "dataset.images_per_class=12", "backbone.filters=8", "threads=1"]
ALGORITHMS = {
    "certified": [],
    "released solvers": ["algorithm.inner_solver=gd", "algorithm.linear_solver=cg"],
    "half_task": ["memory.mode=half_task"],
    "images": ["memory.mode=images", "memory.images_per_pass=10", "backbone.norm=none"],
    "learned start": ["algorithm.head_start=learned"],
    "anil": ["algorithm=anil"],
    "itd_bio": ["algorithm=itd_bio"],
    "anil recomputed": ["algorithm=anil", "algorithm.inner_steps=2", "algorithm.features=recompute"],
    "maml": ["algorithm=maml", "algorithm.inner_steps=2"],
    "maml checkpointed": ["algorithm=maml", "algorithm.inner_steps=2", "memory.checkpoint=inner_step"],
    "fomaml": ["algorithm=fomaml", "algorithm.inner_steps=2"],
    "imaml": ["algorithm=imaml", "algorithm.inner_steps=2", "algorithm.linear_steps=2"],
    "baseline": ["algorithm=baseline"],
    "baseline half_task": ["algorithm=baseline", "memory.mode=half_task"],
}
WARM = [
    *ALGORITHMS["released solvers"], "algorithm.inner_warm_start=true", "algorithm.linear_warm_start=true",
]  # fmt: skip


def config(*overrides: str) -> Config:
    return jobs([*SMALL, *overrides], False)[0]


def metered(of: Config) -> tuple[PeakMeter, int]:
    """The third iteration on the CPU, and how many tensors the optimiser keeps there whatever the device."""
    experiment = build(of)
    optimizer, _ = build_optimizer(of, experiment.model)
    iteration = TrainStep(experiment, optimizer)
    for t in (1, 2):
        iteration.clear()
        iteration(t)
    iteration.clear()
    with PeakMeter(iteration.persistent(), device="cpu") as meter:
        iteration(3)
    counters = sum("step" in state for state in optimizer.state.values())
    return meter, counters


@pytest.fixture
def gpu_layout(contiguous, monkeypatch) -> None:
    """The CPU does as a GPU would, and takes both halves of a task in one pass."""
    monkeypatch.setattr(Conv4, "prefers_joint_forward", Conv4.fuses)


@pytest.fixture
def contiguous(monkeypatch) -> None:
    """The CPU computes in the layout of a GPU: channels-last copies where contiguous does not, and the other way."""
    for module in ("experiment.builder", "backbones.backbone", "algorithms.learner"):
        monkeypatch.setattr(f"memmeta_exp.{module}.image_layout", lambda device: torch.contiguous_format)


def test_as_the_cpu_itself_would(contiguous) -> None:
    """A pass for each half of a task."""
    of = config("batch_size=2", "tasks_per_pass=1")
    assert predict(of, torch.device("cpu")).tensors == metered(of)[0].requested_above_baseline
    assert predict(of).tensors > predict(of, torch.device("cpu")).tensors


@pytest.mark.parametrize("algorithm", ["proposed", "anil", "baseline"])
def test_images_a_few_at_a_time_make_memory_flat_in_the_task(algorithm: str) -> None:
    """5 to 40 images a task move the peak by less than 5 %; without the mode it more than doubles."""
    shared = [f"algorithm={algorithm}", "dataset.image_size=32", "dataset.images_per_class=60", "ways=5"]
    shared += ["batch_size=1", "backbone.norm=none", "algorithm.inner_steps=1"]

    def peak(mode: str, each: int) -> int:
        few = ["memory.images_per_pass=2"] if mode == "images" else []
        one = config(*shared, f"memory.mode={mode}", *few, f"shots={each}", f"queries={each}")
        return predict(one).tensors

    assert peak("images", 4) < 1.05 * peak("images", 1)
    assert peak("task", 4) > 2 * peak("task", 1)


SLOPES = {  # MiB that an inner step more adds at the paper's size; it published 22.84, 22.84, 40.31 and 0.05
    "released/anil": 22.84, "released/itd_bio": 22.84, "released/maml": 39.87, "released/proposed": 0.0,
    "fair/anil": 0.0, "fair/itd_bio": 0.0, "fair/maml": 21.19, "fair/imaml": 0.0,
}  # fmt: skip
DEAR = ("released/itd_bio", "fair/itd_bio", "released/maml", "fair/maml", "fair/imaml")


@pytest.mark.parametrize(
    "structure", [pytest.param(name, marks=[pytest.mark.slow] if name in DEAR else []) for name in SLOPES]
)
def test_what_an_inner_step_more_adds_on_a_gpu(structure: str) -> None:
    """Conv4-64 on 32x32, 5-way 5-shot."""
    paper = [f"experiment=memory/{structure}", "dataset=synthetic", "dataset.image_size=32", "backbone.filters=64"]
    two, four = (
        predict(jobs([*paper, "batch_size=1", f"algorithm.inner_steps={k}"], False)[0]).tensors for k in (2, 4)
    )
    assert (four - two) / 2 / 2**20 == pytest.approx(SLOPES[structure], abs=0.015)


@pytest.mark.parametrize(
    ("block", "kept", "recomputed"),
    [("plain", 257.04, 98.89), pytest.param("fused", 127.73, 38.45, marks=pytest.mark.slow)],
)
def test_five_steps_of_maml_kept_and_recomputed(block: str, kept: float, recomputed: float) -> None:
    """MiB of one task on Conv4-64 at 32x32: with all inner steps' graphs, and with one at a time."""
    size = ["dataset=synthetic", "dataset.image_size=32", "backbone.filters=64", "batch_size=1", "tasks_per_pass=1"]
    maml = ["algorithm=maml", "algorithm.inner_steps=5", f"backbone.block={block}", "tracking=disabled", *size]
    found = [
        predict(jobs([*maml, f"memory.checkpoint={kind}"], False)[0]).above_baseline_mib
        for kind in ("none", "inner_step")
    ]
    assert found == pytest.approx([kept, recomputed], abs=0.01)


SEEN = ("released solvers", "learned start", "itd_bio", "baseline half_task")  # in settings below, or by another
BLOCKS = [pytest.param(name, "fused", marks=[pytest.mark.slow] if name in SEEN else []) for name in ALGORITHMS] + [
    pytest.param(name, "plain", marks=[] if name in ("certified", "anil") else [pytest.mark.slow])
    for name in ALGORITHMS
]


@pytest.mark.parametrize(("algorithm", "block"), BLOCKS)
def test_the_same_bytes_as_on_the_cpu(gpu_layout, algorithm: str, block: str) -> None:
    of = config(*ALGORITHMS[algorithm], "batch_size=2", "tasks_per_pass=1", f"backbone.block={block}")
    found, (meter, counters) = predict(of), metered(of)
    assert found.tensors == meter.requested_above_baseline > 2**20
    absolute = found.allocated() - found.matmul_threads * CUBLAS_WORKSPACE
    assert absolute == meter.peak - counters * ALLOCATOR_BLOCK  # Adam's counters are on the CPU for a GPU's weights too
    persistent = found.parameters + found.buffers + found.optimizer_state + found.images + found.warm_starts
    assert persistent == meter.requested_baseline - counters * 4


@pytest.mark.parametrize(
    "overrides",
    [
        [*WARM, "optimizer=sgd", "optimizer.momentum=0.9"],
        ["backbone.norm=running", "queries=4"],
        ["backbone.norm=none", "tasks_per_pass=2", "dataset.channels=1", "dataset.image_size=28"],
        pytest.param(["algorithm=maml", "algorithm.inner_steps=2", "backbone.norm=none"], marks=pytest.mark.slow),
        pytest.param(["dataset.image_size=84"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_the_same_bytes_in_other_settings(gpu_layout, overrides: list[str]) -> None:
    of = config("batch_size=2", "tasks_per_pass=1", *overrides)
    assert predict(of).tensors == metered(of)[0].requested_above_baseline


@pytest.mark.slow
def test_where_the_layout_of_the_cpu_differs() -> None:
    """Features of channels-last activations are a copy of the last block's output, 25 x 8 x 2 x 2 floats, where those
    of contiguous ones are a view; second-order MAML has one alive for each of K = 2 support passes at its peak."""
    of = config(*ALGORITHMS["maml"], "batch_size=2", "tasks_per_pass=1")
    assert metered(of)[0].requested_above_baseline - predict(of).tensors == 2 * (25 * 8 * 2 * 2 * 4)


ONE_STEP = "algorithm.inner_steps=1"
SHORT = [
    [], ["memory.mode=half_task"], ["algorithm=anil"], ["algorithm=anil", "algorithm.features=recompute", ONE_STEP],
    ["algorithm=maml", ONE_STEP], ["algorithm=maml", ONE_STEP, "memory.checkpoint=inner_step"], ["algorithm=fomaml"],
    ["algorithm=imaml", ONE_STEP, "algorithm.linear_steps=1"], ["tasks_per_pass=2", "batch_size=11"],
]  # fmt: skip


DEAR_SETTINGS = (
    "algorithm=imaml", "algorithm=maml", "algorithm=fomaml", "memory.checkpoint=inner_step", "batch_size=11",
    "memory.mode=half_task", "algorithm.features=recompute", "algorithm=anil",
)  # fmt: skip


def quick(overrides: list[list[str]]) -> list:
    """Those that take the most time are slow checks."""
    dear = [any(o in DEAR_SETTINGS for o in some) for some in overrides]
    marks = [[pytest.mark.slow] if slow else [] for slow in dear]
    return [pytest.param(o, marks=m, id=" ".join(o)) for o, m in zip(overrides, marks, strict=True)]


@pytest.mark.parametrize("overrides", quick(SHORT))
def test_chunks_left_out_change_nothing(monkeypatch, overrides: list[str]) -> None:
    of = config("batch_size=5", "tasks_per_pass=1", *overrides)
    short = predict(of)
    monkeypatch.setattr(memmeta_exp.memory.predict, "CHUNKS", 100)
    assert predict(of) == short


@pytest.mark.parametrize("overrides", quick([[], ["algorithm=fomaml"], ["algorithm=imaml"]]))
def test_steps_left_out_change_nothing(monkeypatch, overrides: list[str]) -> None:
    of = config("batch_size=1", *overrides)
    short = predict(of)
    monkeypatch.setattr(memmeta_exp.memory.predict, "STEPS", 5)
    monkeypatch.setattr("memmeta_exp.bilevel.vectors.ROUNDS_ON_META", 5)
    assert predict(of) == short


@pytest.mark.parametrize("dataset", ["miniimagenet", pytest.param("cifar_fs", marks=pytest.mark.slow)])
def test_without_data_in_seconds(monkeypatch, dataset: str) -> None:
    monkeypatch.delenv("MEMMETA_DATA", raising=False)
    of = jobs([f"dataset={dataset}", "batch_size=32"], False)[0]
    started = time.perf_counter()
    found = predict(of)
    assert time.perf_counter() - started < 60
    size = of.dataset.facts().image_size
    assert found.images == 64 * 600 * 3 * size**2
    tasks = resolve_execution(of, torch.device("cuda")).tasks_per_pass
    activations = 2 * tasks * 25 * 64 * size**2 * 4  # of one convolution, of support and query
    assert found.tensors > 2 * activations


def test_on_a_gpu_tasks_per_pass_is_bounded_by_pixels() -> None:
    """Small images: the whole batch. 5-way tasks of 50 images of 84x84: 2 of them. Larger ones: one at a time."""
    for size, tasks in ((28, 8), (84, 2), (224, 1)):
        one = config("batch_size=8", "ways=5", f"dataset.image_size={size}", "shots=5", "queries=5")
        assert resolve_execution(one, torch.device("cuda")).tasks_per_pass == tasks
        assert resolve_execution(one, torch.device("cpu")).tasks_per_pass == 1


@pytest.mark.slow
def test_chunk_auto_is_that_of_a_gpu() -> None:
    auto = predict(config("batch_size=4"))
    assert auto == predict(config("batch_size=4", "tasks_per_pass=4"))
    assert auto.tensors > 3 * predict(config("batch_size=4", "tasks_per_pass=1")).tensors
    assert build_on_meta(config("batch_size=4", "device=cpu")).learner.execution.tasks_per_pass == 4


def test_what_libraries_and_the_allocator_add() -> None:
    proposed, anil = predict(config("batch_size=2")), predict(config("batch_size=2", "algorithm=anil"))
    assert (proposed.matmul_threads, anil.matmul_threads) == (1, 2)  # anil's steps go back through autograd
    assert proposed.allocated(hopper=True) - proposed.allocated() == 2**25 - 8_519_680
    assert 0 < proposed.unsplit_at_most < 64 * 2**20
    assert 0 <= proposed.rounding < 1000 * ALLOCATOR_BLOCK
    assert 0 <= proposed.convolution_headroom < proposed.tensors


def test_what_meta_tensors_do_not_show_is_refused() -> None:
    with pytest.raises(ConfigError, match="autocast"):
        predict(config("precision=bf16"))
    with pytest.raises(ConfigError, match="workers=2"):
        predict(config("workers=2"))


@pytest.mark.slow
def test_compiled_code_is_refused(monkeypatch) -> None:
    """Its import of torch's compiler takes seconds."""

    def compiled(*arguments: object) -> nn.Module:
        return torch.compile(nn.Linear(2, 2))  # pyright: ignore[reportReturnType]

    original = build_on_meta(config())
    monkeypatch.setattr(memmeta_exp.memory.predict, "build_on_meta", lambda _: replace(original, model=compiled()))
    with pytest.raises(ConfigError, match="compiled code cannot be predicted"):
        predict(config())


@pytest.mark.parametrize("algorithm", ["certified", pytest.param("maml", marks=pytest.mark.slow)])
def test_what_was_once_computed_is_what_meta_kernels_say(monkeypatch, algorithm: str) -> None:
    of = config(*ALGORITHMS[algorithm], "batch_size=2", "tasks_per_pass=1")
    remembered = predict(of)
    monkeypatch.setattr(memmeta_exp.memory.predict, "MetaKernelCache", nullcontext)
    assert predict(of) == remembered


def test_a_memo_tells_arguments_apart() -> None:
    x = torch.ones(4, 3, dtype=torch.int32, device="meta")
    with MetaKernelCache() as memo:
        for _ in range(2):
            assert ((x * 2).dtype, (x * 2.0).dtype) == (torch.int32, torch.float32), "2 == 2.0, and promotes otherwise"
            assert (x.T + 1).stride() == (1, 3)
            assert (x + x.T.reshape(4, 3)).stride() == (3, 1)
            values, indices = x.max(dim=1)
            assert (values.dtype, indices.dtype) == (torch.int32, torch.int64)
            assert x.add_(1) is x
            assert x.view(12).untyped_storage()._cdata == x.untyped_storage()._cdata
            assert (x + 1).untyped_storage()._cdata != (x + 1).untyped_storage()._cdata
            wide = torch.empty(4, 3, device="meta")
            assert (wide * torch.tensor(2.0, dtype=torch.float64)).dtype is torch.float32
    names = {func.__name__ for func, *_ in memo._known}
    assert {"mul.Tensor", "max.dim", "add.Tensor"} <= names
    assert not names & {"add_.Tensor", "view.default", "_unsafe_view.default"}
