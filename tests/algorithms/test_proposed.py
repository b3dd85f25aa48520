"""The proposed algorithm: its gradient against independent judges, chunking, and that every option does something."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memmeta_exp.algorithms import Execution, FeatureSpaceLearner, Proposed
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.proposed import (
    ProposedConfig,
    exact_adaptation,
    exact_reference,
    gradient_descent_adaptation,
)
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.backbones import MetaModel, build_model
from memmeta_exp.backbones.conv4 import Conv4, Conv4Config
from memmeta_exp.bilevel import cg, implicit
from memmeta_exp.config import MemoryConfig
from memmeta_exp.config.datasets import SyntheticConfig
from memmeta_exp.data import EpisodeSampler, TaskBatch, load_split
from memmeta_exp.profiling.peak_memory import PeakMeter
from tests.algorithms.conftest import (
    TASKS,
    WAYS,
    assert_central_differences,
    gradient,
    smooth_learner,
)

EXACT = ProposedConfig(mu=0.05, inner_tolerance=1e-12, inner_steps=60, linear_tolerance=1e-10)


def conv_learner(config: ProposedConfig, chunk: int = 1, size: int = 16) -> FeatureSpaceLearner:
    model = build_model(Conv4Config(filters=8), 3, size, WAYS, config.head_start == "learned", seed=0)
    return FeatureSpaceLearner(model, Proposed(config), Execution(chunk))


@pytest.mark.parametrize("head_start", ["fixed", "learned"])
def test_central_differences_of_F(batch: TaskBatch, head_start: str) -> None:
    """dF/dtheta and, where it is learned, dF/dphi_0, against F itself with the lower level solved to 1e-12."""
    learner = smooth_learner(dataclasses.replace(EXACT, head_start=head_start))
    assert len(list(learner.model.parameters())) == (2 if head_start == "learned" else 1)
    assert_central_differences(learner, batch)


@pytest.mark.parametrize("head_start", ["fixed", "learned"])
def test_feature_space_equals_the_general_autograd_path(batch: TaskBatch, head_start: str) -> None:
    """Closed forms in feature space against `implicit` with u = (theta, phi_0), to 1e-10."""
    learner = smooth_learner(dataclasses.replace(EXACT, head_start=head_start))
    model, (x_s, y_s), (x_q, y_q) = learner.model, batch.support(), batch.query()
    theta = next(model.backbone.parameters())

    def logits(images: Tensor, u, phi):
        z = torch.tanh((images.double().div(255).flatten(2) - 0.5) @ u[0])
        return torch.einsum("tnd,tcd->tnc", z, phi[0][..., :-1]) + phi[0][:, None, :, -1]

    def f(u, phi):
        return F.cross_entropy(logits(x_q, u, phi).flatten(0, 1), y_q.flatten()) * TASKS

    def g(u, phi):
        ce = F.cross_entropy(logits(x_s, u, phi).flatten(0, 1), y_s.flatten()) * TASKS
        centre = u[1] if head_start == "learned" else 0.0
        return ce + EXACT.mu / 2 * (phi[0] - centre).square().sum()

    start = model.head_start.detach()
    with torch.no_grad():
        z_s = model.backbone(x_s.double().div(255))
    phi = learner.algorithm.adapt(learner.algorithm.lower(z_s, y_s, start), start.expand(TASKS, -1, -1)).value
    general = implicit(f, g, (theta, start), phi, lambda a, b: cg(a, b, steps=500, tolerance=1e-13))
    reference = torch.cat([t.flatten() / TASKS for t in general.grad[: 2 if head_start == "learned" else 1]])
    found = torch.cat([t.flatten() for t in (learner_grads(learner, batch, model))])
    assert reference.abs().max() > 1e-3
    assert (found - reference).abs().max() < 1e-10 * reference.abs().max()


def learner_grads(learner: FeatureSpaceLearner, batch: TaskBatch, model: MetaModel) -> list[Tensor]:
    gradient(learner, batch)
    parts = [next(model.backbone.parameters()).grad]
    if isinstance(model.head_start, nn.Parameter):
        parts.append(model.head_start.grad)
    return [p for p in parts if p is not None]


@pytest.mark.parametrize(
    "options",
    [
        {"inner_solver": "gd", "inner_steps": 3000, "inner_tolerance": 1e-9},
        {"linear_solver": "cg", "linear_steps": 200},
    ],
)
def test_solvers_agree_at_convergence(batch: TaskBatch, options: dict) -> None:
    exact = gradient(smooth_learner(EXACT), batch)
    other = gradient(smooth_learner(dataclasses.replace(EXACT, **options)), batch)
    assert exact.norm() > 1e-3
    assert (exact - other).norm() < 1e-7 * exact.norm()


def test_unrolled_gradient_descent_tends_to_it(batch: TaskBatch) -> None:
    """ITD (differentiate through K head steps) -> the implicit gradient, at the contraction rate of gd."""
    learner = smooth_learner(EXACT)
    exact = gradient(learner, batch)
    (x_s, y_s), (x_q, y_q) = batch.support(), batch.query()
    rule, start = learner.algorithm, learner.model.head_start

    def unrolled(steps: int) -> Tensor:
        theta = next(learner.model.backbone.parameters())
        z_s, z_q = (learner.model.backbone(x.double().div(255)) for x in (x_s, x_q))
        g, phi = rule.lower(z_s, y_s, start), start.expand(TASKS, -1, -1)
        step = (1 / rule.lower(z_s.detach(), y_s, start).smoothness())[:, None, None]
        for _ in range(steps):
            phi = phi - step * g.grad((phi,))[0]
        logits = torch.einsum("tnd,tcd->tnc", z_q, phi[..., :-1]) + phi[:, None, :, -1]
        loss = F.cross_entropy(logits.flatten(0, 1), y_q.flatten())
        return torch.autograd.grad(loss, theta)[0].flatten()

    errors = [float((unrolled(k) - exact).norm() / exact.norm()) for k in (1, 20, 600)]
    assert errors[0] > 0.05
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6


@pytest.mark.parametrize("options", [{}, {"inner_solver": "gd", "linear_solver": "cg", "head_start": "learned"}])
def test_chunks_do_not_change_the_result(batch: TaskBatch, options: dict) -> None:
    config = dataclasses.replace(EXACT, **options)
    whole, *others = [gradient(smooth_learner(config, chunk), batch) for chunk in (TASKS, 1, 2, 3)]
    assert whole.norm() > 1e-3
    for other in others:
        assert (whole - other).abs().max() < 1e-12 * whole.abs().max()


def test_chunks_normalise_each_task_by_itself(batch: TaskBatch) -> None:
    """Batch norm in one pass of five tasks (grouped channels) and task by task (plain), in float64."""
    config = dataclasses.replace(EXACT, inner_tolerance=1e-10)
    results = []
    for chunk in (1, TASKS):
        learner = conv_learner(config, chunk)
        learner.model.double()
        learner.head_dtype = torch.float64
        results.append(gradient(learner, batch))
    assert results[0].norm() > 1e-3
    assert (results[0] - results[1]).norm() < 1e-9 * results[0].norm()


class Memory:
    """Peak bytes of a meta-step above what persists, without rounding. The step before it has made .grad."""

    def __init__(self, filters: int = 16) -> None:
        self.filters = filters
        self.images = load_split(SyntheticConfig(classes=6, images_per_class=10, image_size=32), "train")

    def peak(self, config: ProposedConfig, tasks: int = 1, chunk: int = 1, half_task: bool = False) -> int:
        model = build_model(Conv4Config(filters=self.filters), 3, 32, 5, learned=False, seed=0)
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        learner = FeatureSpaceLearner(model, Proposed(config), Execution(chunk), half_task=half_task)
        batch = EpisodeSampler(self.images, "train", 0, 5, 5, 5).draw(0, tasks)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        with PeakMeter(model, self.images.images, batch.classes, batch.items, block=1) as meter:
            learner.step(batch)
        return meter.requested_above_baseline

    def supervised_peak(self) -> int:
        """Of forward, cross-entropy and backward on one task's 50 images, with the same network."""
        model = build_model(Conv4Config(filters=self.filters), 3, 32, 5, learned=True, seed=0)
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        images = torch.rand(1, 50, 3, 32, 32).flatten(0, 1).contiguous(memory_format=torch.channels_last)[None]
        labels = torch.arange(50).remainder(5)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        with PeakMeter(model, images, labels, block=1) as meter:
            F.cross_entropy(model(images)[0], labels).backward()
        return meter.requested_above_baseline


