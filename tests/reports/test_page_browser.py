"""The page in a real browser, headless. Skips where there is none: `make browser` installs Debian's."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from memmeta_exp.reports.report import write_report
from tests.reports.folders import SATURATING, config, write_failure, write_run

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--hide-scrollbars", "--force-color-profile=srgb", "--window-size=1000,1600",
    "--virtual-time-budget=4000", "--enable-logging=stderr", "--v=0",
]  # fmt: skip
PROBE = """<script>
const refused = [];
document.addEventListener('securitypolicyviolation', event => refused.push(event.blockedURI));
addEventListener('load', () => {
  const found = {
    images: [...document.images].map(image => image.naturalWidth * image.complete),
    alts: [...document.images].map(image => image.alt.length),
    requested: performance.getEntriesByType('resource').map(entry => entry.name.slice(0, 5)),
    tables: [...document.querySelectorAll('table')].map(table => table.getBoundingClientRect().width),
    overflows: document.documentElement.scrollWidth > innerWidth,
    text: document.body.innerText,
    refused,
  };
  document.documentElement.dataset.found = JSON.stringify(found);
});
</script>"""


def browser() -> str:
    named = os.environ.get("MEMMETA_BROWSER")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if not found:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH and MEMMETA_BROWSER is unset")
    return found


def opened(page: Path, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """What the browser prints, and its lines about the page's console."""
    command = [browser(), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    browser()  # before anything is drawn
    folder = tmp_path_factory.mktemp("report")
    write_run(folder / "runs/a", config(), SATURATING)
    write_run(folder / "runs/b", config("anil"), SATURATING, test=0.4)
    write_failure(folder / "runs/c", "failed", "<script>document.title = 'taken'</script>")
    return write_report([folder / "runs"], folder / "out")


@pytest.fixture(scope="module")
def found(page: Path, tmp_path_factory) -> dict[str, Any]:
    """What a script sees in the page: in a copy that lets this one script run."""
    text = page.read_text().replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    copy = page.with_name("probe.html")
    copy.write_text(text.replace("</head>", f"{PROBE}</head>"))
    dom, console = opened(copy, tmp_path_factory.mktemp("profile"), "--dump-dom")
    assert not console
    recorded = re.search(r'data-found="([^"]*)"', dom)
    assert recorded, dom[:500]
    return json.loads(html.unescape(recorded[1]))


def test_every_image_is_shown(found: dict[str, Any]) -> None:
    assert len(found["images"]) == 3
    assert min(found["images"]) > 400
    assert min(found["alts"]) > 20


def test_nothing_is_fetched_and_nothing_refused(found: dict[str, Any]) -> None:
    assert set(found["requested"]) <= {"data:"}
    assert found["refused"] == []


def test_text_and_tables_are_laid_out(found: dict[str, Any]) -> None:
    assert "2 of 3 runs finished" in found["text"]
    assert "<script>document.title = 'taken'</script>" in found["text"], "text, not a script"
    assert min(found["tables"]) > 100
    assert not found["overflows"], "wide tables scroll in their own box"


@pytest.mark.parametrize(("scheme", "setting"), [("light", "1"), ("dark", "0")])
def test_the_page_as_it_is_paints_without_a_word_on_the_console(page: Path, tmp_path: Path, scheme, setting) -> None:
    picture = tmp_path / f"{scheme}.png"
    flags = (f"--screenshot={picture}", f"--blink-settings=preferredColorScheme={setting}")
    _, console = opened(page, tmp_path / "profile", *flags)
    assert not console
    pixels = (imread(picture)[..., :3] * 255).round()
    corner = pixels[2, 2]
    assert corner.min() == 255 if scheme == "light" else corner.max() < 60
    for colour in ((0, 114, 178), (0, 158, 115)):  # both lines of the figure
        assert (np.abs(pixels - np.array(colour)).max(axis=-1) <= 2).sum() > 50
