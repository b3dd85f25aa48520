"""The report as a whole: its files, its page, study.json, and untrusted text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from memmeta_exp.reports import report
from memmeta_exp.reports.report import write_report
from memmeta_exp.utils.errors import ConfigError
from tests.reports.folders import SATURATING, config, power_law, write_failure, write_profile, write_run, write_sweep

NASTY = "<script>alert('x')</script> & \"quotes\" | {{ 7 * 7 }}"


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch) -> None:
    """What is drawn has tests of its own, and takes seconds."""
    monkeypatch.setattr(report, "pictures", lambda runs, fits, folder: [])


class Page(HTMLParser):
    """Elements with their attributes, and the text of the body."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_a_mix_of_runs_good_and_bad(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(
            tmp_path / f"runs/{seed}", config(seed=seed), SATURATING, test=0.6 + seed / 100, time__total_seconds=9
        )
    write_run(tmp_path / "runs/torn", config("anil"))
    (tmp_path / "runs/torn/metrics.jsonl").write_text("}\n")
    write_failure(tmp_path / "runs/bad", "failed", NASTY)
    out = tmp_path / "out"
    html = write_report([tmp_path / "runs"], out).read_text()
    assert sorted(file.name for file in (out / "tables").glob("*.md")) == [
        "accuracy.md", "commands.md", "comparison.md", "memory.md", "speed.md", "unfinished.md",
    ]  # fmt: skip
    assert {file.stem for file in (out / "tables").glob("*.csv")} >= {"runs", "accuracy", "unfinished"}
    assert not list(out.glob("study*.json")), "no sweep, no study"
    page = Page(html)
    assert "3 of 4 runs finished; 1 did not finish" in page.text
    assert "Highest test accuracy: proposed, 60.50 ± 6.35 % (95 % interval over 2 seeds)" in page.text
    assert NASTY in page.text, "shown as it is"
    assert not page.all("script")
    assert "no curve, for metrics.jsonl is damaged: line 1" in page.text
    assert "0123456789ab" in page.text
    assert "torch 2.13.0" in page.text


def test_untrusted_names_are_escaped_everywhere(tmp_path: Path) -> None:
    hostile = '"><img src=x onerror=alert(1)>'
    write_run(tmp_path / "runs" / hostile.replace("/", ""), config(), overrides=(f"tracking.project={hostile}",))
    write_run(tmp_path / "runs/b", config(dataset__name=hostile, batch_size=2))
    write_sweep(tmp_path / "runs/s", hostile, [{"job": f"jobs/{hostile}", "state": hostile, "reason": hostile}])
    page = Page(write_report([tmp_path / "runs"], tmp_path / "out").read_text())
    assert not page.all("img")
    assert hostile in page.text


