"""Progress bars on a terminal's stderr: percent, speed, time left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from voiceforge.cli.progress import Bar, Unit
from voiceforge.cli.words import bytes_text

_LONGEST_LABEL = 32


class TerminalDisplay:
    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            _SpeedColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=Console(stderr=True),
            transient=True,
            expand=True,
        )

    def bar(self, label: str, unit: Unit) -> Bar:
        return _TerminalBar(self._progress, _shortened(label), unit)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()


class _TerminalBar:
    """Appears at its first update."""

    def __init__(self, progress: Progress, label: str, unit: Unit) -> None:
        self._progress = progress
        self._unit = unit
        self._task: TaskID = progress.add_task(escape(label), total=None, unit=unit)

    def update(self, done: float, total: float | None) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def close(self) -> None:
        self._progress.remove_task(self._task)


class _SpeedColumn(ProgressColumn):
    """Seconds of audio per second (`36x`), bytes per second, or files done."""

    def render(self, task: Task) -> Text:
        unit: Unit = task.fields["unit"]
        if unit == "files":
            total = f"/{task.total:.0f}" if task.total is not None else ""
            return Text(f"{task.completed:.0f}{total} files", style="progress.data.speed")
        elapsed = task.elapsed or 0.0
        if not task.completed or elapsed <= 0.0:
            return Text("")
        speed = task.completed / elapsed
        shown = f"{speed:.1f}x" if unit == "audio" else f"{bytes_text(speed)}/s"
        return Text(shown, style="progress.data.speed")


def _shortened(label: str) -> str:
    """The end of a path says more than its beginning."""
    return label if len(label) <= _LONGEST_LABEL else "…" + label[-(_LONGEST_LABEL - 1) :]
