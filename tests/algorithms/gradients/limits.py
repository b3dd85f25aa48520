"""References where two algorithms, or two ways to compute one, have to agree."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memmeta_exp.algorithms import Execution, build_algorithm, exact_reference
from memmeta_exp.algorithms.baseline import BaselineConfig
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.maml import FomamlConfig, MamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig, ItdBioConfig
from memmeta_exp.backbones import MetaModel, build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.bilevel import cg, implicit
from memmeta_exp.config import MemoryConfig
from memmeta_exp.data import EpisodeSampler, ImageSet
from tests.algorithms.gradients.cases import (
    ANIL,
    BASELINE,
    COSINE,
    EXACT,
    FOMAML,
    ITD_BIO,
    LINEAR,
    MAML,
    RIDGE,
    Compared,
    case,
)
from tests.algorithms.problems import (
    CLASSES,
    RECOMPUTE,
    TASKS,
    WAYS,
    Smooth,
    gradient,
    image_tasks,
    smooth_learner,
)


@case("proposed", "limit", gd=replace(EXACT, inner_solver="gd", inner_steps=3000, inner_tolerance=1e-9))
@case("proposed", "limit", cg=replace(EXACT, linear_solver="cg", linear_steps=200))
def other_solvers(config: ProposedConfig) -> Compared:
    batch = image_tasks()
    return gradient(smooth_learner(config), batch), gradient(smooth_learner(EXACT), batch), 1e-7


@case("proposed", "limit", fixed=EXACT, learned=replace(EXACT, head_start="learned"))
def general_path(config: ProposedConfig) -> Compared:
    """Closed forms in feature space against `implicit` with u = (theta, phi_0) and autograd's products."""
    learner, batch, learned = smooth_learner(config), image_tasks(), config.head_start == "learned"
    model, (x_s, y_s), (x_q, y_q) = learner.model, batch.support(), batch.query()
    theta, start = next(model.backbone.parameters()), model.head_start.detach()

    def loss(theta: Tensor, w: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        z = torch.tanh((images.double().div(255).flatten(2) - 0.5) @ theta)
        logits = torch.einsum("tnd,tcd->tnc", z, w[..., :-1]) + w[:, None, :, -1]
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten()) * TASKS

    def g(u: Any, phi: Any) -> Tensor:
        offset = phi[0] - (u[1] if learned else 0.0)
        return loss(u[0], phi[0], x_s, y_s) + config.mu / 2 * offset.square().sum()

    with torch.no_grad():
        z_s = model.backbone(x_s.double().div(255))
    phi = learner.algorithm.adapt(learner.algorithm.lower(z_s, y_s, start), start.expand(TASKS, -1, -1)).value
    exact = partial(cg, steps=500, tolerance=1e-13)
    general = implicit(lambda u, phi: loss(u[0], phi[0], x_q, y_q), g, (theta, start), phi, exact)
    by_theta, by_start = (t.flatten() / TASKS for t in general.grad)
    return gradient(learner, batch), torch.cat([by_start, by_theta] if learned else [by_theta]), 1e-10


@case("proposed", "limit", linear=(LINEAR, "fixed"), ridge=(RIDGE, "fixed"), ridge_prototype=(RIDGE, "prototype"))
def exact_gradient(head: Any, start: str) -> Compared:
    """Of `exact_reference`, however the algorithm itself solves."""
    batch, config = image_tasks(), replace(EXACT, head_start=start)
    rough = smooth_learner(replace(config, inner_solver="gd", inner_steps=2), head=head)
    expected = gradient(smooth_learner(config, head=head), batch)
    assert (gradient(rough, batch) - expected).norm() > 1e-3 * expected.norm()
    reference = exact_reference(rough.model, EXACT.mu, start, Execution(2), losses=head.losses())
    return gradient(reference, batch), expected, 1e-8


@case("itd_bio", "limit", proposed=replace(ITD_BIO, inner_steps=400))
def many_steps_are_proposed(config: ItdBioConfig) -> Compared:
    """Its bias falls with K."""
    batch, exact = image_tasks(), ProposedConfig(mu=config.mu, inner_tolerance=1e-12)
    few, more, many = (
        gradient(smooth_learner(replace(config, inner_steps=steps)), batch) for steps in (1, 20, config.inner_steps)
    )
    expected = gradient(smooth_learner(exact), batch)
    assert 0.05 * expected.norm() < (few - expected).norm()
    assert (more - expected).norm() < 0.5 * (few - expected).norm()
    return many, expected, 1e-6


@case("anil", "limit", recomputed=(ANIL, LINEAR), adjoint=(ANIL, LINEAR, RECOMPUTE))
@case("anil", "limit", first_order=(replace(ANIL, first_order=True), LINEAR))
@case("anil", "limit", ridge=(ANIL, RIDGE), cosine=(ANIL, COSINE))
@case("itd_bio", "limit", recomputed=(ITD_BIO, LINEAR), adjoint=(ITD_BIO, LINEAR, RECOMPUTE))
def features_once_or_recomputed(config: AnilConfig, head: Any, memory: MemoryConfig | None = None) -> Compared:
    batch, once = image_tasks(), smooth_learner(config, head=head)
    again = smooth_learner(replace(config, features="recompute"), memory=memory, head=head)
    for x, y in zip(once.evaluate(batch), again.evaluate(batch), strict=True):
        assert torch.allclose(x.double(), y.double(), atol=1e-12)
    return gradient(again, batch), gradient(once, batch), 1e-12


