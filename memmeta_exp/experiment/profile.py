"""What an iteration costs here: seconds and peak memory of its phases."""

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
    """step_seconds: median of whole iterations; peak: of one more; seconds: median of each part, of as many more, CUDA
    synchronised between parts; above_baseline: requested bytes above the baseline, the most in each part. The parts
    are those that the iteration has, in the order of PARTS. workers: that many did the whole iterations, one those
    taken apart and the metered one."""

    device: str
    workers: int
    tasks: int
    step_seconds: float
    peak: Peak
    seconds: dict[str, float]
    above_baseline: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """For profile.json; the keys of docs/outputs.md where the number is the same."""
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
    """Runs WARM_UP iterations, `steps` timed whole and `steps` timed by phase in turn, and a metered one."""
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
