"""The site of docs/: `make docs`. The builds skip where the extra `docs` is not installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: `make docs` installs it"
)


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "-f", str(config), "-d", str(site)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@needs_mkdocs
def test_the_site_is_built_with_the_library(tmp_path: Path) -> None:
    done = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert "gradient_descent" in (tmp_path / "site" / "api.html").read_text()
    assert "conjugate" in (tmp_path / "site" / "search" / "search_index.json").read_text()


@needs_mkdocs
@pytest.mark.parametrize("broken", ["[gone](gone.md)", "![gone](gone.png)", "[gone](#gone)", "[gone](../gone.py)", ""])
def test_what_a_page_names_has_to_be_there(tmp_path: Path, broken: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Page\n\n{broken}\n")
    hook = ROOT / "docs" / "site_links.py"
    inherited = f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: docs\nnav: [index.md]\nplugins: []\nhooks: [{hook}]\n"
    (tmp_path / "mkdocs.yml").write_text(f"{inherited}extra_css: []\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == (1 if broken else 0), done.stderr


def test_links_to_what_has_no_page_are_text() -> None:
    spec = importlib.util.spec_from_file_location("site_links", ROOT / "docs" / "site_links.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    page, config = SimpleNamespace(file=SimpleNamespace(src_uri="models.md")), {"docs_dir": str(ROOT / "docs")}
    text = "[a](../examples/backbone.py) [b](results/) [c](memory.md#definition) [d](../gone.py)"
    found = hook.on_page_markdown(text, page, config, None)
    assert found == "a b [c](memory.md#definition) [d](../gone.py)"
