"""Whole runs through the command line."""

import csv
import dataclasses
import errno
import io
import json
import os
import pickle
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest
import torch
from omegaconf import OmegaConf

from memmeta_exp import tracking
from memmeta_exp.algorithms.proposed import gradient_descent_adaptation
from memmeta_exp.commands import evaluate
from memmeta_exp.config import Config, options
from memmeta_exp.config.compose import jobs
from memmeta_exp.experiment.builder import build
from memmeta_exp.tracking.progress_bar import ProgressBar
from memmeta_exp.tracking.run_folder import RunFolder, read_metrics
from memmeta_exp.training.checkpoint import restore
from memmeta_exp.training.runner import run, warn_of_bf16
from memmeta_exp.training.trainer import Trainer
from memmeta_exp.utils.errors import ConfigError, RankFailed, RunInterrupted
from tests.commands.conftest import TINY

REQUIRED = (
    "test/acc", "test/acc_ci95", "val/acc_best", "memory/peak_mib", "time/step_seconds_median", "time/total_seconds",
    "convergence/error", "convergence/grad_norm_sq", "inner/grad_norm_max", "inner/L_g", "inner/kappa",
    "linear/residual_max", "tasks_seen",
)  # fmt: skip


@pytest.mark.plots
def test_the_run_folder(train, tmp_path) -> None:
    result = train("seed=3")
    assert result.code == 0, result.err
    folder = result.summary.parent
    assert folder.resolve().parents[1] == tmp_path / "outputs"
    for name in (
        "config.yaml", "overrides.yaml", "env.json", "metrics.jsonl", "summary.json", "test_episodes.csv",
        "status.json", "checkpoints/last.pt", "checkpoints/best.pt", "plots/training.png", "plots/convergence.png",
    ):  # fmt: skip
        assert (folder / name).stat().st_size > 0, name
    summary = json.loads((folder / "summary.json").read_text())
    for key in REQUIRED:
        assert isinstance(summary[key], int | float), (key, summary[key])
    assert summary["memory/kind"] == "cpu-tensors"
    assert summary["memory/peak_mib"] > 0
    assert summary["tasks_seen"] == 12
    assert OmegaConf.load(folder / "config.yaml").seed == 3
    assert "seed=3" in list(OmegaConf.load(folder / "overrides.yaml"))
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


@pytest.mark.plots
def test_pictures_can_be_left_out(train) -> None:
    folder = train("plots=false", "iterations=1").summary.parent
    assert not (folder / "plots").exists()


def test_the_numbers_are_those_of_their_definitions(a_run) -> None:
    summary, rows = json.loads((a_run / "summary.json").read_text()), read_metrics(a_run)
    assert [row["iteration"] for row in rows] == list(range(7))
    with (a_run / "test_episodes.csv").open() as stream:
        accuracy = [float(row["accuracy"]) for row in csv.DictReader(stream)]
    assert summary["test/acc"] == pytest.approx(statistics.mean(accuracy))
    assert summary["test/acc_ci95"] == pytest.approx(1.96 * statistics.stdev(accuracy) / len(accuracy) ** 0.5)
    norms = [row["convergence/grad_norm_sq"] for row in rows if "convergence/grad_norm_sq" in row]
    assert len(norms) == 3
    assert min(norms) > 0
    line = [norms[0] + (norms[1] - norms[0]) * t / 3 for t in range(3)]
    line += [norms[1] + (norms[2] - norms[1]) * t / 3 for t in range(4)]
    assert summary["convergence/error"] == pytest.approx(statistics.mean(line))
    assert summary["convergence/error_coarseness"] > 0
    assert summary["convergence/grad_norm_sq"] == norms[-1]
    assert summary["val/acc_best"] == max(row["val/acc"] for row in rows if "val/acc" in row)
    assert summary["inner/grad_norm_max"] == max(row["inner/grad_norm_max"] for row in rows[1:])
    assert summary["inner/kappa"] == pytest.approx(summary["inner/L_g"] / 0.1, rel=1e-6)
    assert [row["iteration"] for row in rows if "memory/peak_mib" in row] == [2]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["model"]