def test_the_page_is_accessible_and_refers_to_nothing_outside(tmp_path: Path) -> None:
    write_run(tmp_path / "run", config())
    html = write_report([tmp_path / "run"], tmp_path / "out").read_text()
    page = Page(html)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("caption")) == len(page.all("table")) > 2
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))
    assert len(page.all("h1")) == 1
    targets = [str(a["href"]) for a in page.all("a")]
    assert targets
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert all(target.startswith("#") and target[1:] in ids for target in targets)
    assert not re.search(r"(?:https?:)?//[a-z]", html), "no address at all"
    assert [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"] == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    ]
    for words in ("prefers-color-scheme: dark", "@media print"):
        assert words in html


def study(tmp_path: Path, name: str) -> Path:
    rows = [{"job": "jobs/a", "state": "finished"}, {"job": "jobs/b", "state": "failed", "reason": "diverged"}]
    sweep = write_sweep(tmp_path / name, name, rows)
    write_run(sweep / "jobs/a", config(), test=None)
    return sweep


def test_a_theorems_study_has_its_slopes_in_study_json(tmp_path: Path, monkeypatch) -> None:
    fits = [power_law("K", 0.98, 1.0), power_law("N", 0.51, 0.5) | {"reached": 3e-21, "reached_at_most": 1e-20}]
    monkeypatch.setattr(report, "_study_fits", lambda study: fits)
    sweep = study(tmp_path, "inner_accuracy")
    page = Page(write_report([sweep], sweep / "report").read_text())
    found = json.loads((sweep / "report/study.json").read_text())
    assert found == {
        "study": "inner_accuracy", "slope": 0.98, "slope_ci95": [0.95, 1.01], "expected": 1.0, "principal": "K",
        "fits": {
            "K": {"slope": 0.98, "slope_ci95": [0.95, 1.01], "expected": 1.0, "rule": "all points", "points": 5},
            "N": {"slope": 0.51, "slope_ci95": [0.48, 0.54], "expected": 0.5, "rule": "all points", "points": 5,
                  "reached": 3e-21, "reached_at_most": 1e-20},
        },
        "results": [], "jobs": {"failed": 1, "finished": 1},
    }  # fmt: skip
    assert "inner_accuracy, K: slope 0.98 [0.95, 1.01]; expected 1." in page.text
    assert "expected 0.5; reached 3.0e-21." in page.text
    assert "diverged" in page.text
    assert "| inner_accuracy | N | 0.51 [0.48, 0.54] | 0.5 |" in (sweep / "report/tables/fits.md").read_text()


def test_a_fit_that_is_refused_is_said_and_null(tmp_path: Path, monkeypatch) -> None:
    def refuse(study: object) -> None:
        raise ValueError("2 points are no line")

    monkeypatch.setattr(report, "_study_fits", refuse)
    sweep = study(tmp_path, "batch_size")
    page = Page(write_report([sweep], tmp_path / "out").read_text())
    assert "batch_size: no slope (2 points are no line)" in page.text
    found = json.loads((tmp_path / "out/study.json").read_text())
    assert (found["slope"], found["slope_ci95"], found["fits"]) == (None, None, {})


def test_a_memory_study_has_each_algorithms_slope_and_the_papers(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "m", "memory_vs_inner_steps", [])
    for k in (5, 10, 15, 20):
        values = config("anil", "cifar_fs", algorithm__inner_steps=k, algorithm__features="recompute")
        write_profile(sweep / f"jobs/a{k}", values, 26.5 + 22.84 * k)
        write_profile(sweep / f"jobs/p{k}", config("proposed", "cifar_fs", algorithm__inner_steps=k), 41.8)
    page = Page(write_report([sweep], tmp_path / "out").read_text())
    found = json.loads((tmp_path / "out/study.json").read_text())
    assert found["principal"] == "proposed, 32 px, 64 filters, predicted for a GPU"
    assert found["slope"] == pytest.approx(0, abs=1e-9)
    anil = found["fits"]["ANIL, 32 px, 64 filters, predicted for a GPU"]
    assert anil["slope"] == pytest.approx(22.84)
    assert anil["expected"] == pytest.approx(22.843, abs=1e-3)
    assert "22.84 MiB per step; the paper's curve: 22.84" in page.text


def test_several_studies_have_a_file_each(tmp_path: Path) -> None:
    first, second = (study(tmp_path / place, "accuracy") for place in ("one", "two"))
    write_report([first, second], tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").glob("study*")) == [
        "study-accuracy-2.json", "study-accuracy.json",
    ]  # fmt: skip
    write_report([first], tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").glob("study*")] == ["study.json"], "of this report alone"


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    write_run(tmp_path / "run", config())
    out = tmp_path / "out"
    write_report([tmp_path / "run"], out)
    (out / "tables/old.csv").write_text("")
    (out / "mine.txt").write_text("kept")
    write_report([tmp_path / "run"], out)
    assert not (out / "tables/old.csv").exists()
    assert (out / "mine.txt").exists()
    (out / "mine.txt").unlink()
    (out / "report.html").unlink()
    write_report([tmp_path / "run"], out)  # after one that was stopped before its page
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="contains other files than a report"):
        write_report([tmp_path / "run"], tmp_path / "other")
    (out / "study.json").mkdir()
    with pytest.raises(ConfigError, match=r"study\.json is a folder, where the report has a file"):
        write_report([tmp_path / "run"], out)
    with pytest.raises(ConfigError, match="is a file"):
        write_report([tmp_path / "run"], tmp_path / "other/thesis.tex")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_a_run_whose_plug_in_is_gone_is_reported_by_its_names(tmp_path: Path) -> None:
    values = config()
    for seed in (0, 1):
        own = {**values, "plugins": ["gone.deeper"], "algorithm": {"name": "mine"}, "seed": seed}
        write_run(tmp_path / f"mine{seed}", own)
    write_run(tmp_path / "ours", values)
    page = Page(write_report([tmp_path], tmp_path / "out").read_text())
    assert "plugins=gone.deeper is not found" in page.text
    assert page.text.count("gone.deeper") == 1, "said once, not for each run"
    assert "mine" in (tmp_path / "out/tables/accuracy.csv").read_text()
