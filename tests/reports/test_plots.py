"""Figures of a run: written from whatever was logged, silent on what was not."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from memmeta_exp.reports import plots
from memmeta_exp.reports.plots import plot_run, series, smooth
from memmeta_exp.tracking.run_folder import RunFolder, read_metrics

COLOURS = {"blue": (0, 114, 178), "vermillion": (213, 94, 0), "green": (0, 158, 115)}


def write_run(run_dir: Path, **values: float) -> Path:
    run_dir.mkdir(exist_ok=True)
    folder = RunFolder(run_dir)
    for t in range(1, 121):
        keys = {key.replace("__", "/"): value / t for key, value in values.items()}
        folder.log({"iteration": t, **keys})
    folder.close()
    return run_dir


def has_colour(png: Path, colour: str) -> bool:
    pixels = (imread(png)[..., :3] * 255).round()
    return bool((np.abs(pixels - np.array(COLOURS[colour])).max(axis=-1) <= 2).any())


def test_a_full_run_gives_both_figures(tmp_path: Path) -> None:
    names = "train__loss train__acc val__acc val__acc_ci95 convergence__grad_norm_sq convergence__error "
    names += "inner__grad_norm_max linear__residual_max inner__L_g"
    written = plot_run(write_run(tmp_path, **dict.fromkeys(names.split(), 0.5)))
    assert written == [tmp_path / "plots" / "training.png", tmp_path / "plots" / "convergence.png"]
    for png in written:
        height, width = imread(png).shape[:2]
        assert (width, height) == (1600, 608)
        assert has_colour(png, "blue")
        assert has_colour(png, "vermillion")
    assert has_colour(written[1], "green")
    assert not has_colour(written[0], "green")


def test_a_title_in_any_script_is_drawn_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plot_run(write_run(tmp_path, train__loss=1.0), "\N{CJK UNIFIED IDEOGRAPH-65E5} \x07")


def test_what_was_not_logged_is_left_out(tmp_path: Path) -> None:
    (only,) = plot_run(write_run(tmp_path, train__loss=1.0))
    assert only.name == "training.png"
    assert has_colour(only, "blue")
    assert not has_colour(only, "vermillion")


def test_there_is_no_panel_without_a_curve(tmp_path: Path) -> None:
    (gradient,) = plot_run(write_run(tmp_path / "a", convergence__grad_norm_sq=1.0))
    (lower,) = plot_run(write_run(tmp_path / "b", inner__L_g=1.0))
    assert [imread(png).shape[:2] for png in (gradient, lower)] == [(608, 800)] * 2
    assert (has_colour(gradient, "green"), has_colour(lower, "green")) == (False, True)
    rows = [{"iteration": 1, "val/acc": 0.25}]
    figure = plots._figure(rows, [plots._loss, plots._accuracy], "a title " * 10)
    assert figure is not None
    (axis,) = figure.axes
    assert "accuracy" in axis.get_ylabel()
    assert max(map(len, figure.get_suptitle().splitlines())) <= 55


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    assert plot_run(write_run(tmp_path, optimizer__lr=0.1, train__acc=math.nan)) == []
    assert not (tmp_path / "plots").exists()


def test_zeros_have_no_place_on_a_logarithmic_axis(tmp_path: Path) -> None:
    assert plot_run(write_run(tmp_path, inner__grad_norm_max=0.0)) == []
    (figure,) = plot_run(write_run(tmp_path / "positive", inner__grad_norm_max=0.0, inner__L_g=2.0))
    assert has_colour(figure, "green")


def test_validation_has_intervals_only_with_its_own(tmp_path: Path) -> None:
    rows = [{"iteration": 1, "val/acc": 0.25, "val/acc_ci95": 0.05}, {"iteration": 2, "val/acc": 0.5}]
    figure = plots._figure(rows, [plots._accuracy, plots._loss], "title")
    assert figure is not None
    accuracy = figure.axes[0]
    (bars,) = accuracy.containers
    assert not bars.has_yerr  # type: ignore[attr-defined]
    assert list(bars.lines[0].get_ydata()) == [25.0, 50.0]  # type: ignore[attr-defined]
    assert "%" in accuracy.get_ylabel()
    rows[1]["val/acc_ci95"] = 0.04
    figure = plots._figure(rows, [plots._accuracy, plots._loss], "title")
    assert figure is not None
    assert figure.axes[0].containers[0].has_yerr  # type: ignore[attr-defined]


def test_series_skips_rows_without_a_value(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for t, value in [(1, 0.5), (2, math.nan), (4, 0.25)]:
        folder.log({"iteration": t, "x": value})
    folder.log({"iteration": 5})
    steps, values = series(read_metrics(tmp_path), "x")
    assert (steps.tolist(), values.tolist()) == ([1.0, 4.0], [0.5, 0.25])


def test_smoothing_keeps_constants_and_averages_what_is_there() -> None:
    assert smooth(np.full(7, 2.0), 3).tolist() == [2.0] * 7
    assert smooth(np.array([0.0, 3.0, 6.0]), 3).tolist() == [1.5, 3.0, 4.5]
    assert smooth(np.array([1.0, 5.0]), 10).shape == (2,)


def test_a_folder_without_metrics_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no metrics\.jsonl: give the folder of a run"):
        plot_run(tmp_path)
