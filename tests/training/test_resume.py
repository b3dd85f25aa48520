"""Going on with a run: after signals, by resume=DIR and by the same command, further, and only with the same run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from memmeta_exp import cli
from memmeta_exp.tracking.run_folder import RunFolder, read_metrics
from memmeta_exp.tracking.wandb_run import WandbRun
from memmeta_exp.training import checkpoint
from memmeta_exp.utils import signals
from memmeta_exp.utils.signals import StopRequest
from tests.training.conftest import TINY, contents, same_bits, status

RUN = "hydra.run.dir=run"
STATEFUL = [
    "backbone.norm=running", "algorithm.inner_warm_start=true", "algorithm.linear_warm_start=true",
    "algorithm.linear_solver=cg", "batch_size=3",
]  # fmt: skip


def signal_at(monkeypatch: pytest.MonkeyPatch, look: str, n: int, *signums: signal.Signals) -> None:
    """Sends `signums` to this process just before the run looks for the n-th time whether to stop."""
    real, seen = getattr(StopRequest, look), [0]

    def look_once(self: StopRequest) -> None:
        seen[0] += 1
        if seen[0] == n:
            for signum in signums:
                os.kill(os.getpid(), signum)
        real(self)

    monkeypatch.setattr(StopRequest, look, look_once)


MOMENTS = {  # 3 looks a step (3 tasks of a chunk each); else one at each step, 2 + 1 a validation, 2 in the test
    "before training": ("check", 1, 0),
    "in the third step, which ends": ("check_in_a_step", 8, 3),
    "in a validation": ("check", 8, 3),
    "in a reference measure": ("check", 9, 3),
    "in the test": ("check", 17, 6),
}


QUICK = ("in the third step, which ends", "in the test")  # one of a validation is below


@pytest.mark.parametrize(
    "moment",
    [pytest.param(m, marks=[] if m in QUICK else [pytest.mark.slow]) for m in MOMENTS],
)
def test_a_signal_and_the_rest_make_one_run(train, left_alone, memmeta, tmp_path, monkeypatch, moment) -> None:
    look, n, iteration = MOMENTS[moment]
    with monkeypatch.context() as patch:
        signal_at(patch, look, n, signal.SIGTERM)
        stopped = train(*STATEFUL, RUN)
    assert stopped.code == 128 + signal.SIGTERM
    (line,) = stopped.err.splitlines()
    assert f"stopped by signal 15 after iteration {iteration}; its state is saved in" in line
    assert (status(tmp_path / "run")["state"], status(tmp_path / "run")["iteration"]) == ("interrupted", iteration)
    assert read_metrics(tmp_path / "run")[-1:] == [] or read_metrics(tmp_path / "run")[-1]["iteration"] == iteration
    again = memmeta("train", "resume=run")
    assert again.code == 0, again.err
    assert f"memmeta: going on in run from iteration {iteration}" in again.err
    same_bits(left_alone(*STATEFUL), tmp_path / "run")
    assert status(tmp_path / "run")["state"] == "finished"


def test_wandb_has_each_row_once_and_whole(train, memmeta, monkeypatch) -> None:
    """It keeps the first row of an iteration and drops what comes later: a row without its validation waits."""
    rows: list[tuple[int, bool]] = []
    monkeypatch.setattr(WandbRun, "log", lambda self, step, values: rows.append((step, "val/acc" in values)))
    look, n, iteration = MOMENTS["in a validation"]
    with monkeypatch.context() as patch:
        signal_at(patch, look, n, signal.SIGTERM)
        assert train(*STATEFUL, RUN).code == 128 + signal.SIGTERM
    assert read_metrics(Path("run"))[-1]["iteration"] == iteration, "metrics.jsonl shows what there is of it"
    assert memmeta("train", "resume=run").code == 0
    steps = [step for step, _ in rows]
    assert len(set(steps)) == len(steps)
    assert (iteration, True) in rows


def test_a_step_that_takes_long_is_given_up_and_done_again(train, left_alone, tmp_path, monkeypatch) -> None:
    """Its running statistics, warm starts and optimiser are those of the iteration before."""
    with monkeypatch.context() as patch:
        patch.setattr(signals, "PATIENCE_S", 0.0)
        signal_at(patch, "check_in_a_step", 8, signal.SIGUSR2)  # before the second task of the third step
        assert train(*STATEFUL, RUN).code == 128 + signal.SIGUSR2
    assert status(tmp_path / "run")["iteration"] == 2
    assert train(*STATEFUL, RUN).code == 0
    same_bits(left_alone(*STATEFUL), tmp_path / "run")


@pytest.mark.slow
def test_what_is_dropped_goes_on_as_it_would_have(train, left_alone, memmeta, tmp_path, monkeypatch) -> None:
    """The masks of DropBlock are a function of a task's position, not of what was drawn before."""
    filters = "backbone.filters=[4,5,6,8]"
    dropped = ["backbone=resnet12", filters, "backbone.drop_rate=0.2", "backbone.norm=running", "batch_size=3"]
    with monkeypatch.context() as patch:
        signal_at(patch, "check_in_a_step", 8, signal.SIGTERM)
        assert train(*dropped, RUN).code == 128 + signal.SIGTERM
    assert memmeta("train", "resume=run").code == 0
    same_bits(left_alone(*dropped), tmp_path / "run")