STEPS = ProposedConfig(inner_solver="gd", inner_tolerance=None, linear_solver="cg", linear_tolerance=None)


@pytest.mark.parametrize(
    ("config", "half_task", "tasks"),
    [
        (ProposedConfig(), False, 32),
        pytest.param(ProposedConfig(), False, 128, marks=pytest.mark.slow),
        pytest.param(STEPS, True, 128, marks=pytest.mark.slow),
    ],
)
def test_peak_memory_is_flat_in_the_batch_and_set_by_the_chunk(
    config: ProposedConfig, half_task: bool, tasks: int
) -> None:
    memory = Memory(filters=6)
    one, many = memory.peak(config, 1, half_task=half_task), memory.peak(config, tasks, half_task=half_task)
    assert one <= many <= 1.01 * one
    assert memory.peak(config, 4, chunk=4, half_task=half_task) > 3 * one


def test_peak_memory_is_flat_in_inner_steps() -> None:
    memory = Memory()
    peaks = [memory.peak(dataclasses.replace(STEPS, inner_steps=k, linear_steps=k), tasks=2) for k in (1, 5, 20, 200)]
    assert max(peaks) <= 1.01 * min(peaks)


def test_peak_memory_against_a_supervised_step_on_one_task(monkeypatch) -> None:
    """At the paper's width: at most 1.05 of it in one pass of both halves, as on a GPU, 0.85 in a pass each, and
    half a task at a time at most 0.55."""
    memory = Memory(filters=64)
    floor = memory.supervised_peak()
    assert 0.7 * floor < memory.peak(ProposedConfig(), 2) <= 0.85 * floor
    with monkeypatch.context() as patch:
        patch.setattr(Conv4, "prefers_joint_forward", Conv4.fuses)
        assert 0.9 * floor < memory.peak(ProposedConfig(), 2) <= 1.05 * floor
    assert 0.4 * floor < memory.peak(ProposedConfig(), 2, half_task=True) <= 0.55 * floor


