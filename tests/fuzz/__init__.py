"""Crafted files in the place of every file that a command reads, by the thousand: `python -m tests.fuzz [GROUP ...]`.

values: what is put there; runs, checkpoints, sweeps, imports, folders: where it is put and which command then reads it;
harness: how each case runs in a forked process and what of it is a fault.
"""
