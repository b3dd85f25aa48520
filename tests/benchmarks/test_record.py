"""The tables of docs/results.md follow from the runs' files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import record, record_figure, record_tables
from tests.reports.folders import config, write_run


def test_the_published_record_is_what_its_runs_said() -> None:
    for file, text in record.build(record.DOCS).items():
        assert file.read_text() == text, f"{file} is not what its runs say: make record"


TIMES = {"anil": 0.05, "proposed": 0.04}  # s a task


def kept(folder: Path, name: str, acc: float, **more: Any) -> None:
    summary = {"test/acc": acc, "test/acc_ci95": 0.02, "tasks_seen": 1000, "time/total_seconds": 60.0}
    summary |= {"iterations": 100, "time/step_seconds_median": 0.5}
    folder.mkdir(exist_ok=True)
    values = {"summary": summary, "evaluations": [], "validation": None, **more}
    (folder / f"{name}.json").write_text(json.dumps(values))


def test_seeds_are_averaged_and_one_seed_keeps_its_own_interval(tmp_path: Path) -> None:
    kept(tmp_path, "paper-fc100-anil-s0", 0.40)
    machine = {"device_name": "Xeon", "git_revision": "0123456789"}
    kept(tmp_path, "paper-fc100-anil-s1", 0.44, overrides=["precision=bf16"], env=machine)
    one_shot = {"test/acc": 0.3, "test/acc_ci95": 0.01, "of": "9 tasks (5-way 1-shot, 15 queries a class), best"}
    kept(tmp_path, "best-cifar_fs-5w5s-s0", 0.7, evaluations=[one_shot])
    kept(tmp_path, "best-cifar_fs-5w5s_cosine-s0", 0.6, evaluations=[one_shot])
    another_mu = {
        "test/acc": 0.5,
        "test/acc_ci95": 0.01,
        "of": "9 tasks (5-way 5-shot, 15 queries a class), best, mu = 1",
    }
    kept(tmp_path, "best-fc100-5w5s-s0", 0.4, evaluations=[another_mu])
    kept(tmp_path, "quick-cifar_fs-5w5s-s0", 0.65)
    kept(tmp_path, "quick-cifar_fs-5w5s-s1", 0.63)
    found = record.record(tmp_path, TIMES)
    assert found["best"]["fc100"]["5w5s"]["acc"] == 50.0, "in place of the run's own"
    anil = found["paper"]["fc100"]["anil"]
    half = 12.706204736 * 2 * 2**0.5 / 2**0.5  # Student's t of one degree of freedom, s / sqrt 2 with s = 2 sqrt 2
    assert (anil["acc"], anil["ci95"], anil["seeds"]) == (42.0, round(half, 2), 2)
    best = found["best"]["cifar_fs"]
    assert (best["5w5s"]["acc"], best["5w5s"]["ci95"], best["5w5s"]["over"]) == (70.0, 2.0, "test tasks")
    assert (best["5w1s"]["acc"], best["5w1s"]["ci95"]) == (30.0, 1.0)
    assert (best["5w5s_cosine"]["acc"], best["5w1s_cosine"]["acc"]) == (60.0, 30.0), "a variant has its own one shot"
    quick = found["quick"]
    assert found["seconds_to_paper_accuracy"] is None, "one seed did not pass"
    assert (quick["seconds"], quick["least_acc"], quick["passed"]) == (60, 63.0, False)
    made = record_tables.tables(found)
    assert "| fc100 | anil | 1 | 44.00 +- 2.00 | bf16 | Xeon | 0.50 | 0123456 |" in made["runs"]
    assert "| fc100 | anil | 47.7 +- 0.95 | 42.00 | +- 25.41 | - | -5.70 | 2 | fp32, bf16 |" in made["paper"]
    assert "| cifar_fs | 5w1s | all classes at once | 30.00 | - | +- 1.00 | 1 |" in made["recipe"]
    assert "| cifar_fs | 5w5s | cosine | 60.00 | - | +- 2.00 | 1 | 1,000 | 60 | no |" in made["variants"]
    assert "cosine" not in made["recipe"], "the headline alone"
    assert "| 60 | 1,000 | 64.00" in made["seconds"]


def test_a_bfloat16_row_is_not_called_maml(tmp_path: Path) -> None:
    for algorithm in ("maml", "proposed"):
        kept(tmp_path, f"paper-fc100-{algorithm}-s0", 0.4, overrides=["precision=bf16"])
    rows = record_tables.tables(record.record(tmp_path, TIMES))["paper"].splitlines()
    assert [row.split("|")[-2].strip() for row in rows[2:]] == ["bf16: not MAML", "bf16"]


def test_a_variant_that_nothing_describes_is_refused(tmp_path: Path) -> None:
    kept(tmp_path, "best-cifar_fs-5w5s_new-s0", 0.6)
    with pytest.raises(SystemExit, match="a variant new"):
        record_tables.tables(record.record(tmp_path, TIMES))


def test_memory_against_inner_steps_is_in_mib() -> None:
    row = {"experiment": "memory/fair/anil", "algorithm.inner_steps": "5", "max_memory_allocated": str(3 * 2**20)}
    assert record_tables.memory([row]).splitlines()[2] == "| anil | 3.0 | - | - | - | 149.1 | 491.8 |"


def rising(*acc: float) -> dict[str, list[float]]:
    return {"tasks": [100.0 * i for i in range(len(acc))], "acc": list(acc), "ci95": [0.01] * len(acc)}


def test_tasks_and_seconds_to_the_target(tmp_path: Path) -> None:
    """0.9 of 0.5 is reached by the mean of points 2, 3 and 4: at 400 tasks, 0.05 seconds each."""
    curve = rising(0.2, 0.3, 0.4, 0.46, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    kept(tmp_path, "paper-fc100-anil-s0", 0.4, validation=curve)
    kept(tmp_path, "paper-fc100-proposed-s0", 0.4, validation=rising(0.2, 0.5))
    kept(tmp_path, "paper-fc100-maml-s0", 0.4, validation=curve)
    kept(tmp_path, "quick-cifar_fs-5w5s-s0", 0.65)
    found = record.record(tmp_path, TIMES)
    anil = found["paper"]["fc100"]["anil"]
    assert (anil["tasks_to_target"], anil["seconds_to_target"]) == (400, 20)
    assert found["paper"]["fc100"]["proposed"]["tasks_to_target"] is None
    assert found["seconds_to_paper_accuracy"] == 60
    speed = record_tables.tables(found)["speed"]
    assert "| fc100 | anil | 400 | 20 | 879.33 |" in speed
    assert "| fc100 | proposed | not reached | - | 621.67 |" in speed
    assert "| fc100 | maml | 400 | - | 2638.45 |" in speed, "its step was not timed"
    (picture,) = record_figure.draw_curves(record.kept(tmp_path), TIMES, tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_same_test_tasks_by_other_rules(tmp_path: Path) -> None:
    by = "640 stored tasks, best checkpoint of iteration 7, adapted by 200 steps of 0.05 on the head"
    last = "640 stored tasks, last checkpoint of iteration 9"
    scores = [{"test/acc": 0.5, "of": by}, {"test/acc": 0.4, "of": last}]
    kept(tmp_path, "paper-fc100-anil-s0", 0.45, evaluations=scores)
    found = record.record(tmp_path, TIMES)
    otherwise = {"best checkpoint, 200 steps of 0.05 on the head": 50.0, "last checkpoint, the same rule": 40.0}
    assert found["paper"]["fc100"]["anil"]["otherwise"] == otherwise
    made = record_tables.tables(found)["otherwise"].splitlines()
    assert made[2] == "| fc100 | anil | best checkpoint, the paper's | 45.00 |"
    assert made[4] == "| fc100 | anil | last checkpoint, the paper's | 40.00 |"


ONE_SHOT = {"test/acc": 0.3, "test/acc_ci95": 0.01, "of": "9 tasks (5-way 1-shot, 15 queries a class), best"}


STORED = {"test/acc": 0.3, "of": "640 stored tasks, last checkpoint of iteration 9"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"best-fc100-5w5s-s0": [ONE_SHOT, ONE_SHOT]}, "2 evaluations for 1 seeds"),
        ({"best-fc100-5w5s-s0": [ONE_SHOT], "best-fc100-5w5s-s1": []}, "1 evaluations for 2 seeds"),
        ({"best-fc100-5w5s-s0": [ONE_SHOT], "best-fc100-5w1s-s0": []}, "would stand for another's"),
        ({"paper-fc100-anil-s0": [ONE_SHOT]}, "no test of the stored tasks by another rule"),
        ({"paper-fc100-anil-s0": [STORED], "paper-fc100-anil-s1": []}, "not tested once for each of the 2 seeds"),
        ({"best-fc100-5w5s-s0": [ONE_SHOT | {"of": f"{ONE_SHOT['of']}, adapted by x"}]}, "by the run's own rule"),
        ({"quick-fc100-5w5s-s0": []}, "the short runs are quick-cifar_fs-5w5s"),
        ({"best-fc100-5w5s-s0": [{"val/acc": 0.3, "of": "9 tasks (5-way 1-shot)"}]}, "no test of new tasks"),
    ],
)
def test_what_would_be_mixed_is_refused(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    for name, evaluations in files.items():
        kept(tmp_path, name, 0.5, evaluations=evaluations)
    with pytest.raises(SystemExit, match=said):
        record.record(tmp_path, TIMES)


def test_the_picture_has_what_the_paper_said_and_what_was_measured(tmp_path: Path) -> None:
    kept(tmp_path / "runs", "paper-cifar_fs-anil-s0", 0.6)
    kept(tmp_path / "runs", "best-cifar_fs-5w5s-s0", 0.7)
    found = record.record(tmp_path / "runs", TIMES)
    drawn = [(row.label, row.acc, row.half) for row in record_figure.rows("cifar_fs", found)]
    assert drawn == [
        ("MAML, paper", 54.85, 1.23),
        ("ANIL, paper", 63.52, 1.31),
        ("ANIL, its settings here (1 seed)", 60.0, 2.0),
        ("ITD-BiO, paper", 63.69, 1.1),
        ("proposed, paper", 64.24, 1.41),
        ("best recipe here (1,000 tasks, 1 seed)", 70.0, 2.0),
    ]
    assert len(record_figure.rows("fc100", found)) == 4
    assert record_figure.draw(found, tmp_path / "record").read_bytes().startswith(b"\x89PNG")


def test_tables_stand_on_several_pages() -> None:
    pages = {Path("a.md"): "a\n<!-- table best -->\nold\n<!-- end -->\nb\n", Path("b.md"): "no table\n"}
    filled = {Path("a.md"): "a\n<!-- table best -->\nnew\n<!-- end -->\nb\n", Path("b.md"): "no table\n"}
    assert record_tables.filled(pages, {"best": "new"}) == filled
    with pytest.raises(SystemExit, match="no page has a place for the table paper"):
        record_tables.filled(pages, {"best": "new", "paper": "x"})
    with pytest.raises(SystemExit, match="there is no table best"):
        record_tables.filled(pages, {})


RESULTS = (record.DOCS / "results.md", *(record.DOCS / "results").glob("*.md"))


def numbers(values: Any) -> set[tuple[float, float]]:
    """Every (accuracy, half width) that `values`, parsed JSON, holds."""
    if isinstance(values, dict):
        own = {(values["acc"], values["ci95"])} if "ci95" in values else set()
        return own.union(*map(numbers, values.values()))
    return set().union(*map(numbers, values)) if isinstance(values, list) else set()


def test_the_accuracies_in_the_text_are_those_of_the_record() -> None:
    known = numbers(json.loads((record.DOCS / "results" / "record.json").read_text()))
    published = record_tables.published()["accuracy_percent"].values()
    known |= {tuple(pair) for algorithms in published for pair in algorithms.values()}
    said = re.findall(r"(\d+\.\d+) \+- (\d+\.\d+)", (record.DOCS / "results.md").read_text())
    assert len(said) > 8
    assert {(float(acc), float(half)) for acc, half in said} <= known


@pytest.mark.parametrize("page", RESULTS, ids=lambda page: page.name)
def test_a_page_of_results_is_narrow(page: Path) -> None:
    lines = page.read_text().splitlines()
    assert page.name != "results.md" or len(lines) <= 150
    assert max(map(len, lines)) <= 160
    assert max((len(cell) for line in lines if line.startswith("|") for cell in line.split("|")), default=0) <= 120


def test_only_finished_runs_are_kept(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", config(), overrides=("seed=1", "data_root=HERE"), time__total_seconds=3.0)
    file = record.add("paper-cifar_fs-anil-s1", run, [], tmp_path)
    assert json.loads(file.read_text())["summary"]["test/acc"] == 0.5
    assert json.loads(file.read_text())["overrides"] == ["seed=1"], "no folder of the machine"
    with pytest.raises(SystemExit, match="a name is"):
        record.add("anil", run, [], tmp_path)
    (run / "status.json").write_text('{"state": "failed"}')
    with pytest.raises(SystemExit, match="has not finished"):
        record.add("paper-cifar_fs-anil-s1", run, [], tmp_path)
    with pytest.raises(SystemExit, match=r"nowhere\.json does not exist"):
        record.add("paper-cifar_fs-anil-s1", run, [tmp_path / "nowhere.json"], tmp_path)


def test_a_refusal_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["record", "add", "paper-cifar_fs-anil-s1", str(tmp_path / "nowhere")])
    assert record.main() == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{tmp_path / 'nowhere' / 'status.json'} does not exist")