@pytest.mark.parametrize("options", [{}, {"head_start": "learned"}, {"inner_solver": "gd", "inner_tolerance": None}])
@pytest.mark.parametrize("chunk", [1, 2])
def test_half_a_task_at_a_time_is_the_same_gradient(batch: TaskBatch, options: dict, chunk: int) -> None:
    """Also where the halves differ in size."""
    config = dataclasses.replace(EXACT, **options)
    whole = gradient(smooth_learner(config), batch)
    halves = gradient(smooth_learner(config, chunk, MemoryConfig(mode="half_task")), batch)
    assert whole.norm() > 1e-3
    assert (whole - halves).abs().max() < 1e-12 * whole.abs().max()


ALTERNATIVES = {
    "mu": 0.5,
    "inner_solver": "gd",
    "inner_steps": 1,
    "inner_lr": 0.01,
    "inner_tolerance": 1.0,
    "inner_warm_start": True,
    "linear_solver": "cg",
    "linear_steps": 1,
    "linear_tolerance": 0.5,
    "linear_warm_start": True,
    "head_start": "learned",
}


@pytest.mark.parametrize("key", [f.name for f in dataclasses.fields(ProposedConfig) if f.name != "name"])
def test_every_option_changes_the_gradient(batch: TaskBatch, key: str) -> None:
    base = dataclasses.replace(EXACT, inner_steps=3, linear_steps=3)
    if key in ("inner_lr", "inner_warm_start"):
        base = dataclasses.replace(base, inner_solver="gd")
    if key.startswith("linear"):
        base = dataclasses.replace(base, linear_solver="cg" if key != "linear_solver" else "direct", linear_steps=2)
    if key == "inner_tolerance":
        base = dataclasses.replace(base, inner_steps=20)
    if key == "linear_tolerance":
        base = dataclasses.replace(base, linear_steps=50)

    def second_gradient(config: ProposedConfig) -> Tensor:
        """Of the backbone alone: phi_0's is there or not by construction."""
        learner = smooth_learner(config)
        for _ in range(2):
            gradient(learner, batch)
        return torch.cat([p.grad.flatten() for p in learner.model.backbone.parameters() if p.grad is not None])

    plain, changed = second_gradient(base), second_gradient(dataclasses.replace(base, **{key: ALTERNATIVES[key]}))
    assert plain.shape == changed.shape
    assert (plain - changed).abs().max() > 1e-6 * plain.abs().max()


