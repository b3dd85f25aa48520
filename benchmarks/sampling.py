"""What drawing and gathering the tasks of an iteration costs, as a share of the iteration: `make bench-sampling`.

Both are timed in one process, alternating: B tasks drawn and their images gathered, then the meta-step on them (Conv4,
the default certified lower level, Adam left out). The last line is JSON, medians of `--rounds` rounds after two of
warm-up. Goal: a share under 0.02.
"""

import argparse
import json
import statistics
import time

import torch

from memmeta_exp.algorithms import build_algorithm
from memmeta_exp.backbones import build_model
from memmeta_exp.config import Conv4Config, ProposedConfig, SyntheticConfig
from memmeta_exp.data import EpisodeSampler, load_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = load_split(SyntheticConfig(classes=64, images_per_class=600), "train")  # the shape of CIFAR-FS
    sampler = EpisodeSampler(images, "train", 0, 5, 5, 5)
    model = build_model(Conv4Config(), 3, 32, 5, learned=False, seed=0)
    learner = build_algorithm(ProposedConfig(), model)
    sampling, step = [], []
    for round_ in range(options.rounds + 2):
        begin = time.perf_counter()
        batch = sampler.draw(round_ * options.tasks, options.tasks)
        for task in range(options.tasks):  # as the learner gathers: a chunk at a time
            batch[task : task + 1].support()
            batch[task : task + 1].query()
        middle = time.perf_counter()
        learner.step(batch)  # gathers once more: the share errs on the high side by no more than itself
        sampling.append(middle - begin)
        step.append(time.perf_counter() - middle)
    a, b = statistics.median(sampling[2:]), statistics.median(step[2:])
    print(json.dumps({"sampling_share": a / b, "sampling_ms": 1e3 * a, "step_ms": 1e3 * b, "tasks": options.tasks}))


if __name__ == "__main__":
    main()