def same_weights(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return all(torch.equal(first[key], second[key]) for key in first)


def test_same_seed_same_bits(train, a_run) -> None:
    again, other = train().summary.parent, train("seed=1", "iterations=1").summary.parent
    assert again != other, "each run has a folder of its own"
    assert same_weights(a_run, again)
    assert (a_run / "test_episodes.csv").read_text() == (again / "test_episodes.csv").read_text()
    assert read_metrics(other)[1]["train/loss"] != read_metrics(again)[1]["train/loss"]


def test_evaluate_takes_another_number_of_threads(a_run, memmeta, monkeypatch) -> None:
    seen: list[int | None] = []
    built = evaluate.build_within_budget
    monkeypatch.setattr(
        evaluate, "build_within_budget", lambda config, *more: (seen.append(config.threads), built(config, *more))[1]
    )
    assert "5 tasks score as stored" in memmeta("evaluate", f"run={a_run}", "threads=2").out
    assert seen == [2]
    refused = memmeta("evaluate", f"run={a_run}", "threads=0")
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_evaluate_repeats_the_test(a_run, memmeta) -> None:
    before = {path: path.read_bytes() for path in a_run.rglob("*") if path.is_file()}
    result = memmeta("evaluate", f"run={a_run}")
    summary = json.loads((a_run / "summary.json").read_text())
    assert result.code == 0
    assert f"{summary['test/acc']:.2%}" in result.out
    assert "5 tasks score as stored" in result.out
    assert {path: path.read_bytes() for path in a_run.rglob("*") if path.is_file()} == before


def test_checkpoints_at_given_iterations(train, a_run, memmeta) -> None:
    """Weights of an iteration between validations, those of a run that ends there; the run itself has the same bits."""
    folder, short = train("checkpoint_at=[2,6]").summary.parent, train("iterations=2").summary.parent
    assert same_weights(a_run, folder)
    kept = [torch.load(folder / "checkpoints" / f"iteration-{t}.pt", weights_only=True) for t in (2, 6)]
    assert [state["iteration"] for state in kept] == [2, 6]
    for state, other in zip(kept, (short, folder), strict=True):
        assert all(torch.equal(value, weights(other)[key]) for key, value in state["model"].items())
    tested = memmeta("evaluate", f"run={folder}", "iteration=2", "tasks=5")
    same = memmeta("evaluate", f"run={short}", "checkpoint=last", "tasks=5")
    assert "kept checkpoint of iteration 2" in tested.out
    assert tested.out.partition(" over ")[0] == same.out.partition(" over ")[0]
    for wrong, said in (("iteration=3", "(it has 2, 6); train with checkpoint_at=[3]"), ("iteration=0", "from 1 to")):
        refused = memmeta("evaluate", f"run={folder}", wrong)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert said in refused.err
    assert "leave one of them out" in memmeta("evaluate", f"run={folder}", "iteration=2", "checkpoint=last").err


def test_a_kept_checkpoint_may_be_asked_for_as_a_run_goes_on(train, a_run, memmeta) -> None:
    folder = train("iterations=3", "checkpoint_at=[2]").summary.parent
    begun = (folder / "checkpoints" / "iteration-2.pt").read_bytes()
    resumed = memmeta("train", f"resume={folder}", "iterations=6", "checkpoint_at=[2,5]")
    assert resumed.code == 0, resumed.err
    assert (folder / "checkpoints" / "iteration-2.pt").read_bytes() == begun
    assert restore(build(evaluate.read_config(folder, {})).model, folder / "checkpoints" / "iteration-5.pt") == 5
    assert same_weights(a_run, folder)
    assert read_metrics(a_run)[-1]["convergence/error"] == read_metrics(folder)[-1]["convergence/error"]


def test_bf16_is_warned_of_where_all_weights_adapt(train, caplog) -> None:
    result = train("algorithm=maml", "precision=bf16", "iterations=1", "test_tasks=0")
    (line,) = [line for line in result.err.splitlines() if "precision=bf16" in line]
    assert "precision=bf16 with algorithm=maml" in line
    (plain,) = jobs(list(TINY), multirun=False)
    warned = set()
    for name, of in options("algorithm").items():
        for precision in ("bf16", "fp32"):
            caplog.clear()
            warn_of_bf16(dataclasses.replace(plain, algorithm=of(), precision=precision))
            warned |= {(name, precision)} if caplog.records else set()
    assert warned == {(name, "bf16") for name in ("maml", "fomaml", "imaml")}


def _checkpoint_of(state: dict) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def test_evaluate_adapts_by_another_rule(a_run, memmeta) -> None:
    """The run's own rule is the algorithm's; the others are the learner's scores by them."""
    config = evaluate.read_config(a_run, {})
    experiment = build(config)
    restore(experiment.model, a_run / "checkpoints" / "best.pt")
    tasks = experiment.samplers["test"].draw(0, config.test_tasks)
    for steps, lr in ((3, 0.5), (20, 0.05)):
        options = ["test_adaptation=gd", *([] if steps == 20 else [f"eval_steps={steps}", f"eval_lr={lr}"])]
        result = memmeta("evaluate", f"run={a_run}", *options, "out=new.json")
        assert f"adapted by {steps} steps of {lr} on the head" in result.out
        assert "as stored" not in result.out
        _, loss, _ = experiment.learner.evaluate(tasks, gradient_descent_adaptation(steps, lr))
        assert json.loads(Path("new.json").read_text())["test/loss"] == pytest.approx(loss.mean().item(), rel=1e-12)
    own = memmeta("evaluate", f"run={a_run}", "test_adaptation=own")
    assert "adapted by the algorithm's own adaptation; 5 tasks score as stored" in own.out
    solved = (["test_adaptation=exact", "eval_mu=0.7"], ["mu=0.7"])
    exact, mine = (memmeta("evaluate", f"run={a_run}", *options) for options in solved)
    assert "adapted by the exact head, mu = 0.7" in exact.out
    assert exact.out.partition(" over ")[0] == mine.out.partition(" over ")[0], (
        "the run's algorithm solves for it itself"
    )


def test_evaluate_says_how_many_heads_were_not_solved_for(a_run, memmeta) -> None:
    """|d_phi g| <= eval_mu / 1000 is beyond float32 here."""
    result = memmeta("evaluate", f"run={a_run}", "test_adaptation=exact", "eval_mu=1e-30")
    assert result.code == 0
    assert "the head missed its tolerance on 100.0% of them" in result.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["eval_steps=3"], "for test_adaptation=gd only"),
        (["eval_mu=3"], "for test_adaptation=exact only"),
        (
            ["test_adaptation=gd", "eval_mu=3"],
            "eval_mu is for test_adaptation=exact only: set it, or leave eval_mu out",
        ),
        (["test_adaptation=exact", "eval_lr=3"], "for test_adaptation=gd only"),
        (["test_adaptation=exact", "mu=1"], "set eval_mu"),
        (["test_adaptation=exact", "eval_mu=0"], "eval_mu=0.0 is out of range"),
        (["test_adaptation=exakt"], "did you mean 'exact'"),
    ],
)
def test_rules_that_evaluate_refuses(a_run, memmeta, options: list[str], said: str) -> None:
    refused = memmeta("evaluate", f"run={a_run}", *options)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert said in refused.err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("checkpoints/best.pt", b"not a checkpoint"),
        ("checkpoints/best.pt", None),
        ("checkpoints/best.pt", _checkpoint_of({"iteration": 3})),
        ("checkpoints/best.pt", _checkpoint_of({"iteration": 3, "model": {"a": torch.zeros(1)}})),
        ("test_episodes.csv", b"task,accuracy\n0,x\n"),
        ("test_episodes.csv", None),
        ("config.yaml", b"a: [b\n"),
        ("config.yaml", b"- a list\n"),
    ],
)
def test_evaluate_on_a_damaged_run(a_run, memmeta, tmp_path, name: str, content: bytes | None) -> None:
    folder = Path(shutil.copytree(a_run, tmp_path / "run"))
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    result = memmeta("evaluate", f"run={folder}")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert Path(name).name in result.err