@pytest.mark.parametrize("chunk", [1, 2, TASKS])
def test_warm_starts_go_to_their_own_slots(batch: TaskBatch, chunk: int) -> None:
    """Two steps of one gradient step each from the slot's last phi are two gradient steps; the same for v and CG."""
    short = dataclasses.replace(EXACT, inner_solver="gd", inner_steps=1, inner_lr=0.1, inner_warm_start=True)
    learner = smooth_learner(short, chunk)
    learner.step(batch)
    learner.step(batch)
    (x_s, y_s), start = batch.support(), learner.model.head_start
    with torch.no_grad():
        lower = learner.algorithm.lower(learner.model.backbone(x_s.double().div(255)), y_s, start)
    phi = (start.expand(TASKS, -1, -1),)
    for _ in range(2):
        phi = (phi[0] - 0.1 * lower.grad(phi)[0],)
    assert set(learner.warm) == {"phi"}
    assert torch.allclose(learner.warm["phi"], phi[0], atol=1e-13)
    few = dataclasses.replace(EXACT, linear_solver="cg", linear_steps=3, linear_tolerance=None, linear_warm_start=True)
    learner = smooth_learner(few, chunk)
    residuals = [learner.step(batch).linear_residual for _ in range(12)]
    assert residuals[0] is not None
    assert residuals[-1] is not None
    assert (residuals[-1] < 0.2 * residuals[0]).all(), "every slot's system is the same each time: its v gets better"


def test_a_missed_solve_is_reported(batch: TaskBatch) -> None:
    good = smooth_learner(EXACT).step(batch)
    assert not good.inexact.any()
    assert good.linear_residual is not None
    assert good.linear_residual.max() < 1e-10
    short = smooth_learner(dataclasses.replace(EXACT, inner_steps=1)).step(batch)
    assert short.inexact.all()
    unsolved = dataclasses.replace(EXACT, inner_solver="gd", inner_steps=2, inner_tolerance=None)
    assert smooth_learner(unsolved).step(batch).inexact.all(), (
        "no tolerance asked for, but the lower level is not solved"
    )
    enough = dataclasses.replace(unsolved, inner_steps=2000)
    assert not smooth_learner(enough).step(batch).inexact.any()
    unmoved = dataclasses.replace(unsolved, head_start="prototype", inner_lr=1e-9)
    assert smooth_learner(unmoved).step(batch).inexact.all(), "what phi_0 brings with it nobody has solved for"
    prototypes = dataclasses.replace(EXACT, head_start="prototype")
    assert not smooth_learner(prototypes).step(batch).inexact.any()
    released = ProposedConfig(
        mu=0.0, inner_solver="gd", inner_lr=0.1, inner_tolerance=None,
        linear_solver="cg", linear_steps=20, linear_tolerance=None,
    )  # fmt: skip
    assert conv_learner(released).step(batch).inexact.all(), "without R there is no lower solution: trap 1"


def test_the_reference_is_exact_and_does_not_depend_on_how_training_solves(batch: TaskBatch) -> None:
    learner = smooth_learner(dataclasses.replace(EXACT, inner_solver="gd", inner_steps=2))
    reference = exact_reference(learner.model, EXACT.mu, "fixed", execution=Execution(2))
    exact = gradient(smooth_learner(EXACT), batch)
    assert (gradient(reference, batch) - exact).norm() < 1e-8 * exact.norm()
    assert (gradient(learner, batch) - exact).norm() > 1e-3 * exact.norm()


