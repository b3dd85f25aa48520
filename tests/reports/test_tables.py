"""Configurations and their labels, the paper's numbers, and what the tables hold."""

import re
from pathlib import Path

import pytest

from memmeta_exp.reports import memory, paper_results, tables
from memmeta_exp.reports.grouping import configurations
from memmeta_exp.reports.meanings import MEANINGS
from memmeta_exp.reports.runs import Run, collect, read_run
from memmeta_exp.reports.table import DASH, Table, number, table, words
from tests.reports.folders import SATURATING, config, write_profile, write_run

PROTOCOL = {"batch_size": 32, "iterations": 2000, "test_adaptation": "gd"}


def run(
    path: Path, algorithm: str = "proposed", *, test: float = 0.5, overrides: tuple[str, ...] = (), **changes
) -> Run:
    return read_run(write_run(path, config(algorithm, **changes), test=test, overrides=overrides))


def test_seeds_are_one_configuration_and_nothing_else_is(tmp_path: Path) -> None:
    runs = [run(tmp_path / f"{b}-{s}", batch_size=b, seed=s) for b in (16, 2, 8) for s in (0, 1)]
    found = configurations([*runs, Run(tmp_path, "failed", "why")])
    assert [c.label for c in found] == ["B=2", "B=8", "B=16"], "by size, not as text"
    assert [len(c.runs) for c in found] == [2, 2, 2]
    assert [c.differing for c in found] == [{"batch_size": b} for b in (2, 8, 16)]


def test_what_comes_with_an_algorithm_does_not_tell_it_apart(tmp_path: Path) -> None:
    runs = [run(tmp_path / name, name) for name in ("anil", "maml", "proposed")]
    assert [c.label for c in configurations(runs)] == ["proposed", "MAML", "ANIL"]
    runs.append(run(tmp_path / "recomputed", "anil", algorithm__features="recompute"))
    labels = ["proposed", "MAML", "ANIL, features=once", "ANIL, features=recompute"]
    assert [c.label for c in configurations(runs)] == labels


def test_one_configuration_is_named_by_what_it_is(tmp_path: Path) -> None:
    (only,) = configurations([run(tmp_path / "a"), run(tmp_path / "b", seed=1)])
    assert (only.label, only.differing) == ("proposed on glyphs", {})


def test_the_words_of_the_command_line_come_first(tmp_path: Path) -> None:
    """An experiment changes many keys: its name says it."""
    ours = run(tmp_path / "ours", overrides=("dataset=glyphs", "seed=0"))
    changes = {"optimizer__lr": 1e-4, "algorithm__mu": 0.0, "test_adaptation": "gd"}
    theirs = run(tmp_path / "theirs", overrides=("experiment=paper/released", "seed=0"), **changes)
    assert [c.label for c in configurations([ours, theirs])] == ["experiment=default", "experiment=paper/released"]
    unexplained = run(tmp_path / "other", overrides=("seed=0",), shots=1)
    assert {c.label.split(",")[0] for c in configurations([ours, unexplained])} == {"shots=5", "shots=1"}


def test_a_label_holds_no_more_than_it_takes(tmp_path: Path) -> None:
    overrides = ("batch_size=2", "val_tasks=7")
    runs = [run(tmp_path / "a", overrides=overrides, batch_size=2, val_tasks=7), run(tmp_path / "b")]
    found = configurations(runs)
    assert [c.label for c in found] == ["B=2", "B=8"]
    assert found[0].differing == {"batch_size": 2, "val_tasks": 7}


def test_the_papers_numbers_are_those_published() -> None:
    cifar = config("proposed", "cifar_fs")
    ours, maml = (config(name, "cifar_fs", **PROTOCOL) for name in ("proposed", "maml"))
    assert paper_results.accuracy_percent(ours) == (64.24, 1.41)
    assert paper_results.accuracy_percent(maml) == (54.85, 1.23)
    assert paper_results.accuracy_percent(config(**PROTOCOL)) is None, "glyphs are not in the paper"
    assert paper_results.accuracy_percent(ours | {"shots": 1}) is None
    assert paper_results.seconds_to_target(ours) == 832.40
    assert paper_results.seconds_to_target(maml) is None, "it never got there"
    assert not paper_results.same_protocol(cifar)
    assert paper_results.accuracy_percent(cifar) is None, "other settings than the paper's"
    assert paper_results.same_protocol(config("proposed", "cifar_fs", **PROTOCOL))
    for change in (
        {"training__ways": 20},
        {"images__test_time_flip": True},
        {"images__flip": True},
        {"optimizer__average": 0.9},
    ):
        assert not paper_results.same_protocol(config("proposed", "cifar_fs", **PROTOCOL, **change))