def cells(out: str) -> list[list[str]]:
    """Those of the last table in `out`."""
    bar = "\N{BOX DRAWINGS LIGHT VERTICAL}"
    lines = [line for line in out.rpartition("summary: ")[2].splitlines() if bar in line]
    return [[cell.strip() for cell in line.strip(bar).split(bar)] for line in lines]


def test_a_multirun_ends_with_a_table_over_its_jobs(train, tmp_path) -> None:
    swept = ("++optimizer.lr=1e-2,1e19", "iterations=3", "hydra.sweep.dir='my (2) runs'")
    result = train("-m", "seed=0,1", *swept)
    assert result.code == 1, "the second job diverges"
    table = pandas.read_csv("my (2) runs/results.csv")
    assert list(table["job"]) == [0, 1, 2, 3]
    assert list(table["state"]) == ["finished", "failed", "waiting", "waiting"]
    assert list(table["optimizer.lr"]) == [1e-2, 1e19] * 2
    accuracy = json.loads(Path("my (2) runs/0/summary.json").read_text())["test/acc"]
    assert table["test/acc"].tolist()[0] == accuracy
    shown = cells(result.out)
    assert [row[:4] for row in shown][:2] == [["0", "0", "0.01", "finished"], ["1", "0", "1e+19", "failed"]]
    assert shown[0][4].startswith(f"{accuracy:.2%} +- ")
    assert result.out.splitlines()[-2:] == [
        "results: my (2) runs/results.csv",
        "multirun: my (2) runs; memmeta report 'my (2) runs' makes its tables, figures and page",
    ]
    before = Path("my (2) runs/0/metrics.jsonl").read_bytes()
    assert train("-m", "seed=5,1", *swept).code == 2, "a folder that holds another multirun"
    assert Path("my (2) runs/0/metrics.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["my (2) runs"]


def test_a_quoted_folder_is_the_folder_that_hydra_makes(train, tmp_path) -> None:
    assert train("iterations=1", "++hydra.run.dir='a (1)'").summary == tmp_path / "a (1)" / "summary.json"
    assert "is finished" in train("iterations=1", "hydra.run.dir='a (1)'").err


def test_a_shuffled_grid_has_each_value_beside_its_own_job(train) -> None:
    assert train("-m", "seed=shuffle(0,1,2)", "iterations=1", "hydra.sweep.dir=many").code == 0
    table = pandas.read_csv("many/results.csv")
    assert sorted(table["seed"]) == [0, 1, 2]
    for job, seed in zip(table["job"], table["seed"], strict=True):
        assert OmegaConf.load(f"many/{job}/config.yaml").seed == seed


@pytest.mark.slow
def test_a_job_that_fails_beside_others_is_one_line_and_costs_them_nothing(train) -> None:
    result = train(
        "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=many", "progress=false",
        "optimizer=sgd", "iterations=8", "optimizer.lr=1e19,1e-3,1e-2",
    )  # fmt: skip
    assert result.code == 1
    assert list(pandas.read_csv("many/results.csv")["state"]) == ["failed", "finished", "finished"]
    assert "Traceback" not in result.err
    assert "theta is as it was before this iteration" in result.err.splitlines()[-1]


def test_what_ends_a_run_can_be_sent_between_processes() -> None:
    stopped = pickle.loads(pickle.dumps(RunInterrupted(15, 7, Path("runs/a"))))
    assert (str(stopped), stopped.exit_code) == (str(RunInterrupted(15, 7, Path("runs/a"))), 143)
    failed = pickle.loads(pickle.dumps(RankFailed("no memory", 3)))
    assert (str(failed), failed.exit_code) == ("no memory", 3)


def test_a_profile_is_no_run(memmeta) -> None:
    assert memmeta("profile", *TINY, "steps=1", "hydra.run.dir=measured").code == 0
    for command in (["resume=measured"], [*TINY, "hydra.run.dir=measured"]):
        refused = memmeta("train", *command)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "measured holds what memmeta profile measured, not a run" in refused.err


def test_jobs_of_a_multirun_are_named_by_what_is_swept(train, memmeta, tmp_path, monkeypatch) -> None:
    titles, real = [], tracking.open_wandb
    monkeypatch.setattr(tracking, "open_wandb", lambda *a, title, **k: titles.append(title) or real(*a, **k))
    swept = ("-m", "seed=1", "batch_size=1", "++algorithm.mu=0.5,0.1", "hydra.sweep.dir=many", "iterations=1")
    result = train(*swept)
    assert result.code == 0, result.err
    names = ["algorithm.mu=0.5", "algorithm.mu=0.1"]
    assert titles == [f"{name} (proposed-synthetic-conv4-3w2s-s1)" for name in names]
    summaries = [line.removeprefix("summary: ") for line in result.out.splitlines() if line.startswith("summary:")]
    assert [OmegaConf.load(Path(s).parent / "config.yaml").algorithm.mu for s in summaries] == [0.5, 0.1]
    for job, name in enumerate(names):
        assert f"{name}, in {tmp_path / 'many' / str(job)}" in result.err
        assert f"{titles[job]}" in " ".join(result.out.split())
    assert memmeta("train", "resume=many/1", "iterations=2").code == 0
    assert titles[2] == titles[1], "a run that goes on keeps its title"
    monkeypatch.setenv("WANDB_NAME", "mine")
    assert train("iterations=1").code == 0
    assert titles[3] == "mine"


def test_two_runs_never_share_a_folder(tmp_path) -> None:
    """Of two processes that come to one folder at the same time, one gets it."""
    with RunFolder(tmp_path).claimed(), pytest.raises(ConfigError, match="in use by process"):
        RunFolder(tmp_path).claimed().__enter__()
    with RunFolder(tmp_path).claimed():
        pass


KNOBS = [
    "ways=2", "shots=3", "queries=3", "batch_size=3", "seed=1", "precision=bf16", "eval_every=1", "val_tasks=6",
    "test_tasks=7", "test_adaptation=gd", "convergence_tasks=3", "convergence_mu=0.7", "iterations=7",
    "backbone.filters=9", "optimizer.lr=0.1", "optimizer.weight_decay=0.5", "optimizer.schedule=cosine",
    "optimizer=sgd", "optimizer.average=0.5", "convergence_gradient=own", "backbone.norm=running", "backbone.norm=none",
    "backbone.block=plain",
]  # fmt: skip


ELSEWHERE = {  # keys that change no number of a run, and where they are tested
    "plugins": "test_plugins",
    "algorithm": "tests/algorithms", "dataset": "test_config, tests/data", "backbone": "KNOBS", "optimizer": "KNOBS",
    "tracking": "tests/tracking", "device": "test_bad_input", "threads": "test_threads_and_progress",
    "progress": "test_threads_and_progress", "verbose": "test_what_a_run_shows", "sampling": "test_known.py",
    "plots": "test_pictures_can_be_left_out", "tasks_per_pass": "test_chunk_changes_memory_alone",
    "memory": "tests/algorithms", "workers": "tests/algorithms/test_workers.py, and test_threads_and_progress",
    "head": "tests/algorithms/test_heads.py", "images": "tests/data/test_pixels.py",
    "training": "test_training_tasks.py",
    "data_root": "test_bad_input", "checkpoint_every": "tests/training", "checkpoint_at": "below",
    "convergence_every": "test_known.py",
    "weights": "tests/prediction/test_run.py", "early_stopping": "tests/experiment/test_optimizer_options.py",
    "eval_steps": "below, under test_adaptation=gd", "eval_lr": "below, under test_adaptation=gd",
    "eval_mu": "below, under test_adaptation=exact",
}  # fmt: skip


def test_the_list_of_keys_is_complete() -> None:
    listed = {knob.partition("=")[0].partition(".")[0] for knob in KNOBS}
    assert {f.name for f in dataclasses.fields(Config)} == listed | ELSEWHERE.keys()


def test_threads_and_progress(train, a_run) -> None:
    loud, quiet = train("threads=2"), train("threads=2", "workers=1", "progress=false", "iterations=1")
    assert "iteration 6: val acc" in loud.err
    assert quiet.err == ""
    folders = (a_run, loud.summary.parent, quiet.summary.parent)
    found = [json.loads((folder / "env.json").read_text()) for folder in folders]
    assert [(e["workers"], e["threads"]) for e in found] == [(1, 1), (2, 1), (1, 2)]
    assert same_weights(a_run, loud.summary.parent), "workers change no bit"


def test_what_a_run_shows(train, tmp_path, monkeypatch) -> None:
    """Where standard error is no terminal: the header and a line a validation. On standard output: the table with what
    each number is, and the next commands."""
    phases: list[str] = []
    monkeypatch.setattr(ProgressBar, "phase", lambda bar, name, done=0, total=None, status="": phases.append(name))
    monkeypatch.setattr("memmeta_exp.training.runner.plot_run", lambda path, title: [])
    shown, verbose = train("hydra.run.dir=a b"), train("hydra.run.dir=v", "verbose=true", "iterations=1")
    head, *lines = shown.err.splitlines()
    assert head.startswith("proposed-synthetic-conv4-3w2s-s0: synthetic 5/5/5 classes, conv4 ")
    assert head.endswith(f" parameters, cpu, 1 x 1 tasks at a time, {tmp_path}/a b")
    assert [line.partition(":")[0] for line in lines] == ["iteration 0", "iteration 3", "iteration 6"]
    once = dict.fromkeys(phases)
    assert list(once) == [
        "building data", "training", "validating", "measuring grad F", "testing", "closing W&B", "drawing plots",
    ]  # fmt: skip
    assert f"test again:   memmeta evaluate 'run={tmp_path}/a b'\n" in shown.out
    assert f"report:       memmeta report '{tmp_path}/a b'\n" in shown.out
    assert "on tasks of new classes" in shown.out
    assert "wrote" not in shown.out
    assert f"wrote {tmp_path}/v/config.yaml\n" in verbose.out


def test_the_eta_is_that_of_training_alone() -> None:
    bar = ProgressBar(100, enabled=False)
    for t, seconds in ((1, 2.0), (2, 90.0), (3, 2.0)):  # the second is the metered one
        bar.update(t, {"time/step_seconds": seconds, "train/loss": 1.0})
    assert bar._bar.tasks[0].fields["status"] == "loss 1.000  eta 0:03:14"
    bar.phase("testing", 240, 600)
    assert (bar._bar.tasks[0].description, bar._bar.tasks[0].percentage) == ("testing 240/600", 40)


def fingerprint(folder: Path) -> str:
    rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(folder)]
    return json.dumps([rows, (folder / "test_episodes.csv").read_text()])


