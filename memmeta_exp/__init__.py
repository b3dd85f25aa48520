"""memmeta: memory-reduced meta-learning (Yang, Ma, Yu, AAAI-25) as an experiment framework."""

__version__ = "0.1.0"
