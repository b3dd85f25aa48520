"""The run: runner, trainer, state, checkpoints, resuming and worker ranks."""
