"""What a meta-step must be to be recorded as a CUDA graph."""

from typing import Any

from memmeta_exp.errors import ConfigError


def check_cuda_graph(config: Any) -> None:
    """ConfigError where cuda_graph=true cannot be."""
    if not config.cuda_graph:
        return
    if config.device == "cpu":
        raise ConfigError("cuda_graph=true with device=cpu: it is for a GPU; leave cuda_graph=false")
    if config.known or config.regression:
        raise ConfigError(f"cuda_graph=true is for tasks of images: leave it out with dataset={config.dataset.name}")
    if getattr(config.algorithm, "inner_solver", "gd") == "newton":
        raise ConfigError(
            "cuda_graph=true with algorithm.inner_solver=newton, which takes as many steps as it needs, where a "
            "recording takes all of them every time; set algorithm.inner_solver=gd, or leave cuda_graph=false"
        )
    if config.workers not in ("auto", 1):
        raise ConfigError(f"cuda_graph=true with workers={config.workers}: one thread records; leave workers=auto")
    if config.memory.checkpoint == "block":
        raise ConfigError("cuda_graph=true with memory.checkpoint=block cannot be recorded; leave one of them out")
    if getattr(config.backbone, "drop_rate", 0):
        raise ConfigError(
            f"cuda_graph=true with backbone.drop_rate={config.backbone.drop_rate}, whose masks a recording would "
            "repeat; leave one of them out"
        )