def test_a_second_interrupt_leaves_at_once(train, left_alone, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, "check_in_a_step", 5, signal.SIGINT, signal.SIGINT)
        left = train(RUN)
    assert (left.code, left.err) == (130, "memmeta: interrupted\n")
    assert status(tmp_path / "run")["state"] == "interrupted"
    assert train(RUN).code == 0
    same_bits(left_alone(), tmp_path / "run")


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU])
def test_what_ends_other_programs_lets_the_step_end(train, tmp_path, monkeypatch, signum: signal.Signals) -> None:
    """A closed terminal, a scheduler's warning, a limit on processor time."""
    signal_at(monkeypatch, "check_in_a_step", 5, signum)
    stopped = train(RUN)
    assert stopped.code == 128 + signum
    assert f"stopped by signal {signum:d} after iteration 3; its state is saved in" in stopped.err
    assert stopped.err.rstrip().endswith(" goes on")
    assert status(tmp_path / "run")["state"] == "interrupted"


def test_what_nohup_ignores_stays_ignored(train, tmp_path, monkeypatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signal_at(monkeypatch, "check_in_a_step", 5, signal.SIGHUP)
        assert train(RUN).code == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert status(tmp_path / "run")["state"] == "finished"


def test_signals_that_follow_at_once_cut_nothing_short() -> None:
    with signals.leaving_at_once():
        with pytest.raises(signals.Stopped):
            os.kill(os.getpid(), signal.SIGINT)
        for signum in signals.STOPPING:
            os.kill(os.getpid(), signum)
    with signals.leaving_at_once(), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum == signal.SIGINT
    with signals.leaving_at_once():
        signals.hush()
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.3])
def test_five_interrupts_are_one_line(tmp_path, seconds: float) -> None:
    command = [sys.executable, "-m", "memmeta_exp", "train", *TINY, "iterations=100000", RUN]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as run:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            time.sleep(0.05)
        for _ in range(5):
            run.send_signal(signal.SIGINT)
            time.sleep(seconds)
        _, err = run.communicate(timeout=60)
    assert (run.returncode, err.count("\n"), err[:9]) == (130, 1, "memmeta: ")
    assert status(tmp_path / "run")["state"] == "interrupted"


@pytest.mark.parametrize("signum", signals.STOPPING)
def test_a_signal_before_there_is_a_run_is_one_line(memmeta, tmp_path, monkeypatch, signum: signal.Signals) -> None:
    """While torch and Hydra are imported, say."""
    monkeypatch.setattr(cli, "import_module", lambda name: os.kill(os.getpid(), signum))
    before = signal.getsignal(signum)
    result = memmeta("train")
    assert (result.code, result.err) == (128 + signum, f"memmeta: stopped by signal {signum:d}\n")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signum) == before


def test_a_launcher_hears_of_the_signal_once_all_is_saved(train, tmp_path, monkeypatch) -> None:
    heard = []
    monkeypatch.setattr(signals, "leaving_at_once", signals.StopRequest)  # cli's own handler is no launcher's
    monkeypatch.setattr(cli, "leaving_at_once", lambda **_: monkeypatch.context())
    before = signal.signal(signal.SIGUSR2, lambda signum, frame: heard.append(status(tmp_path / "run")["state"]))
    try:
        signal_at(monkeypatch, "check", 6, signal.SIGUSR2)
        assert train(RUN).code == 128 + signal.SIGUSR2
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == ["interrupted"]


