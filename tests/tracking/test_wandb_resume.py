"""A W&B run that goes on, one whose server was never there, and one whose server goes away."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import wandb
from offline_reader import read_history, read_records, read_steps
from test_wandb_run import make_config, warnings_of

from memmeta_exp.tracking import Tracker, wandb_run
from memmeta_exp.tracking.run_folder import RunFolder, read_metrics


def offline_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)


def test_a_run_that_goes_on_offline_keeps_its_id_and_its_steps(tmp_path: Path) -> None:
    """The second process begins where the checkpoint was, before the end of what the first had logged."""
    config, ids = make_config(mode="offline"), []
    for first, last in ((0, 37), (26, 60)):
        with Tracker(config, RunFolder(tmp_path), ids[0] if ids else None) as tracker:
            for t in range(first, last + 1):
                tracker.log(t, {"x": 1 / (1 + t)})
            ids.append(tracker.wandb_id)
    wandb.teardown()  # its service writes the last of a file some ms after finish()
    files = offline_files(tmp_path)
    assert len(files) == 2
    assert ids[0] == ids[1] is not None
    assert {record.run.run_id for file in files for record in read_records(file) if record.HasField("run")} == {ids[0]}
    assert [read_steps(file) for file in files] == [list(range(38)), list(range(26, 61))]
    rows = {row["iteration"]: row["x"] for file in files for row in read_history(file)}
    assert rows == {t: 1 / (1 + t) for t in range(61)}


def test_tracking_may_be_off_meanwhile(tmp_path: Path) -> None:
    with Tracker(make_config(mode="disabled"), RunFolder(tmp_path), "abc") as tracker:
        assert tracker.wandb_id == "abc"


class Server(BaseHTTPRequestHandler):
    """As much of a W&B server as it takes to begin a run."""

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode(errors="replace")
        name = json.loads(asked)["variables"].get("name") if '"variables"' in asked else None
        bucket = {
            "id": "1", "name": name, "displayName": "r", "config": "{}", "historyLineCount": 0, "sweepName": None,
            "project": {"id": "2", "name": "memmeta", "entity": {"id": "3", "name": "e"}},
        }  # fmt: skip
        viewer = {"id": "4", "entity": "e", "username": "e", "flags": "{}", "teams": {"edges": []}}
        data = {"viewer": viewer, "serverInfo": {"cliVersionInfo": {}, "features": []}, "model": {"bucket": None}}
        if "UpsertBucket" in asked or "upsertBucket" in asked:
            data = {"upsertBucket": {"bucket": bucket, "inserted": True}}
        content = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{serving.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        wandb.teardown()
        yield serving
        serving.shutdown()
        wandb.teardown()


def test_a_server_that_goes_away_in_the_middle(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Training neither waits nor stops; what was not sent is in the run's .wandb file, for wandb sync."""
    monkeypatch.setattr(wandb_run, "FINISH_TIMEOUT_S", 1.0)
    caplog.set_level(logging.WARNING, logger="memmeta")
    with Tracker(make_config(mode="online", init_timeout_s=20.0), RunFolder(tmp_path)) as tracker:
        assert not warnings_of(caplog), "the run began online"
        assert tracker.wandb.url is not None
        for t in range(1, 41):
            if t == 20:
                server.shutdown()
                server.server_close()
            tracker.log(t, {"x": 1 / t})
        tracker.summary({"y": 2.0})
    wandb.teardown()
    assert [row["x"] for row in read_metrics(tmp_path)] == [1 / t for t in range(1, 41)]
    (file,) = tmp_path.glob("wandb/run-*/*.wandb")
    (warning,) = warnings_of(caplog)
    assert f"`wandb sync {file.parent}` uploads the rest" in warning
    assert read_steps(file) == list(range(1, 41))
