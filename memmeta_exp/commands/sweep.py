"""`memmeta sweep FILE`: runs every job of a sweep file without a server, and writes a table and a report."""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from memmeta_exp.commands import profile
from memmeta_exp.commands.train import check
from memmeta_exp.config import Config, ConfigError, closest, from_omegaconf
from memmeta_exp.config.compose import choices, composed, unknown_flag
from memmeta_exp.sweeps import devices, launch, results_table, slurm
from memmeta_exp.sweeps.grid import Job, plan
from memmeta_exp.sweeps.naming import varying
from memmeta_exp.sweeps.sweep_file import SweepFile, read
from memmeta_exp.sweeps.sweep_folder import SweepFolder
from memmeta_exp.tracking.console import print_jobs
from memmeta_exp.training import runner

HELP = """memmeta sweep FILE.yaml [size=small] [launcher=basic|joblib|slurm] [launcher.KEY=VALUE] [dir=DIR]
              [dry_run=true] [KEY=VALUE] [KEY=A,B,C] ...

Runs every combination of a W&B sweep file without a server. Finished jobs are skipped; a failed job does not stop the
others. KEY=VALUE fixes a key; KEY=A,B,C sets its values. Writes to outputs/sweeps/NAME (NAME-small for size=small), or
to dir=DIR: a run folder jobs/ID per job, results.csv and results.parquet with a row per job, and report/.
launcher=basic runs the jobs one after the other. launcher=joblib launcher.n_jobs=N runs N at once, each with its own
GPU. launcher=slurm submits an array job (launcher.partition=P launcher.timeout_min=M ...). dry_run=true only prints the
commands and what they ask of Slurm. docs/scaling.md explains the files.

Exit codes: 0 all jobs finished, 1 some did not, 2 the sweep cannot be run, 128 + N stopped by signal N."""
OWN = ("size", "launcher", "dry_run", "dir")
SIZES = ("full", "small")
LISTED = 5  # unfinished jobs that the last line names

logger = logging.getLogger("memmeta")


@dataclass(frozen=True)
class Request:
    """The parsed command line."""

    file: Path
    size: str = "full"
    launcher: str = "basic"
    dry_run: bool = False
    dir: str | None = None
    settings: tuple[str, ...] = ()
    overrides: tuple[str, ...] = field(default=())


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    request = _request(arguments)
    file = read(_sized(request.file, request.size))
    folder = SweepFolder(_folder(request, file))
    settings = launch.settings_of(request.launcher, request.settings, request.dry_run)
    jobs = plan(file, request.overrides, choices, lambda o: from_omegaconf(composed(o)), _checker(request.launcher))
    if request.dry_run:
        if request.launcher == "slurm":
            print(f"# Slurm: {slurm.described(launch.options_of('slurm', settings))}")
        return _dry_run(folder, jobs)
    shared_out = _shared_out(request.launcher, settings, jobs)
    with folder.held():
        return _sweep(folder, file, request, jobs, shared_out)


def _request(arguments: Sequence[str]) -> Request:
    files = [Path(a) for a in arguments if _is_file(a)]
    flags = [a for a in arguments if a.startswith("-")]
    if flags:
        raise ConfigError(unknown_flag(flags[0], ("--help",)))
    if len(files) != 1:
        said = f"not {len(files)}: {' '.join(map(str, files))}" if files else "such as sweeps/accuracy.yaml"
        raise ConfigError(f"sweep takes one sweep file, {said}")
    given = [a for a in arguments if "=" in a and not _is_file(a)]
    own = dict(a.split("=", 1) for a in given if a.partition("=")[0] in OWN)
    for key, known in (("size", SIZES), ("launcher", tuple(launch.LAUNCHERS)), ("dry_run", ("true", "false"))):
        if own.get(key, known[0]) not in known:
            raise ConfigError(f"{key}={own[key]} is unknown{closest(own[key], known)}")
    if "dir" in own and (not own["dir"] or "${" in own["dir"]):
        raise ConfigError(f"dir={own['dir']}: name a folder, without ${{...}}")
    settings = tuple(a for a in given if a.startswith("launcher."))
    return Request(
        file=files[0],
        size=own.get("size", "full"),
        launcher=own.get("launcher", "basic"),
        dry_run=own.get("dry_run") == "true",
        dir=own.get("dir"),
        settings=settings,
        overrides=tuple(a for a in given if a not in settings and a.partition("=")[0] not in OWN),
    )


def _is_file(argument: str) -> bool:
    """Whether `argument` is a file name: no flag, and KEY=VALUE only if a file has that name."""
    return not argument.startswith("-") and ("=" not in argument or Path(argument).is_file())


def _sized(file: Path, size: str) -> Path:
    if size == "full" or file.parent.name == "small":
        return file
    small = file.parent / "small" / file.name
    if file.is_file() and not small.is_file():
        raise ConfigError(f"size=small needs {small}, which does not exist: write it, or give fewer values, KEY=A,B")
    return small


def _folder(request: Request, file: SweepFile) -> Path:
    small = "-small" if file.path.parent.name == "small" else ""
    return Path(request.dir or f"outputs/sweeps/{file.path.stem}{small}")


def _checker(launcher: str):
    """The check of each job before the sweep starts; with slurm, other machines run it, so this one is not checked."""

    def checked(kind: str, options: dict[str, str], config: Config) -> None:
        if kind == "profile":
            profile.check_job(options, config, here=launcher != "slurm")
        elif launcher != "slurm":
            check(config)
        if launcher == "joblib" and config.device.startswith("cuda:"):
            raise ConfigError(
                f"device={config.device} with launcher=joblib, which gives each job a GPU: use device=cuda"
            )

    return checked