@pytest.mark.parametrize("head_start", ["fixed", "learned"])
def test_the_reference_solves_in_float64_on_a_float32_model(batch: TaskBatch, head_start: str) -> None:
    learner = conv_learner(ProposedConfig(mu=0.05, head_start=head_start))
    report = exact_reference(learner.model, 0.05, head_start, Execution(2)).step(batch)
    assert report.inner_residual is not None
    assert report.inner_residual.dtype == torch.float64
    assert report.inner_residual.max() < 1e-9
    assert not report.inexact.any()
    gradients = {name: p.grad for name, p in learner.model.named_parameters()}
    assert ("head_start" in gradients) == (head_start == "learned")
    assert all(g is not None and g.dtype == torch.float32 and bool(g.isfinite().all()) for g in gradients.values())


def test_evaluation_adapts_by_the_rule_asked_for(batch: TaskBatch) -> None:
    learner = smooth_learner(EXACT)
    own, ruled = learner.evaluate(batch), learner.evaluate(batch, gradient_descent_adaptation(20, 0.05))
    assert own[0].shape == own[1].shape == (TASKS,)
    assert not torch.equal(own[1], ruled[1])
    (x_s, y_s), (x_q, y_q) = batch.support(), batch.query()
    with torch.no_grad():
        z_s, z_q = (learner.model.backbone(x.double().div(255))[0] for x in (x_s, x_q))
    head = nn.Linear(6, WAYS, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(learner.model.head_start[:, :-1])
        head.bias.copy_(learner.model.head_start[:, -1])
    optimizer = torch.optim.SGD(head.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(head(z_s), y_s[0]).backward()
        optimizer.step()
    assert F.cross_entropy(head(z_q), y_q[0]).item() == pytest.approx(float(ruled[1][0]), rel=1e-12)


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(EXACT, mu=3.0, head_start="learned"),
        dataclasses.replace(EXACT, head_start="prototype"),
        AnilConfig(),
        AnilConfig(name="maml", adapted_params="all", features="recompute"),
        ImamlConfig(),
    ],
    ids=["proposed", "prototype", "anil", "maml", "imaml"],
)
def test_the_exact_rule_judges_the_features_of_all_algorithms_alike(batch: TaskBatch, config) -> None:
    """The head that minimises the support loss + 0.2/2 |phi|^2, as torch's L-BFGS finds it, wherever phi_0 is."""
    learner = smooth_learner(config)
    accuracy, loss, converged = learner.evaluate(batch, exact_adaptation(0.2))
    assert converged.all()
    assert accuracy is not None
    for task in range(TASKS):
        (x_s, y_s), (x_q, y_q) = batch[task : task + 1].support(), batch[task : task + 1].query()
        with torch.no_grad():
            z_s, z_q = (F.pad(learner.model.backbone(x.double().div(255))[0], (0, 1), value=1) for x in (x_s, x_q))
        w = torch.zeros(WAYS, z_s.shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

        def closure(w=w, z=z_s, y=y_s, optimizer=optimizer) -> Tensor:
            optimizer.zero_grad()
            g = F.cross_entropy(z @ w.T, y[0]) + 0.1 * w.square().sum()
            g.backward()
            return g

        optimizer.step(closure)
        logits = (z_q @ w.T).detach()
        assert float(loss[task]) == pytest.approx(F.cross_entropy(logits, y_q[0]).item(), abs=2e-4)
        assert float(accuracy[task]) == (logits.argmax(1) == y_q[0]).double().mean().item()


def test_bf16_touches_the_backbone_alone(batch: TaskBatch) -> None:
    full, half = conv_learner(ProposedConfig()), conv_learner(ProposedConfig())
    half.execution = Execution(bf16=True)
    a, b = gradient(full, batch), gradient(half, batch)
    assert not torch.equal(a, b)
    assert torch.cosine_similarity(a, b, dim=0) > 0.95
    report = half.step(batch)
    assert report.loss.dtype == torch.float32
    assert report.linear_residual is not None
    assert report.linear_residual.max() < 1e-4, "the linear system is solved in float32"