def test_a_finished_run_is_left_as_it_is(finished, train, memmeta, tmp_path) -> None:
    before = contents(tmp_path)
    for result in (train(RUN), memmeta("train", "resume=run"), train(RUN, "progress=false", "tracking=offline")):
        assert result.code == 0
        (line,) = result.err.splitlines()
        assert "run is finished, 6 iterations: nothing to do" in line
        assert result.out.endswith("run/summary.json\n")
    assert contents(tmp_path) == before


REFUSED = {
    "seed=1": "seed is 0 there, 1 here",
    "algorithm.mu=0.5": "algorithm.mu is 0.1 there, 0.5 here",
    "algorithm=maml": "and 11 more",
    "optimizer.lr=0.5": "optimizer.lr is 0.001 there, 0.5 here",
    "iterations=5": "fewer than the 6",
}


def test_another_configuration_is_refused_by_its_keys(finished, train, memmeta, tmp_path) -> None:
    before = contents(tmp_path)
    for override, expected in REFUSED.items():
        result = train(RUN, override)
        assert (result.code, len(result.err.splitlines())) == (2, 1)
        assert expected in result.err
    for override in ("seed=0", "+x=1", "hydra.run.dir=other"):
        result = memmeta("train", "resume=run", override)
        assert (result.code, len(result.err.splitlines())) == (2, 1)
        assert "may change" in result.err
    assert contents(tmp_path) == before


BAD = {
    ("resume=nowhere",): "is not a run folder",
    ("resume=",): "name a run folder",
    ("resume=a", "resume=b"): "given 2 times",
    ("resume=run", "-m"): "multirun",
    ("resume=run", "--cfg", "job"): "--cfg",
    ("resume=run", "iterations=none"): "iterations",
    ("resume=run", "iterations=7", "device=cuda:99"): "device=cpu",
    ("resume=run", "tasks_per_pass=0"): "at least 1",
}


def test_what_cannot_be_resumed(finished, memmeta, tmp_path) -> None:
    before = contents(tmp_path)
    for arguments, expected in BAD.items():
        result = memmeta("train", *arguments)
        assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
        assert expected in result.err
    assert contents(tmp_path) == before


def test_a_cosine_schedule_is_laid_out_for_its_iterations(train, memmeta, tmp_path) -> None:
    assert train(RUN, "optimizer.schedule=cosine").code == 0
    result = memmeta("train", "resume=run", "iterations=9")
    assert result.code == 2
    assert "laid out for the 6 iterations" in result.err


def test_more_iterations_are_those_of_a_longer_run(finished, left_alone, memmeta, tmp_path) -> None:
    alone = left_alone("iterations=9")
    longer = memmeta(
        "train", "resume=run", "iterations=9", "tracking=offline", "checkpoint_every=2", "tasks_per_pass=auto"
    )
    assert longer.code == 0, longer.err
    run = tmp_path / "run"
    config = OmegaConf.load(run / "config.yaml")
    assert (config.iterations, config.checkpoint_every, config.tracking.mode) == (9, 2, "offline")
    assert list(OmegaConf.load(run / "overrides.yaml"))[-4] == "iterations=9"
    for name in ("iterations", "checkpoint_every", "tracking"):  # of the configuration alone
        assert name in config
    expected, found = (read_metrics(folder) for folder in (alone, run))
    assert [{k: v for k, v in row.items() if not k.startswith("time/")} for row in expected] == [
        {k: v for k, v in row.items() if not k.startswith("time/")} for row in found
    ]
    assert (run / "test_episodes.csv").read_bytes() == (alone / "test_episodes.csv").read_bytes()
    assert len(json.loads((run / "env.json").read_text())["earlier"]) == 1