@case("anil", "limit", maml=ANIL)
def maml_of_the_head_alone(config: AnilConfig) -> Compared:
    batch = image_tasks()
    maml = MamlConfig(adapted_params="head", inner_steps=config.inner_steps, inner_lr=config.inner_lr)
    return gradient(smooth_learner(config), batch), gradient(smooth_learner(maml), batch), 1e-12


@case("maml", "limit", fomaml=(MAML, FOMAML))
@case("fomaml", "limit", maml=(FOMAML, MAML))
def first_order_of_short_steps(config: MamlConfig, other: MamlConfig) -> Compared:
    """The two differ by the Hessian terms, which vanish with the step."""
    batch = image_tasks()
    long = [gradient(smooth_learner(c), batch) for c in (config, other)]
    assert (long[0] - long[1]).norm() > 1e-2 * long[0].norm()
    short = [gradient(smooth_learner(replace(c, inner_lr=1e-7)), batch) for c in (config, other)]
    return short[0], short[1], 1e-6


@case("maml", "limit", plain=MAML, R=replace(MAML, mu=0.1, head_start="fixed"))
def one_step_at_a_time(config: MamlConfig) -> Compared:
    """The adjoint recursion against autograd through all steps."""
    batch = image_tasks()
    return gradient(smooth_learner(config, memory=RECOMPUTE), batch), gradient(smooth_learner(config), batch), 1e-12


@case("maml", "limit", task="task", none="none", running="running")
def one_step_at_a_time_on_conv4(norm: str) -> Compared:
    """Second order through the convolutional network, in every mode of its batch norm."""
    config = Conv4Config(filters=6, norm=norm)
    kept, again = (_conv4(config, memory)[0] for memory in (None, RECOMPUTE))
    return again, kept, 1e-10


@case("maml", "limit", block="fused")
def hand_derived_derivatives(block: str) -> Compared:
    """Of the fused block against torch's own. The plain block has biases in front of its batch norms."""
    (_, fused), (_, plain) = (_conv4(Conv4Config(filters=6, block=name), None) for name in (block, "plain"))
    assert fused.keys() == {n for n in plain if not (n.startswith("backbone.convs") and n.endswith("bias"))}
    assert all(plain[name].norm() > 1e-4 for name in fused)
    return torch.cat([fused[n].flatten() for n in fused]), torch.cat([plain[n].flatten() for n in fused]), 1e-9


def _conv4(backbone: Conv4Config, memory: MemoryConfig | None) -> tuple[Tensor, dict[str, Tensor]]:
    model = build_model(backbone, 3, 16, WAYS, True, seed=0).double()
    found = gradient(build_algorithm(MAML, model, memory=memory), image_tasks(2))
    return found, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@case("imaml", "limit", fomaml=1e6)
def stiff_is_no_step(lam: float) -> Compared:
    """lam -> infinity holds phi to theta: dF -> d f(theta), which is FOMAML's with no step to speak of."""
    batch = image_tasks()
    expected = gradient(smooth_learner(FomamlConfig(inner_steps=1, inner_lr=1e-12)), batch)

    def found(lam: float) -> Tensor:
        return gradient(smooth_learner(ImamlConfig(lam=lam, inner_steps=50, inner_lr=0.5 / lam)), batch)

    errors = [(found(of) - expected).norm() / expected.norm() for of in (1.0, 1e2)]
    assert errors[0] > 0.03
    assert errors[1] < 0.2 * errors[0]
    return found(lam), expected, 1e-5


@case("baseline", "limit", fomaml=BASELINE)
def tasks_of_all_classes(config: BaselineConfig) -> Compared:
    """Tasks of all classes in their order, whose query images are those of the support set: FOMAML without a step has
    the same loss, its head for the classifier."""
    few = image_tasks()
    images = ImageSet(few.image_set.images[:WAYS].contiguous(), few.image_set.class_names[:WAYS])
    batch = EpisodeSampler(images, "train", 0, WAYS, 2, 2).draw(0, TASKS)
    classes = torch.arange(WAYS).expand(TASKS, WAYS)
    batch = replace(batch, classes=classes, items=batch.items[..., :2].repeat(1, 1, 2))
    baseline, generator = smooth_learner(config), torch.Generator().manual_seed(5)
    assert len(baseline.model.classifier) == CLASSES
    baseline.model.classifier = nn.Parameter(baseline.model.classifier.detach()[:WAYS])
    model = MetaModel(Smooth(generator), 6, WAYS, True, generator).double()
    model.head_start.data = baseline.model.classifier.detach().clone()
    fomaml = build_algorithm(FomamlConfig(inner_steps=0), model)
    return gradient(baseline, batch), gradient(fomaml, batch), 1e-12
