"""From an algorithm's configuration to its learner."""

from memmeta_exp.algorithms.learner import Execution, Learner
from memmeta_exp.algorithms.losses import SOFTMAX, Losses
from memmeta_exp.backbones import MetaModel
from memmeta_exp.config import AlgorithmConfig, ConfigError, MemoryConfig


def build_algorithm(
    config: AlgorithmConfig,
    model: MetaModel,
    execution: Execution | None = None,
    memory: MemoryConfig | None = None,
    losses: Losses = SOFTMAX,
) -> Learner:
    """The learner of `config` on `model`, in the model's precision, for tasks whose f and g are `losses`.

    ConfigError where `config.build`, which may be a user's own, returns anything but a Learner.
    """
    learner = config.build(model, execution or Execution(), memory or MemoryConfig(), losses)
    if not isinstance(learner, Learner):
        raise ConfigError(
            f"algorithm={config.name}: {type(config).__name__}.build returns a {type(learner).__name__}: it "
            "must return a Learner of memmeta_exp.algorithms, such as WeightSpaceLearner or FeatureSpaceLearner"
        )
    return learner