def test_a_run_of_an_older_version_goes_on(train, memmeta, tmp_path) -> None:
    """Its configuration holds a key that is gone and lacks one that is new, in config.yaml and in its checkpoints."""
    assert train(RUN).code == 0
    run = tmp_path / "run"
    text = (run / "config.yaml").read_text()
    assert "plugins: []\n" in text
    (run / "config.yaml").write_text(text.replace("plugins: []\n", "cuda_graph: false\n"))
    for path in (run / "checkpoints" / "last.pt", run / "checkpoints" / "previous.pt"):
        state = checkpoint.load(path)
        config = {key: value for key, value in state["config"].items() if key != "plugins"}
        checkpoint.save(path, {**state, "config": {**config, "cuda_graph": False}})
    longer = memmeta("train", "resume=run", "iterations=7")
    assert longer.code == 0, longer.err
    assert "cuda_graph" not in OmegaConf.load(run / "config.yaml")


def test_a_folder_in_use_is_refused(train, memmeta, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, "check", 6, signal.SIGTERM)
        train(RUN)
    with RunFolder(tmp_path / "run").claimed():
        before = contents(tmp_path)
        for result in (train(RUN), memmeta("train", "resume=run")):
            assert result.code == 2
            assert f"in use by process {os.getpid()}" in result.err
            assert len(result.err.splitlines()) == 1
        assert contents(tmp_path) == before
    assert memmeta("train", "resume=run").code == 0


def test_a_multirun_goes_on_where_it_was_stopped(train, left_alone, tmp_path, monkeypatch) -> None:
    grid = ("-m", "seed=0,1", "hydra.sweep.dir=sweep")
    with monkeypatch.context() as patch:
        signal_at(patch, "check_in_a_step", 16, signal.SIGTERM)  # the second job's second step
        assert train(*grid).code == 128 + signal.SIGTERM
    before = contents(tmp_path / "sweep")
    other = train("-m", "seed=5,1", "hydra.sweep.dir=sweep")
    assert (other.code, len(other.err.splitlines())) == (2, 1)
    assert contents(tmp_path / "sweep") == before
    again = train(*grid)
    assert again.code == 0, again.err
    assert "sweep/0 is finished" in again.err
    assert "going on in" in again.err
    same_bits(left_alone("seed=1"), tmp_path / "sweep" / "1")


def test_checkpoints_are_as_many_as_asked_for(train, tmp_path, monkeypatch) -> None:
    kept = []
    real = checkpoint.save_newest
    monkeypatch.setattr(
        checkpoint, "save_newest", lambda folder, state: (kept.append(state["iteration"]), real(folder, state))
    )
    for key, expected in (("checkpoint_every=null", [0, 0, 3, 6]), ("checkpoint_every=2", [0, 0, 2, 3, 4, 6])):
        kept.clear()
        assert train(key).code == 0
        assert kept == expected


def test_it_says_when_the_bits_need_not_be_the_same(train, memmeta, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, "check", 6, signal.SIGTERM)
        train(RUN)
    env = tmp_path / "run" / "env.json"
    env.write_text(env.read_text().replace('"torch": "', '"torch": "1.'))
    result = memmeta("train", "resume=run")
    assert result.code == 0
    assert len([line for line in result.err.splitlines() if "need not have the bits" in line]) == 1


def test_the_folder_of_a_run_killed_in_its_first_moments(train, left_alone, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    assert train(RUN).code == 0
    same_bits(left_alone(), tmp_path / "run")


WAVES = ["dataset=sinusoid", "algorithm=maml", "shots=3", "queries=2", "batch_size=3", "val_tasks=2", "test_tasks=2"]
WAVES += ["convergence_tasks=1", "iterations=6", "eval_every=3", "tracking=disabled", "progress=false", "plots=false"]


@pytest.mark.slow
def test_sine_waves_go_on_as_they_would_have(memmeta, tmp_path, monkeypatch) -> None:
    """Tasks are drawn from seed and position: there are no images to compare, and the same bits."""
    assert memmeta("train", *WAVES, "hydra.run.dir=alone").code == 0
    with monkeypatch.context() as patch:
        signal_at(patch, "check_in_a_step", 4, signal.SIGTERM)  # a look a step: all tasks are one chunk
        assert memmeta("train", *WAVES, RUN).code == 128 + signal.SIGTERM
    assert status(tmp_path / "run")["iteration"] == 4
    assert memmeta("train", "resume=run").code == 0
    same_bits(tmp_path / "alone", tmp_path / "run")
    assert (tmp_path / "alone" / "adaptation.json").read_text() == (tmp_path / "run" / "adaptation.json").read_text()