def test_the_papers_memory_is_of_its_sizes_and_steps() -> None:
    assert paper_results.peak_mib(config("anil", "cifar_fs", algorithm__inner_steps=5)) == 149.109
    assert (
        paper_results.peak_mib(config("maml", "synthetic", dataset__image_size=84, algorithm__inner_steps=20))
        == 5894.14
    )
    for other in (
        config("anil", "cifar_fs", algorithm__inner_steps=6),
        config("anil", "cifar_fs", algorithm__inner_steps=5, backbone__filters=32),
        config("anil", "cifar_fs", algorithm__inner_steps=5, shots=1),
        config("anil", "cifar_fs", algorithm__inner_steps=5, training__queries=15),
        config("anil", "glyphs", algorithm__inner_steps=5),
    ):
        assert paper_results.peak_mib(other) is None
    assert paper_results.image_size({"dataset": {"name": "synthetic", "image_size": "x", "more": 1}}) is None
    assert paper_results.image_size({}) is None


def test_accuracy_beside_the_papers(tmp_path: Path) -> None:
    write_run(tmp_path / "a", config("proposed", "cifar_fs", **PROTOCOL), test=0.64)
    write_run(tmp_path / "b", config("proposed", "cifar_fs", seed=1, **PROTOCOL), test=0.66)
    write_run(tmp_path / "c", config("maml", "cifar_fs"), test=0.60)
    write_run(tmp_path / "d", config(), test=None)
    made = tables.accuracy(configurations(collect([tmp_path])[0]))
    assert made is not None
    ours, maml = made.rows
    assert ours["test_percent"] == pytest.approx(65)
    assert ours["test_percent_ci95"] == pytest.approx(12.7062, abs=1e-3), "t of one degree of freedom times 1 / sqrt 1"
    assert ours["interval_over"] == "2 seeds"
    assert (ours["paper_percent"], ours["paper_percent_std"]) == (64.24, 1.41)
    assert ours["difference_points"] == pytest.approx(0.76)
    assert ours["inside_paper_interval"] == "yes"
    assert "paper_percent" not in maml, "of other settings than the paper's"
    assert maml["interval_over"] == "test tasks of 1 seed"
    assert maml["test_percent_ci95"] == pytest.approx(2.0)
    assert "65.00 ± 12.71" in made.markdown()


def test_the_comparison_is_sorted_and_marks_ties(tmp_path: Path) -> None:
    """Half an interval is 2 points: 78 ties with 80, and 70 does not."""
    for name, test in (("maml", 0.70), ("proposed", 0.80), ("anil", 0.78)):
        write_run(tmp_path / name, config(name), SATURATING, test=test, time__step_seconds_median=0.5)
    write_run(tmp_path / "again", config("proposed", seed=1, device="cpu", threads=2), SATURATING, test=0.80)
    made = tables.compared(configurations(collect([tmp_path])[0]))
    assert made is not None
    assert [row["configuration"] for row in made.rows] == ["proposed", "ANIL", "MAML"]
    assert [row["tie"] for row in made.rows] == ["yes", "yes", "no"]
    assert [row["seeds"] for row in made.rows] == [2, 1, 1], "threads and device make no other configuration"
    assert made.rows[0]["folder"] == f"{tmp_path / 'again'} and 1 more"
    assert made.rows[1]["peak_mib"] == 20.0
    assert made.caption == "Comparison, the most accurate first: 5-way, 5-shot, T = 100"


def test_every_column_is_explained() -> None:
    keys = re.findall(r'(?:number|words|Column)\(\s*"(\w+)"', Path(tables.__file__).read_text())
    assert len(keys) > 40
    assert set(keys) <= MEANINGS.keys()


def test_speed_counts_who_got_there(tmp_path: Path) -> None:
    write_run(tmp_path / "a", config(), SATURATING, time__step_seconds_median=0.5, cost__gradient_evaluations=10)
    write_run(tmp_path / "b", config(seed=1), (0.1,) * 11 + (0.9,), time__step_seconds_median=0.7)
    made = tables.speed(configurations(collect([tmp_path])[0]))
    assert made is not None
    (row,) = made.rows
    assert row["seeds_at_target"] == "1 of 2"
    assert row["seconds_to_target"] == pytest.approx(row["tasks_to_target"] / 8 * 0.5)
    assert row["seconds_to_target_ci95"] is None
    assert row["step_seconds"] == pytest.approx(0.6)
    assert row["gradient_evaluations"] == 10
    assert "hessian_vector_products" not in row
    assert [c.key for c in made.columns][-1] == "gradient_evaluations", "columns without a value are left out"