@pytest.mark.slow
def test_every_key_changes_something(tmp_path) -> None:
    """Without the command line, which takes a second a run."""

    def outcome(*overrides: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (config,) = jobs([*TINY, "iterations=2", "eval_every=2", "progress=false", *overrides], multirun=False)
        run(config, folder, [])
        return fingerprint(folder)

    plain = outcome()
    for knob in KNOBS:
        assert outcome(knob) != plain, knob
    decayed = outcome("optimizer.weight_decay=0.5")
    assert outcome("optimizer=adamw", "optimizer.weight_decay=0.5") != decayed
    sgd = outcome("optimizer=sgd")
    assert outcome("optimizer=sgd", "optimizer.momentum=0.9") != sgd
    running = outcome("backbone.norm=running")
    assert outcome("backbone.norm=running", "backbone.task_stats_weight=0.5") != running
    ruled = outcome("test_adaptation=gd")
    for knob in ("eval_steps=3", "eval_lr=0.5"):
        assert outcome("test_adaptation=gd", knob) != ruled, knob
    assert outcome("test_adaptation=exact") == plain, "the default solves the same problem"
    assert outcome("test_adaptation=exact", "eval_mu=0.7") != plain


def test_chunk_changes_memory_alone(train, a_run) -> None:
    two = train("tasks_per_pass=2", "iterations=2", "eval_every=2").summary.parent
    a, b = (read_metrics(folder)[2] for folder in (a_run, two))
    assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-5)
    assert b["memory/above_baseline_mib"] > 1.5 * a["memory/above_baseline_mib"]


