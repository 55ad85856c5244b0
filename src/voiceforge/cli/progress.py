"""How work in progress is shown: bars on a terminal, nothing elsewhere.

`bars` (and rich, which it needs) is imported only where there is a terminal to draw on.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, Self

Unit = Literal["audio", "bytes", "files"]


class Bar(Protocol):
    """One piece of work. It disappears when it is closed."""

    def update(self, done: float, total: float | None) -> None:
        """`done` and `total` in seconds of audio, bytes or files; total None: not known."""
        ...

    def close(self) -> None: ...


class Display(Protocol):
    """All bars of one command; leaving it leaves a clean terminal. `aside` makes room while something
    else is printed."""

    def bar(self, label: str, unit: Unit) -> Bar: ...
    def aside(self) -> AbstractContextManager[None]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


def display(*, quiet: bool) -> Display:
    if quiet or not sys.stderr.isatty():
        return NoDisplay()
    from voiceforge.cli.bars import TerminalDisplay

    return TerminalDisplay()


class NoBar:
    def update(self, done: float, total: float | None) -> None:
        """Says nothing."""

    def close(self) -> None:
        """Says nothing."""


class NoDisplay:
    def bar(self, label: str, unit: Unit) -> Bar:
        return NoBar()

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None
