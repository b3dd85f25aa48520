"""Shows the progress of a download or a conversion on standard error."""

import logging
import time

LINE_S = 15.0  # seconds between progress lines without a terminal
_BAR_S = 0.1
logger = logging.getLogger("memmeta")


class ShownProgress:
    """A `Progress` that shows a bar. Without a terminal it prints a line at the start and every LINE_S seconds."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        self._terminal = console.is_terminal and logger.isEnabledFor(logging.INFO)
        self._bar = Progress(*columns, console=console, disable=not self._terminal)
        self._what, self._task = "", self._bar.add_task("", total=None, visible=False)
        self._next = 0.0

    def __enter__(self) -> "ShownProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._next = what, 0.0
            self._task = self._bar.add_task(what, total=total or None)
        if now < self._next and done != total:
            return
        if self._terminal:
            self._next = now + _BAR_S
            self._bar.update(self._task, completed=done, total=total or None)
        elif now >= self._next:
            self._next = now + LINE_S
            logger.info("%s%s", what, f": {done / total:.0%}" if done and total else "")
