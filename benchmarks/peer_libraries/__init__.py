"""The work of `benchmarks/peers.py` in this package and in others, each in a process of its own.

environments    one virtual environment a library, made on first use
processes       the driver's end of a worker: requests and replies, a JSON line each
worker          the other end
problem         the tasks, the weights, the hyperparameters, and the network as a user of a library writes it
ours, using_*   the meta-step of every algorithm that a library offers
"""
