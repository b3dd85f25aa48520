"""References by central differences of the loss that `evaluate` reports (of the training loss, for baseline)."""

from dataclasses import replace
from typing import Any

import pytest
from torch.nn import functional as F

from memmeta_exp.algorithms.baseline import BaselineConfig
from memmeta_exp.config import MemoryConfig
from tests.algorithms.gradients.cases import (
    ANIL,
    BASELINE,
    COSINE,
    COSINES,
    EXACT,
    FOMAML,
    ITD_BIO,
    LINEAR,
    MAML,
    NO_HESSIAN,
    RIDGE,
    SOLVED,
    Compared,
    case,
)
from tests.algorithms.problems import (
    RECOMPUTE,
    differences,
    image_tasks,
    sine_learner,
    sine_tasks,
    smooth_learner,
)


@case("proposed", "differences", fixed=(EXACT, LINEAR), learned=(replace(EXACT, head_start="learned"), LINEAR))
@case("proposed", "differences", prototype=(replace(EXACT, head_start="prototype"), LINEAR))
@case("proposed", "differences", ridge=(EXACT, RIDGE), ridge_learned=(replace(EXACT, head_start="learned"), RIDGE))
@case("proposed", "differences", ridge_prototype=(replace(EXACT, head_start="prototype"), RIDGE))
@case("proposed", "differences", cosine_prototype_slow=(replace(NO_HESSIAN, head_start="prototype"), COSINE))
@case("anil", "differences", plain=(ANIL, LINEAR), prototype=(replace(ANIL, head_start="prototype"), LINEAR))
@case("anil", "differences", R=(replace(ANIL, mu=0.2), LINEAR), ridge=(ANIL, RIDGE), cosine=(ANIL, COSINE))
@case("anil", "differences", cosine_prototype=(replace(ANIL, head_start="prototype"), COSINE))
@case("itd_bio", "differences", plain=(ITD_BIO, LINEAR))
@case("maml", "differences", plain=(MAML, LINEAR), adjoint=(MAML, LINEAR, RECOMPUTE))
@case("maml", "differences", R_adjoint=(replace(MAML, mu=0.1), LINEAR, RECOMPUTE))
@case("maml", "differences", fixed=(replace(MAML, head_start="fixed"), LINEAR))
@case("maml", "differences", ridge=(MAML, RIDGE), cosine=(replace(MAML, inner_lr=0.2), COSINE))
@case("imaml", "differences", fixed_slow=(replace(SOLVED, inner_steps=60, head_start="fixed"), LINEAR))
def images(config: Any, head: Any, memory: MemoryConfig | None = None) -> Compared:
    learner, batch = smooth_learner(config, memory=memory, head=head), image_tasks(2)
    assert not learner.step(batch).inexact.any()
    return *differences(learner, batch), 1e-6


@case("proposed", "differences", regression=replace(EXACT, head_start="learned"))
@case("anil", "differences", regression=replace(ANIL, inner_lr=0.1, features="recompute"))
@case("maml", "differences", regression=replace(MAML, inner_lr=0.05))
@case("fomaml", "differences", no_step=replace(FOMAML, inner_steps=0))
@case("imaml", "differences", regression=SOLVED)
def waves(config: Any) -> Compared:
    """Tasks that are taken together, where every weight adapts. FOMAML's is no gradient but where it takes no step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "relu", F.softplus)  # without kinks
        learner, tasks = sine_learner(config), sine_tasks()
        report = learner.step(tasks)
        assert report.accuracy is None
        assert not report.inexact.any()
        return *differences(learner, tasks), 1e-6


@case("baseline", "differences", linear=BASELINE, cosine=COSINES)
def training_loss(config: BaselineConfig) -> Compared:
    learner = smooth_learner(config)
    return *differences(learner, image_tasks(), lambda learner, tasks: learner.step(tasks).loss.mean()), 1e-6