def _shared_out(launcher: str, settings: tuple[str, ...], jobs: Sequence[Job]) -> launch.Plan:
    """The number of parallel jobs, their GPUs and threads. Default: one job per GPU, or as many as the cores allow."""
    if launcher != "joblib":
        return launch.Plan(launcher, settings)
    gpus = tuple(devices.visible_gpus()) if any(job.wants_gpu for job in jobs) else ()
    named = [s.partition("=")[2] for s in settings if s.partition("=")[0] == "hydra.launcher.n_jobs"]
    if named and not (named[-1].isdecimal() and int(named[-1])):
        raise ConfigError(f"launcher.n_jobs={named[-1]} is out of range: it must be a number of processes, at least 1")
    most = len(gpus) if gpus else max(1, devices.cores() // max(job.threads for job in jobs))
    processes = int(named[-1]) if named else min(most, len(jobs))
    if gpus and processes > len(gpus):
        raise ConfigError(f"launcher.n_jobs={processes} is more than the {len(gpus)} GPUs, and each job needs its own")
    own = (f"hydra.launcher.n_jobs={processes}", "hydra.launcher.batch_size=1")
    kept = tuple(s for s in settings if s.partition("=")[0] != "hydra.launcher.n_jobs")
    return launch.Plan(launcher, (*own, *kept), gpus, devices.thread_budget(processes))


def _dry_run(folder: SweepFolder, jobs: Sequence[Job]) -> int:
    for job in jobs:
        line = shlex.join(["memmeta", *job.command(str(folder.job(job.id)))])
        state = folder.standing(job).state
        print(line if state in ("waiting", "interrupted", "failed") else f"# {state}: {line}")
    return 0


def _sweep(folder: SweepFolder, file: SweepFile, request: Request, jobs: Sequence[Job], shared_out: launch.Plan) -> int:
    """Runs the unfinished jobs; returns the exit code. The results table is written even if this raises."""
    folder.describe(
        {
            "name": file.path.stem,
            "file": str(file.path),
            "overrides": list(request.overrides),
            "command": list(file.command),
        },
        jobs,
    )
    progress = _Progress(folder, jobs)
    left = progress.left
    print(f"{file.path.stem}: {len(jobs)} jobs, {len(left)} to do, in {folder.path}", flush=True)
    stopped = None
    try:
        for job in left:
            folder.begin(job.id)
        if left and request.launcher == "basic":
            stopped = launch.run_serial(folder, left, _in_this_process, progress.update)
        elif left:
            stopped = launch.run_parallel(folder, left, shared_out, progress.update)
    finally:
        entries = results_table.write(folder, jobs)
        keys = varying([job.values for job in jobs])
        print_jobs(file.path.stem, [entry.row for entry in entries], keys or ["job"])
        print(f"results: {folder.path / 'results.csv'}", flush=True)
    return _conclude(folder, jobs, entries, stopped)


def _in_this_process(job: Job, cfg: DictConfig, path: Path) -> None:
    config = from_omegaconf(cfg)
    if job.kind == "profile":
        profile.run_job(dict(o.split("=", 1) for o in job.options), config, path, job.title)
    else:
        check(config)
        runner.run(config, path, list(job.overrides), title=job.title)


class _Progress:
    """Keeps the results table up to date, and prints a line for each job that has ended."""

    def __init__(self, folder: SweepFolder, jobs: Sequence[Job]) -> None:
        self.folder, self.jobs = folder, jobs
        entries = list(zip(jobs, results_table.write(folder, jobs), strict=True))
        self.left = [job for job, entry in entries if entry.state not in ("finished", "running")]
        for job, entry in entries:
            if entry.state == "running":
                logger.warning(
                    "%s is already running (%s), so it is not started. If its host is gone, a sweep takes it over an "
                    "hour after its last iteration; memmeta train resume=%s does so at once",
                    *(job.name, entry.reason, folder.job(job.id)),
                )
        self._reported: dict[str, dict] = {}

    def update(self) -> None:
        """Prints a line for each newly ended job, and rewrites the table if there are any."""
        new = {
            job.id: end for job in self.left if (end := self.folder.ended(job.id)) and self._reported.get(job.id) != end
        }
        if not new:
            return
        self._reported |= new
        entries = results_table.write(self.folder, self.jobs)
        done = sum(entry.state == "finished" for entry in entries)
        for job, entry in zip(self.jobs, entries, strict=True):
            if job.id in new:
                why = f": {entry.reason}" if entry.reason else ""
                seconds = new[job.id]["seconds"]
                print(f"[{done}/{len(self.jobs)}] {entry.state} {job.name}, {seconds:.1f} s{why}", flush=True)


def _conclude(
    folder: SweepFolder, jobs: Sequence[Job], entries: Sequence[results_table.Entry], stopped: int | None
) -> int:
    """Writes the report, unless the sweep was stopped; returns the exit code."""
    if stopped is not None:
        logger.error("stopped by signal %d; run the same command again to continue", stopped)
        return 128 + stopped
    undone = [job.name for job, entry in zip(jobs, entries, strict=True) if entry.state != "finished"]
    if len(undone) < len(jobs):
        from memmeta_exp.reports.report import write_report

        print(f"report: {write_report([folder.path], folder.path / 'report')}", flush=True)
    if undone:
        more = f" and {len(undone) - LISTED} more" if len(undone) > LISTED else ""
        logger.error("%d of %d jobs did not finish: %s%s; results.csv has the reasons, log/ID.txt the output",
                     len(undone), len(jobs), ", ".join(undone[:LISTED]), more)  # fmt: skip
        return 1
    return 0
