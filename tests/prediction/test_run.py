"""From training in Python to the model: `memmeta.train`, `load` and `export`, and the commands on their files."""

import csv
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import memmeta_exp as memmeta
from memmeta_exp.utils.errors import CheckpointError, ConfigError, DataError
from tests.commands.conftest import TINY

RUN = [*TINY, "iterations=2", "eval_every=2", "progress=false", "plots=false"]
X = np.random.default_rng(1).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
Y = ["a", "b", "c"] * 2


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, memmeta_exp; dir(memmeta_exp); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = memmeta.lode


def test_train_twice_and_in_a_thread(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [memmeta.train(*RUN), memmeta.train(*RUN, "seed=1", folder="named")]
    thread = threading.Thread(target=lambda: runs.append(memmeta.train(*RUN)))
    thread.start()
    thread.join()
    first, second, third = runs
    assert second.folder == tmp_path / "named"
    assert len({run.folder for run in runs}) == 3
    assert first.summary["test/acc"] == third.summary["test/acc"]
    assert first.metrics["train/loss"].dropna().tolist() == third.metrics["train/loss"].dropna().tolist()
    assert first.metrics["train/loss"].dropna().tolist() != second.metrics["train/loss"].dropna().tolist()
    assert (first.load().adapt(X, Y).predict_proba(X) == memmeta.load(third).adapt(X, Y).predict_proba(X)).all()
    assert memmeta.train(*RUN, "seed=1", folder="named").summary == second.summary, "a finished run is left as it is"


def test_bad_input_is_an_error_of_the_library(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEMMETA_DATA", raising=False)
    with pytest.raises(ConfigError, match="algorithm"):
        memmeta.train("algorithm=nothing")
    with pytest.raises(ConfigError, match="not an override"):
        memmeta.train("-m")
    with pytest.raises(ConfigError):
        memmeta.train("seed=0,1")
    with pytest.raises(DataError, match="MEMMETA_DATA"):
        memmeta.train("dataset=omniglot")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_model(a_run, tmp_path) -> None:
    with pytest.raises(ConfigError, match="is not a trained model: name a run folder"):
        memmeta.load(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="is not a file that memmeta export wrote"):
        memmeta.load(tmp_path / "x.safetensors")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text((a_run / "config.yaml").read_text())
    (tmp_path / "checkpoints/best.pt").write_bytes((a_run / "checkpoints/best.pt").read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        memmeta.load(tmp_path)


def test_an_exported_file_is_the_same_model(a_run, memmeta_command, tmp_path) -> None:
    found = memmeta_command("export", f"run={a_run}", "out=model.safetensors")
    assert (found.code, found.out) == (0, "wrote model.safetensors\n")
    ours, theirs = memmeta.load(a_run), memmeta.load(tmp_path / "model.safetensors")
    assert (ours.adapt(X, Y).predict_proba(X) == theirs.adapt(X, Y).predict_proba(X)).all()
    assert ours.iteration == theirs.iteration
    refused = memmeta_command("export", f"run={a_run}", "out=model.pt")
    assert (refused.code, refused.err) == (2, "memmeta: out=model.pt is not a .safetensors file: give it that ending\n")


def test_the_lines_of_plain_torch_on_the_page(a_run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = memmeta.load(a_run)
    memmeta.export(model, "model.safetensors")
    page = (Path(__file__).parents[2] / "docs/prediction.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "safe_open" in b]
    names: dict = {}
    exec(block, names)
    z = names["features"](torch.from_numpy(X).permute(0, 3, 1, 2) / 255)
    assert np.allclose(z.numpy(), model.features(X), atol=1e-5)
    assert names["config"]["backbone"]["name"] == "conv4"


@pytest.fixture
def memmeta_command(request):
    return request.getfixturevalue("memmeta")


def folders(root: Path, labelled: bool = True) -> None:
    """Six images of two classes, of any size and mode."""
    for at, mode in enumerate(("RGB", "L", "RGBA", "P", "1", "RGB")):
        folder = root / ("dark" if at % 2 else "light") if labelled else root
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + at, 17), (30, 30, 30) if at % 2 else (220, 220, 220)).convert(mode).save(
            folder / f"{at}.png"
        )


def test_predict_folders(a_run, memmeta_command, tmp_path) -> None:
    folders(tmp_path / "support")
    folders(tmp_path / "labelled")
    folders(tmp_path / "plain", labelled=False)
    found = memmeta_command("predict", f"run={a_run}", "support=support", "query=labelled", "out=out/found.csv")
    assert found.code == 0, found.err
    rows = list(csv.DictReader((tmp_path / "out/found.csv").open()))
    assert list(rows[0]) == ["file", "class", "predicted", "p(dark)", "p(light)"]
    assert [float(r["p(dark)"]) + float(r["p(light)"]) for r in rows] == pytest.approx([1] * 6, abs=2e-6)
    right = sum(r["class"] == r["predicted"] for r in rows) / 6
    assert f"accuracy {right:.2%}; confusion matrix: wrote out/found.png" in found.out
    assert Image.open(tmp_path / "out/found.png").width > 100
    assert "resized to the model's 16x16" in found.err
    for query in ("plain", "plain/0.png,plain/1.png", "plain/0.png"):
        found = memmeta_command("predict", f"run={a_run}", "support=support", f"query={query}", "out=b.csv")
        assert found.code == 0, found.err
        assert "accuracy" not in found.out
    (row,) = csv.DictReader((tmp_path / "b.csv").open())
    assert row["file"] == "plain/0.png"


def test_what_predict_refuses(a_run, memmeta_command, tmp_path) -> None:
    folders(tmp_path / "support")
    for change, message in (
        ({"support": "nowhere"}, "support=nowhere is not a folder"),
        ({"support": "support/dark"}, "support=support/dark holds no folders of images"),
        ({"query": "nowhere.png"}, "nowhere.png is not a file"),
        ({"out": None}, "predict needs out="),
    ):
        values = {"run": a_run, "support": "support", "query": "support", "out": "o.csv"} | change
        found = memmeta_command("predict", *(f"{k}={v}" for k, v in values.items() if v is not None))
        assert found.code == 2
        assert message in found.err
    assert not (tmp_path / "o.csv").exists()


def test_start_from_a_run(a_run, memmeta_command, tmp_path) -> None:
    trained = torch.load(a_run / "checkpoints/best.pt", weights_only=True)["model"]
    memmeta.export(memmeta.load(a_run), tmp_path / "model.safetensors")
    for weights in (a_run, tmp_path / "model.safetensors"):
        run = memmeta.train(
            *RUN,
            "algorithm=baseline",
            f"weights={weights}",
            "optimizer.lr=1e-20",
            folder=tmp_path / f"from {weights.suffix}",
        )
        model = torch.load(run.folder / "checkpoints/last.pt", weights_only=True)["model"]
        assert all(torch.equal(model[k], v) for k, v in trained.items() if k.startswith("backbone."))
    found = memmeta_command("train", *RUN, f"weights={a_run}", "backbone.filters=4")
    assert found.code == 2
    assert re.search(r"has other shapes \(convs.0.weight \[8, 3, 3, 3\] there, \[4, 3, 3, 3\] here", found.err)
    assert found.err.count("\n") == 1
    resnet = [key for key in RUN if not key.startswith("backbone.")]
    found = memmeta_command("train", *resnet, f"weights={a_run}", "backbone=resnet12", "backbone.filters=[4,4,4,4]")
    assert "parameters of the backbone, such as" in found.err
    found = memmeta_command("train", *RUN, "weights=nowhere")
    assert (found.code, found.err) == (
        2,
        f"memmeta: weights={tmp_path}/nowhere is not a file: name a run folder, or a file of weights\n",
    )


def test_a_run_that_began_needs_its_weights_no_more(a_run, tmp_path) -> None:
    memmeta.export(memmeta.load(a_run), tmp_path / "w.safetensors")
    run = memmeta.train(*RUN, f"weights={tmp_path}/w.safetensors", folder=tmp_path / "run")
    (tmp_path / "w.safetensors").unlink()
    assert memmeta.load(run).adapt(X, Y).predict(X).shape == (6,)
    from memmeta_exp.cli import main

    assert main(["train", f"resume={run.folder}", "iterations=3"]) == 0
    assert main(["evaluate", f"run={run.folder}"]) == 0
    assert json.loads((run.folder / "summary.json").read_text())["iterations"] == 3


def test_evaluate_with_other_ways_and_details(a_run, memmeta_command, tmp_path) -> None:
    found = memmeta_command("evaluate", f"run={a_run}", "tasks=6", "ways=4", "details=d", "out=score.json")
    assert found.code == 0, found.err
    assert "6 tasks (4-way 2-shot" in found.out
    accuracy = json.loads((tmp_path / "score.json").read_text())["test/acc"]
    classes, confusion, bins = (
        list(csv.DictReader((tmp_path / "d" / f"{name}.csv").open()))
        for name in ("classes", "confusion", "calibration")
    )
    images = [int(row["images"]) for row in classes]
    assert sum(images) == 6 * 4 * 2
    mean = sum(n * float(row["accuracy"]) for n, row in zip(images, classes, strict=True)) / sum(images)
    assert mean == pytest.approx(accuracy, abs=1e-6)
    right = sum(int(row[row["class"]]) for row in confusion)
    assert right / sum(images) == pytest.approx(accuracy)
    gaps = [int(b["images"]) * abs(float(b["accuracy"]) - float(b["confidence"])) for b in bins if b["images"] != "0"]
    assert f"expected calibration error {sum(gaps) / sum(images):.4f}" in found.out
    assert {p.name for p in (tmp_path / "d").glob("*.png")} == {"confusion.png", "calibration.png"}
    again = memmeta_command("evaluate", f"run={a_run}", "tasks=6", "ways=3")
    assert again.out == memmeta_command("evaluate", f"run={a_run}", "tasks=6").out
