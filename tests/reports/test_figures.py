"""Figures: the same bytes every time, what is drawn is what was given, and nothing lies on anything else."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from memmeta_exp.reports import curves, figures, fit_figures, memory, plot_style
from memmeta_exp.reports.figures import pictures
from memmeta_exp.reports.grouping import configurations
from memmeta_exp.reports.report import write_report
from memmeta_exp.reports.runs import collect
from tests.reports.folders import SATURATING, config, power_law, write_profile, write_run, write_sweep


def test_a_figure_is_the_same_file_every_time(tmp_path: Path) -> None:
    fit = power_law("K", 1.0, 1.0, points=2)
    for name in ("a", "b"):
        fit_figures.draw([fit], tmp_path / name)
    for suffix in (".svg", ".png"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    svg = (tmp_path / "a.svg").read_text()
    assert "<dc:date>" not in svg
    assert "<text" not in svg, "letters are outlines: no font is needed to read them"


def panel_of(fit: dict) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], object]:
    with plot_style.drawing():
        _, (axis,) = plot_style.panels(1)
        fit_figures._panel(axis, fit)
        lines = {str(line.get_label()): (line.get_xdata(), line.get_ydata()) for line in axis.lines}
    return lines, axis  # type: ignore[return-value]


def slope_of(line: tuple[np.ndarray, np.ndarray]) -> float:
    (x0, x1), (y0, y1) = line
    return float(np.log(y1 / y0) / np.log(x1 / x0))


def test_a_power_law_is_drawn_with_both_slopes_through_the_fitted_points() -> None:
    fit = power_law("Theorem 1", -1.2, -1.0) | {"used": [False, True, True, True, True]}
    lines, axis = panel_of(fit)
    assert lines["measured, in the fit"][0].tolist() == [10, 100, 1000, 10000]
    assert lines["measured, left out"][0].tolist() == [1]
    assert slope_of(lines["fit: slope -1.20 [-1.23, -1.17]"]) == pytest.approx(-1.2)
    assert slope_of(lines["theory: slope -1"]) == pytest.approx(-1.0)
    centre = np.exp(np.log(fit["x"][1:]).mean())
    for name in ("fit: slope -1.20 [-1.23, -1.17]", "theory: slope -1"):
        x, y = lines[name]
        assert np.exp(np.interp(np.log(centre), np.log(x), np.log(y))) == pytest.approx(3 * centre**-1.2)
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")  # type: ignore[attr-defined]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("x", "y")  # type: ignore[attr-defined]


def test_groups_share_a_slope_and_have_lines_of_their_own() -> None:
    x = [1.0, 10.0, 1.0, 10.0]
    fit = power_law("evaluations", 1.0, 1.0) | {"x": x, "y": [1.0, 10.0, 50.0, 500.0], "groups": [10, 10, 100, 100]}
    lines, axis = panel_of(fit | {"group_label": "kappa"})
    assert [name for name in lines if not name.startswith("_")] == [
        "kappa=10", "kappa=100", "fit: slope 1.00 [0.97, 1.03]", "theory: slope 1",
    ]  # fmt: skip
    assert len(axis.lines) == 6, "two groups: points, fit and theory each"  # type: ignore[attr-defined]
    assert lines["kappa=100"][1].tolist() == [50, 500]
    assert lines["fit: slope 1.00 [0.97, 1.03]"][1][0] < 1, "through the first group's points"


def test_zeros_and_nulls_have_no_place_on_log_axes() -> None:
    fit = power_law("T", -1.0, -1.0) | {"y": [1.0, 0.5, 0.0, None, float("nan")]}
    assert panel_of(fit)[0]["measured, in the fit"][0].tolist() == [1, 10]
    assert fit_figures.drawable(fit)
    assert not fit_figures.drawable(fit | {"y": [1.0, 0, 0, 0, 0]})


def test_a_slope_that_is_not_defined_is_not_drawn() -> None:
    fit = power_law("T", -1.0, -1.0) | {"slope": None, "slope_ci95": None}
    assert set(panel_of(fit)[0]) == {"measured, in the fit"}
    assert fit_figures.interval_text(fit) == "not defined"
    assert fit_figures.interval_text({"slope": 0.5, "slope_ci95": None}) == "0.5"
    assert (
        fit_figures.interval_text({"slope": 22.84321, "slope_ci95": [22.8431, 22.8433]}) == "22.8432 [22.8431, 22.8433]"
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
def test_labels_keep_their_order_and_do_not_touch(positions: list[float]) -> None:
    placed = plot_style.spread(positions, 5.0, 0.0, 100.0)
    order = np.argsort(positions, kind="stable")
    gaps = np.diff(np.array(placed)[order])
    assert (gaps >= 5.0 - 1e-6).all()
    assert min(placed) >= -1e-6
    assert max(placed) <= 100 + 1e-6


def test_labels_that_are_apart_stay_where_they_are() -> None:
    assert plot_style.spread([1.0, 50.0, 20.0], 5.0, 0.0, 100.0) == [1.0, 50.0, 20.0]
    assert plot_style.spread([50.0, 50.0], 10.0, 0.0, 100.0) == [45.0, 55.0]


def test_an_algorithm_has_one_colour_and_no_two_lines_look_alike() -> None:
    names = ["proposed", "maml", "anil", "anil", "itd_bio", "imaml", "fomaml", "another"]
    looks = plot_style.line_styles(names)
    assert looks[2]["color"] == looks[3]["color"] == plot_style.line_styles(["proposed", "anil"])[1]["color"]
    assert len({(look["color"], look["marker"], str(look["linestyle"])) for look in looks}) == len(names)
    unknown = plot_style.algorithm_looks(["another", "third"])
    assert len({look["color"] for look in unknown.values()}) == len(unknown) > len(names)
    assert unknown["another"] == plot_style.algorithm_looks(["another"])["another"]
    alone = plot_style.line_styles(["proposed"] * 8)
    assert len({(look["color"], look["marker"], str(look["linestyle"])) for look in alone}) == 8


def test_memory_says_what_was_predicted_and_draws_the_papers_curves(tmp_path: Path) -> None:
    for k in (5, 10, 15, 20):
        values = config("anil", "cifar_fs", algorithm__inner_steps=k)
        write_profile(tmp_path / f"p{k}", values, 20.0 * k)
        write_run(tmp_path / f"m{k}", values)
    found = memory.lines(collect([tmp_path])[0], "algorithm.inner_steps")
    with plot_style.drawing():
        _, (axis,) = plot_style.panels(1)
        ends = memory._draw_panel(axis, "algorithm.inner_steps", (32, 64), found)
    by_kind = {line.kind: drawn for line, drawn in zip(found, axis.lines[::2], strict=False)}
    assert by_kind["cuda-predicted"].get_markerfacecolor() == "white"
    assert by_kind["cpu-tensors"].get_markerfacecolor() == plot_style.GREEN
    assert np.asarray(axis.lines[4].get_ydata()).tolist() == [149.109, 263.323, 377.537, 491.750]
    assert [end[2] for end in ends] == ["ANIL", "ANIL", "ANIL, paper"]
    _, labels = memory._legend(found, with_paper=True)
    assert labels[:2] == ["predicted for a GPU", "measured on a CPU"]
    assert "in words" not in memory.alt_text(found, "algorithm.inner_steps")
    assert "100.0 MiB at 5, 400.0 at 20" in memory.alt_text(found, "algorithm.inner_steps")


def test_no_fitted_line_leaves_its_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slope in MiB a step is no power of K: 40 MiB a step, drawn as one, goes over 14 powers of ten."""
    sweep = write_sweep(tmp_path / "m", "memory_vs_inner_steps", [])
    for k in (1, 5, 10, 20):
        for name, mib in (("maml", 57.0 + 40 * k), ("proposed", 9.0), ("anil", 8.0 + 2 * k)):
            write_profile(sweep / f"jobs/{name}{k}", config(name, algorithm__inner_steps=k), mib)
    drawn = []
    save = plot_style.save
    monkeypatch.setattr(plot_style, "save", lambda figure, stem: drawn.append(figure) or save(figure, stem))
    write_report([sweep], tmp_path / "report")
    pictures([], [{**power_law("K", 1.02, 1.0), "study": "inner_accuracy"}], tmp_path)
    lines = [(line, axis) for figure in drawn for axis in figure.axes for line in axis.lines]
    fitted = [(line, axis) for line, axis in lines if line.get_gid() == plot_style.FITTED]
    assert len(fitted) == 4, "three algorithms and a power law"
    for line, axis in fitted:
        before = axis.lines[list(axis.lines).index(line) - 1]  # its points
        x, y = np.array(line.get_data())
        inside = y[(x >= axis.get_xlim()[0]) & (x <= axis.get_xlim()[1])]
        data = np.array(before.get_ydata())
        assert data.min() / 2 <= inside.min() <= inside.max() <= 2 * data.max()