def test_divergence_is_a_failure_in_one_line(train, tmp_path) -> None:
    """In the last iteration, which no later loss would reveal."""
    result = train("optimizer=sgd", "optimizer.lr=1e19", "iterations=1", "hydra.run.dir=diverged")
    assert result.code == 1
    assert "diverged" in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
    assert "Error executing job" not in result.err
    assert json.loads((tmp_path / "diverged" / "status.json").read_text())["state"] == "failed"


def test_running_out_of_memory_is_a_failure_in_one_line(train, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes.")

    monkeypatch.setattr("memmeta_exp.experiment.train_step.TrainStep.__call__", refuse)
    result = train("hydra.run.dir=full")
    assert result.code == 1
    assert "smaller tasks_per_pass" in result.err.splitlines()[-1]
    assert "Traceback" not in result.err


def test_any_refusal_of_the_machine_is_one_line(train, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files", "some/file")

    monkeypatch.setattr("memmeta_exp.experiment.train_step.TrainStep.__call__", refuse)
    result = train("hydra.run.dir=refused", "progress=false")
    assert (result.code, result.err) == (1, "memmeta: some/file: Too many open files\n")


def test_warnings_reach_the_user(train) -> None:
    """Through Hydra, which would disable every logger that it did not set up."""
    result = train("algorithm.inner_solver=gd", "algorithm.inner_lr=10", "tracking=online", "iterations=2")
    assert result.code == 0
    assert len([line for line in result.err.splitlines() if "times the 1/L_g" in line]) == 1
    assert len([line for line in result.err.splitlines() if "offline" in line]) == 1
    assert (result.summary.parent / "wandb").is_dir()


HAS = {  # of the numbers that not every algorithm has
    "proposed": {"inner/grad_norm_max", "inner/L_g", "linear/residual_max"},
    "anil": {"inner/grad_norm_max", "inner/L_g"},
    "itd_bio": {"inner/grad_norm_max", "inner/L_g"},
    "maml": set(),
    "fomaml": set(),
    "imaml": {"inner/grad_norm_max", "linear/residual_max"},
    "baseline": set(),
}


QUICK = ("proposed", "maml", "baseline")


@pytest.mark.parametrize(
    "algorithm",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in options("algorithm")],
)
def test_every_algorithm_runs_and_says_what_it_has(train, memmeta, algorithm: str) -> None:
    result = train(f"algorithm={algorithm}", "iterations=2", "eval_every=2")
    assert result.code == 0, result.err
    summary = json.loads(result.summary.read_text())
    assert HAS[algorithm] == set().union(*HAS.values()) & summary.keys()
    assert summary["convergence/mu"] == {"proposed": 0.1, "baseline": 0.1, "itd_bio": 1e-4}.get(algorithm, 0.01)
    assert summary["convergence/grad_norm_sq"] > 0
    assert "5 tasks score as stored" in memmeta("evaluate", f"run={result.summary.parent}").out


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_ends_the_run_after_its_step(tmp_path, signum: signal.Signals) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "memmeta_exp", "train", *TINY, "iterations=100000", f"hydra.run.dir={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        _wait_for(lambda: (folder / "metrics.jsonl").exists() and len(read_metrics(folder)) > 3)
        run.send_signal(signum)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 128 + signum, err
    assert f"signal {signum:d}" in err.splitlines()[-1]
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "interrupted"
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    assert state["iteration"] == status["iteration"] == read_metrics(folder)[-1]["iteration"]


def test_a_signal_during_the_test_is_not_lost(train, tmp_path, monkeypatch) -> None:
    """It arrives while the test tasks are scored: the run ends interrupted, not finished and not killed."""
    original = Trainer.test

    def signalled(self: Trainer):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    monkeypatch.setattr(Trainer, "test", signalled)
    result = train("hydra.run.dir=run")
    assert result.code == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "interrupted"


def _wait_for(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the run did not start"
        time.sleep(0.05)
