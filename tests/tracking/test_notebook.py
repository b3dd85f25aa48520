"""The progress bar in a notebook, where standard error is no terminal."""

import pytest
import rich.console

from memmeta_exp.tracking import progress_bar


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_shows_the_bar_where_it_has_widgets(monkeypatch, widgets: bool) -> None:
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setattr(progress_bar, "find_spec", lambda name: object() if widgets and name == "ipywidgets" else None)
    assert progress_bar.ProgressBar(3, enabled=True)._bar.disable is not widgets
    assert progress_bar.ProgressBar(3, enabled=False)._bar.disable
