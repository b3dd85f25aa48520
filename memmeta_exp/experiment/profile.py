"""The cost of an iteration on this machine: seconds and peak memory of its phases."""

import statistics
from dataclasses import dataclass
from typing import Any

from memmeta_exp.experiment.builder import Experiment
from memmeta_exp.experiment.optimizers import build_average, build_optimizer
from memmeta_exp.experiment.train_step import TrainStep
from memmeta_exp.profiling.peak_memory import MIB, Peak
from memmeta_exp.profiling.phase_profiler import PARTS, PhaseTimes, measure_phase_peaks
from memmeta_exp.profiling.step_timer import StepTimer

WARM_UP = 2  # iterations, after which the optimiser's state and the warm starts exist


@dataclass(frozen=True)
class Profile:
    """The result of `profile`.

    step_seconds: median over whole iterations. seconds: median of each part, over as many other iterations, with CUDA
    synchronised between parts. peak: peak memory of one more iteration. above_baseline: the most requested bytes above
    the baseline in each part. Parts are those of PARTS that the iteration has. workers: workers of the whole
    iterations; one worker runs those timed by part and the metered one.
    """

    device: str
    workers: int
    tasks: int
    step_seconds: float
    peak: Peak
    seconds: dict[str, float]
    above_baseline: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The content of profile.json, by the keys of docs/outputs.md where the number is the same."""
        whole = sum(self.seconds.values())
        return {
            "device": self.device,
            "workers": self.workers,
            "time/step_seconds_median": self.step_seconds,
            "time/tasks_per_second": self.tasks / self.step_seconds,
            "memory/kind": self.peak.kind,
            "memory/peak_mib": self.peak.absolute_mib,
            "memory/above_baseline_mib": self.peak.above_baseline_mib,
            "phases": {
                part: {
                    "seconds": self.seconds[part],
                    "share": self.seconds[part] / whole,
                    "above_baseline_mib": self.above_baseline[part] / MIB,
                }
                for part in self.seconds
            },
        }


def profile(experiment: Experiment, steps: int) -> Profile:
    """Runs WARM_UP iterations, then `steps` timed whole and `steps` timed by phase, alternating, then a metered one."""
    optimizer, _ = build_optimizer(experiment.config, experiment.model, experiment.smoothness)
    average, device = build_average(experiment.config, experiment.model), experiment.device
    iteration = TrainStep(experiment, optimizer, average)
    for t in range(1, WARM_UP + 1):
        iteration.clear()
        iteration(t)
    timer, parts = StepTimer(device, skip=0), []
    for t in range(WARM_UP + 1, WARM_UP + 2 * steps, 2):
        iteration.clear()
        with timer.step():
            iteration(t)
        iteration.clear()
        times = PhaseTimes(device)
        with times.step():
            iteration(t + 1)
        parts.append(times.seconds)
    iteration.clear()
    last = WARM_UP + 2 * steps + 1
    _, peak, above_baseline = measure_phase_peaks(lambda: iteration(last), device, iteration.persistent())
    return Profile(
        device=str(device),
        workers=experiment.learner.execution.workers,
        tasks=experiment.config.batch_size,
        step_seconds=timer.median_seconds,
        peak=peak,
        seconds={part: statistics.median(s[part] for s in parts) for part in PARTS if part in above_baseline},
        above_baseline=above_baseline,
    )