def test_the_mean_curve_is_over_seeds_with_students_band(tmp_path: Path) -> None:
    for seed, shift in enumerate((-0.1, 0.0, 0.1)):
        write_run(tmp_path / str(seed), config(seed=seed), tuple(0.5 + shift for _ in range(4 + seed)))
    (group,) = configurations(collect([tmp_path])[0])
    mean = curves.mean_curve(group)
    assert mean is not None
    curve, seeds = mean
    assert seeds == 3
    assert curve.accuracy.tolist() == pytest.approx([0.5] * 4), "as many points as every seed has"
    assert curve.half_width.tolist() == pytest.approx([4.30265 * 0.1 / 3**0.5] * 4, abs=1e-5)
    (tmp_path / "0/metrics.jsonl").write_text("{")
    (tmp_path / "1/metrics.jsonl").write_text("not json\n")
    (group,) = configurations(collect([tmp_path])[0])
    single = curves.mean_curve(group)
    assert single is not None
    assert (single[1], single[0].half_width[0]) == (1, 0.03), "a single seed has the interval over its tasks"


def test_of_many_configurations_the_best_are_drawn_and_the_title_says_so(tmp_path: Path) -> None:
    for b in range(1, 13):
        write_run(tmp_path / str(b), config(batch_size=b), (0.2, 0.2 + b / 100), test=None)
    runs, _ = collect([tmp_path])
    drawn = curves.best_first(configurations(runs))
    assert [line[0] for line in drawn] == [f"B={b}" for b in range(3, 13)]
    picture = figures._curves("glyphs", drawn, 12, tmp_path / "figures")
    assert picture.caption.startswith("Validation accuracy on glyphs, the 10 best of 12 configurations")


def test_every_picture_has_both_files_and_says_what_it_shows(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fit_figures, "PANELS", 1)
    write_run(tmp_path / "runs/a", config(), SATURATING)
    write_run(tmp_path / "runs/b", config("anil"), SATURATING, test=0.25)
    fits = [{**power_law(f"fit {i}", 1.0, 1.0), "study": "inner_accuracy"} for i in range(2)]
    found = pictures(collect([tmp_path / "runs"])[0], fits, tmp_path / "figures")
    names = ["comparison", "fit_inner_accuracy", "fit_inner_accuracy_2", "validation_glyphs", "test_accuracy_glyphs"]
    assert [picture.name for picture in found] == names
    for picture in found:
        assert {file.suffix for file in picture.files} == {".png", ".svg"}
        assert imread(picture.files[0]).std() > 0.05, "something is drawn"
        assert len(picture.alt) > 20
        assert picture.data_uri.startswith("data:image/svg+xml;base64,")
    assert "ANIL: 25.00 %" in found[-1].alt
    assert "proposed: 50.00 %, 20 MiB; ANIL: 25.00 %, 20 MiB" in found[0].alt
    assert "slope 1.00 [0.97, 1.03], the theory's 1" in found[1].alt
