"""From configuration to algorithm."""

from dataclasses import replace
from typing import Any

import torch

from memmeta_exp.algorithms.baseline import BaselineLearner
from memmeta_exp.algorithms.feature_space import FeatureSpaceLearner
from memmeta_exp.algorithms.imaml import Imaml
from memmeta_exp.algorithms.learner import Execution, Learner
from memmeta_exp.algorithms.losses import SOFTMAX, Losses
from memmeta_exp.algorithms.maml import Maml
from memmeta_exp.algorithms.proposed import Proposed
from memmeta_exp.algorithms.unrolled import Unrolled
from memmeta_exp.algorithms.weight_space import WeightSpaceLearner
from memmeta_exp.backbones import MetaModel
from memmeta_exp.config import BaselineConfig, ImamlConfig, MemoryConfig, ProposedConfig


def build_algorithm(
    config: Any,
    model: MetaModel,
    execution: Execution | None = None,
    memory: MemoryConfig | None = None,
    losses: Losses = SOFTMAX,
) -> Learner:
    """The learner that an algorithm configuration describes, in the precision that `model` has, for tasks whose f and g
    are `losses`."""
    execution, memory = execution or Execution(), memory or MemoryConfig()
    half_task = memory.mode == "half_task"
    if isinstance(config, BaselineConfig):
        return BaselineLearner(model, config, execution, losses, half_task)
    if isinstance(config, ImamlConfig):
        return WeightSpaceLearner(model, Imaml(config), execution, losses)
    if not config.in_feature_space:
        return WeightSpaceLearner(model, Maml(config, recompute=memory.checkpoint == "inner_step"), execution, losses)
    algorithm = Proposed(config, losses) if isinstance(config, ProposedConfig) else Unrolled(config, losses)
    return FeatureSpaceLearner(model, algorithm, execution, half_task=half_task)


def exact_reference(
    model: MetaModel,
    mu: float,
    head_start: str,
    execution: Execution,
    tolerance: float = 1e-9,
    losses: Losses = SOFTMAX,
) -> FeatureSpaceLearner:
    """grad F with the lower level and the linear system solved in float64, whatever algorithm trains theta and however
    accurately: what convergence/grad_norm_sq is measured by. The backbone runs in its own precision, never autocast,
    and half a task at a time, so that measuring needs no more memory than training. tolerance: on |d_phi g|."""
    config = ProposedConfig(
        mu=mu, inner_steps=50, inner_tolerance=tolerance, linear_tolerance=1e-8, head_start=head_start
    )
    algorithm = Proposed(config, losses)
    return FeatureSpaceLearner(model, algorithm, replace(execution, bf16=False), torch.float64, half_task=True)