def test_memory_beside_the_papers_without_the_images(tmp_path: Path) -> None:
    values = config("anil", "cifar_fs", algorithm__inner_steps=5)
    write_profile(tmp_path / "a", values, 140.0)
    write_run(tmp_path / "b", values)
    made = tables.memories(collect([tmp_path])[0])
    assert made is not None
    by_kind = {row["kind"]: row for row in made.rows}
    predicted = by_kind["predicted for a GPU"]
    assert (predicted["above_baseline_mib"], predicted["peak_mib"]) == (140, 143)
    assert (predicted["peak_without_images_mib"], predicted["paper_mib"]) == (142, 149.109)
    assert predicted["difference_mib"] == pytest.approx(-7.109)
    measured = by_kind["measured on a CPU"]
    assert (measured["above_baseline_mib"], measured["peak_mib"]) == (12.5, 20)
    assert "difference_mib" not in measured


def test_the_slope_of_memory_and_the_papers(tmp_path: Path) -> None:
    for k, mib in ((5, 140.0), (10, 254.0), (15, 368.0), (20, 482.0)):
        write_profile(tmp_path / f"anil-{k}", config("anil", "cifar_fs", algorithm__inner_steps=k), mib)
        write_profile(tmp_path / f"ours-{k}", config("proposed", "cifar_fs", algorithm__inner_steps=k), 41.8)
    write_profile(tmp_path / "alone", config("maml", "cifar_fs"), 99.0)
    found = memory.lines(collect([tmp_path])[0], "algorithm.inner_steps")
    assert [line.label for line in found] == ["proposed", "ANIL"], "one point is no line"
    flat, steep = memory.slopes(found, "algorithm.inner_steps")
    assert flat["slope"] == pytest.approx(0, abs=1e-12)
    assert flat["expected"] == pytest.approx(0.0518, abs=1e-4)
    assert steep["slope"] == pytest.approx(22.8)
    assert steep["expected"] == pytest.approx(22.843, abs=1e-3)
    assert steep["slope_ci95"] == pytest.approx([22.8, 22.8])
    assert (steep["x"], steep["points"]) == ([5, 10, 15, 20], 4)
    slope, half = memory.straight(*map(__import__("numpy").array, ([0.0, 1.0, 2.0], [0.0, 1.0, 1.0])))
    assert slope == pytest.approx(0.5)
    assert half == pytest.approx(12.7062 * (1 / 6 / 2) ** 0.5, abs=1e-4)


def test_memory_against_the_batch_size_ignores_the_papers_steps(tmp_path: Path) -> None:
    for b in (1, 4, 16):
        write_profile(tmp_path / str(b), config("anil", "cifar_fs", batch_size=b), 41.8)
    (line,) = memory.lines(collect([tmp_path])[0], "batch_size")
    assert (line.x, line.mib, line.panel) == ([1, 4, 16], [41.8] * 3, (32, 64))
    assert memory.slopes([line], "batch_size")[0]["expected"] is None


def test_markdown_cells_cannot_break_the_table() -> None:
    made = table("t", "a | b", (words("x", "x"), number("n", "n")), [{"x": "a|b\nc <b>\\", "n": 1}, {"x": "d"}])
    assert isinstance(made, Table)
    assert made.markdown().splitlines()[2:] == [
        "| x | n |",
        "| --- | ---: |",
        "| a\\|b c &lt;b>\\\\ | 1.00 |",
        f"| d | {DASH} |",
    ]
    assert made.csv() == 'x,n\n"a|b\nc <b>\\",1\nd,\n'
    assert table("t", "none", (words("x", "x"),), []) is None


def test_values_that_no_run_writes_tell_nothing_apart(tmp_path: Path) -> None:
    """A stored configuration may hold anything where a number of filters belongs."""
    for seed, filters in enumerate(([3], {"a": 1}, None, "x")):
        write_run(tmp_path / str(seed), config(seed=seed, backbone={"name": "conv4", "filters": filters}))
    runs, _ = collect([tmp_path])
    assert memory.lines(runs, "algorithm.inner_steps") == []
    assert {memory._panel(run.config)[1] for run in runs} == {None}
