"""The train steps that `benchmarks/peers.py` compares, in this package and in other libraries, one process each.

environments    one virtual environment per library, made on first use
processes       the driver's side of a worker: JSON-line requests and replies
worker          the worker's side
problem         tasks, weights, hyperparameters, and the network as a user of a library would write it
ours, using_*   the train step of every algorithm that a library offers
"""
