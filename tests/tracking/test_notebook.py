"""The progress bar in a notebook, where standard error is no terminal."""

import pytest
import rich.console

from memmeta_exp.tracking import console


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_shows_the_bar_where_it_has_widgets(monkeypatch, widgets: bool) -> None:
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setattr(console, "find_spec", lambda name: object() if widgets and name == "ipywidgets" else None)
    assert console.ProgressBar(3, enabled=True)._bar.disable is not widgets
    assert console.ProgressBar(3, enabled=False)._bar.disable
